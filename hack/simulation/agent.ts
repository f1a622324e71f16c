import { allocationsOf } from '../../src/agent/attachments.ts';
import { watchObjects } from '../../src/agent/caches.ts';
import { claimFor } from '../../src/agent/claim.ts';
import { createFindClaimer, marksOf } from '../../src/agent/claimers.ts';
import {
  createExclusiveSubnets,
  createIsHeldHere,
  type ExclusiveSubnetCare,
} from '../../src/agent/exclusive-subnets.ts';
import { createLostSubnets } from '../../src/agent/lost-subnets.ts';
import { createNodeSubnets } from '../../src/agent/node-subnets.ts';
import { restMsOf, reuseDelayMs } from '../../src/agent/parts.ts';
import { createSubnetCare } from '../../src/agent/subnet-care.ts';
import { createTwoOwners } from '../../src/agent/two-owners.ts';
import { waitingClaimers } from '../../src/agent/waiting-pods.ts';
import { whenChanged } from '../../src/agent/when-changed.ts';
import { createWiredAddresses } from '../../src/agent/wired-addresses.ts';
import {
  addressOfAllocationName,
  allocationName,
  STICKY_HOLDER,
  type IPAllocation,
  type IPAllocationSpec,
  type PodReference,
} from '../../src/api/index.ts';
import {
  createAttachmentLocks,
  createReleaseQueue,
  createRingCursor,
  createTakenNames,
  EMPTY_SWEEP_MEMORY,
  isExclusive,
  isKept,
  isResting,
  judgeSweep,
  NodeSnapshot,
  ownSubnets,
  poolOfAddress,
  SNAPSHOT_FORMAT,
  SupersededError,
  type AttachmentKey,
  type Clock,
  type Random,
} from '../../src/ipam/index.ts';
import {
  allocationStore,
  getNamespace,
  getPod,
  isPodOf,
  nodeSubnetStore,
  poolStore,
  type KubeClient,
  type Log,
} from '../../src/kube/index.ts';
import { formatAddress, formatCIDR, sameAddress, type Family, type IPAddress } from '../../src/net/index.ts';
import type { Settings } from '../../src/settings.ts';
import type { Machine } from './machine.ts';

/**
 * An agent whose kernel is a Machine. What decides, claims and releases is the real agent's own code; what drives the
 * kernel (ADD, DEL, the sweep's last look) follows it here step by step.
 */
export interface SimulatedAgent {
  /** Resolves when it serves. */
  readonly serving: Promise<void>;
  /** The addresses of the attachment, as ADD answers them. Without a pod it asks as a runtime without Kubernetes does. */
  add(key: AttachmentKey, pod?: PodReference): Promise<string[]>;
  del(key: AttachmentKey): Promise<void>;
  /** Resolves when every release asked for is known to the apiserver. */
  released(): Promise<void>;
  /** Ends it at once, in the middle of whatever it does. */
  kill(): void;
  /** What it says of its node to `check`, as JSON. */
  snapshot(): string;
}

/** Nobody hears an answer of it any more. */
export class AgentKilledError extends Error {
  override name = 'AgentKilledError' as const;

  constructor() {
    super('the simulated agent was killed');
  }
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
  const wired = createWiredAddresses({
    restMs: (name) => restMsOf(addressOfAllocationName(name), caches.pools.list(), caches.subnets.list()),
    nowMs: () => clock.nowMs(),
  });
  const locks = createAttachmentLocks();
  const delayOf = (pool: string) => reuseDelayMs(caches.pools.list(), pool);
  const releases = createReleaseQueue({
    store: stores.allocations,
    clock,
    random,
    inFlight,
    reuseDelayMs: delayOf,
    withdrawSubnet: (allocation, until) => exclusiveSubnets.withdraw(allocation, until),
  });
  const twoOwners = createTwoOwners({
    store: stores.allocations,
    nodeName,
    subnets: caches.subnets.list,
    onTwoOwners: () => undefined,
    log,
  });
  const lostSubnets = createLostSubnets({
    store: stores.subnets,
    pools: caches.pools.list,
    subnets: caches.subnets.list,
    node: caches.node,
    markedSubnets: machine.markedSubnets,
    addressesInUse: () => [
      ...machine.links().flatMap(({ addresses }) => addresses),
      ...[...caches.allocations.values()].filter((one) => !isResting(one)).map(({ spec }) => spec.address),
    ],
    allocations: () => caches.allocations.values(),
    onRecovered: () => undefined,
    onTwoOwners: () => undefined,
    log,
  });
  const nodeSubnets = createNodeSubnets({
    stores,
    pools: caches.pools.list,
    subnets: caches.subnets.list,
    subnetsOfNode: caches.subnetsOfNode,
    node: caches.node,
    waitDelivered: caches.subnets.waitDelivered,
    inForce,
    allocations: caches.allocations,
    inFlight,
    wired: {
      has: (name) => wired.has(name) || wired.rests(name),
      keys: () => [...wired.keys(), ...wired.resting()],
    },
    waiting: () =>
      waitingClaimers({
        pods: caches.pods.list(),
        allocations: caches.allocations.values(),
        node: caches.node(),
        namespace: caches.namespaces.get,
      }),
    cursor,
    hasMarkedRoute: machine.hasMarkedRoute,
    linkWithAddressIn: () => undefined,
    isDisputed: twoOwners.isDisputed,
    settings,
    clock,
    random,
    log,
  });
  const exclusiveSubnets: ExclusiveSubnetCare = createExclusiveSubnets({
    stores,
    pools: caches.pools.list,
    subnets: caches.subnets,
    node: caches.node,
    coveredByOwn: nodeSubnets.covers,
    inForce,
    allocations: caches.allocations,
    isHeldHere: createIsHeldHere(caches.allocations, wired),
    inFlight,
    wired,
    observe: () => undefined,
    clock,
    random,
    log,
  });
  const care = createSubnetCare(nodeSubnets, exclusiveSubnets, lostSubnets);
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
    isNodeAddress: () => false,
    exclusiveSubnets,
    listSticky: stores.allocations.listSticky,
    log,
    allocations: caches.allocations,
    wired,
    // It draws for interfaces alone.
    lost: { has: () => false },
    strays: { has: () => false },
    subnetSource: nodeSubnets,
    claims: {
      store: stores.allocations,
      clock,
      random,
      cursor,
      inFlight,
      taken: createTakenNames(clock, twoOwners.taken),
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
    async add(key, pod) {
      await serving;
      return locks.run(key, (ends) => add(key, pod, AbortSignal.any([ends, signal])));
    },
    async del(key) {
      await serving;
      await locks.run(
        key,
        async () => {
          doIfAlive(() => machine.remove(key));
          wired.gone(key);
          const kept = releaseAll(key);
          if (kept.length > 0) await Promise.race([Promise.all(kept), clock.sleep(SUCCESSOR_HEAD_START_MS)]);
        },
        { abortPrevious: true },
      );
    },
    released: () => releases.settled(),
    kill() {
      end.abort(new AgentKilledError());
      releases.stop();
      void caches.stop();
    },
    snapshot() {
      const marked = machine.markedSubnets().map(formatCIDR);
      const own = ownSubnets(caches.subnets.list(), nodeName, caches.node().uid)
        .filter((subnet) => !isExclusive(subnet))
        .map(({ spec }) => formatCIDR(spec.cidr));
      return JSON.stringify(
        NodeSnapshot.encode({
          format: SNAPSHOT_FORMAT,
          nodeName,
          nodeUID: caches.node().uid,
          bootID: machine.bootID(),
          takenAt: clock.wallTime().toISOString(),
          sandboxes: machine.links().map(({ network, containerID, ifName, addresses }) => {
            const link = `${containerID}/${ifName}`;
            return { network, containerID, ifName, link, addresses: [...addresses] };
          }),
          inFlight: [...locks.inFlight()],
          namespaces: [],
          strays: [],
          kernel: {
            missing: own.filter((cidr) => !marked.includes(cidr)),
            extra: marked.filter((cidr) => !own.includes(cidr)),
            diverting: [],
          },
        }),
      );
    },
  };

  /** The order of src/agent/run.ts. */
  async function start(): Promise<void> {
    await caches.synced(signal);
    await inForce();
    readKernel();
    await care.recover(signal);
    await sweep();
    await care.maintain(signal);
    signal.throwIfAborted();
    caches.onNodeChange(() => void inForce().catch(() => undefined));
    const loop = (work: () => Promise<void>, everyMs: number, onChange: (listener: () => void) => void) =>
      void whenChanged(onChange, work, { everyMs, clock, log, signal }).catch(() => undefined);
    loop(
      async () => {
        await twoOwners.look(signal);
        await care.maintain(signal);
      },
      MAINTAIN_MS,
      (listener) => {
        caches.onNodeChange(listener);
        caches.onPodBound(listener);
      },
    );
    loop(sweep, settings.sweepMs, () => undefined);
  }

  /** As src/agent/sync.ts: the marked routes are the node's subnets, and those of lost ones in which pods live. */
  function inForce(): Promise<void> {
    const { name, uid } = caches.node();
    const own = ownSubnets(caches.subnets.list(), name, uid).filter((subnet) => !isExclusive(subnet));
    const kept = machine.markedSubnets().filter((cidr) => !lostSubnets.routeMayGo(cidr));
    doIfAlive(() => machine.routes([...own.map(({ spec }) => spec.cidr), ...kept]));
    return Promise.resolve();
  }

  /** As src/agent/add.ts, without an interface to make. */
  async function add(
    key: AttachmentKey,
    pod: PodReference | undefined,
    until: AbortSignal,
  ): Promise<string[]> {
    const standing = machine.find(key)?.addresses;
    if (standing?.every((address) => isHeld(key, allocationName(address)))) {
      return standing.map(formatAddress);
    }
    doIfAlive(() => machine.remove(key));
    wired.gone(key);
    void releaseAll(key);
    const attachment = { network: NETWORK, ...key, kind: 'Interface' as const, netns: netnsOf(key) };
    const claimed = await claimFor(claiming, { attachment, pod, pool: undefined }, until);
    try {
      until.throwIfAborted();
      const addresses = claimed.map(({ spec }) => spec.address);
      const podUID = pod?.uid === undefined ? {} : { podUID: pod.uid };
      // One step, as the alias is in the kernel: before it there is no attachment.
      doIfAlive(() =>
        machine.wire(
          { network: NETWORK, ...key, ...podUID, addresses },
          claimed.map(({ spec }) => spec),
        ),
      );
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

  /** Answers the releases that the pod's successor waits for. */
  function releaseAll(key: AttachmentKey): Promise<unknown>[] {
    return allocationsOf(caches.allocations, key).flatMap((allocation) => {
      const released = releases.release(allocation, { reuseDelayMs: delayOf(allocation.spec.pool) });
      return isKept(allocation) ? [released] : [];
    });
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
      podOf: caches.podOf,
      marksOf: (podUID, address) => {
        const pod = caches.pods.list().find((one) => isPodOf(one, podUID));
        return pod === undefined ? {} : marksOf(pod, address);
      },
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
      const { kind } = await stores.allocations.create(spec);
      const { pod, sticky } = spec;
      if (kind === 'created' || pod === undefined) return;
      const found = await stores.allocations.get(allocationName(address));
      if (found?.spec.holder !== STICKY_HOLDER || found.spec.sticky !== sticky) return;
      await stores.allocations.bind(found, { nodeName, attachment, pod });
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
/** As src/agent/del.ts. */
const SUCCESSOR_HEAD_START_MS = 2_000;

function byFamily(addresses: readonly IPAddress[]): Partial<Record<Family, IPAddress>> {
  return Object.fromEntries(addresses.map((address) => [address.family, address]));
}
