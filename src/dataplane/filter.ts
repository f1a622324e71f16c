import { nodeAddressIn, type IPPool, type NodeSubnet } from '../api/index.ts';
import { FAMILIES, formatAddress, hostCIDR, type CIDR, type Family, type IPAddress } from '../net/index.ts';
import { addressSet, type AddressSet } from './address-set.ts';
import { renderHostPorts } from './host-ports.ts';
import { desiredIsolation, renderIsolation, type DNSServer, type IsolationState } from './isolation.ts';
import {
  addBaseChain,
  addChain,
  addSets,
  addRule,
  address,
  DROP,
  FILTER_TABLE,
  HOLD_TABLE,
  match,
  NFT_FAMILY,
  payload,
  PRIORITY_FILTER,
  set,
  type NftCommand,
  type NftDocument,
} from './nft-commands.ts';
import { addNodeSets } from './node-sets.ts';
import { allowedSources, type AttachmentRules } from './pod-rules.ts';
import { VXLAN_LINK } from './vxlan.ts';

/** The host ends of pods' links, by name. */
export const POD_LINK_PATTERN = 'weft*';

/** What the filter rules depend on. */
export interface FilterState {
  /** Families that pods have. */
  readonly families: readonly Family[];
  /** All CIDRs of all pools and all subnets: a drained CIDR keeps its treatment. */
  readonly pools: AddressSet;
  /** Every next hop and every node's own address in a subnet: by which nodes speak. */
  readonly nodes: AddressSet;
  /** The addresses of nodes that answer a pod's own address, since they are on one link with this one. */
  readonly directNodes: AddressSet;
  /** Destinations that the operator exempts from masquerade. */
  readonly natExempt: AddressSet;
  /** The pods of this node whose pool has natOutgoing, and whom nodes on one link answer directly. */
  readonly natSources: AddressSet;
  /** Which pools' pods reach which others'; undefined: all. */
  readonly isolation: IsolationState | undefined;
  /** Those whom every other node answers through the tunnel: their own address is no source for a node's address. */
  readonly natTunnelled: AddressSet;
  /** This node's subnets behind links of other plugins. */
  readonly bridged: AddressSet;
  /** This node's own addresses by which packets that others had another source for enter the tunnel. */
  readonly tunnelSources: Readonly<Partial<Record<Family, IPAddress>>>;
  readonly vxlan: { readonly vni: number; readonly port: number };
}

export interface FilterInput {
  readonly families: readonly Family[];
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  readonly ownSubnets: readonly NodeSubnet[];
  readonly directNodes: readonly IPAddress[];
  /** Those that no node routes to, since they are another's. */
  readonly disputed: { has(subnet: NodeSubnet): boolean };
  readonly dnsServers: readonly DNSServer[];
  readonly tunnelSources: FilterState['tunnelSources'];
  readonly config: { readonly vni: number; readonly port: number; readonly natExempt: readonly CIDR[] };
}

/** The filter of a node: a function of pools, subnets and of who is on one link with us (design, section 7). */
export function desiredFilter(input: FilterInput): FilterState {
  const { families, pools, subnets, ownSubnets, directNodes, disputed, dnsServers, config } = input;
  const useOf = new Map(pools.map(({ metadata, spec }) => [metadata.uid, spec.use]));
  const subnetCIDRs = subnets.map(({ spec }) => spec.cidr);
  const tunnelled = new Set(
    pools.filter(({ spec }) => spec.encapsulation === 'Always').map(({ metadata }) => metadata.uid),
  );
  const masqueraded = (which: (isTunnelled: boolean) => boolean) =>
    addressSet(
      ownSubnets
        .filter(leavesMasqueraded(pools))
        .filter(({ spec }) => which(tunnelled.has(spec.poolUID)))
        .map(({ spec }) => spec.cidr),
    );
  return {
    families,
    pools: addressSet([...pools.flatMap(({ spec }) => spec.cidrs), ...subnetCIDRs]),
    nodes: addressSet([
      // That of an exclusive one is a pod's.
      ...subnets
        .filter(({ spec }) => spec.exclusive !== true)
        .map(({ spec }) => hostCIDR(nodeAddressIn(spec.cidr, useOf.get(spec.poolUID)))),
      ...subnets.flatMap(({ spec }) => spec.nextHops.map(hostCIDR)),
    ]),
    directNodes: addressSet(directNodes.map(hostCIDR)),
    natExempt: addressSet(config.natExempt),
    natSources: masqueraded((isTunnelled) => !isTunnelled),
    natTunnelled: masqueraded((isTunnelled) => isTunnelled),
    bridged: addressSet(
      ownSubnets.filter(({ spec }) => useOf.get(spec.poolUID) === 'Bridge').map(({ spec }) => spec.cidr),
    ),
    tunnelSources: input.tunnelSources,
    isolation: desiredIsolation({ pools, subnets, isDisputed: (one) => disputed.has(one), dnsServers }),
    vxlan: { vni: config.vni, port: config.port },
  };
}

/**
 * The whole table as one transaction for `nft -j -f -`: it replaces what stood there at once. Only parsed
 * addresses and numbers get into it, so nothing from an object can become a rule. `attachments`: those that have rules
 * of their own, the oldest first.
 */
export function renderFilter(state: FilterState, attachments: readonly AttachmentRules[] = []): NftDocument {
  return {
    nftables: [
      ...freshTable(FILTER_TABLE),
      ...whatDrops(state, attachments),
      ...masquerade(state),
      ...renderHostPorts(
        attachments.flatMap(({ hostPorts }) => hostPorts),
        FAMILIES,
      ),
    ],
  };
}

/**
 * A second table with all that drops, for while the table is exchanged; undefined where nobody is isolated. The kernel
 * exchanges it for each chain and each map by itself: a packet that is on its way through at that moment may see the new
 * chain before it is filled and the old one when it is empty, and pass (2 of 600 exchanges under a flood of pings). What
 * drops by both tables drops throughout, as long as one of them stays as it is.
 */
export function renderHold(
  state: FilterState,
  attachments: readonly AttachmentRules[],
): NftDocument | undefined {
  if (state.isolation === undefined) return undefined;
  const commands = inTable(HOLD_TABLE, whatDrops(state, attachments)) as NftCommand[];
  return { nftables: [...freshTable(HOLD_TABLE), ...commands] };
}

/** The sets, and the chains that drop packets: all but what is translated. */
function whatDrops(state: FilterState, attachments: readonly AttachmentRules[]): readonly NftCommand[] {
  return [
    ...addNodeSets(state),
    ...SETS.flatMap(({ name, of }) => addSets(name, of(state))),
    ...antiSpoofing(state, attachments),
    ...vxlanGuard(state),
    ...renderIsolation(state),
  ];
}

/** Takes that table away, whether it is there or not. */
export const REMOVE_HOLD: NftDocument = { nftables: removed(HOLD_TABLE) };

/** The table, empty, whatever stood there. */
function freshTable(name: string): NftCommand[] {
  return [...removed(name), { add: { table: { family: 'inet', name } } }];
}

/** Adding first makes the deletion succeed where there is no table yet. */
function removed(name: string): NftCommand[] {
  const table = { family: 'inet', name };
  return [{ add: { table } }, { delete: { table } }];
}

/** The same commands for another table. */
function inTable(name: string, commands: unknown): unknown {
  if (Array.isArray(commands)) return commands.map((one) => inTable(name, one));
  if (typeof commands !== 'object' || commands === null) return commands;
  return Object.fromEntries(
    Object.entries(commands).map(([key, value]) => [key, key === 'table' ? name : inTable(name, value)]),
  );
}

const SETS: readonly { readonly name: string; readonly of: (state: FilterState) => AddressSet }[] = [
  { name: 'pools', of: ({ pools }) => pools },
  { name: 'nat_exempt', of: ({ natExempt }) => natExempt },
  { name: 'nat_sources', of: ({ natSources }) => natSources },
  { name: 'nat_tunnelled', of: ({ natTunnelled }) => natTunnelled },
  { name: 'bridged', of: ({ bridged }) => bridged },
];

/** Before connection tracking, so that what is spoofed costs nothing. */
const PRIORITY_RAW = -300;
/** Before kube-proxy's chain at 100; whoever translates a connection first decides. */
const PRIORITY_BEFORE_SOURCE_NAT = 90;

/**
 * A source is a pod's own if the way back to it is the link it came from: true for host routes to pods, and
 * for link-local addresses. An advertisement from a pod would become the node's default route where new links
 * inherit accept_ra=2. Links of other plugins have any name: there it is the addresses of their pods that come by no
 * other link than the one that leads to them.
 */
function antiSpoofing(
  { bridged }: FilterState,
  attachments: readonly AttachmentRules[],
): readonly NftCommand[] {
  const chain = 'from_pods';
  const fromPod = match('==', { meta: { key: 'iifname' } }, POD_LINK_PATTERN);
  return [
    addBaseChain(chain, 'filter', 'prerouting', PRIORITY_RAW),
    addRule(chain, 'pods are no routers', [
      fromPod,
      match('==', payload('icmpv6', 'type'), { set: ['nd-router-advert', 'nd-redirect'] }),
      ...DROP,
    ]),
    addRule(chain, 'pods are no routers', [
      fromPod,
      match('==', payload('icmp', 'type'), 'redirect'),
      ...DROP,
    ]),
    ...allowedSources(chain, attachments),
    addRule(chain, 'no route back to its source', [fromPod, NO_WAY_BACK, ...DROP]),
    ...FAMILIES.filter((family) => bridged[family].length > 0).map((family) =>
      addRule(chain, 'not from the link that leads to its source', [
        match('==', address(family, 'saddr'), set('bridged', family)),
        NO_WAY_BACK,
        ...DROP,
      ]),
    ),
  ];
}

const NO_WAY_BACK = match('==', { fib: { result: 'oif', flags: ['saddr', 'iif'] } }, false);

/**
 * Packets of our VXLAN are believed from nodes only. A pod's are dropped wherever they go: masqueraded, they
 * would come from a node. Matched by port and VNI, so that another's VXLAN on the same port is left alone. Pods behind
 * links of other plugins, which have any name, are told by their addresses; and since nothing there keeps them from sending
 * with a node's, where there are such pods a node's packets must come by the link that leads to it.
 */
function vxlanGuard({ vxlan, bridged }: FilterState): readonly NftCommand[] {
  const ours = [
    match('==', payload('udp', 'dport'), vxlan.port),
    match('==', { payload: { base: 'th', offset: VNI_OFFSET_BITS, len: VNI_BITS } }, vxlan.vni),
  ];
  const fromPod = match('==', { meta: { key: 'iifname' } }, POD_LINK_PATTERN);
  const guard = 'vxlan';
  const hasBridged = FAMILIES.some((family) => bridged[family].length > 0);
  const forged = (chain: string, matched: readonly NftCommand[]) =>
    hasBridged
      ? [addRule(chain, 'not from the link that leads to the node', [...matched, NO_WAY_BACK, ...DROP])]
      : [];
  return [
    addChain(guard),
    addRule(guard, 'never from pods', [fromPod, ...DROP]),
    ...forged(guard, []),
    ...FAMILIES.map((family) =>
      addRule(guard, 'from nodes', [
        match('==', address(family, 'saddr'), set('nodes', family)),
        { return: null },
      ]),
    ),
    addRule(guard, 'from others', DROP),
    addBaseChain('input', 'filter', 'input', PRIORITY_FILTER),
    addRule('input', 'our VXLAN', [...ours, { jump: { target: guard } }]),
    addBaseChain('forward', 'filter', 'forward', PRIORITY_FILTER),
    addRule('forward', 'never from pods', [...ours, fromPod, ...DROP]),
    ...FAMILIES.map((family) =>
      addRule('forward', 'never from pods', [
        ...ours,
        match('==', address(family, 'saddr'), set('pools', family)),
        ...DROP,
      ]),
    ),
    ...forged('forward', ours),
  ];
}

/** The VXLAN header follows 8 bytes of UDP; the VNI is its bytes 4 to 6. */
const VNI_OFFSET_BITS = 96;
const VNI_BITS = 24;

/**
 * Two reasons to masquerade: a pod's packet that leaves the pools, and a packet of the node itself that a
 * Service's address has turned into the tunnel after its source was chosen: the other side would answer the
 * node's InternalIP outside the tunnel. That one gets a source that stays when its way changes: the kernel ends what is
 * masqueraded as soon as it leaves by another link. Source ports are random, since a sequence can be guessed, and
 * parallel requests of one pod (DNS) would collide.
 */
function masquerade({ families, tunnelSources }: FilterState): readonly NftCommand[] {
  const chain = 'masquerade';
  const outOfPools = (family: Family, sources: string, but: readonly string[]) =>
    addRule(chain, 'out of the pools', [
      match('==', address(family, 'saddr'), set(sources, family)),
      ...but.map((name) => match('!=', address(family, 'daddr'), set(name, family))),
      MASQUERADE,
    ]);
  return [
    addBaseChain(chain, 'nat', 'postrouting', PRIORITY_BEFORE_SOURCE_NAT),
    ...families.flatMap((family) => [
      addRule(chain, 'of the node, into the tunnel', [
        match('==', { meta: { key: 'oifname' } }, VXLAN_LINK),
        match('==', { fib: { result: 'type', flags: ['saddr'] } }, 'local'),
        match('!=', address(family, 'saddr'), set('pools', family)),
        sourceNAT(family, tunnelSources[family]),
      ]),
      outOfPools(family, 'nat_sources', ['pools', 'direct_nodes', 'nat_exempt']),
      outOfPools(family, 'nat_tunnelled', ['pools', 'nat_exempt']),
    ]),
  ];
}

const MASQUERADE: NftCommand = { masquerade: { flags: ['fully-random'] } };
/** Without an address of its own the node takes what the link has. */
function sourceNAT(family: Family, source: IPAddress | undefined): NftCommand {
  if (source === undefined) return MASQUERADE;
  const addr = formatAddress(source);
  return { snat: { family: NFT_FAMILY[family].protocol, addr, flags: ['fully-random'] } };
}

/** A subnet whose pool is missing keeps its pods connected: natOutgoing is what a pool has by default. */
function leavesMasqueraded(pools: readonly IPPool[]): (subnet: NodeSubnet) => boolean {
  const natOutgoing = new Map(pools.map(({ metadata, spec }) => [metadata.uid, spec.natOutgoing]));
  return ({ spec }) => natOutgoing.get(spec.poolUID) ?? true;
}
