import { allocationName, STICKY_HOLDER, type IPAllocation, type IPAllocationSpec } from '../api/index.ts';
import { type IPAddress } from '../net/index.ts';
import type { ClaimParts, ClaimRequest } from './claim.ts';
import { jitteredBackOff } from './clock.ts';
import { orAborted } from './deadline.ts';
import { AddressTakenError } from './errors.ts';
import { isOf, isResting } from './release.ts';

/** The one address that a pod is to have of a family. */
export interface WantedAddress {
  readonly address: IPAddress;
  /** The object that keeps it for the pod, as a list has shown it. Absent: the pod names the address. */
  readonly kept?: IPAllocation;
}

/** For how long a pod waits for the end of its earlier self before its ADD fails: a DEL may be on its way. */
export const SUCCESSOR_WAIT_MS = 5_000;

/** How often it looks meanwhile. */
const LOOK_MS = 200;

/**
 * Claims that very address, and never another instead:
 *
 * | under the name stands                          | what happens                                             |
 * |------------------------------------------------|----------------------------------------------------------|
 * | nothing                                        | it is created                                            |
 * | one that is kept for this pod, without sandbox | it is bound to this one, by an update                    |
 * | ours, by a write that this claim has sent      | claimed: the answer was lost                             |
 * | ours, of an earlier ADD                        | released first: that release may be under way            |
 * | one of an earlier sandbox of this pod          | waited for, SUCCESSOR_WAIT_MS at the most                |
 * | anyone else's                                  | AddressTakenError                                        |
 *
 * As with any claim only a definite answer counts, and what is open on giving up is undone.
 */
export async function claimWanted(
  parts: ClaimParts,
  request: ClaimRequest,
  wanted: WantedAddress,
  signal: AbortSignal,
  onFailure: (error: unknown) => void,
): Promise<IPAllocation> {
  const { store, clock, random, inFlight, releases } = parts;
  const { attachment, pod, nodeName } = request;
  const { address } = wanted;
  const name = allocationName(address);
  const giveUpAtMs = clock.nowMs() + SUCCESSOR_WAIT_MS;
  const waitOrThrow = async (holder: string) => {
    if (clock.nowMs() >= giveUpAtMs) throw new AddressTakenError(address, holder);
    await clock.sleep(LOOK_MS, signal);
  };
  while (inFlight.has(name)) {
    await waitOrThrow('is being given back or claimed by another pod of this node at this moment');
  }
  inFlight.add(name);
  const backOff = jitteredBackOff(random);
  let found = wanted.kept;
  /** Whether a write of ours may have committed without our knowing. */
  let open = false;
  try {
    for (;;) {
      try {
        signal.throwIfAborted();
        const mayBeOurs: boolean = open;
        if (found === undefined) {
          open = true;
          const outcome = await store.create(specOf(request, address), signal);
          if (outcome.kind === 'created') {
            open = false;
            return outcome.object;
          }
          open = mayBeOurs;
          found = await store.get(name, signal);
        } else if (pod !== undefined && isKeptFor(found, request)) {
          open = true;
          const outcome = await store.bind(found, { nodeName, attachment, pod }, signal);
          if (outcome.kind === 'done') {
            open = false;
            return outcome.object;
          }
          open = mayBeOurs;
          found = await store.get(name, signal);
        } else if (isOf(found, attachment)) {
          if (mayBeOurs && !isResting(found)) {
            open = false;
            return found;
          }
          await orAborted(releases.release(found, { reuseDelayMs: 0 }), signal);
          found = await store.get(name, signal);
          if (found !== undefined && isOf(found, attachment)) {
            await waitOrThrow('is being given back by an earlier ADD of this very sandbox');
          }
        } else {
          // Definitely another's: what we sent has not taken effect, and cannot any more.
          open = false;
          if (!isEarlierSelf(found, request)) throw new AddressTakenError(address, holderOf(found));
          await waitOrThrow(holderOf(found));
          found = await store.get(name, signal);
        }
        continue;
      } catch (error) {
        if (signal.aborted || error instanceof AddressTakenError) throw error;
        onFailure(error);
      }
      await clock.sleep(backOff.next(), signal);
      found = await store.get(name, signal).catch(() => found);
    }
  } finally {
    if (open) void releases.undo(name, attachment);
    else inFlight.delete(name);
  }
}

function specOf(request: ClaimRequest, address: IPAddress): IPAllocationSpec {
  const { pool, nodeName, attachment, pod, sticky } = request;
  return {
    address,
    pool: pool.metadata.name,
    nodeName,
    attachment,
    ...(pod === undefined ? {} : { pod }),
    ...(sticky === undefined ? { fixed: true } : { sticky }),
  };
}

/** Whether it waits for a sandbox of this pod. */
function isKeptFor({ spec }: IPAllocation, request: ClaimRequest): boolean {
  return spec.holder === STICKY_HOLDER && spec.sticky === podKey(request);
}

/** Whether an earlier sandbox of this pod, or of its namesake before it, has the address. */
function isEarlierSelf({ spec }: IPAllocation, request: ClaimRequest): boolean {
  const key = podKey(request);
  if (key === undefined) return false;
  return spec.sticky === key || (spec.pod !== undefined && `${spec.pod.namespace}/${spec.pod.name}` === key);
}

function podKey({ pod }: ClaimRequest): string | undefined {
  return pod === undefined ? undefined : `${pod.namespace}/${pod.name}`;
}

/** "belongs to pod shop/db-0 on node n1": who has the address, as a part of a sentence. */
function holderOf(allocation: IPAllocation): string {
  const { pod, nodeName, holder, sticky, attachment } = allocation.spec;
  if (isResting(allocation)) return 'rests after its release by another pod';
  if (holder !== undefined) {
    return holder === STICKY_HOLDER && sticky !== undefined
      ? `is kept for pod ${sticky}`
      : `is held by ${holder}`;
  }
  const where = nodeName === undefined ? '' : ` on node ${nodeName}`;
  const who =
    pod === undefined ? `container ${attachment?.containerID ?? ''}` : `pod ${pod.namespace}/${pod.name}`;
  return `belongs to ${who}${where}`;
}
