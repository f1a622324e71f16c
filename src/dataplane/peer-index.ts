import type { NodeSubnet } from '../api/index.ts';
import { hostCIDR, type CIDR } from '../net/index.ts';
import { createCIDRIndex } from './cidr-index.ts';
import { peerMAC } from './peers.ts';

/**
 * Node subnets by what makes one matter for another: their node, its MAC, and where they and their next hops lie. There
 * may be thousands: what a change concerns is found without a look at the others.
 */
export interface PeerIndex {
  /** Brings it to that list. What both lists have are the same objects, as in a cache. */
  show(subnets: readonly NodeSubnet[]): void;
  /** What is only in the one list, or in the other: an object that has changed is in both, as it was and as it is. */
  changesTo(subnets: readonly NodeSubnet[]): SubnetChanges;
  /**
   * The subnets by which the changes are worked out, before and after them: those of this node, of the nodes whose subnets
   * change, and of all that share a MAC with one of these. Undefined where a subnet of any other node overlaps one of
   * theirs, or has a next hop with it; this node's own aside.
   */
  concernedBy(changes: SubnetChanges, ownName: string): readonly NodeSubnet[] | undefined;
}

export interface SubnetChanges {
  readonly come: readonly NodeSubnet[];
  readonly gone: readonly NodeSubnet[];
}

export function createPeerIndex(): PeerIndex {
  let shown: readonly NodeSubnet[] = [];
  const byNode = new Map<string, Set<NodeSubnet>>();
  const byMAC = new Map<string, Set<NodeSubnet>>();
  const places = createCIDRIndex();

  function add(subnet: NodeSubnet): void {
    addTo(byNode, subnet.spec.nodeName, subnet);
    addTo(byMAC, peerMAC(subnet), subnet);
    for (const place of placesOf(subnet)) places.add(place);
  }

  function remove(subnet: NodeSubnet): void {
    removeFrom(byNode, subnet.spec.nodeName, subnet);
    removeFrom(byMAC, peerMAC(subnet), subnet);
    for (const place of placesOf(subnet)) places.remove(place);
  }

  /** A node that was made anew has two MACs, and may share the older one with a third. */
  function withSameMACs(nodeNames: Iterable<string>): ReadonlySet<string> {
    const names = new Set(nodeNames);
    // Whoever joins is gone through, too.
    for (const name of names) {
      for (const subnet of byNode.get(name) ?? []) {
        for (const { spec } of byMAC.get(peerMAC(subnet)) ?? []) names.add(spec.nodeName);
      }
    }
    return names;
  }

  return {
    show(subnets) {
      const { come, gone } = changesBetween(shown, subnets);
      gone.forEach(remove);
      come.forEach(add);
      shown = subnets;
    },
    changesTo: (subnets) => changesBetween(shown, subnets),
    concernedBy({ come, gone }, ownName) {
      come.forEach(add);
      const names = [ownName, ...[...come, ...gone].map(({ spec }) => spec.nodeName)];
      const concerned = [...withSameMACs(names)].flatMap((name) => [...(byNode.get(name) ?? [])]);
      // What is left are the others.
      concerned.forEach(remove);
      const isTouched = concerned.some(
        (subnet) => subnet.spec.nodeName !== ownName && placesOf(subnet).some(places.overlaps),
      );
      concerned.forEach(add);
      come.forEach(remove);
      return isTouched ? undefined : concerned;
    },
  };
}

function changesBetween(before: readonly NodeSubnet[], now: readonly NodeSubnet[]): SubnetChanges {
  // A cache keeps its order: what stands around the first and the last change is the same.
  const shorter = Math.min(before.length, now.length);
  let [head, tail] = [0, 0];
  if (before === now) head = shorter;
  while (head < shorter && before[head] === now[head]) head++;
  while (tail < shorter - head && before.at(-1 - tail) === now.at(-1 - tail)) tail++;
  const [had, has] = [before.slice(head, before.length - tail), now.slice(head, now.length - tail)] as const;
  const [wasThere, isThere] = [new Set(had), new Set(has)];
  return {
    come: has.filter((subnet) => !wasThere.has(subnet)),
    gone: had.filter((subnet) => !isThere.has(subnet)),
  };
}

const placesOf = ({ spec: { cidr, nextHops } }: NodeSubnet): CIDR[] => [cidr, ...nextHops.map(hostCIDR)];

function addTo(groups: Map<string, Set<NodeSubnet>>, key: string, subnet: NodeSubnet): void {
  groups.set(key, (groups.get(key) ?? new Set()).add(subnet));
}

function removeFrom(groups: Map<string, Set<NodeSubnet>>, key: string, subnet: NodeSubnet): void {
  const group = groups.get(key);
  group?.delete(subnet);
  if (group?.size === 0) groups.delete(key);
}
