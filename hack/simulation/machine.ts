import { randomUUID } from 'node:crypto';
import type { IPAllocationSpec } from '../../src/api/index.ts';
import { attachmentID, type AttachmentKey, type LiveAttachment } from '../../src/ipam/index.ts';
import { formatAddress, formatCIDR, type CIDR } from '../../src/net/index.ts';
import type { History } from './history.ts';

/** What a node is when its agent is not there: its kernel, which outlives agents, and is empty after a boot. */
export interface Machine {
  readonly nodeName: string;
  bootID(): string;
  links(): LiveAttachment[];
  find(key: AttachmentKey): LiveAttachment | undefined;
  /** The last step of an ADD. `claims`: what its addresses were claimed as. */
  wire(link: Omit<LiveAttachment, 'linkIndex' | 'complete'>, claims: readonly IPAllocationSpec[]): void;
  /** Whatever takes the interface down: a DEL, or the sandbox that vanishes with its namespace. */
  remove(key: AttachmentKey): void;
  /** The node's marked routes are made equal to its subnets. */
  routes(subnets: readonly CIDR[]): void;
  hasMarkedRoute(subnet: CIDR): boolean;
  markedSubnets(): CIDR[];
  /** Everything in the kernel is gone; also what becomes of a machine that is switched off. */
  reboot(): void;
}

export function createMachine(nodeName: string, history: History): Machine {
  const links = new Map<string, LiveAttachment>();
  const marked = new Map<string, CIDR>();
  let bootID = randomUUID();
  let lastIndex = 0;
  const remove = (key: AttachmentKey) => {
    const id = attachmentID(key);
    for (const address of links.get(id)?.addresses ?? [])
      history.gone(formatAddress(address), `${nodeName} ${id}`);
    links.delete(id);
  };
  return {
    nodeName,
    bootID: () => bootID,
    links: () => [...links.values()],
    find: (key) => links.get(attachmentID(key)),
    wire(link, claims) {
      const id = attachmentID(link);
      if (links.has(id)) throw new Error(`${nodeName}: ${id} has an interface already`);
      links.set(id, { ...link, linkIndex: ++lastIndex, complete: true });
      for (const claim of claims) history.wired(claim, `${nodeName} ${id}`, nodeName);
    },
    remove,
    routes(subnets) {
      marked.clear();
      for (const subnet of subnets) marked.set(formatCIDR(subnet), subnet);
    },
    hasMarkedRoute: (subnet) => marked.has(formatCIDR(subnet)),
    markedSubnets: () => [...marked.values()],
    reboot() {
      for (const link of [...links.values()]) remove(link);
      marked.clear();
      bootID = randomUUID();
    },
  };
}
