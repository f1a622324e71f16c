import type { Clock } from '../ipam/index.ts';
import { cidrHasAddress, FAMILIES, parseCIDR, type IPAddress } from '../net/index.ts';
import { VXLAN_LINK } from '../dataplane/index.ts';
import {
  DYING_LINK_PREFIX,
  FIXED_MTU_LINK_GROUP,
  HOST_LINK_MAC,
  HOST_LINK_PREFIX,
  parseAlias,
  ROUTE_PROTOCOL,
  watchNftables,
  watchRtnetlink,
  type FdbEntry,
  type KernelEvent,
  type Link,
  type Neighbour,
  type Notifications,
} from '../kernel/index.ts';
import type { AgentParts } from './parts.ts';
import type { Scope } from './schedule.ts';

export interface KernelWatchOptions {
  /** Of our sockets for rtnetlink, and for nf_tables: what we do by these is no news. */
  readonly ownPorts: () => ReadonlySet<number>;
  readonly ownNftablesPort: number;
  readonly asked: Asked;
  /** Someone touched what may be ours; where events were lost, everything. */
  readonly onTouched: (what: Scope) => void;
  readonly clock: Clock;
  readonly log: AgentParts['log'];
}

/**
 * What this node asks for, as far as the last comparison knows. Of forwarding entries and of neighbours that go the kernel
 * does not say by whom: what is now as it should be is no news, nor is it who is asked for no more on the node's own links.
 */
export interface Asked {
  /** Whether it is our device: others have VXLAN devices too. */
  isTunnel(linkIndex: number): boolean;
  hasForwarding(entry: FdbEntry): boolean;
  /** Of the link of a pod with these addresses, bytes; undefined while that is not known. */
  podMTU(addresses: readonly IPAddress[]): number | undefined;
  hasNeighbour(neighbour: Neighbour): boolean;
}

/**
 * Tells when someone else changes links, routes, neighbours or filters of this namespace. A watch that breaks
 * is begun anew, and what it missed is made up for by comparing everything.
 */
export function watchKernel(options: KernelWatchOptions): { close(): Promise<void> } {
  const closing = new AbortController();
  const ownNftables = new Set([options.ownNftablesPort]);
  const onEvents = (events: readonly KernelEvent[]) => {
    for (const event of events) {
      const what = touchedBy(event, options.asked);
      if (what !== undefined) options.onTouched(what);
    }
  };
  const watches = [
    keepWatching(() => watchRtnetlink({ onEvents, ownPorts: options.ownPorts }), closing.signal, options),
    keepWatching(() => watchNftables({ onEvents, ownPorts: () => ownNftables }), closing.signal, options),
  ];
  return {
    async close() {
      closing.abort();
      await Promise.all(watches);
    },
  };
}

/** What of ours the event may be about; undefined: nothing. Own doings converge, so a doubt costs one comparison. */
export function touchedBy(event: KernelEvent, asked: Asked): Scope | undefined {
  switch (event.kind) {
    case 'link':
      return isTellingLink(event, asked) ? 'links' : undefined;
    case 'address':
      return cidrHasAddress(LINK_LOCAL, event.address.address) ? undefined : 'links';
    case 'route':
      return OUR_PROTOCOLS.has(event.route.protocol) ? 'links' : undefined;
    case 'neighbour':
      // What goes has lost its state, and its MAC too.
      return (event.removed ? asked.hasNeighbour(event.neighbour) : event.neighbour.permanent)
        ? 'links'
        : undefined;
    case 'fdb':
      return asked.isTunnel(event.entry.linkIndex) && event.removed === asked.hasForwarding(event.entry)
        ? 'links'
        : undefined;
    case 'nft':
      return 'filters';
    case 'overrun':
      return 'all';
  }
}

const OUR_PROTOCOLS: ReadonlySet<number> = new Set([ROUTE_PROTOCOL.weftNode, ROUTE_PROTOCOL.weftPod]);
const LINK_LOCAL = parseCIDR('fe80::/10');
const RESTART_MS = 1000;

/**
 * Our device, and uplinks, whose MTU may change. Links of pods come and go by our own hand, which a link's event
 * does not say; of them only a complete one that is not as it should be is news.
 */
function isTellingLink({ link, removed }: Extract<KernelEvent, { kind: 'link' }>, asked: Asked): boolean {
  if (link.name === VXLAN_LINK) return true;
  if (removed || link.name.startsWith(DYING_LINK_PREFIX)) return false;
  return link.name.startsWith(HOST_LINK_PREFIX) ? isChangedPodLink(link, asked) : true;
}

function isChangedPodLink(link: Link, { podMTU }: Asked): boolean {
  const attachment = parseAlias(link.alias);
  if (attachment === undefined) return false;
  if (!link.up || link.mac !== HOST_LINK_MAC) return true;
  const mtu = podMTU(FAMILIES.flatMap((family) => attachment.addresses[family] ?? []));
  return link.group !== FIXED_MTU_LINK_GROUP && mtu !== undefined && link.mtu !== mtu;
}

async function keepWatching(
  start: () => Notifications,
  closing: AbortSignal,
  { clock, log, onTouched }: KernelWatchOptions,
): Promise<void> {
  while (!closing.aborted) {
    try {
      const watch = start();
      closing.addEventListener('abort', () => void watch.close().catch(() => undefined), { once: true });
      await watch.done;
    } catch (error) {
      log.error({ err: error }, 'the watch of kernel notifications broke and is begun anew');
    }
    if (closing.aborted) return;
    onTouched('all');
    // Rejects when closing: the loop's condition says the same.
    await clock.sleep(RESTART_MS, closing).catch(() => undefined);
  }
}
