import {
  diffAddresses,
  diffFdb,
  diffNeighbours,
  diffRoutes,
  NODE_ROUTE_PROTOCOL,
  VXLAN_LINK,
  type AddressFacts,
  type NodeRoute,
  type NodeState,
  type VxlanDevice,
} from '../dataplane/index.ts';
import {
  addAddressRequest,
  applyRoutes,
  changeLinkRequest,
  createVxlan,
  deleteAddress,
  deleteFdbEntry,
  deleteLink,
  deleteNeighbour,
  describeRoute,
  getLink,
  linkUpRequest,
  listAddresses,
  listFdb,
  listLinks,
  listNeighbours,
  listRoutes,
  replaceFdbRequest,
  replaceNeighbourRequest,
  type Link,
  type NetlinkSocket,
  type Route,
} from '../kernel/index.ts';
import {
  ADDRESS_BITS,
  firstAddress,
  formatAddress,
  formatCIDR,
  hostCIDR,
  sameAddress,
  sameCIDR,
  type CIDR,
  type IPAddress,
} from '../net/index.ts';
import { markedSubnets } from './marked-routes.ts';

/** One thing that was put into the kernel, or taken out of it. */
export interface Change {
  readonly action: 'set' | 'removed';
  /** Names the object: `route 10.0.0.0/26 via 192.0.2.2 dev eth0 …`. */
  readonly object: string;
}

/** What came of one comparison. */
export interface Applied {
  readonly changes: readonly Change[];
  /** All objects that are as desired now, by the names that changes use. */
  readonly present: ReadonlySet<string>;
  /** Why the device or the node's own addresses are not as desired: without them nothing works as it should. */
  readonly errors: readonly Error[];
  /** What the kernel refused of single peers; all else has been applied. */
  readonly refused: readonly Error[];
}

export interface NodeStateOptions {
  /**
   * Asked before the `unreachable` route of a subnet goes that no NodeSubnet names any more: it is the last trace
   * of one that a restored etcd has forgotten (design, section 5).
   */
  readonly beforeRemovingSubnetRoute: (cidr: CIDR) => Promise<'keep' | 'remove'> | 'keep' | 'remove';
  /**
   * Runs when all that is desired is there and what is not has not gone yet. Pods' routes move to another source
   * here: with an IPv4 address the kernel takes away the routes that prefer it.
   */
  readonly beforeRemovals: () => void;
  /** The device that nothing asks for any more stays for now: other nodes may not know yet, and send through it. */
  readonly keepDevice: boolean;
}

/**
 * Makes links, addresses, neighbours, forwarding entries and routes of the kernel equal to the state, and touches
 * nothing that is not marked as ours: the device's own entries, and routes of our protocol number. What
 * others need comes first and what is no longer needed goes last, so nothing that stays is ever missing.
 */
export async function applyNodeState(
  host: NetlinkSocket,
  state: NodeState,
  options: NodeStateOptions,
): Promise<Applied> {
  const recorder = createRecorder();
  const marked = markedSubnets(host);
  const keep = [...state.undecided, ...(await keptSubnets(marked, state, recorder, options))];
  const vxlan = recorder.need(() => applyVxlan(host, state.vxlan, { options, recorder }));
  const links = new Map(listLinks(host).map((link) => [link.name, link.index]));
  const names = new Map([...links].map(([name, index]) => [index, name]));

  const dropAddresses = recorder.need(() => applyAddresses(host, state, { links, marked, keep, recorder }));
  const dropPeers = vxlan === undefined ? undefined : applyPeers(host, state, vxlan.index, recorder);
  const dropMarks = await applyNodeRoutes(host, state, { links, names, keep, recorder });
  recorder.attempt(options.beforeRemovals);
  recorder.attempt(() => dropPeers?.());
  recorder.attempt(() => dropAddresses?.());
  // By the marks the next process knows what of ours may be left, if this one ends here.
  await dropMarks();
  if (state.vxlan === undefined && !options.keepDevice) recorder.need(() => dropVxlan(host, recorder));
  return recorder.outcome();
}

interface Recorder {
  changed(action: Change['action'], object: string): void;
  present(object: string): void;
  /** Runs what all depends on; what it throws is kept, and undefined returned. */
  need<T>(work: () => T): T | undefined;
  /** Runs what is one of many; what it throws is kept, and undefined returned. */
  attempt<T>(work: () => T): T | undefined;
  refused(error: unknown): void;
  outcome(): Applied;
}

function createRecorder(): Recorder {
  const changes: Change[] = [];
  const present = new Set<string>();
  const errors: Error[] = [];
  const refused: Error[] = [];
  const keepIn = (list: Error[]) => (error: unknown) =>
    void list.push(error instanceof Error ? error : new Error(String(error)));
  return {
    changed: (action, object) => void changes.push({ action, object }),
    present: (object) => void present.add(object),
    need: catching(keepIn(errors)),
    attempt: catching(keepIn(refused)),
    refused: keepIn(refused),
    outcome: () => ({ changes, present, errors, refused }),
  };
}

function catching(keep: (error: unknown) => void): <T>(work: () => T) => T | undefined {
  return (work) => {
    try {
      return work();
    } catch (error) {
      keep(error);
      return undefined;
    }
  };
}

async function keptSubnets(
  marked: readonly CIDR[],
  state: NodeState,
  recorder: Recorder,
  { beforeRemovingSubnetRoute }: NodeStateOptions,
): Promise<CIDR[]> {
  const kept: CIDR[] = [];
  for (const cidr of marked) {
    const desired = state.routes.some(
      ({ destination, target }) => target.kind === 'unreachable' && sameCIDR(destination, cidr),
    );
    if (desired || state.undecided.some((subnet) => sameCIDR(subnet, cidr))) continue;
    try {
      if ((await beforeRemovingSubnetRoute(cidr)) === 'keep') kept.push(cidr);
    } catch (error) {
      recorder.refused(error);
      kept.push(cidr);
    }
  }
  return kept;
}

/**
 * The device as desired, up; undefined if none is. One that cannot be changed into it is made anew; one that nothing
 * asks for stays at least until what it carried has its new place.
 */
function applyVxlan(
  host: NetlinkSocket,
  desired: VxlanDevice | undefined,
  { options, recorder }: { options: NodeStateOptions; recorder: Recorder },
): Link | undefined {
  const object = `link ${VXLAN_LINK}`;
  let link = getLink(host, { name: VXLAN_LINK });
  if (desired === undefined) {
    if (link?.kind !== 'vxlan' || !options.keepDevice) return undefined;
    recorder.present(object);
    return link;
  }
  if (link !== undefined && link.kind !== 'vxlan') throw new ForeignLinkError(link);
  if (link !== undefined && !isSameTunnel(link, desired)) {
    deleteLink(host, link.index);
    recorder.changed('removed', object);
    link = undefined;
  }
  const asDesired = `${object}, MTU ${desired.mtu}, MAC ${desired.mac}`;
  if (link === undefined) {
    createVxlan(host, desired);
    recorder.changed('set', asDesired);
    link = getLink(host, { name: VXLAN_LINK });
    if (link === undefined) throw new Error(`${object} vanished right after its creation`);
  }
  const change = {
    ...(link.mac === desired.mac ? {} : { mac: desired.mac }),
    ...(link.mtu === desired.mtu ? {} : { mtu: desired.mtu }),
  };
  const requests = [
    ...(Object.keys(change).length === 0 ? [] : [changeLinkRequest(link.index, change)]),
    ...(link.up ? [] : [linkUpRequest(link.index)]),
  ];
  if (requests.length > 0) {
    host.execute(requests);
    recorder.changed('set', asDesired);
  }
  recorder.present(object);
  recorder.present(asDesired);
  return link;
}

/** Another's device of that name is no harm where none is asked for. */
function dropVxlan(host: NetlinkSocket, recorder: Recorder): void {
  const link = getLink(host, { name: VXLAN_LINK });
  if (link?.kind !== 'vxlan') return;
  if (deleteLink(host, link.index)) recorder.changed('removed', `link ${VXLAN_LINK}`);
}

/** Another's link has the name of our VXLAN device. */
export class ForeignLinkError extends Error {
  override name = 'ForeignLinkError' as const;
  readonly linkName: string;

  constructor(link: Link) {
    super(
      `the link "${link.name}" is ${link.kind ?? 'no virtual device'} and not weft's VXLAN device: ` +
        `rename or remove it, so that pods behind other links can be reached`,
    );
    this.linkName = link.name;
  }
}

/** Whether it is that tunnel, whatever its MAC and MTU: those can be changed. */
export function isSameTunnel({ vxlan }: Link, desired: VxlanDevice): boolean {
  return (
    vxlan?.vni === desired.vni &&
    vxlan.port === desired.port &&
    vxlan.local !== undefined &&
    sameAddress(vxlan.local, desired.local) &&
    !vxlan.learning &&
    vxlan.device === undefined
  );
}

/** Adds the node's own addresses; returns what removes those of ours that nothing asks for. */
function applyAddresses(
  host: NetlinkSocket,
  state: NodeState,
  {
    links,
    marked,
    keep,
    recorder,
  }: {
    links: ReadonlyMap<string, number>;
    marked: readonly CIDR[];
    keep: readonly CIDR[];
    recorder: Recorder;
  },
): () => void {
  const listed = listAddresses(host);
  const drops: (() => void)[] = [];
  for (const name of OWN_ADDRESS_LINKS) {
    const linkIndex = links.get(name);
    const desired = state.addresses.filter(({ link }) => link === name).map(({ address }) => address);
    if (linkIndex === undefined) continue;
    const here = ownAmong(
      listed.filter((item) => item.linkIndex === linkIndex),
      { name, marked, desired },
    );
    const { add, remove } = diffAddresses(desired, here, keep.map(ownPart));
    setEach(
      recorder,
      desired.map((address) => addressText(hostCIDR(address), name)),
      add.map(({ address, prefixLength }) => ({
        object: addressText({ ...hostCIDR(address), prefixLength }, name),
        work: () => host.execute([addAddressRequest({ linkIndex, address, prefixLength })]),
      })),
    );
    drops.push(
      ...remove.map(({ address, prefixLength }) => () => {
        if (!deleteAddress(host, { linkIndex, address, prefixLength })) return;
        recorder.changed('removed', addressText({ ...hostCIDR(address), prefixLength }, name));
      }),
    );
  }
  return () => drops.forEach((drop) => recorder.attempt(drop));
}

/** Where the node's own addresses may be. */
export const OWN_ADDRESS_LINKS: readonly string[] = [VXLAN_LINK, 'lo'];

/**
 * Those of a link's addresses that are ours. On our own device all are. Another link has addresses of others: ours
 * are those that are asked for there, and the node's own in a subnet that has our mark.
 */
export function ownAmong<Listed extends AddressFacts>(
  listed: readonly Listed[],
  {
    name,
    marked,
    desired,
  }: { readonly name: string; readonly marked: readonly CIDR[]; readonly desired: readonly IPAddress[] },
): Listed[] {
  if (name === VXLAN_LINK) return [...listed];
  const own = [...desired, ...marked.map(firstAddress)].map(formatAddress);
  const ours = new Set(own);
  return listed.filter(
    ({ address, prefixLength }) =>
      prefixLength === ADDRESS_BITS[address.family] && ours.has(formatAddress(address)),
  );
}

/** Of a subnet the one address that may be the node's own. */
export function ownPart(cidr: CIDR): CIDR {
  return cidr.prefixLength === ADDRESS_BITS[cidr.family] ? cidr : hostCIDR(firstAddress(cidr));
}

/** Sets neighbours and forwarding entries; returns what removes those that nothing asks for. */
function applyPeers(
  host: NetlinkSocket,
  state: NodeState,
  linkIndex: number,
  recorder: Recorder,
): () => void {
  const neighbours = diffNeighbours(state.neighbours, listNeighbours(host, { linkIndex }));
  const forwarding = diffFdb(state.forwarding, listFdb(host, linkIndex));
  const additions = [
    ...neighbours.add.map((entry) => ({
      object: neighbourText(entry),
      request: replaceNeighbourRequest({ linkIndex, ...entry }),
    })),
    ...forwarding.add.map((entry) => ({
      object: forwardingText(entry),
      request: replaceFdbRequest({ linkIndex, ...entry }),
    })),
  ];
  for (const object of [...state.neighbours.map(neighbourText), ...state.forwarding.map(forwardingText)]) {
    recorder.present(object);
  }
  const outcomes = host.transact(additions.map(({ request }) => request));
  additions.forEach(({ object }, i) => {
    const refusal = outcomes[i];
    if (refusal === undefined) recorder.changed('set', object);
    else recorder.refused(refusal);
  });
  return () => {
    for (const entry of neighbours.remove) {
      recorder.attempt(() => {
        if (deleteNeighbour(host, { linkIndex, address: entry.address })) {
          recorder.changed('removed', neighbourText(entry));
        }
      });
    }
    for (const entry of forwarding.remove) {
      recorder.attempt(() => {
        if (deleteFdbEntry(host, entry)) recorder.changed('removed', forwardingText(entry));
      });
    }
  };
}

/**
 * Sets routes and removes those that nothing asks for; returns what removes the marks of subnets that are no longer
 * this node's.
 */
async function applyNodeRoutes(
  host: NetlinkSocket,
  state: NodeState,
  {
    links,
    names,
    keep,
    recorder,
  }: {
    links: ReadonlyMap<string, number>;
    names: ReadonlyMap<number, string>;
    keep: readonly CIDR[];
    recorder: Recorder;
  },
): Promise<() => Promise<void>> {
  const text = (route: Route) => routeText(route, names);
  const desired = state.routes.flatMap((route) => {
    const resolved = recorder.attempt(() => resolveRoute(route, links));
    return resolved === undefined ? [] : [resolved];
  });
  const { add, remove } = diffRoutes(desired, listRoutes(host, { protocol: NODE_ROUTE_PROTOCOL }), keep);
  for (const route of desired) recorder.present(text(route));
  const apply = async (change: { readonly add: readonly Route[]; readonly remove: readonly Route[] }) => {
    try {
      await applyRoutes(host, change);
    } catch (error) {
      // Which of them took effect, the next comparison tells.
      recorder.refused(error);
      return;
    }
    for (const route of change.add) recorder.changed('set', text(route));
    for (const route of change.remove) recorder.changed('removed', text(route));
  };
  await apply({ add, remove: remove.filter(({ type }) => type !== 'unreachable') });
  return () => apply({ add: [], remove: remove.filter(({ type }) => type === 'unreachable') });
}

/** How changes and differences name a route. */
export function routeText(route: Route, linkNames: ReadonlyMap<number, string>): string {
  const link = route.oif === undefined ? '' : ` dev ${linkNames.get(route.oif) ?? route.oif}`;
  return `route ${describeRoute({ ...route, oif: undefined })}${link}`;
}

export function addressText({ family, first, prefixLength }: CIDR, linkName: string): string {
  return `address ${formatAddress({ family, value: first })}/${prefixLength} on ${linkName}`;
}

export function neighbourText(entry: {
  readonly address: IPAddress;
  readonly mac: string | undefined;
}): string {
  return `neighbour ${formatAddress(entry.address)} ${entry.mac} on ${VXLAN_LINK}`;
}

export function forwardingText({ mac, destination }: NodeState['forwarding'][number]): string {
  return `FDB entry ${mac} behind ${formatAddress(destination)} on ${VXLAN_LINK}`;
}

/** The route with its link by index. @throws MissingLinkError */
export function resolveRoute(route: NodeRoute, links: ReadonlyMap<string, number>): Route {
  const { destination: dst, metric, preferredSource: prefSrc, target } = route;
  const common = { dst, metric, prefSrc, protocol: NODE_ROUTE_PROTOCOL };
  if (target.kind === 'unreachable') return { ...common, type: 'unreachable' };
  const oif = links.get(target.link);
  if (oif === undefined) throw new MissingLinkError(target.link, dst);
  return { ...common, type: 'unicast', via: target.gateway, oif, onlink: target.onlink };
}

/** A route leads over a link that is not there. */
export class MissingLinkError extends Error {
  override name = 'MissingLinkError' as const;
  readonly linkName: string;

  constructor(linkName: string, destination: CIDR) {
    super(`no route to ${formatCIDR(destination)}: there is no link "${linkName}"`);
    this.linkName = linkName;
  }
}

/** Notes all as present, and does what is missing, each by itself. */
function setEach(
  recorder: Recorder,
  all: readonly string[],
  missing: readonly { readonly object: string; readonly work: () => void }[],
): void {
  all.forEach((object) => recorder.present(object));
  for (const { object, work } of missing) {
    recorder.need(() => {
      work();
      recorder.changed('set', object);
    });
  }
}
