import type { IPAllocation } from '../api/index.ts';
import { isOwnHolder } from './holder.ts';
import { isResting } from './release.ts';

/**
 * What a person's release of an address does. `rest`: it is marked as released, and its node's agent deletes it when
 * it has rested. `delete`: its name is free at once. `resting`: nothing, it has been released. `refused`: nothing,
 * without force.
 */
export type ReleaseVerdict = 'rest' | 'delete' | 'resting' | 'refused';

/**
 * Judges the release of an address by a person:
 *
 * | allocation                     | without force                        | with force |
 * |--------------------------------|--------------------------------------|------------|
 * | resting                        | resting                              | delete     |
 * | of an attachment               | refused: a sandbox may be alive      | delete     |
 * | held under weft's own word     | refused: weft means to give it back  | delete     |
 * | held on a node                 | rest, or delete where nothing rests  | delete     |
 * | held on no node                | delete: nobody would end its rest    | delete     |
 */
export function judgeReleaseByHand(
  allocation: IPAllocation,
  { force, reuseDelayMs }: { readonly force: boolean; readonly reuseDelayMs: number },
): ReleaseVerdict {
  if (force) return 'delete';
  if (isResting(allocation)) return 'resting';
  const { holder, nodeName } = allocation.spec;
  if (holder === undefined || isOwnHolder(holder)) return 'refused';
  return nodeName === undefined || reuseDelayMs === 0 ? 'delete' : 'rest';
}
