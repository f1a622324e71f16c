/** An attachment that a DEL found no agent to tell. */
export interface DeletedNote {
  readonly format: 1;
  readonly network: string;
  readonly containerID: string;
  readonly ifName: string;
  /** As the runtime said it; empty if it said none. */
  readonly netns: string;
  /** True where only addresses are given back: the interface is another plugin's. */
  readonly addressOnly?: boolean | undefined;
  /** ISO 8601, for people: nothing is decided by it. */
  readonly notedAt: string;
}

/** A note's file name: a hash, since a container ID comes from outside and never becomes part of a path. */
export function deletedNoteName(note: Pick<DeletedNote, 'network' | 'containerID' | 'ifName'>): string {
  // Looked up when needed: imported, every call of the executable would pay for loading it.
  const { createHash } = process.getBuiltinModule('node:crypto');
  return `${createHash('sha256').update(`${note.network}\0${note.containerID}\0${note.ifName}`).digest('hex')}.json`;
}

/** Names that deletedNoteName makes; any other file in the folder is none of ours. */
export const DELETED_NOTE_NAME = /^[0-9a-f]{64}\.json$/;
