import { allocationsOf } from '../../src/agent/attachments.ts';
import { watchObjects } from '../../src/agent/caches.ts';
import { claimFor } from '../../src/agent/claim.ts';
import { createFindClaimer } from '../../src/agent/claimers.ts';
import { createNodeSubnets } from '../../src/agent/node-subnets.ts';
import { reuseDelayMs } from '../../src/agent/parts.ts';
import { whenChanged } from '../../src/agent/when-changed.ts';
import { createWiredAddresses } from '../../src/agent/wired-addresses.ts';
import { allocationName, type IPAllocation, type IPAllocationSpec } from '../../src/api/index.ts';
import {
  createAttachmentLocks,
  createReleaseQueue,
  createRingCursor,
  createTakenNames,
  EMPTY_SWEEP_MEMORY,
  isResting,
  judgeSweep,
  ownSubnets,
  poolOfAddress,
  SupersededError,
  type AttachmentKey,
  type Clock,
  type Random,
} from '../../src/ipam/index.ts';
import {
  allocationStore,
  getNamespace,
  getPod,
  nodeSubnetStore,
  poolStore,
  type KubeClient,
  type Log,
} from '../../src/kube/index.ts';
import { formatAddress, sameAddress, type Family, type IPAddress } from '../../src/net/index.ts';
import type { Settings } from '../../src/settings.ts';
import type { Machine } from './machine.ts';

/**
 * An agent whose kernel is a Machine. What decides, claims and releases is the real agent's own code; what drives the
 * kernel (ADD, DEL, the sweep's last look) follows it here step by step.
 */
export interface SimulatedAgent {
  /** Resolves when it serves. */
  readonly serving: Promise<void>;
  /** The addresses of the attachment, as ADD answers them. */
  add(key: AttachmentKey): Promise<string[]>;
  del(key: AttachmentKey): Promise<void>;
  /** Resolves when every release asked for is known to the apiserver. */
  released(): Promise<void>;
  /** Ends it at once, in the middle of whatever it does. */
  kill(): void;
}

export interface SimulatedAgentParts {
  readonly machine: Machine;
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly settings: Settings;
  /** After a 410 each informer waits up to this long. Default 60 s. */
  readonly relistJitterMs?: number;
}

const NETWORK = 'weft';

export function startSimulatedAgent(parts: SimulatedAgentParts): SimulatedAgent {
  const { machine, client, clock, random, log, settings } = parts;
  const { nodeName } = machine;
  const end = new AbortController();
  const { signal } = end;
  const caches = watchObjects(
    {
      client,
      clock,
      random,
      log,
      ...(parts.relistJitterMs === undefined ? {} : { relistJitterMs: parts.relistJitterMs }),
    },
    nodeName,
  );
  const stores = {
    allocations: allocationStore(client, caches.allocations.feed),
    subnets: nodeSubnetStore(client, caches.subnets),
    pools: poolStore(client, caches.pools),
  };
  const inFlight = new Set<string>();
  const cursor = createRingCursor();
  const wired = createWiredAddresses();
  const locks = createAttachmentLocks();
  const delayOf = (pool: string) => reuseDelayMs(caches.pools.list(), pool);
  const releases = createReleaseQueue({
    store: stores.allocations,
    clock,
    random,
    inFlight,
    reuseDelayMs: delayOf,
  });
  const nodeSubnets = createNodeSubnets({
    stores,
    pools: caches.pools.list,
    subnets: caches.subnets.list,
    node: caches.node,
    waitDelivered: caches.subnets.waitDelivered,
    inForce: () => {
      const { name, uid } = caches.node();
      const own = ownSubnets(caches.subnets.list(), name, uid);
      doIfAlive(() => machine.routes(own.map(({ spec }) => spec.cidr)));
      return Promise.resolve();
    },
    allocations: caches.allocations,
    inFlight,
    wired,
    waiting: () => [],
    cursor,
    hasMarkedRoute: machine.hasMarkedRoute,
    linkWithAddressIn: () => undefined,
    settings,
    clock,
    random,
    log,
  });
  const claiming = {
    nodeName,
    // Nobody puts its etcd back.
    recovery: { settled: () => Promise.resolve(false) },
    pools: caches.pools.list,
    subnets: caches.subnets.list,
    findClaimer: createFindClaimer({
      node: caches.node,
      namespace: caches.namespaces.get,
      getNamespace: (name, until) => getNamespace(client, name, until),
      pod: caches.pods.get,
      getPod: (pod, until) => getPod(client, pod, until),
    }),
    announce: { refused: () => undefined, overflowed: () => undefined, notGranted: () => undefined },
    // The pods here wish for nothing.
    isNodeAddress: () => false,
    exclusiveSubnets: { of: () => undefined, secure: () => Promise.resolve() },
    listSticky: stores.allocations.listSticky,
    log,
    allocations: caches.allocations,
    wired,
    // It draws for interfaces alone.
    lost: { has: () => false },
    subnetSource: nodeSubnets,
    claims: {
      store: stores.allocations,
      clock,
      random,
      cursor,
      inFlight,
      taken: createTakenNames(clock),
      releases,
    },
    settings,
  };
  let memory = EMPTY_SWEEP_MEMORY;
  const serving = start();
  // Who waits for it is told; nobody may.
  serving.catch(() => undefined);

  return {
    serving,
    async add(key) {
      await serving;
      return locks.run(key, (ends) => add(key, AbortSignal.any([ends, signal])));
    },
    async del(key) {
      await serving;
      await locks.run(
        key,
        async () => {
          doIfAlive(() => machine.remove(key));
          wired.gone(key);
          releaseAll(key);
        },
        { abortPrevious: true },
      );
    },
    released: () => releases.settled(),
    kill() {
      end.abort(new Error('the simulated agent was killed'));
      releases.stop();
      void caches.stop();
    },
  };

  async function start(): Promise<void> {
    await caches.synced(signal);
    readKernel();
    await sweep();
    await nodeSubnets.recover(signal);
    await nodeSubnets.maintain(signal);
    signal.throwIfAborted();
    const loop = (work: () => Promise<void>, everyMs: number, onChange: (listener: () => void) => void) =>
      void whenChanged(onChange, work, { everyMs, clock, log, signal }).catch(() => undefined);
    loop(() => nodeSubnets.maintain(signal), MAINTAIN_MS, caches.onNodeChange);
    loop(sweep, settings.sweepMs, () => undefined);
  }

  /** As src/agent/add.ts, without an interface to make. */
  async function add(key: AttachmentKey, until: AbortSignal): Promise<string[]> {
    const standing = machine.find(key)?.addresses;
    if (standing?.every((address) => isHeld(key, allocationName(address)))) {
      return standing.map(formatAddress);
    }
    doIfAlive(() => machine.remove(key));
    wired.gone(key);
    releaseAll(key);
    const attachment = { network: NETWORK, ...key, kind: 'Interface' as const, netns: netnsOf(key) };
    const claimed = await claimFor(claiming, { attachment, pod: undefined, pool: undefined }, until);
    try {
      until.throwIfAborted();
      const addresses = claimed.map(({ spec }) => spec.address);
      // One step, as the alias is in the kernel: before it there is no attachment.
      doIfAlive(() => machine.wire({ network: NETWORK, ...key, addresses }));
      wired.wired(key, byFamily(addresses));
      return addresses.map(formatAddress);
    } catch (error) {
      for (const allocation of claimed) void releases.release(allocation, { reuseDelayMs: 0 });
      throw error;
    }
  }

  function netnsOf({ containerID }: AttachmentKey) {
    return { path: `/run/netns/${containerID}`, inode: 1, bootID: machine.bootID() };
  }

  /** What a killed process would still have done in the kernel it does not do. */
  function doIfAlive(work: () => void): void {
    signal.throwIfAborted();
    work();
  }

  function isHeld(key: AttachmentKey, name: string): boolean {
    return allocationsOf(caches.allocations, key).some(({ metadata }) => metadata.name === name);
  }

  function releaseAll(key: AttachmentKey): void {
    for (const allocation of allocationsOf(caches.allocations, key)) {
      void releases.release(allocation, { reuseDelayMs: delayOf(allocation.spec.pool) });
    }
  }

  function readKernel(): void {
    wired.read(
      machine.links().map(({ containerID, ifName, addresses }) => ({
        containerID,
        ifName,
        addresses: byFamily(addresses),
      })),
    );
  }

  /** As src/agent/sweep.ts. */
  async function sweep(): Promise<void> {
    if (!caches.allocations.isLiving()) return;
    const allocations = [...caches.allocations.values()];
    releases.observeResting(allocations);
    readKernel();
    const judgement = judgeSweep({
      allocations,
      links: machine.links(),
      bootID: machine.bootID(),
      namespaceState: () => 'unknown',
      memory,
      nowMs: clock.nowMs(),
      graceMs: settings.graceMs,
      inFlight: locks.inFlight(),
      nodeName,
      poolOf: (address) => poolOfAddress(address, caches.pools.list(), caches.subnets.list())?.poolName,
      podOf: () => undefined,
    });
    memory = judgement.memory;
    for (const allocation of judgement.release) await attempt(() => releaseDead(allocation));
    for (const spec of judgement.readopt) await attempt(() => readopt(spec));
  }

  async function releaseDead(judged: IPAllocation): Promise<void> {
    const { attachment, address } = judged.spec;
    if (attachment === undefined) return;
    await locks.run(attachment, async () => {
      if (machine.find(attachment)?.addresses.some((its) => sameAddress(its, address)) === true) return;
      const found = await stores.allocations.get(judged.metadata.name);
      if (found?.metadata.uid !== judged.metadata.uid || isResting(found)) return;
      void releases.release(found, { reuseDelayMs: delayOf(found.spec.pool) });
    });
  }

  async function readopt(spec: IPAllocationSpec): Promise<void> {
    const { attachment, address } = spec;
    if (attachment === undefined) return;
    await locks.run(attachment, async () => {
      if (machine.find(attachment)?.addresses.some((its) => sameAddress(its, address)) !== true) return;
      await stores.allocations.create(spec);
    });
  }

  /** One that fails must not keep the others from being swept. */
  async function attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof SupersededError)) log.warn({ err: error }, 'not swept');
    }
  }
}

const MAINTAIN_MS = 1_000;

function byFamily(addresses: readonly IPAddress[]): Partial<Record<Family, IPAddress>> {
  return Object.fromEntries(addresses.map((address) => [address.family, address]));
}
