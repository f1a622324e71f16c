import { setTimeout as sleep } from 'node:timers/promises';
import { Pool } from 'undici';
import {
  API_VERSION,
  IP_ALLOCATION,
  IPAllocationSpec,
  IPPool,
  NodeSubnet,
  allocationName,
  type Attachment,
  type IPAllocation,
} from '../../src/api/index.ts';
import { createRingCursor } from '../../src/ipam/candidates.ts';
import { claimAddresses, type ClaimParts } from '../../src/ipam/claim.ts';
import type { Clock } from '../../src/ipam/clock.ts';
import { createReleaseQueue } from '../../src/ipam/release.ts';
import { createTakenNames } from '../../src/ipam/taken-names.ts';
import type { KubeClient } from '../../src/kube/client.ts';
import type { KubeConnection } from '../../src/kube/connection.ts';
import { allocationStore } from '../../src/kube/ipallocations.ts';
import { pathOf } from '../../src/kube/paths.ts';
import { parseAddress } from '../../src/net/index.ts';
import { step, type Progress } from '../cluster/progress.ts';
import type { Figure } from './figures.ts';
import { rateOf, summarize } from './statistics.ts';

/** Claims and bare creates take turns in blocks of so many, so often for each number in flight. */
const BLOCK = 320;
const TURNS = 4;
const IN_FLIGHT = [1, 8, 32] as const;

const PATH = pathOf(IP_ALLOCATION);
/** Neither is there: nobody but this file looks at what it creates. */
const POOL = 'bench-claims';
const NODE = 'bench-claims';

/**
 * The rate of claims, as the agent makes them, beside bare creates: requests with the body ready made, on one
 * pool of kept-alive connections that is as large as that of the claims, their answers not looked at. What is
 * created is the same but for address and container.
 */
export async function measureClaims(
  connection: KubeConnection,
  client: KubeClient,
  progress: Progress,
): Promise<Figure[]> {
  const claim = claimer(client);
  const bare = bareCreator(connection);
  const figures: Figure[] = [];
  try {
    for (const inFlight of IN_FLIGHT) {
      const kinds = [
        { who: 'weft', create: claim, blocks: [] as Block[] },
        { who: 'bare create', create: bare.create, blocks: [] as Block[] },
      ];
      await step(progress, `claims, ${inFlight} in flight`, async () => {
        // The first of each warms connections and code up, and does not count.
        for (const { create } of kinds) await block(create, inFlight);
        for (let turn = 0; turn < TURNS; turn++) {
          for (const { create, blocks } of kinds) blocks.push(await block(create, inFlight));
        }
        await removeAll(client);
      });
      const base = rateOf(kinds[1]?.blocks ?? []);
      for (const { who, blocks } of kinds) {
        const { count, p50Ms, p99Ms } = summarize(blocks.flatMap(({ durationsMs }) => durationsMs));
        const perSecond = rateOf(blocks);
        figures.push({
          ...{ part: 'claims', what: `claim, ${inFlight} in flight`, who, count, p50Ms, p99Ms, perSecond },
          ...{ ratio: perSecond / base, ratioOf: 'rate' },
          ...(who === 'weft' ? { target: { value: 'ratio', bound: 'at least', limit: 0.8 } } : {}),
        });
      }
    }
  } finally {
    await removeAll(client);
    await bare.close();
  }
  return figures;
}

type Block = { readonly calls: number; readonly ms: number; readonly durationsMs: readonly number[] };

async function block(create: () => Promise<void>, inFlight: number): Promise<Block> {
  const durationsMs: number[] = [];
  let started = 0;
  const worker = async () => {
    while (started++ < BLOCK) {
      const startMs = performance.now();
      await create();
      durationsMs.push(performance.now() - startMs);
    }
  };
  const beginMs = performance.now();
  await Promise.all(Array.from({ length: inFlight }, worker));
  return { calls: durationsMs.length, ms: performance.now() - beginMs, durationsMs };
}

/** Claims of one agent: one set of parts, a cache that shows own writes at once. */
function claimer(client: KubeClient): () => Promise<void> {
  const store = allocationStore(client);
  const inFlight = new Set<string>();
  const releases = createReleaseQueue({
    ...{ store, clock, random: Math.random, inFlight },
    reuseDelayMs: () => 0,
  });
  const parts: ClaimParts = {
    ...{ store, clock, random: Math.random, inFlight, releases },
    cursor: createRingCursor(),
    taken: createTakenNames(clock),
  };
  const pool = IPPool.parse({
    metadata: metadata(POOL),
    spec: { cidrs: ['10.196.0.0/16'], nodeSubnetPrefixLength: { ipv4: 16 } },
  });
  const subnet = NodeSubnet.parse({
    metadata: metadata('10.196.0.0-16'),
    spec: {
      ...{ cidr: '10.196.0.0/16', pool: POOL, poolUID: UID, nodeName: NODE, nodeUID: UID },
      nextHops: ['192.0.2.1'],
    },
  });
  const allocations = new Map<string, IPAllocation>();
  return async () => {
    const [allocation] = await claimAddresses(parts, {
      ...{ pool, subnets: [subnet], nodeName: NODE, attachment: nextAttachment(), allocations },
      deadlineMs: 30_000,
    });
    if (allocation !== undefined) allocations.set(allocation.metadata.name, allocation);
  };
}

function bareCreator(connection: KubeConnection) {
  const pool = new Pool(connection.server.origin, {
    ...{ pipelining: 1, connections: Math.max(...IN_FLIGHT), allowH2: false },
    connect: { ...connection.tls, allowH2: false },
  });
  let next = parseAddress('10.197.0.1');
  const create = async () => {
    const address = next;
    next = { ...next, value: next.value + 1n };
    const spec: IPAllocationSpec = { address, pool: POOL, nodeName: NODE, attachment: nextAttachment() };
    const answer = await pool.request({
      method: 'POST',
      path: `${PATH}?fieldValidation=Strict`,
      headers: { accept: 'application/json', 'content-type': 'application/json' },
      body: JSON.stringify({
        apiVersion: API_VERSION,
        kind: IP_ALLOCATION.kind,
        metadata: { name: allocationName(address) },
        spec: IPAllocationSpec.encode(spec),
      }),
    });
    const text = await answer.body.text();
    if (answer.statusCode !== 201) throw new BareCreateError(answer.statusCode, text);
  };
  return { create, close: () => pool.destroy() };
}

/** A create that should have succeeded did not. */
export class BareCreateError extends Error {
  override name = 'BareCreateError' as const;
  constructor(statusCode: number, text: string) {
    super(`the apiserver answered a bare create with ${statusCode}: ${text}`);
  }
}

const UID = '00000000-0000-4000-8000-000000000000';
const metadata = (name: string) => ({
  ...{ name, uid: UID, resourceVersion: '1', creationTimestamp: '2000-01-01T00:00:00Z' },
  finalizers: ['ipam.weft.dev/pool'],
});

let containers = 0;
const nextAttachment = (): Attachment => ({
  ...{ network: 'weft', ifName: 'eth0', kind: 'Interface' },
  containerID: `bench-${String(containers++).padStart(58, '0')}`,
  netns: { path: '/run/netns/cni-00000000-0000-0000-0000-000000000000', inode: 4026532000, bootID: UID },
});

const clock: Clock = {
  nowMs: () => performance.now(),
  wallTime: () => new Date(),
  sleep: async (ms, signal) => {
    await sleep(ms, undefined, signal === undefined ? {} : { signal });
  },
};

async function removeAll(client: KubeClient): Promise<void> {
  await client.request({
    method: 'DELETE',
    path: PATH,
    query: { fieldSelector: `spec.pool=${POOL}` },
    timeoutMs: 120_000,
  });
}
