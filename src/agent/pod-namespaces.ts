import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { IPAllocation } from '../api/index.ts';

/** Where container runtimes mount the network namespaces of pods, and where the agent's container sees them. */
const NAMESPACE_DIRECTORY = '/run/netns';

/**
 * The paths at which pods' namespaces may be: those that allocations name, and what runtimes have mounted, since an
 * allocation that was made again for a living sandbox does not say where that is.
 */
export function podNamespacePaths(allocations: Iterable<IPAllocation>): string[] {
  const named = [...allocations].flatMap(({ spec }) => spec.attachment?.netns?.path ?? []);
  return [...new Set([...named, ...mounted()])];
}

function mounted(): string[] {
  try {
    return readdirSync(NAMESPACE_DIRECTORY).map((name) => join(NAMESPACE_DIRECTORY, name));
  } catch (error) {
    // No namespace has ever been mounted there.
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
}
