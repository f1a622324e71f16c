import { formatAddress, type Family, type IPAddress } from '../net/index.ts';
import {
  addBaseChain,
  addChain,
  address,
  addressType,
  addRule,
  addSet,
  FILTER_TABLE,
  match,
  set,
  setName,
  type NftCommand,
} from './nft-commands.ts';

export const HOST_PORT_PROTOCOLS = ['tcp', 'udp', 'sctp'] as const;
export type HostPortProtocol = (typeof HOST_PORT_PROTOCOLS)[number];

/** A port of the node that leads to a pod, in the family of the pod's address. */
export interface HostPort {
  readonly protocol: HostPortProtocol;
  readonly hostPort: number;
  /** The node's one address that it is for; undefined: all of the family. */
  readonly hostAddress: IPAddress | undefined;
  readonly podAddress: IPAddress;
  readonly podPort: number;
}

/** A port as a runtime asks for it (capability portMappings). */
export interface PortMapping {
  readonly protocol: HostPortProtocol;
  readonly hostPort: number;
  readonly containerPort: number;
  /** Undefined: all addresses of the node; 0.0.0.0 or `::`: all of one family. */
  readonly hostAddress: IPAddress | undefined;
}

/** A port is asked for in a family in which the pod has no address. */
export class UnservedHostPortError extends Error {
  override name = 'UnservedHostPortError' as const;

  constructor({ protocol, hostPort, hostAddress }: PortMapping) {
    const where = hostAddress === undefined ? '' : ` of ${formatAddress(hostAddress)}`;
    super(
      `host port ${hostPort}/${protocol}${where} cannot lead to the pod, which has no address of that family: ` +
        'give the pod an IPPool with both families, or the port another hostIP',
    );
  }
}

/**
 * The ports by the pod's addresses.
 * @throws UnservedHostPortError
 */
export function hostPortsOf(
  mappings: readonly PortMapping[],
  addresses: Readonly<Partial<Record<Family, IPAddress>>>,
): HostPort[] {
  const all = Object.values(addresses);
  return mappings.flatMap((mapping) => {
    const { protocol, hostPort, hostAddress, containerPort } = mapping;
    const served = all.filter(({ family }) => hostAddress === undefined || hostAddress.family === family);
    if (served.length === 0) throw new UnservedHostPortError(mapping);
    return served.map((podAddress) => ({
      protocol,
      hostPort,
      hostAddress: hostAddress?.value === 0n ? undefined : hostAddress,
      podAddress,
      podPort: containerPort,
    }));
  });
}

/** Whether one packet could be for both: then two pods cannot have them. */
export function portsClash(a: HostPort, b: HostPort): boolean {
  return (
    a.protocol === b.protocol &&
    a.hostPort === b.hostPort &&
    a.podAddress.family === b.podAddress.family &&
    (a.hostAddress === undefined ||
      b.hostAddress === undefined ||
      a.hostAddress.value === b.hostAddress.value)
  );
}

/** For messages: `8080/tcp of 192.0.2.1`. */
export function hostPortText({ protocol, hostPort, hostAddress }: HostPort): string {
  return `${hostPort}/${protocol}${hostAddress === undefined ? '' : ` of ${formatAddress(hostAddress)}`}`;
}

/**
 * Translates what is sent to a port of the node into the pod's address; of two pods with one port the later in the list
 * gets it. Only for destinations that are the node's own: the same port elsewhere is somebody else's. Nodes without
 * such pods get no rule at all.
 */
export function renderHostPorts(
  hostPorts: readonly HostPort[],
  families: readonly Family[],
): readonly NftCommand[] {
  const used = families.filter((family) => hostPorts.some(({ podAddress }) => podAddress.family === family));
  if (used.length === 0) return [];
  const chain = 'host_ports';
  const toNode = [
    match('==', { fib: { result: 'type', flags: ['daddr'] } }, 'local'),
    { jump: { target: chain } },
  ];
  return [
    ...used.flatMap((family) => maps(family, ofFamily(hostPorts, family))),
    addChain(chain),
    ...used.flatMap((family) => [
      // A pod could not answer such a source: what listens on the node's loopback keeps it.
      addRule(chain, 'never the loopback', [
        match('==', address(family, 'daddr'), LOOPBACK[family]),
        { return: null },
      ]),
      addRule(chain, 'of one address', [
        translate(family, 'host_port_of', [address(family, 'daddr'), ...KEY]),
      ]),
      addRule(chain, 'of any address', [translate(family, 'host_port', KEY)]),
    ]),
    addBaseChain('host_ports_in', 'nat', 'prerouting', PRIORITY_AFTER_SERVICES),
    addRule('host_ports_in', 'to this node', toNode),
    addBaseChain('host_ports_out', 'nat', 'output', PRIORITY_AFTER_SERVICES),
    addRule('host_ports_out', 'to itself', toNode),
    addBaseChain('host_ports_hairpin', 'nat', 'postrouting', PRIORITY_HAIRPIN),
    ...used.map((family) =>
      addRule('host_ports_hairpin', 'of a pod to itself', [
        match(
          '==',
          { concat: [address(family, 'saddr'), address(family, 'daddr')] },
          set('host_port_pods', family),
        ),
        { masquerade: { flags: ['fully-random'] } },
      ]),
    ),
  ];
}

/** kube-proxy translates at -100; whoever translates a connection first decides. */
const PRIORITY_AFTER_SERVICES = -90;
const PRIORITY_HAIRPIN = 90;

const LOOPBACK: Readonly<Record<Family, unknown>> = {
  ipv4: { prefix: { addr: '127.0.0.0', len: 8 } },
  ipv6: '::1',
};

const KEY = [{ meta: { key: 'l4proto' } }, { payload: { protocol: 'th', field: 'dport' } }] as const;
const KEY_TYPE = ['inet_proto', 'inet_service'] as const;

const PROTOCOL: Readonly<Record<Family, string>> = { ipv4: 'ip', ipv6: 'ip6' };

/**
 * A map for the address and one for the port: nft's JSON, up to the versions of today's distributions, cannot declare a
 * map of both.
 */
function maps(family: Family, hostPorts: readonly HostPort[]): readonly NftCommand[] {
  const any = latest(hostPorts.filter(({ hostAddress }) => hostAddress === undefined));
  const one = latest(hostPorts.filter(({ hostAddress }) => hostAddress !== undefined));
  const pair = (name: string, type: readonly string[], ports: ReadonlyMap<string, HostPort>) => {
    const elements = (value: (port: HostPort) => unknown) =>
      [...ports.values()].map((port) => [{ concat: keyOf(port) }, value(port)]);
    return [
      addMap(
        name,
        family,
        { type, map: addressType(family) },
        elements(({ podAddress }) => formatAddress(podAddress)),
      ),
      addMap(
        `${name}_target`,
        family,
        { type, map: 'inet_service' },
        elements(({ podPort }) => podPort),
      ),
    ];
  };
  const pods = [
    ...new Set([...any.values(), ...one.values()].map(({ podAddress }) => formatAddress(podAddress))),
  ];
  return [
    ...pair('host_port_of', [addressType(family), ...KEY_TYPE], one),
    ...pair('host_port', KEY_TYPE, any),
    addSet('host_port_pods', family, {
      type: [addressType(family), addressType(family)],
      elements: pods.sort().map((pod) => ({ concat: [pod, pod] })),
    }),
  ];
}

function ofFamily(hostPorts: readonly HostPort[], family: Family): readonly HostPort[] {
  return hostPorts.filter(({ podAddress }) => podAddress.family === family);
}

/** The last one of each key, in the order of the keys, so that the same ports are the same text. */
function latest(hostPorts: readonly HostPort[]): ReadonlyMap<string, HostPort> {
  const byKey = new Map(hostPorts.map((port) => [keyOf(port).join(), port]));
  return new Map([...byKey].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function keyOf({ hostAddress, protocol, hostPort }: HostPort): readonly (string | number)[] {
  return [...(hostAddress === undefined ? [] : [formatAddress(hostAddress)]), protocol, hostPort];
}

function translate(family: Family, name: string, key: readonly unknown[]): NftCommand {
  const look = (map: string) => ({ map: { key: { concat: key }, data: set(map, family) } });
  return { dnat: { family: PROTOCOL[family], addr: look(name), port: look(`${name}_target`) } };
}

function addMap(
  name: string,
  family: Family,
  definition: NftCommand,
  elements: readonly unknown[],
): NftCommand {
  const elem = elements.length === 0 ? {} : { elem: elements };
  return {
    add: {
      map: { family: 'inet', table: FILTER_TABLE, name: setName(name, family), ...definition, ...elem },
    },
  };
}
