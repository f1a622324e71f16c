import type { NamespaceState } from '../ipam/index.ts';
import { InvalidNamespaceError, namespaceIdentity } from '../kernel/index.ts';

/** Whether a namespace of that inode is mounted at that path. What cannot be looked at counts as unknown. */
export function namespaceState(netns: { readonly path: string; readonly inode: number }): NamespaceState {
  try {
    const { inode } = namespaceIdentity(netns.path);
    return Number(inode) === netns.inode ? 'alive' : 'dead';
  } catch (error) {
    if (!(error instanceof InvalidNamespaceError)) throw error;
    return error.reason === 'notAccessible' ? 'unknown' : 'dead';
  }
}
