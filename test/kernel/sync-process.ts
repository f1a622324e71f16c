import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { NodeNotSetUpError, startNodeSync, type NodeSources } from '../../src/agent/sync.ts';
import {
  CommandError,
  createCommandRunner,
  findSysctlRoot,
  openNetlinkSocket,
  openNftablesSocket,
  openOwnNamespace,
} from '../../src/kernel/index.ts';
import { podNamespacePaths } from '../../src/agent/pod-namespaces.ts';
import { formatCIDR, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { pool, subnet } from '../dataplane/objects.ts';

/**
 * A node's sync alone, as a process that can be killed, in whatever network namespace it was started in. It obeys
 * lines of JSON and answers with lines of JSON.
 */
export type Command =
  | { readonly op: 'sources'; readonly sources: Sources }
  | { readonly op: 'upToDate' | 'isolationInForce'; readonly id: number }
  | { readonly op: 'status'; readonly id: number }
  /** What comes of the listings of filters from now on; those that are held go on. */
  | { readonly op: 'listings'; readonly are: Listings };

/** On a busy machine they take long; without the program they fail. */
export type Listings = 'done' | 'held' | 'failing';

/** The objects, in the words of test/dataplane/objects.ts. */
export interface Sources {
  readonly node: { readonly name: string; readonly uid: string; readonly addresses: readonly string[] };
  readonly pools: readonly Readonly<Parameters<typeof pool>>[];
  readonly subnets: readonly Readonly<Parameters<typeof subnet>>[];
  /** Where DNS is served, by UDP and TCP at port 53. */
  readonly dnsServers?: readonly string[];
}

export type Report =
  | { readonly kind: 'drift'; readonly objects: readonly string[] }
  | { readonly kind: 'removal'; readonly cidr: string }
  | { readonly kind: 'foreignDrop'; readonly chains: readonly string[] }
  | { readonly kind: 'broken'; readonly forMs: number; readonly reason: string }
  | { readonly kind: 'unmet'; readonly notes: readonly string[]; readonly refused: readonly string[] }
  | { readonly kind: 'log'; readonly level: string; readonly message: string }
  /** `dumps`: how often routes, addresses, neighbours or forwarding entries have been listed so far. */
  | { readonly kind: 'upToDate'; readonly id: number; readonly dumps: number }
  /** Filters are to be listed, and wait. */
  | { readonly kind: 'listingHeld' }
  | { readonly kind: 'isolationInForce'; readonly id: number; readonly error: string | undefined }
  | {
      readonly kind: 'status';
      readonly id: number;
      readonly reason: string | undefined;
      readonly podMTU: number | undefined;
      /** What kernelDifferences says. */
      readonly differences: readonly string[];
    };

const NAT_EXEMPT = '--nat-exempt=';
const [exempt, kept] = [true, false].map((is) =>
  process.argv.slice(2).filter((word) => word.startsWith(NAT_EXEMPT) === is),
);
const keep = new Set(kept);
const natExempt = exempt?.map((word) => parseCIDR(word.slice(NAT_EXEMPT.length))) ?? [];
const host = openNetlinkSocket();
let sources: NodeSources | undefined;
const subnetsByText = new Map<string, NodeSources['subnets'][number]>();
let dumps = 0;
/** Pods' links tell what filters they ask for. */
const GETLINK = 18;
const dump = host.dump.bind(host);
host.dump = (request, parseItem) => {
  if (request.type !== GETLINK) dumps++;
  return dump(request, parseItem);
};

const run = createCommandRunner();
let listings: Listings = 'done';
let held: PromiseWithResolvers<void> | undefined;

async function runHeld(...command: Parameters<typeof run>): Promise<string> {
  if (command[1].includes('list')) {
    if (listings === 'failing') throw new CommandError('nft list', 1, 'as the test says', '', undefined);
    if (held !== undefined) {
      report({ kind: 'listingHeld' });
      await held.promise;
    }
  }
  return run(...command);
}

const sync = startNodeSync({
  host,
  nftables: openNftablesSocket(),
  ownPorts: () => new Set([host.portId]),
  ownNamespace: openOwnNamespace(),
  podNamespaces: () => podNamespacePaths([]),
  run: runHeld,
  sysctlRoot: findSysctlRoot(),
  sources: () => sources,
  pools: () => sources?.pools ?? [],
  config: { vni: 4097, port: 4789, natExempt },
  beforeRemovingSubnetRoute: (cidr) => {
    report({ kind: 'removal', cidr: formatCIDR(cidr) });
    return keep.has(formatCIDR(cidr)) ? 'keep' : 'remove';
  },
  onDrift: (objects) => report({ kind: 'drift', objects }),
  onForeignDrop: (chains) => report({ kind: 'foreignDrop', chains }),
  onBroken: (forMs, reason) => report({ kind: 'broken', forMs, reason }),
  onUnmet: ({ notes, refused }) => report({ kind: 'unmet', notes, refused }),
  settings: { syncMs: 30_000 },
  clock: {
    nowMs: () => performance.now(),
    wallTime: () => new Date(),
    sleep: (ms, signal) => sleep(ms, undefined, signal === undefined ? {} : { signal }),
  },
  random: Math.random,
  log: {
    info: (_, message) => report({ kind: 'log', level: 'info', message }),
    warn: (facts, message) =>
      report({ kind: 'log', level: 'warn', message: message + JSON.stringify(facts) }),
    error: (_, message) => report({ kind: 'log', level: 'error', message }),
  },
});

for await (const line of createInterface({ input: process.stdin })) obey(JSON.parse(line) as Command);
await sync.stop();

function obey(command: Command): void {
  switch (command.op) {
    case 'sources':
      sources = parse(command.sources);
      sync.wake();
      return;
    case 'upToDate':
      void sync
        .upToDate(AbortSignal.timeout(60_000))
        .then(() => report({ kind: 'upToDate', id: command.id, dumps }));
      return;
    case 'isolationInForce':
      void sync.isolationInForce(AbortSignal.timeout(60_000)).then(
        () => report({ kind: 'isolationInForce', id: command.id, error: undefined }),
        (error: unknown) => report({ kind: 'isolationInForce', id: command.id, error: String(error) }),
      );
      return;
    case 'status':
      void status(command.id);
      return;
    case 'listings':
      listings = command.are;
      held?.resolve();
      held = listings === 'held' ? Promise.withResolvers() : undefined;
  }
}

async function status(id: number): Promise<void> {
  const { missing, extra } = await sync.differences().catch((error: unknown) => {
    if (error instanceof NodeNotSetUpError) return { missing: [], extra: [], diverting: [] };
    throw error;
  });
  const differences = [...missing.map((one) => `missing ${one}`), ...extra.map((one) => `extra ${one}`)];
  report({ kind: 'status', id, reason: sync.broken()?.reason, podMTU: podMTU(), differences });
}

/** Undefined until the first comparison. */
function podMTU(): number | undefined {
  try {
    return sync.podMTU([]);
  } catch (error) {
    if (error instanceof NodeNotSetUpError) return undefined;
    throw error;
  }
}

function parse({ node, pools, subnets, dnsServers = [] }: Sources): NodeSources {
  return {
    node: { ...node, addresses: node.addresses.map(parseAddress) },
    pools: pools.map((parameters) => pool(...parameters)),
    subnets: subnets.map(sameSubnet),
    dnsServers: dnsServers
      .map(parseAddress)
      .flatMap((address) => (['udp', 'tcp'] as const).map((protocol) => ({ address, protocol, port: 53 }))),
  };
}

/** As in an informer's cache: an object that has not changed is the same one. */
function sameSubnet(parameters: Sources['subnets'][number]): NodeSources['subnets'][number] {
  const text = JSON.stringify(parameters);
  const known = subnetsByText.get(text) ?? subnet(...parameters);
  subnetsByText.set(text, known);
  return known;
}

function report(message: Report): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}
