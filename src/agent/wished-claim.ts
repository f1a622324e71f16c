import { STICKY_HOLDER, type IPAllocation, type IPPool } from '../api/index.ts';
import {
  AddressHeldError,
  FixedAddressError,
  isStillGiven,
  jitteredBackOff,
  poolOfNamed,
  type AddressWishes,
  type PoolChoice,
  type WantedAddress,
} from '../ipam/index.ts';
import { FAMILIES, formatAddress, sameAddress, type Family, type IPAddress } from '../net/index.ts';
import { claimFromOneOf, type Claimant, type ClaimingParts } from './claim.ts';
import { reuseDelayMs } from './parts.ts';

/** A pod's wishes, and the pools that it may draw from, in their order. */
export interface Wishes extends AddressWishes {
  readonly pools: readonly IPPool[];
  /** What they were chosen from. */
  readonly choice: PoolChoice;
}

/**
 * Claims for a pod that wants certain addresses: those that it names, and those that are kept for it. Of a family of
 * which it is owed none an address is drawn as for any other. Each leads to this node before the pod is wired.
 * @throws as claimFor does
 */
export async function claimWished(
  parts: ClaimingParts,
  claimant: Claimant,
  wishes: Wishes,
  signal: AbortSignal,
): Promise<IPAllocation[]> {
  const kept = wishes.sticky === undefined ? [] : await listed(parts, wishes.sticky, signal);
  const wanted = wantedOf(wishes, kept, parts);
  const pools = wanted.pool === undefined ? wishes.pools : [wanted.pool];
  const terms = { wanted: wanted.addresses, sticky: wishes.sticky };
  await notHeld(parts, wanted.addresses, signal);
  const claimed = await claimFromOneOf(parts, claimant, pools, terms, signal);
  try {
    // A hold that began after the look before: its owner may have come by the same answer a moment later.
    const [address] = addressesIn(wanted.addresses);
    if (address !== undefined && (await isHeld(parts, signal))) throw new AddressHeldError(address);
    for (const allocation of claimed) {
      // What was drawn lies in the node's own subnets.
      const { family } = allocation.spec.address;
      if (wanted.addresses[family] !== undefined) await parts.exclusiveSubnets.secure(allocation, signal);
    }
  } catch (error) {
    for (const allocation of claimed) void parts.claims.releases.release(allocation, { reuseDelayMs: 0 });
    throw error;
  }
  const outdated = kept.filter(
    ({ metadata, spec }) =>
      claimed.some((one) => one.spec.address.family === spec.address.family) &&
      claimed.every((one) => one.metadata.uid !== metadata.uid),
  );
  for (const allocation of outdated) {
    tellOutdated(parts, claimant, allocation);
    void letGo(parts, claimant, allocation);
  }
  return claimed;
}

/** How often it is asked whether claims are still held. */
const HOLD_LOOK_MS = 1_000;

/**
 * Waits a little for the end of a hold. An address that is drawn lies in a subnet of this node, and nobody else draws
 * there; one that must be had may be a pod's on another node, whose agent has yet to claim again what etcd has forgotten.
 * @throws AddressHeldError
 */
async function notHeld(
  parts: ClaimingParts,
  wanted: Readonly<Partial<Record<Family, WantedAddress>>>,
  signal: AbortSignal,
): Promise<void> {
  const [address] = addressesIn(wanted);
  if (address === undefined) return;
  const { clock } = parts.claims;
  const giveUpAtMs = clock.nowMs() + parts.settings.subnetWaitMs;
  while (await isHeld(parts, signal)) {
    if (clock.nowMs() >= giveUpAtMs) throw new AddressHeldError(address);
    await clock.sleep(HOLD_LOOK_MS, signal);
  }
}

function addressesIn(wanted: Readonly<Partial<Record<Family, WantedAddress>>>): IPAddress[] {
  return FAMILIES.flatMap((family) => wanted[family]?.address ?? []);
}

/** Asked until it is answered: nobody may take a failure for "not held". */
async function isHeld(
  { claims: { clock, random }, hold, log }: ClaimingParts,
  signal: AbortSignal,
): Promise<boolean> {
  if (hold === undefined) return false;
  const backOff = jitteredBackOff(random);
  for (;;) {
    try {
      return await hold.isHeld(signal);
    } catch (error) {
      signal.throwIfAborted();
      log.warn({ err: error }, 'could not read whether claims are held: trying again');
      await clock.sleep(backOff.next(), signal);
    }
  }
}

/** What the pod is to have, and from which pool; undefined: nothing certain, from any. */
function wantedOf(
  { addresses, pools, choice }: Wishes,
  kept: readonly IPAllocation[],
  parts: ClaimingParts,
): { readonly pool?: IPPool; readonly addresses: Partial<Record<Family, WantedAddress>> } {
  const given = kept.filter((allocation) => isStillGiven(allocation, pools));
  const named = addresses === undefined ? undefined : poolOfNamed(addresses, pools, choice);
  if (named !== undefined) refuseOtherFamilies(addresses ?? {}, parts.subnetSource.families(named), parts);
  const pool = named ?? pools.find(({ metadata }) => given.some(({ spec }) => spec.pool === metadata.name));
  if (pool === undefined) return { addresses: {} };
  const wanted: Partial<Record<Family, WantedAddress>> = {};
  for (const family of FAMILIES) {
    const name = addresses?.[family];
    const found = given.find(
      ({ spec }) =>
        spec.pool === pool.metadata.name &&
        spec.address.family === family &&
        (name === undefined || sameAddress(spec.address, name)),
    );
    const address = name ?? found?.spec.address;
    if (address !== undefined) wanted[family] = { address, ...(found === undefined ? {} : { kept: found }) };
  }
  return { pool, addresses: wanted };
}

function refuseOtherFamilies(
  addresses: Readonly<Partial<Record<Family, IPAddress>>>,
  families: readonly Family[],
  { nodeName }: ClaimingParts,
): void {
  for (const family of FAMILIES) {
    const address = addresses[family];
    if (address === undefined || families.includes(family)) continue;
    throw new FixedAddressError(
      address,
      `node ${nodeName} has no ${family} address, so nobody would find the pod`,
    );
  }
}

/** A list is answered or not; while it is not nobody knows which addresses are the pod's. */
async function listed(
  { claims: { clock, random }, listSticky, log }: ClaimingParts,
  pod: string,
  signal: AbortSignal,
): Promise<IPAllocation[]> {
  const backOff = jitteredBackOff(random);
  for (;;) {
    try {
      return await listSticky(pod, signal);
    } catch (error) {
      signal.throwIfAborted();
      log.warn({ err: error, pod }, 'could not list the addresses that are kept for a pod: trying again');
      await clock.sleep(backOff.next(), signal);
    }
  }
}

function tellOutdated(parts: ClaimingParts, { pod }: Claimant, { spec }: IPAllocation): void {
  parts.announce.notGranted(
    pod,
    `the pod has a new address: ${formatAddress(spec.address)}, which was kept for it, is not given from IPPool ` +
      `${spec.pool} any more, or the pod asks for another`,
  );
}

/**
 * Frees an address that was kept for the pod and is not its any more: otherwise nobody would, and no drain would end.
 * The pod's last sandbox may have had it a moment ago, and the next may be a stranger's: it rests first, kept as it is.
 * Only who holds it may delete it. What does not succeed the pod's next ADD does.
 */
async function letGo(parts: ClaimingParts, claimant: Claimant, allocation: IPAllocation): Promise<void> {
  const { attachment, pod } = claimant;
  if (pod === undefined || allocation.spec.holder !== STICKY_HOLDER) return;
  const { clock, store, releases } = parts.claims;
  try {
    await clock.sleep(reuseDelayMs(parts.pools(), allocation.spec.pool));
    // Not if a sandbox has had it meanwhile: that is another version.
    const bound = await store.bind(allocation, { nodeName: parts.nodeName, attachment, pod });
    if (bound.kind === 'done') await releases.release(bound.object, { reuseDelayMs: 0, neverUsed: true });
  } catch (error) {
    parts.log.warn(
      { err: error, address: allocation.metadata.name },
      'could not free an outdated sticky address',
    );
  }
}
