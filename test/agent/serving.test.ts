import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { CONFLIST_FILE, renderConflist } from '../../src/agent/conflist.ts';
import { createServing } from '../../src/agent/serving.ts';
import { parseServingMark } from '../../src/cni/serving-mark.ts';
import { createFakeClock, type FakeClock } from '../ipam/fake-clock.ts';

let directory: string;
let flags: { runDirectory: string; confDirectory: string };
let clock: FakeClock;
let errors: object[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-serving-'));
  flags = { runDirectory: join(directory, 'run'), confDirectory: join(directory, 'conf') };
  for (const path of Object.values(flags)) {
    await mkdir(path);
    await chmod(path, 0o755);
  }
  clock = createFakeClock();
  errors = [];
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

test('it is not ready for as long as it waits for something, and says for what', () => {
  const serving = create();
  expect(serving.whyNotReady()).toBe('waiting for the apiserver');
  serving.waitsFor("the node's routes and filters");
  expect(serving.whyNotReady()).toBe("waiting for the node's routes and filters");
  expect(serving.facts(undefined).waitingFor).toBe("the node's routes and filters");
  serving.ready();
  expect(serving.whyNotReady()).toBeUndefined();
});

test('before the node can serve there is neither mark nor conflist, and STATUS says what is missing', async () => {
  const serving = create();
  serving.ready();
  await serving.announce(false);
  await serving.touch();
  expect(await readdir(flags.runDirectory)).toEqual([]);
  expect(await readdir(flags.confDirectory)).toEqual([]);
  expect(serving.facts(undefined)).toMatchObject({ servedSinceBoot: false });
  expect(serving.facts(undefined).waitingFor).toContain('is there an IPPool?');
});

test('once it can serve the mark is left first, and then the conflist', async () => {
  const serving = create();
  // A directory that must not be written to: the mark is there all the same.
  await chmod(flags.confDirectory, 0o777);
  await expect(serving.announce(true)).rejects.toThrow(/may be written by others/);
  expect(await readdir(flags.runDirectory)).toEqual(['serving']);
  expect(await readdir(flags.confDirectory)).toEqual([]);
  await chmod(flags.confDirectory, 0o755);
  await serving.announce(true);
  expect(await readdir(flags.confDirectory)).toEqual([CONFLIST_FILE]);
  expect(serving.facts(undefined).servedSinceBoot).toBe(true);
});

test('a full node afterwards takes neither away', async () => {
  const serving = create();
  await serving.announce(true);
  await serving.announce(false);
  expect(await readdir(flags.confDirectory)).toEqual([CONFLIST_FILE]);
  expect(serving.facts(undefined).servedSinceBoot).toBe(true);
});

test('a conflist that somebody removed is put back', async () => {
  const serving = create();
  await serving.announce(true);
  await rm(join(flags.confDirectory, CONFLIST_FILE));
  await serving.announce(true);
  expect(await readdir(flags.confDirectory)).toEqual([CONFLIST_FILE]);
});

test('the next agent of the same boot knows by the mark that pods were served', async () => {
  await create().announce(true);
  expect(create().facts(undefined).servedSinceBoot).toBe(true);
});

test('the mark is touched with the time of day', async () => {
  const serving = create();
  await serving.announce(true);
  await clock.advance(3_600_000);
  await serving.touch();
  expect((await stat(join(flags.runDirectory, 'serving'))).mtimeMs).toBe(clock.wallTime().getTime());
});

test('the mark says how long after the boot it was touched, in place: also on a disk that is full by then', async () => {
  const serving = create();
  await serving.announce(true);
  const mark = join(flags.runDirectory, 'serving');
  const first = await stat(mark);
  await clock.advance(3_600_000);
  await serving.touch();
  expect(parseServingMark(await readFile(mark, 'utf8'))).toBe(5_000 + clock.nowMs());
  expect(await stat(mark)).toMatchObject({ ino: first.ino, size: first.size });
});

test('a mark that somebody removed is there again at the next touch', async () => {
  const serving = create();
  await serving.announce(true);
  await rm(join(flags.runDirectory, 'serving'));
  await serving.touch();
  expect((await stat(join(flags.runDirectory, 'serving'))).mtimeMs).toBe(clock.wallTime().getTime());
});

test('another configuration that sorts before weft is reported, once for each set of them', async () => {
  const serving = create();
  await writeFile(join(flags.confDirectory, '05-other.conflist'), renderConflist());
  await serving.announce(true);
  await serving.announce(true);
  expect(errors).toEqual([{ files: '05-other.conflist' }]);
  await rm(join(flags.confDirectory, '05-other.conflist'));
  await serving.announce(true);
  await writeFile(join(flags.confDirectory, '05-other.conflist'), renderConflist());
  await serving.announce(true);
  expect(errors).toHaveLength(2);
});

function create() {
  const ignore = () => undefined;
  return createServing({
    flags,
    clock,
    uptimeMs: () => 5_000 + clock.nowMs(),
    log: { info: ignore, warn: ignore, error: (facts) => errors.push(facts) },
  });
}
