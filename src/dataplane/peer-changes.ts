import type { IPPool } from '../api/index.ts';
import { formatAddress, formatCIDR, sameAddress, sameCIDR } from '../net/index.ts';
import { setWith, setWithout, type AddressSet } from './address-set.ts';
import { desiredNodeState, type DesiredInput } from './desired.ts';
import type { Difference } from './diff.ts';
import type { FilterState } from './filter.ts';
import { nodeSetChanges, type NodeAddresses } from './node-sets.ts';
import { createPeerIndex, type PeerIndex } from './peer-index.ts';
import type { NodeRoute, NodeState, PeerForwarding, PeerNeighbour } from './state.ts';

/** What of a node's state changes with its peers, one by one. */
export interface PeerChanges {
  readonly routes: Difference<NodeRoute>;
  readonly neighbours: Difference<PeerNeighbour>;
  readonly forwarding: Difference<PeerForwarding>;
  /** The whole state with these changes, each of its lists in any order. */
  readonly state: NodeState;
}

/**
 * The changes that follow from some subnets of other nodes, without working out everything anew, which takes the longer
 * the more nodes there are. How a subnet is treated follows from this node and from the subnets that touch it: those of
 * the same node, those that overlap, those that hold a next hop. So the state of a few is worked out before and after,
 * and what differs is the change. Undefined where more has changed, or where a subnet touches one of another node:
 * then the whole state is to be worked out. `state` is that of `before`; `index` is kept from one call to the next.
 */
export function peerChanges(
  before: DesiredInput,
  now: DesiredInput,
  state: NodeState,
  index: PeerIndex = createPeerIndex(),
): PeerChanges | undefined {
  if (!sameSurroundings(before, now)) return undefined;
  index.show(before.subnets);
  const changes = index.changesTo(now.subnets);
  const { come, gone } = changes;
  const changed = [...come, ...gone];
  if (changed.length === 0) return { routes: NONE, neighbours: NONE, forwarding: NONE, state };
  if (changed.length > MOST_CHANGES || changed.some(({ spec }) => spec.nodeName === now.node.name)) {
    return undefined;
  }
  const concerned = index.concernedBy(changes, now.node.name);
  if (concerned === undefined) return undefined;
  const [isNew, isGone] = [new Set(come), new Set(gone)];
  const was = desiredNodeState({ ...before, subnets: concerned.filter((subnet) => !isNew.has(subnet)) });
  const is = desiredNodeState({ ...now, subnets: concerned.filter((subnet) => !isGone.has(subnet)) });
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
