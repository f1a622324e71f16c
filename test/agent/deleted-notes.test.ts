import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { workOffDeletedNotes } from '../../src/agent/deleted-notes.ts';
import { deletedNoteName, type DeletedNote, type DelRequest } from '../../src/cni/index.ts';

let directory: string;
let errors: string[];
const log = { info: () => undefined, error: (_facts: object, message: string) => void errors.push(message) };

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-notes-'));
  errors = [];
});
afterEach(() => rm(directory, { recursive: true, force: true }));

it('carries out each note and empties the folder', async () => {
  await keep(note({ containerID: 'one', netns: '/var/run/netns/x' }));
  await keep(note({ containerID: 'two', netns: '' }));
  const deleted = await workOff();
  deleted.sort((a, b) => a.attachment.containerID.localeCompare(b.attachment.containerID));
  expect(deleted).toMatchObject([
    { attachment: { network: 'weft', containerID: 'one', ifName: 'eth0' }, netns: '/run/netns/x' },
    { attachment: { containerID: 'two' }, netns: undefined },
  ]);
  expect(errors).toEqual([]);
  expect(await readdir(directory)).toEqual([]);
});

it.each([
  ['an empty file, left by a full disk', ''],
  ['half a note', '{"format": 1, "network": "we'],
  ['a note of a later version', JSON.stringify({ ...note({}), format: 2 })],
  ['a note with a path for a name', JSON.stringify(note({ containerID: '../../x' }))],
])('reports and removes %s, and carries out the others', async (_name, text) => {
  await writeFile(join(directory, `${'0'.repeat(64)}.json`), text);
  await keep(note({ containerID: 'good' }));
  expect((await workOff()).map(({ attachment }) => attachment.containerID)).toEqual(['good']);
  expect(errors).toHaveLength(1);
  expect(await readdir(directory)).toEqual([]);
});

it('removes what is no note, as a draft that its writer never renamed', async () => {
  await writeFile(join(directory, `${'0'.repeat(64)}.json.123`), '{');
  await mkdir(join(directory, 'folder'));
  expect(await workOff()).toEqual([]);
  expect(errors).toEqual([]);
  expect(await readdir(directory)).toEqual([]);
});

it('goes on after one that fails, and does not keep it for a later attachment of that name', async () => {
  await keep(note({ containerID: 'one' }));
  await keep(note({ containerID: 'two' }));
  const tried: string[] = [];
  await workOffDeletedNotes({
    directory,
    log,
    del: async ({ attachment }) => {
      tried.push(attachment.containerID);
      throw new Error('the kernel is busy');
    },
  });
  expect(tried.sort()).toEqual(['one', 'two']);
  expect(errors).toHaveLength(2);
  expect(await readdir(directory)).toEqual([]);
});

it('does nothing where no DEL ever noted anything', async () => {
  await rm(directory, { recursive: true });
  expect(await workOff()).toEqual([]);
});

function note(changes: Partial<DeletedNote>): DeletedNote {
  return {
    format: 1,
    network: 'weft',
    containerID: 'c0ffee',
    ifName: 'eth0',
    netns: '/run/netns/x',
    notedAt: '2026-01-01T00:00:00.000Z',
    ...changes,
  };
}

async function keep(kept: DeletedNote): Promise<void> {
  await writeFile(join(directory, deletedNoteName(kept)), JSON.stringify(kept));
}

async function workOff(): Promise<DelRequest[]> {
  const deleted: DelRequest[] = [];
  await workOffDeletedNotes({ directory, log, del: async (request) => void deleted.push(request) });
  return deleted;
}
