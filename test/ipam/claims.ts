import type { IPAllocation, IPPool } from '../../src/api/index.ts';
import {
  claimAddresses,
  createReleaseQueue,
  createRingCursor,
  createTakenNames,
  type ClaimParts,
  type ClaimRequest,
  type ReleaseQueue,
} from '../../src/ipam/index.ts';
import { createFakeStores, type FakeOptions, type FakeStores } from '../contract/fake-stores.ts';
import { createFakeClock, type FakeClock } from './fake-clock.ts';
import { attachmentOf, poolOf, subnetOf } from './objects.ts';

/** One process that claims and releases against a fake apiserver. */
export interface ClaimingProcess {
  readonly stores: FakeStores;
  readonly clock: FakeClock;
  readonly parts: ClaimParts;
  readonly releases: ReleaseQueue;
  /** What the process believes to be in use: follows the store at once unless `isBlind`. */
  readonly cache: Map<string, IPAllocation>;
  readonly retries: string[];
  /** What the observer of claims was told. */
  readonly told: string[];
  claim(containerID: string, request?: Partial<ClaimRequest>): Promise<IPAllocation[]>;
}

export interface ProcessOptions extends FakeOptions {
  readonly pool?: IPPool;
  readonly subnets?: readonly string[];
  /** The cache never shows anything: as a watch that lags. */
  readonly isBlind?: boolean;
  /** An apiserver shared with others. */
  readonly stores?: FakeStores;
  readonly clock?: FakeClock;
  readonly random?: () => number;
}

export function createClaimingProcess(options: ProcessOptions = {}): ClaimingProcess {
  const {
    pool = poolOf('p', { cidrs: ['10.0.0.0/16'] }),
    subnets = ['10.0.0.0/26'],
    isBlind = false,
  } = options;
  const stores = options.stores ?? createFakeStores(options);
  const clock = options.clock ?? createFakeClock();
  const random = options.random ?? Math.random;
  const cache = new Map<string, IPAllocation>();
  const retries: string[] = [];
  const told: string[] = [];
  if (!isBlind) {
    stores.onChange((change) => {
      if (change.kind !== 'IPAllocation') return;
      if (change.type === 'DELETED') cache.delete(change.object.metadata.name);
      else cache.set(change.object.metadata.name, change.object);
    });
  }
  const inFlight = new Set<string>();
  const releases = createReleaseQueue({
    store: stores.allocations,
    clock,
    random,
    inFlight,
    reuseDelayMs: () => 30_000,
    onRetry: (name) => retries.push(name),
  });
  const parts: ClaimParts = {
    store: stores.allocations,
    clock,
    random,
    cursor: createRingCursor(),
    inFlight,
    taken: createTakenNames(clock),
    releases,
    observer: {
      created: () => told.push('created'),
      taken: () => told.push('taken'),
      retried: () => told.push('retried'),
    },
  };
  return {
    stores,
    clock,
    parts,
    releases,
    cache,
    retries,
    told,
    claim: (containerID, request = {}) =>
      claimAddresses(parts, {
        pool,
        subnets: subnets.map((cidr) => subnetOf(cidr, pool)),
        nodeName: 'n1',
        attachment: attachmentOf(containerID),
        allocations: cache,
        deadlineMs: 45_000,
        ...request,
      }),
  };
}
