import { nodeAddressIn, type IPPool, type NodeSubnet } from '../../src/api/index.ts';
import { disputedSubnets } from '../../src/dataplane/disputed.ts';
import type { DNSServer } from '../../src/dataplane/index.ts';
import { cidrHasAddress, sameAddress, type CIDR, type IPAddress } from '../../src/net/index.ts';
import type { Packet } from './packets.ts';

/** The objects that a node knows. */
export interface World {
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  readonly dnsServers?: readonly DNSServer[];
  /** Of the node that judges. */
  readonly ownAddresses?: readonly IPAddress[];
}

/** The rule of the design (section 3), word for word and one packet at a time. */
export function mayPass(world: World, packet: Packet): boolean {
  const { from, to } = packet;
  const [one, other] = [partyOf(world, from), partyOf(world, to)];
  if (one === undefined || other === undefined) return true;
  if (isNode(world, from) || isNode(world, to)) return true;
  if (one.uid === other.uid) return true;
  if (names(one, other) && names(other, one)) return true;
  const serves = (address: IPAddress, port: number) =>
    (world.dnsServers ?? []).some(
      (server) =>
        sameAddress(server.address, address) && server.protocol === packet.protocol && server.port === port,
    );
  if (serves(to, packet.ports[1]) && one.pool?.spec.isolation.dns !== false) return true;
  return packet.isReply && serves(from, packet.ports[0]) && other.pool?.spec.isolation.dns !== false;
}

interface Party {
  readonly uid: string;
  readonly pool: IPPool | undefined;
}

function names({ pool: one }: Party, { pool: other }: Party): boolean {
  if (one?.spec.isolation.mode === 'None') return true;
  return one?.spec.isolation.peers.includes(other?.metadata.name ?? '') === true;
}

function partyOf(world: World, address: IPAddress): Party | undefined {
  const { pools, subnets } = world;
  const byLength = (a: CIDR, b: CIDR) => b.prefixLength - a.prefixLength;
  const disputed = disputedIn(world);
  const [held] = subnets
    .filter(({ spec }) => cidrHasAddress(spec.cidr, address))
    .sort((a, b) => Number(disputed.has(a)) - Number(disputed.has(b)) || byLength(a.spec.cidr, b.spec.cidr));
  if (held !== undefined) {
    const uid = held.spec.poolUID;
    return { uid, pool: pools.find(({ metadata }) => metadata.uid === uid) };
  }
  const born = ({ metadata }: IPPool) => `${metadata.creationTimestamp} ${metadata.name}`;
  const [found] = pools
    .flatMap((owner) => owner.spec.cidrs.map((cidr) => ({ owner, cidr })))
    .filter(({ cidr }) => cidrHasAddress(cidr, address))
    .sort((a, b) => byLength(a.cidr, b.cidr) || (born(a.owner) < born(b.owner) ? -1 : 1));
  return found === undefined ? undefined : { uid: found.owner.metadata.uid, pool: found.owner };
}

/** By its own address in a subnet that is its own, or by a next hop that is not where pods live. */
function isNode(world: World, address: IPAddress): boolean {
  const { pools, subnets } = world;
  const disputed = disputedIn(world);
  const isOwn = subnets.some((subnet) => {
    const use = pools.find(({ metadata }) => metadata.uid === subnet.spec.poolUID)?.spec.use;
    const own = nodeAddressIn(subnet.spec.cidr, use);
    return subnet.spec.exclusive !== true && !disputed.has(subnet) && sameAddress(own, address);
  });
  const isHop = subnets.some(({ spec }) => spec.nextHops.some((hop) => sameAddress(hop, address)));
  return isOwn || (isHop && !subnets.some(({ spec }) => cidrHasAddress(spec.cidr, address)));
}

/** What no node routes to is tested elsewhere. */
const disputedIn = ({ pools, subnets, ownAddresses = [] }: World) =>
  disputedSubnets({ pools, subnets, ownAddresses });
