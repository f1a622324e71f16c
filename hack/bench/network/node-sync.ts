import { setTimeout as sleep } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import { IPPool, NodeSubnet } from '../../../src/api/index.ts';
import { startNodeSync, type NodeSources } from '../../../src/agent/sync.ts';
import {
  createCommandRunner,
  findSysctlRoot,
  getLink,
  openNetlinkSocket,
  openNftablesSocket,
  openOwnNamespace,
  routeTo,
  type NetlinkSocket,
} from '../../../src/kernel/index.ts';
import { VXLAN_LINK } from '../../../src/dataplane/index.ts';
import { firstAddress, parseAddress } from '../../../src/net/index.ts';

/**
 * A node's routes and filters by the real code, in the network namespace that this process was started in: sets up
 * what the objects on stdin say, then changes to each further set of them, and prints how long each took in
 * milliseconds, one JSON array. With `stay` it goes on repairing until it is killed.
 */
export interface NodeObjects {
  readonly node: { readonly name: string; readonly uid: string; readonly addresses: readonly string[] };
  readonly pools: readonly unknown[];
  /** One list after the other. */
  readonly subnets: readonly (readonly unknown[])[];
}

/** As in an informer's cache: an object that has not changed is the same one. */
const parsed = new Map<string, NodeSubnet>();
function parsedOnce(subnet: unknown): NodeSubnet {
  const text = JSON.stringify(subnet);
  const known = parsed.get(text) ?? NodeSubnet.parse(subnet);
  parsed.set(text, known);
  return known;
}

/** What one change leaves to be done in the background is not measured with the next. */
const REST_MS = 1500;

if (import.meta.main) await main(process.argv.includes('stay'));

async function main(stays: boolean): Promise<void> {
  const objects = JSON.parse(await text(process.stdin)) as NodeObjects;
  const node = { ...objects.node, addresses: objects.node.addresses.map(parseAddress) };
  const pools = objects.pools.map((pool) => IPPool.parse(pool));
  const [first = [], ...changes] = objects.subnets.map((list) => list.map(parsedOnce));
  let sources: NodeSources = { node, pools, subnets: first, dnsServers: [] };
  const [host, nftables] = [openNetlinkSocket(), openNftablesSocket()];
  const silent = () => undefined;
  const failed = (facts: object, message: string) => {
    process.stderr.write(`${message} ${JSON.stringify(facts)}\n`);
  };
  const clock = {
    nowMs: () => performance.now(),
    wallTime: () => new Date(),
    sleep: (ms: number, signal?: AbortSignal) => sleep(ms, undefined, signal === undefined ? {} : { signal }),
  };
  const beganMs = performance.now();
  const changedSets = countedTransactions(nftables);
  const sync = startNodeSync({
    ...{ host, nftables, ownPorts: () => new Set([host.portId]), ownNamespace: openOwnNamespace() },
    ...{ podNamespaces: () => [], run: createCommandRunner(), pools: () => pools },
    ...{ sysctlRoot: findSysctlRoot(), sources: () => sources, clock, random: Math.random },
    config: { vni: 4097, port: 4789, natExempt: [] },
    ...{
      beforeRemovingSubnetRoute: () => 'remove',
      onDrift: silent,
      onForeignDrop: silent,
      onUnmet: silent,
      onBroken: silent,
    },
    settings: { syncMs: 30_000 },
    log: { info: silent, warn: failed, error: failed },
  });
  const upToDate = () => sync.upToDate(AbortSignal.timeout(120_000));
  await upToDate();
  const durationsMs = [performance.now() - beganMs];
  for (const subnets of changes) {
    await sleep(REST_MS);
    const isChanged = routesChanged(host, sources.subnets, subnets);
    sources = { node, pools, subnets, dnsServers: [] };
    const before = changedSets();
    const changedMs = performance.now();
    sync.wake();
    // Each node has a place in the routes and in the filters.
    while (!isChanged() || changedSets() === before) await sleep(1);
    durationsMs.push(performance.now() - changedMs);
  }
  process.stdout.write(`${JSON.stringify(durationsMs)}\n`);
  if (!stays) await sync.stop();
}

/** Counts the transactions of nf_tables that the kernel has carried out by this socket. */
function countedTransactions(nftables: NetlinkSocket): () => number {
  let ended = 0;
  const execute = nftables.executeAsOne.bind(nftables);
  nftables.executeAsOne = (...transaction) => {
    execute(...transaction);
    ended++;
  };
  return () => ended;
}

/** Whether the kernel sends into the tunnel to who has come, and not to who has gone. */
function routesChanged(
  host: NetlinkSocket,
  before: readonly NodeSubnet[],
  now: readonly NodeSubnet[],
): () => boolean {
  const tunnel = getLink(host, { name: VXLAN_LINK })?.index;
  const [had, has] = [new Set(before), new Set(now)];
  const leads = ({ spec }: NodeSubnet) => routeTo(host, firstAddress(spec.cidr))?.oif === tunnel;
  const come = now.filter((subnet) => !had.has(subnet));
  const gone = before.filter((subnet) => !has.has(subnet));
  return () => come.every(leads) && !gone.some(leads);
}
