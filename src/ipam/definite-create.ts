import type { IPAllocation, IPAllocationSpec } from '../api/index.ts';
import { allocationName } from '../api/index.ts';
import { jitteredBackOff, type Clock, type Random } from './clock.ts';
import type { AllocationStore } from './store.ts';

export interface DefiniteCreateParts {
  readonly store: Pick<AllocationStore, 'create' | 'get'>;
  readonly clock: Clock;
  readonly random: Random;
}

export interface DefiniteCreate {
  readonly spec: IPAllocationSpec;
  /** Whether an object found under the name is the one that this claim sent: asked after a create of unknown outcome. */
  readonly isOurs: (found: IPAllocation) => boolean;
  /** Whether a failure says for certain that nothing was done, and would be the same again. Default: never. */
  readonly isRefusal?: (error: unknown) => boolean;
  /** Told before each further try, with the failure of the one before if it was one. */
  readonly onRetry: (failure: unknown) => void;
  readonly signal: AbortSignal;
  /** Kept up to date, for who catches: whether a create of ours may have committed without our knowing. */
  readonly attempt: { open: boolean };
}

/**
 * Creates the object of one name until the answer is definite. Only somebody else's object of that name is "taken";
 * after any other failure the same name is tried again, since the create may have committed.
 * @throws the signal's reason, or a refusal
 */
export async function createDefinitely(
  { store, clock, random }: DefiniteCreateParts,
  { spec, isOurs, isRefusal = () => false, onRetry, signal, attempt }: DefiniteCreate,
): Promise<IPAllocation | 'taken'> {
  const backOff = jitteredBackOff(random);
  for (;;) {
    signal.throwIfAborted();
    const mayBeOurs = attempt.open;
    let failure: unknown;
    try {
      attempt.open = true;
      const outcome = await store.create(spec, signal);
      if (outcome.kind === 'created') {
        attempt.open = false;
        return outcome.object;
      }
      const found = mayBeOurs ? await store.get(allocationName(spec.address), signal) : undefined;
      if (!mayBeOurs || found !== undefined) {
        attempt.open = false;
        return found !== undefined && isOurs(found) ? found : 'taken';
      }
      // It was there and has gone: whose it was nobody can say. The same name again.
    } catch (error) {
      if (signal.aborted) throw error;
      if (isRefusal(error)) {
        attempt.open = mayBeOurs;
        throw error;
      }
      failure = error;
    }
    onRetry(failure);
    await clock.sleep(backOff.next(), signal);
  }
}
