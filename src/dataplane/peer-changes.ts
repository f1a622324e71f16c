import type { IPPool, NodeSubnet } from '../api/index.ts';
import {
  formatAddress,
  formatCIDR,
  hostCIDR,
  rangeOfCIDR,
  rangesHave,
  rangesOverlap,
  sameAddress,
  sameCIDR,
} from '../net/index.ts';
import { addressSet, setWith, setWithout, type AddressSet } from './address-set.ts';
import { askedOnce } from './asked-once.ts';
import { desiredNodeState, type DesiredInput } from './desired.ts';
import type { Difference } from './diff.ts';
import type { FilterState } from './filter.ts';
import { nodeSetChanges, type NodeAddresses } from './node-sets.ts';
import { peerMAC } from './peers.ts';
import type { NodeRoute, NodeState, PeerForwarding, PeerNeighbour } from './state.ts';

/** What of a node's state changes with its peers, one by one. */
export interface PeerChanges {
  readonly routes: Difference<NodeRoute>;
  readonly neighbours: Difference<PeerNeighbour>;
  readonly forwarding: Difference<PeerForwarding>;
  /**
   * The whole state with these changes, each of its lists in any order. Its filter is the same object as before where
   * nothing of it changes.
   */
  readonly state: NodeState;
}

/**
 * The changes that follow from some subnets of other nodes, without working out everything anew, which takes the longer
 * the more nodes there are. How a subnet is treated follows from this node and from the subnets that touch it: those of
 * the same node, those that overlap, those that hold a next hop. So the state of a few is worked out before and after,
 * and what differs is the change. Undefined where more has changed, or where a subnet touches one of another node:
 * then the whole state is to be worked out. `state` is that of `before`.
 */
export function peerChanges(
  before: DesiredInput,
  now: DesiredInput,
  state: NodeState,
): PeerChanges | undefined {
  if (!sameSurroundings(before, now)) return undefined;
  const changed = changedSubnets(before.subnets, now.subnets);
  if (changed.length === 0) return { routes: NONE, neighbours: NONE, forwarding: NONE, state };
  if (changed.length > MOST_CHANGES || changed.some(({ spec }) => spec.nodeName === now.node.name)) {
    return undefined;
  }
  const concerned = concernedBy(changed, before.subnets, now.subnets, now.node.name);
  if (concerned === undefined) return undefined;
  const was = desiredNodeState({ ...before, subnets: concerned.before });
  const is = desiredNodeState({ ...now, subnets: concerned.now });
  if (!sameFrame(was, is)) return undefined;
  if (frameText(is) !== frameText({ ...state, notes: is.notes })) return undefined;

  const routes = difference(was.routes, is.routes, routeIdentity);
  const neighbours = difference(was.neighbours, is.neighbours, neighbourIdentity);
  const forwarding = difference(was.forwarding, is.forwarding, forwardingIdentity);
  return {
    routes,
    neighbours,
    forwarding,
    state: {
      ...state,
      routes: changedList(state.routes, routes, isSameRoute),
      neighbours: changedList(state.neighbours, neighbours, isSameNeighbour),
      forwarding: changedList(state.forwarding, forwarding, isSameForwarding),
      filter: changedFilter(state.filter, was.filter, is.filter),
    },
  };
}

const NONE: Difference<never> = { add: [], remove: [] };

/** Of more the whole is worked out about as fast. */
const MOST_CHANGES = 64;

/** Whether nothing but the subnets may differ. Of a pool its generation tells; a status matters to no node. */
function sameSurroundings(before: DesiredInput, now: DesiredInput): boolean {
  const text = ({ node, uplinks, kernelFamilies, pools, dnsServers, config }: DesiredInput) =>
    textOf({ node, uplinks, kernelFamilies, pools: pools.map(poolText), dnsServers, config });
  return text(before) === text(now);
}

function poolText({ metadata, spec }: IPPool): unknown {
  return metadata.generation === undefined ? { metadata, spec } : [metadata.uid, metadata.generation];
}

/** Those that are only in one of the lists: an object that has changed is in both, as it was and as it is. */
function changedSubnets(before: readonly NodeSubnet[], now: readonly NodeSubnet[]): NodeSubnet[] {
  // A cache keeps its order: what stands around the first and the last change is the same.
  const shorter = Math.min(before.length, now.length);
  let [head, tail] = [0, 0];
  while (head < shorter && before[head] === now[head]) head++;
  while (tail < shorter - head && before.at(-1 - tail) === now.at(-1 - tail)) tail++;
  const [had, has] = [before, now].map((list) => list.slice(head, list.length - tail));
  const [wasThere, isThere] = [new Set(had), new Set(has)];
  return [
    ...(had ?? []).filter((subnet) => !isThere.has(subnet)),
    ...(has ?? []).filter((subnet) => !wasThere.has(subnet)),
  ];
}

/** The subnets by which the change is worked out, as they were and as they are. */
interface Concerned {
  readonly before: readonly NodeSubnet[];
  readonly now: readonly NodeSubnet[];
}

/**
 * This node's, and those of all nodes whose subnets have changed, or that have a MAC with such a one. Undefined where what
 * is left out overlaps a subnet of theirs, or has a next hop with it. There may be thousands: each is looked at in plain
 * loops, and asked as little as possible.
 */
function concernedBy(
  changed: readonly NodeSubnet[],
  before: readonly NodeSubnet[],
  now: readonly NodeSubnet[],
  ownName: string,
): Concerned | undefined {
  const all = [...now, ...changed];
  const names = new Set([ownName, ...changed.map(({ spec }) => spec.nodeName)]);
  // A node that was made anew has two MACs, and may share the older one with a third.
  for (let known = 0; known < names.size;) {
    known = names.size;
    const macs = new Set<string>();
    for (const subnet of all) if (names.has(subnet.spec.nodeName)) macs.add(peerMAC(subnet));
    for (const subnet of all) {
      if (!names.has(subnet.spec.nodeName) && macs.has(peerMAC(subnet))) names.add(subnet.spec.nodeName);
    }
  }
  const territory = addressSet(
    all
      .filter(({ spec }) => spec.nodeName !== ownName && names.has(spec.nodeName))
      .flatMap(({ spec: { cidr, nextHops } }) => [cidr, ...nextHops.map(hostCIDR)]),
  );
  const concerned: { readonly before: NodeSubnet[]; readonly now: NodeSubnet[] } = { before: [], now: [] };
  for (const subnet of before) if (names.has(subnet.spec.nodeName)) concerned.before.push(subnet);
  for (const subnet of now) {
    const { nodeName, cidr, nextHops } = subnet.spec;
    if (names.has(nodeName)) {
      concerned.now.push(subnet);
      continue;
    }
    if (rangesOverlap(territory[cidr.family], rangeOf(subnet))) return undefined;
    for (const { family, value } of nextHops) if (rangesHave(territory[family], value)) return undefined;
  }
  return concerned;
}

const rangeOf = askedOnce(({ spec }) => rangeOfCIDR(spec.cidr));

/** Whether all that is no entry of single peers is the same. */
function sameFrame(was: NodeState, is: NodeState): boolean {
  return frameText(was) === frameText(is) && textOf(was.filter.pools) === textOf(is.filter.pools);
}

function frameText({ filter, ...state }: NodeState): string {
  const { vxlan, addresses, families, forwarded, preferredSource, podMTU, undecided, notes } = state;
  const { natExempt, natSources, natTunnelled, tunnelSources, isolation } = filter;
  return textOf([
    ...[vxlan, addresses, families, forwarded, preferredSource, podMTU, undecided, notes],
    ...[natExempt, natSources, natTunnelled, tunnelSources, isolation ?? null],
  ]);
}

function textOf(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => (typeof part === 'bigint' ? String(part) : part));
}

function difference<T>(was: readonly T[], is: readonly T[], identity: (item: T) => string): Difference<T> {
  const [had, has] = [new Set(was.map(identity)), new Set(is.map(identity))];
  return {
    add: is.filter((item) => !had.has(identity(item))),
    remove: was.filter((item) => !has.has(identity(item))),
  };
}

/** Without building a text of each: the list may have thousands. */
function changedList<T>(
  list: readonly T[],
  { add, remove }: Difference<T>,
  isSame: (a: T, b: T) => boolean,
): T[] {
  const left = [...list];
  for (const gone of remove) {
    const at = left.findIndex((item) => isSame(item, gone));
    if (at >= 0) left.splice(at, 1);
  }
  left.push(...add);
  return left;
}

/** The filter with the addresses of nodes that have come, and without those that have gone. */
function changedFilter(filter: FilterState, was: NodeAddresses, is: NodeAddresses): FilterState {
  if (nodeSetChanges(was, is).length === 0) return filter;
  const changed = (set: AddressSet, had: AddressSet, has: AddressSet) =>
    setWith(setWithout(set, setWithout(had, has)), setWithout(has, had));
  return {
    ...filter,
    nodes: changed(filter.nodes, was.nodes, is.nodes),
    directNodes: changed(filter.directNodes, was.directNodes, is.directNodes),
  };
}

function routeIdentity({ destination, metric, target, preferredSource }: NodeRoute): string {
  return textOf([formatCIDR(destination), metric, target, preferredSource ?? null]);
}

/** No two routes have one destination and metric. */
function isSameRoute(a: NodeRoute, b: NodeRoute): boolean {
  return sameCIDR(a.destination, b.destination) && a.metric === b.metric;
}

function neighbourIdentity({ address, mac }: PeerNeighbour): string {
  return `${formatAddress(address)} ${mac}`;
}

function isSameNeighbour(a: PeerNeighbour, b: PeerNeighbour): boolean {
  return sameAddress(a.address, b.address);
}

function forwardingIdentity({ mac, destination }: PeerForwarding): string {
  return `${mac} ${formatAddress(destination)}`;
}

function isSameForwarding(a: PeerForwarding, b: PeerForwarding): boolean {
  return a.mac === b.mac;
}
