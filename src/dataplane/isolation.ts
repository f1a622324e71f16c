import { nodeAddressIn, type IPPool, type NodeSubnet } from '../api/index.ts';
import { FAMILIES, formatAddress, hostCIDR, type Family, type IPAddress } from '../net/index.ts';
import { addressOwners, type AddressOwner } from './address-owners.ts';
import { addressSet, setHas, unionOfSets, type AddressSet } from './address-set.ts';
import {
  addBaseChain,
  addChain,
  address,
  addressType,
  addRule,
  addSet,
  addSets,
  addVerdictMap,
  DROP,
  match,
  payload,
  PRIORITY_FILTER,
  set,
  type NftCommand,
} from './nft-commands.ts';

/** One port at which an endpoint of the cluster's DNS Service answers. */
export interface DNSServer {
  readonly address: IPAddress;
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
}

/** Which pools' pods reach which others' (design, section 7). What is not in it is not affected. */
export interface IsolationState {
  /** Pools whose pods reach the same others, and not all. What a pod sends may go to `to`; replies the same way. */
  readonly tenants: readonly { readonly from: AddressSet; readonly to: AddressSet }[];
  /**
   * What the set of nodes has and is not believed here: with one node's token another's pods could be named as its next
   * hops, or as its own address in a subnet that is another's. Empty where nobody tries.
   */
  readonly falseNodes: AddressSet;
  readonly dns: {
    readonly servers: readonly DNSServer[];
    /** The pods that reach them wherever they are. */
    readonly clients: AddressSet;
  };
}

export interface IsolationInput {
  /** Those that are routed: what lies on a LAN is none of this. */
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  /** Whether no node routes to it, since it is another's. */
  readonly isDisputed: (subnet: NodeSubnet) => boolean;
  readonly dnsServers: readonly DNSServer[];
}

/** Undefined where nobody is isolated from anybody. */
export function desiredIsolation(input: IsolationInput): IsolationState | undefined {
  const { pools, subnets, isDisputed, dnsServers } = input;
  if (!isolatesAny(pools, subnets)) return undefined;
  const owners = addressOwners(pools, subnets, isDisputed).map(partyOf);
  const tenants = new Map<string, { readonly members: AddressSet[]; readonly reached: readonly Party[] }>();
  for (const one of owners) {
    const reached = owners.flatMap((other, index) => (mayTalk(one, other) ? [{ other, index }] : []));
    if (reached.length === owners.length) continue;
    const key = reached.map(({ index }) => index).join();
    const same = tenants.get(key);
    if (same === undefined) {
      tenants.set(key, { members: [one.addresses], reached: reached.map(({ other }) => other) });
    } else {
      same.members.push(one.addresses);
    }
  }
  return {
    tenants: [...tenants.values()].map(({ members, reached }) => ({
      from: unionOfSets(members),
      to: unionOfSets(reached.map(({ addresses }) => addresses)),
    })),
    falseNodes: falseNodes(input),
    dns: {
      servers: inOrder(dnsServers),
      clients: unionOfSets(owners.filter(({ dns }) => dns).map(({ addresses }) => addresses)),
    },
  };
}

/** Whether the pods of any pool are kept from those of another. */
export function isolatesAny(pools: readonly IPPool[], subnets: readonly NodeSubnet[]): boolean {
  if (pools.some(({ spec }) => spec.isolation.mode === 'Isolated')) return true;
  const known = new Set(pools.map(({ metadata }) => metadata.uid));
  return subnets.some(({ spec }) => !known.has(spec.poolUID));
}

/** A pool as the others see it. */
interface Party {
  /** Undefined: nobody can name it. */
  readonly name: string | undefined;
  /** The names of those it talks to; undefined: all who talk to it. */
  readonly peers: ReadonlySet<string> | undefined;
  readonly dns: boolean;
  readonly addresses: AddressSet;
}

/** A pool that is not there admits nobody: what it said is not known. */
function partyOf({ pool, addresses }: AddressOwner): Party {
  if (pool === undefined) return { name: undefined, peers: new Set(), dns: true, addresses };
  const { mode, peers, dns } = pool.spec.isolation;
  return {
    name: pool.metadata.name,
    peers: mode === 'Isolated' ? new Set(peers) : undefined,
    dns,
    addresses,
  };
}

/** The same whoever of the two begins, so that the replies of what passes pass, and no connection need be known. */
function mayTalk(one: Party, other: Party): boolean {
  return one === other || (admits(one, other) && admits(other, one));
}

function admits({ peers }: Party, { name }: Party): boolean {
  return peers === undefined || (name !== undefined && peers.has(name));
}

/** A next hop that lies where pods live, and the own address of a subnet that is another's; but for true own addresses. */
function falseNodes({ pools, subnets, isDisputed }: IsolationInput): AddressSet {
  const useOf = new Map(pools.map(({ metadata, spec }) => [metadata.uid, spec.use]));
  const ownAddresses = (some: readonly NodeSubnet[]) =>
    some
      .filter(({ spec }) => spec.exclusive !== true)
      .map(({ spec }) => nodeAddressIn(spec.cidr, useOf.get(spec.poolUID)));
  const believed = addressSet(ownAddresses(subnets.filter((subnet) => !isDisputed(subnet))).map(hostCIDR));
  const ofPods = addressSet(subnets.map(({ spec }) => spec.cidr));
  const doubtful = [
    ...ownAddresses(subnets.filter(isDisputed)),
    ...subnets.flatMap(({ spec }) => spec.nextHops).filter((hop) => setHas(ofPods, hop)),
  ];
  return addressSet(doubtful.filter((one) => !setHas(believed, one)).map(hostCIDR));
}

function inOrder(servers: readonly DNSServer[]): DNSServer[] {
  const byText = new Map(
    servers.map((server) => [`${formatAddress(server.address)} ${server.protocol} ${server.port}`, server]),
  );
  return [...byText].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, server]) => server);
}

/** The set of DNS servers, as `ADDRESS . PROTOCOL . PORT`, one for each family. */
export const DNS_SERVERS_SET = 'dns_servers';

/**
 * The rules of isolation, in the hook of what is forwarded: every packet between pods passes it on its sender's node
 * and on its receiver's, after Services' addresses have been translated. One lookup by the source finds the tenant,
 * one by the destination whom the tenant reaches, however many pools there are. Nothing depends on a connection
 * being known: what is cut, is cut at once.
 *
 *     source in no pool, or in one that reaches all   accepted
 *     destination in a pool that the source reaches   accepted
 *     destination in no pool                          accepted
 *     either is a node                                accepted
 *     a question to the DNS Service, or its answer    accepted
 *     else                                            dropped
 */
export function renderIsolation({
  isolation,
  families,
}: {
  readonly isolation: IsolationState | undefined;
  readonly families: readonly Family[];
}): readonly NftCommand[] {
  if (isolation === undefined) return [];
  const { tenants, dns } = isolation;
  const chainOf = (index: number) => `tenant${index + 1}`;
  const reachedBy = (index: number) => `reached_by${index + 1}_v`;
  return [
    ...addSets('false_nodes', isolation.falseNodes),
    ...dnsSets(isolation),
    ...addSets('dns_clients', dns.clients),
    addChain('between_tenants'),
    ...families.flatMap(betweenTenants),
    addRule('between_tenants', 'isolated from each other', DROP),
    ...tenants.flatMap(({ to }, index) => [
      ...addSets(reachedBy(index), to),
      addChain(chainOf(index)),
      ...families.map((family) =>
        addRule(chainOf(index), 'whom it reaches', [
          match('==', address(family, 'daddr'), set(reachedBy(index), family)),
          ACCEPT,
        ]),
      ),
      addRule(chainOf(index), 'all else', [{ goto: { target: 'between_tenants' } }]),
    ]),
    ...FAMILIES.map((family) =>
      addVerdictMap(
        'tenants',
        family,
        tenants.flatMap(({ from }, index) =>
          from[family].map((range) => ({ range, verdict: { goto: { target: chainOf(index) } } })),
        ),
      ),
    ),
    addBaseChain('isolation', 'filter', 'forward', PRIORITY_FILTER),
    ...families.map((family) =>
      addRule('isolation', 'by the tenant of the source', [
        { vmap: { key: address(family, 'saddr'), data: set('tenants', family) } },
      ]),
    ),
  ];
}

const ACCEPT: NftCommand = { accept: null };

/**
 * What passes although neither pool reaches the other. An answer of DNS is one only if the client has asked: by the
 * port alone a DNS server could open connections to all pods.
 */
function betweenTenants(family: Family): readonly NftCommand[] {
  const chain = 'between_tenants';
  const [from, to] = [address(family, 'saddr'), address(family, 'daddr')];
  const node = (host: NftCommand) => [
    match('==', host, set('nodes', family)),
    match('!=', host, set('false_nodes', family)),
  ];
  const server = (host: NftCommand, port: 'sport' | 'dport') =>
    match(
      '==',
      { concat: [host, { meta: { key: 'l4proto' } }, payload('th', port)] },
      set(DNS_SERVERS_SET, family),
    );
  return [
    addRule(chain, 'out of the pools', [match('!=', to, set('pools', family)), ACCEPT]),
    addRule(chain, 'from nodes', [...node(from), ACCEPT]),
    addRule(chain, 'to nodes', [...node(to), ACCEPT]),
    addRule(chain, 'DNS', [match('==', from, set('dns_clients', family)), server(to, 'dport'), ACCEPT]),
    addRule(chain, 'answers of DNS', [
      match('==', { ct: { key: 'direction' } }, 'reply'),
      match('==', to, set('dns_clients', family)),
      server(from, 'sport'),
      ACCEPT,
    ]),
  ];
}

/** Their names would have to be looked up in a file that a small image does not have. */
export const PROTOCOL_NUMBER = { tcp: 6, udp: 17 } as const satisfies Readonly<
  Record<DNSServer['protocol'], number>
>;

function dnsSets({ dns }: IsolationState): readonly NftCommand[] {
  return FAMILIES.map((family) =>
    addSet(DNS_SERVERS_SET, family, {
      type: [addressType(family), 'inet_proto', 'inet_service'],
      elements: dns.servers
        .filter((server) => server.address.family === family)
        .map((server) => ({
          concat: [formatAddress(server.address), PROTOCOL_NUMBER[server.protocol], server.port],
        })),
    }),
  );
}
