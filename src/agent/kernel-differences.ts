import {
  diffAddresses,
  diffFdb,
  diffNeighbours,
  diffRoutes,
  divertingRoutes,
  FILTER_TABLE,
  podMTUOf,
  VXLAN_LINK,
  type NodeState,
} from '../dataplane/index.ts';
import {
  DYING_LINK_PREFIX,
  findPodLinks,
  listAddresses,
  listFdb,
  listLinks,
  listNeighbours,
  listRoutes,
  podLinkRepairs,
  podMTUChanges,
  ROUTE_PROTOCOL,
  type Link,
  type NetlinkSocket,
} from '../kernel/index.ts';
import { ADDRESS_BITS, cidrHasAddress, FAMILIES, hostCIDR, type CIDR } from '../net/index.ts';
import type { FilterTable } from './filter-table.ts';
import { isForwarding } from './forwarding.ts';
import { markedSubnets } from './marked-routes.ts';
import {
  addressText,
  forwardingText,
  isSameTunnel,
  MissingLinkError,
  neighbourText,
  OWN_ADDRESS_LINKS,
  ownAmong,
  ownPart,
  resolveRoute,
  routeText,
} from './node-state.ts';

/** How what carries our mark differs from what is desired; objects by the names that a repair would use. */
export interface KernelDifferences {
  /** Not there, or there in another form. */
  readonly missing: readonly string[];
  /** There, and nothing asks for it. */
  readonly extra: readonly string[];
  /** Routes of others, by which packets for pods of other nodes go elsewhere. Nobody takes them away but people. */
  readonly diverting: readonly string[];
}

export interface DifferencesInput {
  readonly host: NetlinkSocket;
  readonly sysctlRoot: string;
  readonly filterTable: Pick<FilterTable, 'holds'>;
  readonly state: NodeState;
  /** The device that nothing asks for any more stays for a while. */
  readonly isDeviceKept: boolean;
}

/**
 * Invariant 10, as the sync decides it, but without changing anything (design, section 10). What a claim or an ADD
 * has just begun may be among it: whoever reads it looks twice.
 */
export async function kernelDifferences(input: DifferencesInput): Promise<KernelDifferences> {
  const { filterTable, state, sysctlRoot } = input;
  // In one go; what waits for a process comes after.
  const parts: Partial<KernelDifferences>[] = [
    deviceDifferences(input),
    addressDifferences(input),
    peerDifferences(input),
    routeDifferences(input),
    podDifferences(input),
    { missing: isForwarding(sysctlRoot, state.families) ? [] : ['forwarding'] },
  ];
  parts.push({ missing: (await filterTable.holds(state.filter)) ? [] : [`table inet ${FILTER_TABLE}`] });
  return {
    missing: parts.flatMap(({ missing = [] }) => missing),
    extra: parts.flatMap(({ extra = [] }) => extra),
    diverting: parts.flatMap(({ diverting = [] }) => diverting),
  };
}

function deviceDifferences({ host, state, isDeviceKept }: DifferencesInput): Partial<KernelDifferences> {
  const link = vxlanLink(host);
  const object = `link ${VXLAN_LINK}`;
  if (state.vxlan === undefined) return { extra: link?.kind === 'vxlan' && !isDeviceKept ? [object] : [] };
  const { mac, mtu } = state.vxlan;
  const isRight =
    link !== undefined && link.up && link.mac === mac && link.mtu === mtu && isSameTunnel(link, state.vxlan);
  return { missing: isRight ? [] : [object] };
}

function addressDifferences({ host, state }: DifferencesInput): Partial<KernelDifferences> {
  const listed = listAddresses(host);
  const links = listLinks(host);
  const marked = markedSubnets(host);
  const perLink = OWN_ADDRESS_LINKS.map((name) => {
    const index = links.find((link) => link.name === name)?.index;
    const desired = state.addresses.filter(({ link }) => link === name).map(({ address }) => address);
    const here = ownAmong(
      listed.filter(({ linkIndex }) => linkIndex === index),
      { name, marked, desired },
    );
    const { add, remove } = diffAddresses(desired, here, state.undecided.map(ownPart));
    const text = ({ address, prefixLength }: (typeof add)[number]) =>
      addressText({ ...hostCIDR(address), prefixLength }, name);
    return { missing: add.map(text), extra: remove.map(text) };
  });
  return {
    missing: perLink.flatMap(({ missing }) => missing),
    extra: perLink.flatMap(({ extra }) => extra),
  };
}

function peerDifferences({ host, state }: DifferencesInput): Partial<KernelDifferences> {
  const linkIndex = vxlanLink(host)?.index;
  if (linkIndex === undefined) return {};
  const neighbours = diffNeighbours(state.neighbours, listNeighbours(host, { linkIndex }));
  const forwarding = diffFdb(state.forwarding, listFdb(host, linkIndex));
  return {
    missing: [...neighbours.add.map(neighbourText), ...forwarding.add.map(forwardingText)],
    extra: [...neighbours.remove.map(neighbourText), ...forwarding.remove.map(forwardingText)],
  };
}

function routeDifferences({ host, state }: DifferencesInput): Partial<KernelDifferences> {
  const links = new Map(listLinks(host).map(({ name, index }) => [name, index]));
  const names = new Map([...links].map(([name, index]) => [index, name]));
  const unresolved: string[] = [];
  const desired = state.routes.flatMap((route) => {
    try {
      return [resolveRoute(route, links)];
    } catch (error) {
      if (!(error instanceof MissingLinkError)) throw error;
      unresolved.push(error.message);
      return [];
    }
  });
  const listed = listRoutes(host);
  const { add, remove } = diffRoutes(desired, listed, state.undecided);
  const ours: readonly number[] = [ROUTE_PROTOCOL.weftNode, ROUTE_PROTOCOL.weftPod];
  const others = listed.filter(({ protocol }) => !ours.includes(protocol));
  return {
    missing: [...unresolved, ...add.map((route) => routeText(route, names))],
    extra: remove.map((route) => routeText(route, names)),
    diverting: divertingRoutes(desired, others).map((route) => routeText(route, names)),
  };
}

/** Pods' routes and neighbours follow from their links; a route of ours that no alias asks for is extra. */
function podDifferences({ host, state }: DifferencesInput): Partial<KernelDifferences> {
  const names = new Map(listLinks(host).map(({ name, index }) => [index, name]));
  const asked = new Map<number, CIDR[] | 'half-made'>(
    findPodLinks(host).map(({ link, attachment }) => [
      link.index,
      attachment === undefined
        ? 'half-made'
        : FAMILIES.flatMap((family) => attachment.addresses[family] ?? []).map(hostCIDR),
    ]),
  );
  const isAskedFor = (dst: CIDR, oif: number | undefined) => {
    const own = asked.get(oif ?? 0);
    // What an ADD is making, or a DEL taking down, is neither missing nor extra.
    if (own === 'half-made' || names.get(oif ?? 0)?.startsWith(DYING_LINK_PREFIX) === true) return true;
    return (
      dst.prefixLength === ADDRESS_BITS[dst.family] &&
      own?.some((cidr) => cidrHasAddress(cidr, { family: dst.family, value: dst.first })) === true
    );
  };
  return {
    missing: [
      ...podLinkRepairs(host, state.preferredSource).map((repair) => `the outcome of "${repair.describe()}"`),
      ...podMTUChanges(host, (addresses) => podMTUOf(state.podMTU, addresses)).map(
        ({ link, mtu }) => `MTU ${mtu} of link ${link.name}, which has ${link.mtu}`,
      ),
    ],
    extra: listRoutes(host, { protocol: ROUTE_PROTOCOL.weftPod })
      .filter(({ dst, oif }) => !isAskedFor(dst, oif))
      .map((route) => routeText(route, names)),
  };
}

function vxlanLink(host: NetlinkSocket): Link | undefined {
  return listLinks(host).find(({ name }) => name === VXLAN_LINK);
}
