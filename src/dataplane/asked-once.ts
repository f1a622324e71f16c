import type { NodeSubnet } from '../api/index.ts';

/** What follows from a subnet alone, worked out once for each object: objects never change, and there are thousands. */
export function askedOnce<Answer extends object | string>(
  answer: (subnet: NodeSubnet) => Answer,
): (subnet: NodeSubnet) => Answer {
  const known = new WeakMap<NodeSubnet, Answer>();
  return (subnet) => {
    const found = known.get(subnet);
    if (found !== undefined) return found;
    const first = answer(subnet);
    known.set(subnet, first);
    return first;
  };
}
