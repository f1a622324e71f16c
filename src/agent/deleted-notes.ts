import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { DELETED_NOTE_NAME, LATEST_VERSION, type DeletedNote, type DelRequest } from '../cni/index.ts';
import { isContainerID, isInterfaceName, isNetworkName, namespacePath } from '../cni/names.ts';
import { namesIn } from './names-in.ts';

export interface DeletedNotesOptions {
  readonly directory: string;
  readonly del: (request: DelRequest) => Promise<void>;
  readonly log: {
    info(facts: object, message: string): void;
    error(facts: object, message: string): void;
  };
}

/**
 * Carries out what DELs noted while no agent was there, and empties the folder. To be run after the socket has
 * opened and before calls are served: a note that outlived its turn could take down a later attachment of the same
 * name. For the same reason one that fails is not kept: the sweep gives its addresses back once the runtime has
 * removed the namespace, which it does right after its DEL.
 */
export async function workOffDeletedNotes(options: DeletedNotesOptions): Promise<void> {
  for (const name of await namesIn(options.directory)) {
    const path = join(options.directory, name);
    const note = DELETED_NOTE_NAME.test(name) ? await readNote(path, options.log) : undefined;
    if (note !== undefined) await carryOut(note, options);
    await rm(path, { force: true, recursive: true });
  }
}

const Note = z.object({
  format: z.literal(1),
  network: z.string().refine(isNetworkName),
  containerID: z.string().refine(isContainerID),
  ifName: z.string().refine(isInterfaceName),
  netns: z.string(),
  addressOnly: z.boolean().optional(),
  notedAt: z.string(),
}) satisfies z.ZodType<DeletedNote>;

/** Undefined for what a full disk or another version has left there; that is reported and goes. */
async function readNote(path: string, log: DeletedNotesOptions['log']): Promise<DeletedNote | undefined> {
  try {
    return Note.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch (error) {
    log.error({ err: error, path }, 'cannot read the note of a deletion; the sweep will find its attachment');
    return undefined;
  }
}

async function carryOut(note: DeletedNote, { del, log }: DeletedNotesOptions): Promise<void> {
  const { network, containerID, ifName, netns, addressOnly, notedAt } = note;
  const attachment = { network, containerID, ifName };
  try {
    await del({
      verb: 'DEL',
      asks: addressOnly === true ? 'AddressOnly' : 'Interface',
      cniVersion: LATEST_VERSION,
      attachment,
      netns: netns === '' ? undefined : namespacePath(netns),
    });
    log.info({ attachment, notedAt }, 'carried out a deletion that was noted while no agent ran');
  } catch (error) {
    log.error({ err: error, attachment, notedAt }, 'cannot carry out a noted deletion; the sweep will');
  }
}
