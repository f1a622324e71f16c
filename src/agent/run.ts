import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import {
  addressOfAllocationName,
  API_VERSION,
  IP_ALLOCATION,
  NODE_SUBNET,
  SUBNET_HOLD_ANNOTATION,
  type NodeSubnet,
} from '../api/index.ts';
import { isolatesAny } from '../dataplane/index.ts';
import { serveHealth } from '../health.ts';
import {
  createAttachmentLocks,
  createReleaseQueue,
  createRingCursor,
  createSubnetHold,
  createTakenNames,
  isResting,
  NodeSnapshot,
  ownSubnets,
  poolOfAddress,
  type Clock,
  type Random,
} from '../ipam/index.ts';
import {
  canMakeLinks,
  createCommandRunner,
  deleteConnections,
  deleteLinkGroup,
  DYING_LINK_GROUP,
  findPodLinks,
  findSysctlRoot,
  listAddresses,
  openNetfilterSocket,
  openNftablesSocket,
  openNetlinkSocket,
  openOwnNamespace,
  readBootId,
  SYSCTL_ROOTS,
  uptimeMs,
} from '../kernel/index.ts';
import {
  allocationStore,
  createKubeClient,
  eventRecorder,
  getNamespace,
  getPod,
  isPodOf,
  loadConnection,
  nodeSubnetStore,
  patchNodeConsistent,
  patchNodeNetworkAvailable,
  readLeaseAnnotations,
  repeatedly,
  poolStore,
  requireSchemaRevision,
  watchEndpointSlices,
  watchServiceCIDRs,
} from '../kube/index.ts';
import { serveMetrics } from '../metrics/index.ts';
import { cidrHasAddress, formatCIDR, sameAddress } from '../net/index.ts';
import { createAdd } from './add.ts';
import { createAddressAdd } from './address-add.ts';
import { createAddressCheck } from './address-check.ts';
import { createAlarm } from './alarm.ts';
import { createAttachmentAges } from './ages.ts';
import { createAnnounce } from './announce.ts';
import { auditNode } from './audit.ts';
import { watchObjects } from './caches.ts';
import { createCheck } from './check.ts';
import { renderConflist } from './conflist.ts';
import { createFindClaimer, marksOf } from './claimers.ts';
import { createDel } from './del.ts';
import { workOffDeletedNotes } from './deleted-notes.ts';
import { createDNSServers, knownDNSServers } from './dns-servers.ts';
import { rememberSettings } from './earlier-settings.ts';
import { createExclusiveSubnets, createIsHeldHere, subnetsForKernel } from './exclusive-subnets.ts';
import { createEndConnections } from './ended-connections.ts';
import type { AgentFlags } from './flags.ts';
import { foreignLinkWithAddressIn } from './foreign-links.ts';
import { createGc } from './gc.ts';
import { createLostAllocations } from './lost-allocations.ts';
import { createLostSubnets } from './lost-subnets.ts';
import { hasMarkedRoute, markedSubnets } from './marked-routes.ts';
import { createAgentMetrics } from './metrics.ts';
import { namespaceState } from './namespace-state.ts';
import { createNodeSubnets } from './node-subnets.ts';
import { createOwnObjectsCheck } from './own-objects.ts';
import { restMsOf, reuseDelayMs, type AgentParts } from './parts.ts';
import { podNamespacePaths } from './pod-namespaces.ts';
import { createReaper } from './reaper.ts';
import { createRecovery } from './recovery.ts';
import { rereadOwnObjects } from './reread.ts';
import { serveCni } from './server.ts';
import { watchServiceRanges } from './service-ranges.ts';
import { createServing } from './serving.ts';
import { createSnapshot } from './snapshot.ts';
import { waitForLock } from './standby.ts';
import { waitingClaimers } from './waiting-pods.ts';
import { whenChanged } from './when-changed.ts';
import { createWiredAddresses } from './wired-addresses.ts';
import { createStatus } from './status.ts';
import type { StepObserver } from './steps.ts';
import { addressesIn, createStrayAddresses } from './stray-addresses.ts';
import { createSubnetCare } from './subnet-care.ts';
import { attachmentsOf, createSweep } from './sweep.ts';
import { startNodeSync } from './sync.ts';
import { createTwoOwners } from './two-owners.ts';

/** What the agent is made with besides its flags. */
export interface AgentEnvironment {
  readonly clock: Clock;
  readonly random: Random;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly observe: StepObserver;
  /** Ends the agent. Nothing is taken out of the kernel. */
  readonly signal: AbortSignal;
}

/** How often the node's subnets are looked at without a reason to. */
const MAINTAIN_MS = 10_000;
/** By so much the whole ADD may outlast its claim: the claim can say why it did not succeed, a clock cannot. */
const ADD_AFTER_CLAIM_MS = 2_000;
/** How often the kernel is compared with the objects without a reason to. */
const SYNC_MS = 30_000;
/** How often the executable is told that the agent lives: it believes that for ten minutes. */
const TOUCH_MS = 30_000;
/** For how long the first steps may keep an agent from serving: the loops do what was not done by then. */
const FIRST_STEPS_MS = 15_000;
/** For how long a stopping agent finishes what it has begun: its pod has five seconds. */
const STOP_MS = 2_000;

/**
 * One agent from its start to its end: the composition, read from top to bottom. It waits for the node's lock with
 * warm caches, recovers, sets the node up, and then serves.
 */
export async function runAgent(flags: AgentFlags, environment: AgentEnvironment): Promise<void> {
  const { clock, random, log, signal, observe } = environment;
  const { settings, nodeName } = flags;
  const bootID = readBootId(flags.bootIDPath);
  const sysctlRoot = flags.sysctlRoot ?? findSysctlRoot(SYSCTL_ROOTS);
  await mkdir(flags.runDirectory, { recursive: true });
  await chmod(flags.runDirectory, 0o700);

  const connection = await loadConnection({
    env: environment.env,
    clock,
    ...(flags.kubeconfig === undefined ? {} : { kubeconfig: flags.kubeconfig }),
  });
  const metrics = createAgentMetrics(clock);
  const client = createKubeClient(connection, {
    userAgent: `weft-agent/${nodeName}`,
    observe: metrics.requests,
  });
  let bandwidth = false;
  const serving = createServing({
    flags,
    conflist: () => renderConflist({ bandwidth }),
    clock,
    uptimeMs,
    log,
  });
  const health = await serveHealth(flags.probeSocket, { live: () => undefined, ready: serving.whyNotReady });

  let isBroken = () => false;
  const touching = setInterval(() => {
    // An agent that waits for the apiserver lives, too; one whose data path is broken must not look well.
    if (!isBroken())
      void serving.touch().catch((error: unknown) => log.error({ err: error }, 'no serving mark'));
  }, TOUCH_MS);
  signal.addEventListener('abort', () => clearInterval(touching), { once: true });

  await repeatedly(() => requireSchemaRevision(client, signal), { clock, random, log, signal });
  const caches = watchObjects({ client, clock, random, log }, nodeName);
  const services = watchServiceRanges({
    watch: (until) => watchServiceCIDRs({ client, clock, random, log }, until),
    given: flags.serviceCIDRs,
    clock,
    random,
    log,
  });
  const run = createCommandRunner();
  let wakeSync = () => undefined as void;
  let tellOfDNS = (message: string) => log.error({}, message);
  const dns = createDNSServers({
    service: `${flags.dnsService.namespace}/${flags.dnsService.name}`,
    watch: () => watchEndpointSlices({ client, clock, random, log }, flags.dnsService),
    known: () => knownDNSServers(run),
    onChange: () => wakeSync(),
    onTrouble: (message) => tellOfDNS(message),
    clock,
    log,
  });
  // Before the filters change, so that they know where DNS is served.
  caches.onNodeChange(() => {
    if (isolatesAny(caches.pools.list(), [])) dns.follow(true);
  });
  serving.waitsFor('the first complete lists from the apiserver');
  await caches.synced(signal);
  const followDNS = () => dns.follow(isolatesAny(caches.pools.list(), caches.subnets.list()));
  followDNS();
  await services.settled;
  serving.ready();

  const lock = await waitForLock(join(flags.runDirectory, 'agent.lock'), { clock, log, signal });
  serving.waitsFor("the node's routes and filters");
  log.info({ nodeName, bootID }, 'this agent serves the node');
  await dns.settled(signal);
  const scrapes = serveMetrics({ address: flags.metricsAddress, registry: metrics.registry, clock, log });

  const host = openNetlinkSocket();
  const ownNamespace = openOwnNamespace();
  // Deleting waits in the kernel: on a socket of its own, so that nobody else does.
  const burial = openNetlinkSocket();
  const stores = {
    allocations: allocationStore(client, caches.allocations.feed),
    subnets: nodeSubnetStore(client, caches.subnets),
    pools: poolStore(client, caches.pools),
  };
  const events = eventRecorder({
    client,
    clock,
    log,
    component: 'weft-agent',
    instance: nodeName,
    observe: metrics.events,
  });
  const alarm = createAlarm(events, { node: caches.node, podOf: caches.podOf });
  tellOfDNS = (message) => {
    log.error({}, message);
    alarm.dnsUnsure(message);
  };
  if (flags.bandwidth) {
    bandwidth = canMakeLinks(host, 'ifb');
    if (!bandwidth) {
      log.error({}, NO_BANDWIDTH);
      alarm.noBandwidth(NO_BANDWIDTH);
    }
  }
  const inFlight = new Set<string>();
  const cursor = createRingCursor();
  const connections = openNetfilterSocket();
  const nftables = openNftablesSocket();
  const endConnections = createEndConnections({
    end: (addresses) => deleteConnections(connections, addresses),
    clock,
    onPass: metrics.connectionsEnded,
    log,
  });
  const releases = createReleaseQueue({
    store: stores.allocations,
    clock,
    random,
    inFlight,
    reuseDelayMs: (pool) => reuseDelayMs(caches.pools.list(), pool),
    withdrawSubnet: (allocation, until) => exclusiveSubnets.withdraw(allocation, until),
    endConnections,
    onRetry(name, error) {
      metrics.releases.retried();
      log.warn({ err: error, name }, 'a release did not get through: trying again');
    },
    observer: metrics.releases,
  });
  const reaper = createReaper(
    () => deleteLinkGroup(burial, DYING_LINK_GROUP),
    (error) => log.error({ err: error }, 'dying links could not be deleted'),
  );
  const wired = createWiredAddresses({
    restMs: (name) => restMsOf(addressOfAllocationName(name), caches.pools.list(), caches.subnets.list()),
    nowMs: () => clock.nowMs(),
  });
  const lost = createLostAllocations({
    isOwnDoing: (allocation) => inFlight.has(allocation.metadata.name) || releases.isReleasing(allocation),
    isThere: caches.allocations.has,
    nowMs: () => clock.nowMs(),
  });
  caches.allocations.feed.onChange(({ before, after }) => lost.changed(before, after));
  const strays = createStrayAddresses({
    namespacePaths: () => podNamespacePaths(caches.allocations.values()),
    lookInto: (path) => addressesIn(ownNamespace, path),
    drawable() {
      const own = [...caches.subnetsOfNode().map(({ spec }) => spec.cidr), ...markedSubnets(host)];
      return (address) =>
        own.some((cidr) => cidrHasAddress(cidr, address)) &&
        poolOfAddress(address, caches.pools.list(), caches.subnets.list())?.pool?.spec.use !== 'Pods';
    },
    allocation: caches.allocations.get,
    isTold: (name) => wired.has(name) || lost.has(name),
    bootID,
    log,
  });
  /** In use, or resting, whether or not an object says so. */
  const inUseAnyhow = {
    has: (name: string) => wired.has(name) || wired.rests(name) || lost.has(name) || strays.has(name),
    keys: () => [...wired.keys(), ...wired.resting(), ...lost.keys(), ...strays.keys()],
  };
  const isHeldHere = createIsHeldHere(caches.allocations, wired);
  const lostSubnets = createLostSubnets({
    store: stores.subnets,
    pools: caches.pools.list,
    subnets: caches.subnets.list,
    node: caches.node,
    markedSubnets: () => markedSubnets(host),
    addressesInUse: () => [
      ...findPodLinks(host).flatMap(({ attachment }) => Object.values(attachment?.addresses ?? {})),
      ...lost.addresses(),
      ...strays.values().map(({ address }) => address),
      ...[...caches.allocations.values()].filter((one) => !isResting(one)).map(({ spec }) => spec.address),
    ],
    allocations: () => caches.allocations.values(),
    onRecovered: alarm.subnetRecovered,
    onTwoOwners: (theirs) => tellOfTwoOwners(theirs, nodeName),
    log,
  });
  const twoOwners = createTwoOwners({
    store: stores.allocations,
    nodeName,
    subnets: caches.subnets.list,
    onTwoOwners: tellOfTwoOwners,
    log,
  });
  // Before the first look at routes: one of a subnet that nobody lives in goes.
  wired.read(attachmentsOf(findPodLinks(host)));
  await strays.read();
  const sync = startNodeSync({
    host,
    nftables,
    ownPorts: () => new Set([host.portId, burial.portId]),
    ownNamespace,
    podNamespaces: () => podNamespacePaths(caches.allocations.values()),
    run,
    sysctlRoot,
    rememberSettings(earlier) {
      try {
        rememberSettings(flags.runDirectory, earlier);
      } catch (error) {
        // A full disk is no reason not to forward: an uninstall will leave the settings as they are then.
        log.error({ err: error, earlier }, "the kernel's earlier settings could not be written down");
      }
    },
    sources: () => {
      const sources = caches.nodeSources();
      return (
        sources && {
          ...sources,
          subnets: subnetsForKernel(sources.subnets, nodeName, isHeldHere),
          dnsServers: dns.list(),
        }
      );
    },
    pools: caches.pools.list,
    config: { ...flags.vxlan, natExempt: flags.natExempt },
    beforeRemovingSubnetRoute: (cidr) => (lostSubnets.routeMayGo(cidr) ? 'remove' : 'keep'),
    onDrift(objects) {
      metrics.driftRepaired(objects.length);
      log.warn({ objects }, "someone else had changed the node's network; repaired");
      alarm.repaired(objects);
    },
    onForeignDrop(chains) {
      log.warn(
        { chains },
        'a firewall of the host may drop pod traffic: let weft* and vxlan.weft through it',
      );
      alarm.foreignDrop(
        chains,
        caches.pools.list().flatMap(({ spec }) => spec.cidrs),
      );
    },
    onBroken: alarm.broken,
    onUnmet(unmet) {
      metrics.unmet(unmet);
      alarm.unmet(unmet);
    },
    settings: { syncMs: SYNC_MS },
    clock,
    random,
    log,
  });
  isBroken = () => sync.broken() !== undefined;
  wakeSync = sync.wake;
  const hold = createSubnetHold({
    read: async (until) =>
      (await readLeaseAnnotations(client, flags.controllerLease, until))?.[SUBNET_HOLD_ANNOTATION],
    clock,
    holdMs: settings.subnetHoldMs,
  });
  const nodeSubnets = createNodeSubnets({
    stores,
    pools: caches.pools.list,
    subnets: caches.subnets.list,
    subnetsOfNode: caches.subnetsOfNode,
    node: caches.node,
    waitDelivered: caches.subnets.waitDelivered,
    inForce: sync.upToDate,
    onNone: alarm.noSubnet,
    allocations: caches.allocations,
    inFlight,
    wired: inUseAnyhow,
    waiting: () =>
      waitingClaimers({
        pods: caches.pods.list(),
        allocations: caches.allocations.values(),
        node: caches.node(),
        namespace: caches.namespaces.get,
      }),
    cursor,
    hasMarkedRoute: (cidr) => hasMarkedRoute(host, cidr),
    linkWithAddressIn: (cidr) => foreignLinkWithAddressIn(host, cidr),
    serviceCIDRs: services.list,
    isDisputed: twoOwners.isDisputed,
    hold,
    settings,
    clock,
    random,
    log,
    observer: metrics.subnets,
  });
  const exclusiveSubnets = createExclusiveSubnets({
    stores,
    pools: caches.pools.list,
    subnets: caches.subnets,
    node: caches.node,
    coveredByOwn: nodeSubnets.covers,
    inForce: sync.upToDate,
    allocations: caches.allocations,
    isHeldHere,
    inFlight,
    wired,
    observe,
    clock,
    random,
    log,
  });
  const care = createSubnetCare(nodeSubnets, exclusiveSubnets, lostSubnets);
  const recovery = createRecovery({
    async recover(until) {
      await caches.listedAfresh(until);
      wired.read(attachmentsOf(findPodLinks(host)));
      await rereadOwnObjects({ caches, markedSubnets: () => markedSubnets(host), wired: inUseAnyhow }, until);
      await care.recover(until);
      await caches.allocations.living(AbortSignal.any([until, AbortSignal.timeout(FIRST_STEPS_MS)]));
      log.info(await sweep(), 'swept after an etcd that went back');
    },
    onSign(sign) {
      const message = `etcd is back at an older state, and this node's addresses are recovered from its kernel: ${sign}`;
      log.error({ sign }, message);
      metrics.etcdWentBack();
      const object = { apiVersion: 'v1', kind: 'Node', ...nameAndUID(caches.node()) };
      events.record({ object, type: 'Warning', reason: 'EtcdWentBack', message });
    },
    clock,
    random,
    log,
    signal,
  });
  const parts: AgentParts = {
    nodeName,
    bootID,
    host,
    ownNamespace,
    pools: caches.pools.list,
    subnets: caches.subnets.list,
    allocations: caches.allocations,
    isNodeAddress: (address, pool) =>
      caches.isNodeAddress(address, pool) ||
      // The link to a LAN seldom has the InternalIP.
      (pool.spec.use === 'Lan' && listAddresses(host).some((one) => sameAddress(one.address, address))),
    findClaimer: createFindClaimer({
      node: caches.node,
      namespace: caches.namespaces.get,
      getNamespace: (name, until) => getNamespace(client, name, until),
      pod: caches.pods.get,
      getPod: (pod, until) => getPod(client, pod, until),
    }),
    findOwnPod: (uid) => caches.pods.list().find((pod) => isPodOf(pod, uid)),
    announce: createAnnounce(events, ({ namespace, name }) => caches.pods.get(`${namespace}/${name}`)?.uid),
    subnetSource: nodeSubnets,
    exclusiveSubnets,
    hold,
    listSticky: stores.allocations.listSticky,
    dataPath: sync,
    claims: {
      store: stores.allocations,
      clock,
      random,
      cursor,
      inFlight,
      taken: createTakenNames(clock, twoOwners.taken),
      releases,
      observer: metrics.claims,
    },
    releases,
    locks: createAttachmentLocks(),
    reaper,
    recovery,
    ages: createAttachmentAges(() => clock.nowMs()),
    wired,
    lost,
    strays,
    settings,
    observe,
    onClaimEnded: metrics.claimEnded,
    log,
  };
  metrics.readFrom({
    node: caches.node,
    pools: caches.pools.list,
    subnets: caches.subnets.list,
    pendingReleases: releases.pending,
    broken: sync.broken,
  });
  const del = createDel(parts);
  const sweep = metrics.counted(
    createSweep(parts, {
      cacheIsLiving: caches.allocations.isLiving,
      store: stores.allocations,
      namespaceState,
      podOf: caches.podOf,
      marksOf: (podUID, address) => {
        const pod = caches.pods.list().find((one) => isPodOf(one, podUID));
        return pod === undefined ? {} : marksOf(pod, address);
      },
      nowMs: () => clock.nowMs(),
      onSwept: alarm.swept,
      onConflict: alarm.conflict,
    }),
  );
  const askForOneOfOurs = createOwnObjectsCheck({
    objects: () => [
      ...ownSubnets(caches.subnetsOfNode(), nodeName, caches.node().uid).map(({ metadata }) => ({
        kind: NODE_SUBNET.kind,
        metadata,
        isWatched: caches.subnets.isAlive,
        read: async (until: AbortSignal) => (await stores.subnets.get(metadata.name, until))?.metadata.uid,
      })),
      ...[...caches.allocations.values()].map(({ metadata }) => ({
        kind: IP_ALLOCATION.kind,
        metadata,
        isWatched: caches.allocations.isLiving,
        read: async (until: AbortSignal) =>
          (await stores.allocations.get(metadata.name, until))?.metadata.uid,
      })),
    ],
    onWentBack: caches.wentBack,
    clock,
  });
  caches.onWentBack(recovery.begin);
  caches.onWentBack(dns.startAfresh);
  caches.onNodeChange(() => sync.wake());

  await sync.upToDate(signal);
  serving.waitsFor("this node's subnets to be recovered");
  // Before another node could claim them; where that fails no subnet is claimed before it is done.
  await care.recover(AbortSignal.any([signal, AbortSignal.timeout(FIRST_STEPS_MS)])).catch(notYet);
  serving.waitsFor('what an earlier boot left to be freed');
  await caches.allocations
    .living(AbortSignal.any([signal, AbortSignal.timeout(FIRST_STEPS_MS)]))
    .catch(notYet);
  // Where that fails the next sweep does it.
  await sweep().catch(notYet);
  serving.waitsFor("the claims of this node's subnets");
  await care.maintain(AbortSignal.any([signal, AbortSignal.timeout(FIRST_STEPS_MS)])).catch(notYet);
  signal.throwIfAborted();

  const snapshot = createSnapshot(parts, {
    nodeUID: () => caches.node().uid,
    differences: sync.differences,
    namespaceState,
    clock,
  });
  const server = await serveCni({
    socketPath: join(flags.runDirectory, 'agent.sock'),
    verbs: {
      add: createAdd(parts),
      addAddresses: createAddressAdd(parts),
      del,
      check: createCheck(parts),
      checkAddresses: createAddressCheck(parts),
      gc: createGc({ ...parts, onCollected: alarm.collected }),
      status: createStatus(() => serving.facts(sync.broken())),
    },
    prepare: () =>
      workOffDeletedNotes({
        directory: join(flags.runDirectory, 'deleted'),
        del: (request) => del(request, signal),
        log,
      }),
    onCall: metrics.calls,
    reads: {
      '/snapshot': async () => NodeSnapshot.encode(await snapshot()),
    },
    deadlinesMs: { ADD: settings.addDeadlineMs + ADD_AFTER_CLAIM_MS },
    clock,
    log,
  });
  serving.ready();

  await Promise.all([
    whenChanged(
      (listener) => {
        caches.onNodeChange(listener);
        caches.onPodBound(listener);
      },
      async () => {
        followDNS();
        dns.look();
        await recovery.settled(signal);
        await twoOwners.look(signal);
        await care.maintain(signal);
        await serving.announce(caches.pools.list().some((pool) => nodeSubnets.drawable(pool).length > 0));
        if (caches.networkUnavailable()) {
          await patchNodeNetworkAvailable(client, nodeName, clock.wallTime(), signal);
        }
      },
      { everyMs: MAINTAIN_MS, clock, log, signal },
    ),
    whenChanged(
      () => undefined,
      async () => {
        log.debug(await sweep(), 'swept');
        await askForOneOfOurs(signal);
        await strays.readAgain();
      },
      { everyMs: settings.sweepMs, clock, log, signal },
    ),
    auditNode(
      {
        snapshot,
        allocations: caches.allocations,
        store: stores.allocations,
        graceMs: settings.graceMs,
        everyMs: settings.auditMs,
        clock,
        random,
        onFound(finding) {
          log.warn({ ...finding }, `the audit found: ${finding.message}`);
          alarm.found(finding);
        },
        onLook: metrics.audited,
        tell: (condition, until) =>
          patchNodeConsistent(client, { name: nodeName, consistent: caches.consistent() }, condition, {
            now: clock.wallTime(),
            signal: until,
          }),
        log,
      },
      signal,
    ),
  ]);
  log.info({}, 'stopping: the node keeps its routes, filters and pods');
  // Calls under way are answered and their releases told to the apiserver, as far as there is time.
  const begun = server.close().then(() => Promise.all([releases.settled(), events.settled()]));
  await Promise.race([begun, clock.sleep(STOP_MS)]);
  releases.stop();
  await sync.stop();
  await caches.stop();
  await services.stop();
  await dns.stop();
  await client.close();
  await scrapes.close();
  health.close();
  lock.release();

  function tellOfTwoOwners({ metadata, spec }: NodeSubnet, livesOn: string): void {
    const message =
      `pods of node ${livesOn} live in this subnet, which is node ${spec.nodeName}'s by the book: neither draws ` +
      `from it; restart the pods of node ${livesOn} whose addresses lie in ${formatCIDR(spec.cidr)}`;
    log.error({ subnet: metadata.name, owner: spec.nodeName, livesOn }, message);
    const object = { apiVersion: API_VERSION, kind: NODE_SUBNET.kind, ...nameAndUID(metadata) };
    events.record({ object, type: 'Warning', reason: 'TwoOwners', message });
  }

  function notYet(error: unknown): void {
    log.error({ err: error }, 'not done at the start: it is tried again');
  }
}

/** Pods run without limits rather than not at all. */
const NO_BANDWIDTH =
  "this node's kernel has no ifb devices, which the plugin bandwidth needs (kernel module ifb): it is left out of the " +
  'network configuration, and annotations of bandwidth mean nothing on this node';

function nameAndUID({ name, uid }: { readonly name: string; readonly uid: string }) {
  return { name, uid };
}
