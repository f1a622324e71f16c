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
import { peerMAC } from './peers.ts';
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
  const isConcerned = concernedBy(changed, [...now.subnets, ...changed], now.node.name);
  if (touchesOthers([...now.subnets, ...changed], isConcerned, now.node.name)) return undefined;
  const [was, is] = [before, now].map((input) =>
    desiredNodeState({ ...input, subnets: input.subnets.filter(isConcerned) }),
  );
  if (was === undefined || is === undefined || !sameFrame(was, is)) return undefined;
  if (frameText(is) !== frameText({ ...state, notes: is.notes })) return undefined;

  const routes = difference(was.routes, is.routes, routeIdentity);
  const neighbours = difference(was.neighbours, is.neighbours, neighbourIdentity);
  const forwarding = difference(was.forwarding, is.forwarding, forwardingIdentity);
  const elements = (of: (state: NodeState) => AddressSet): AddressSet => {
    const gone = setWithout(of(was), of(is));
    const come = setWithout(of(is), of(was));
    return setWith(setWithout(of(state), gone), come);
  };
  return {
    routes,
    neighbours,
    forwarding,
    state: {
      ...state,
      routes: changedList(state.routes, routes, isSameRoute),
      neighbours: changedList(state.neighbours, neighbours, isSameNeighbour),
      forwarding: changedList(state.forwarding, forwarding, isSameForwarding),
      filter: {
        ...state.filter,
        nodes: elements(({ filter }) => filter.nodes),
        directNodes: elements(({ filter }) => filter.directNodes),
      },
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

/** Whether a subnet is this node's, or of one whose subnets have changed, or that has a MAC with such a one. */
type IsConcerned = (subnet: NodeSubnet) => boolean;

function concernedBy(
  changed: readonly NodeSubnet[],
  all: readonly NodeSubnet[],
  ownName: string,
): IsConcerned {
  const names = new Set([ownName, ...changed.map(({ spec }) => spec.nodeName)]);
  // A node that was made anew has two MACs, and may share the older one with a third.
  for (let before = 0; before < names.size;) {
    before = names.size;
    const macs = new Set(all.filter(({ spec }) => names.has(spec.nodeName)).map(peerMAC));
    for (const subnet of all) if (macs.has(peerMAC(subnet))) names.add(subnet.spec.nodeName);
  }
  return ({ spec }) => names.has(spec.nodeName);
}

/** Whether what is left out overlaps a subnet of another node that is not, or has a next hop with it. */
function touchesOthers(subnets: readonly NodeSubnet[], isConcerned: IsConcerned, ownName: string): boolean {
  const territory = addressSet(
    subnets
      .filter((subnet) => subnet.spec.nodeName !== ownName && isConcerned(subnet))
      .flatMap(({ spec: { cidr, nextHops } }) => [cidr, ...nextHops.map(hostCIDR)]),
  );
  return subnets.some((subnet) => {
    if (isConcerned(subnet)) return false;
    const { cidr, nextHops } = subnet.spec;
    return (
      rangesOverlap(territory[cidr.family], rangeOf(subnet)) ||
      nextHops.some(({ family, value }) => rangesHave(territory[family], value))
    );
  });
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
  const left = remove.length === 0 ? list : list.filter((item) => !remove.some((gone) => isSame(item, gone)));
  return [...left, ...add];
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
