import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { CONFLIST_FILE, renderConflist } from '../../src/agent/conflist.ts';
import { eventually, pool, startNode, type TestAgent, type TestNode } from './node.ts';
import { weftLinks } from './namespaces.ts';

/** What a node writes is a tmpfs of the test's own here: it is filled, or full of rubbish. */

let node: TestNode;
let agent: TestAgent;

const RUN = '/run/weft';
const CONFLIST = `/etc/cni/net.d/${CONFLIST_FILE}`;

beforeAll(async () => {
  node = await startNode();
  await node.apply(
    pool('disks', {
      cidrs: ['10.29.0.0/24', 'fd00:29::/64'],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      reuseDelaySeconds: 1,
    }),
  );
  agent = await node.startAgent();
  await conflistThere();
});

afterAll(() => node.stop());

afterEach(async () => {
  for (const directory of ['/run/weft', '/etc/cni']) {
    await execa('mount', ['-o', 'remount,bind,rw', directory]);
    await execa('mount', ['-o', 'remount,size=8m,nr_inodes=10k', directory]);
    await execa('rm', ['-f', `${directory}/ballast`]);
  }
});

describe('a full disk (F29)', () => {
  test('keeps no agent from starting and no ADD from succeeding; the conflist is mended when there is room', async () => {
    await agent.kill();
    await writeFile(CONFLIST, '');
    await fill(RUN);
    await fill('/etc/cni');
    agent = await node.startAgent();
    await works('on-full');
    await eventually('the agent to say so', () => (agent.log().includes('ENOSPC') ? true : undefined));
    expect(await readFile(CONFLIST, 'utf8')).toBe('');
    // A runtime takes what it can read: half a configuration would be worse than none.
    expect((await readdir('/etc/cni/net.d')).filter((name) => !name.startsWith('.'))).toEqual([
      CONFLIST_FILE,
    ]);

    await empty('/etc/cni');
    await conflistThere();
    expect(await readdir('/etc/cni/net.d')).toEqual([CONFLIST_FILE]);
  });

  test('makes a DEL fail that finds no agent, so that the runtime says it again, and leaves no half note', async () => {
    const netns = await node.makeSandbox('unnoted');
    expect((await node.cni({ command: 'ADD', containerID: 'unnoted', netns })).exitCode).toBe(0);
    await agent.kill();
    await fill(RUN);
    const del = { command: 'DEL', containerID: 'unnoted', netns };
    expect((await node.cni(del)).answer).toMatchObject({
      code: 5,
      msg: expect.stringContaining('cannot be noted in /run/weft/deleted') as string,
    });
    expect(await readdir(`${RUN}/deleted`).catch(() => [])).toEqual([]);
    expect((await node.allocations('unnoted')).map(({ released }) => released)).toEqual([false, false]);

    await empty(RUN);
    expect((await node.cni(del)).exitCode).toBe(0);
    expect(await readdir(`${RUN}/deleted`)).toHaveLength(1);
    agent = await node.startAgent();
    await nothingLeft('unnoted');
  });

  test('without an inode for its socket an agent ends saying what is missing, and the next one serves', async () => {
    await agent.kill();
    await execa('mount', [
      '-o',
      `remount,nr_inodes=${(await readdir(RUN, { recursive: true })).length + 1}`,
      RUN,
    ]);
    const starved = await node.startAgent({ unready: true });
    await starved.ended;
    expect(await starved.exitCode()).toBe(1);
    expect(starved.log()).toMatch(/ENOSPC.*\/run\/weft/);
    await execa('mount', ['-o', 'remount,nr_inodes=10k', RUN]);
    agent = await node.startAgent();
    await works('inodes-again');
  });
});

describe('a disk that can only be read (F30)', () => {
  test('has an agent end saying which, and the next one serve when it may be written', async () => {
    await agent.kill();
    await readOnly(RUN);
    const barred = await node.startAgent({ unready: true });
    await barred.ended;
    expect(await barred.exitCode()).toBe(1);
    expect(barred.log()).toMatch(/EROFS.*\/run\/weft/);
    await execa('mount', ['-o', 'remount,bind,rw', RUN]);
    agent = await node.startAgent();
    await works('writable-again');
  });

  test('leaves the conflist as it is, which is said, and mended when it can be', async () => {
    await agent.kill();
    await writeFile(CONFLIST, '');
    await readOnly('/etc/cni');
    agent = await node.startAgent();
    await works('without-conflist');
    await eventually('the agent to say so', () => (/EROFS.*\/etc\/cni/.test(agent.log()) ? true : undefined));
    await execa('mount', ['-o', 'remount,bind,rw', '/etc/cni']);
    await conflistThere();
  });
});

describe('an agent that may open no more files (F30)', () => {
  test.each([0, 1, 2, 4])(
    'but %i answers an ADD or says why not, leaves nothing, and works again when it may',
    { timeout: 90_000 },
    async (spare) => {
      const id = `spare-${spare}`;
      const netns = await node.makeSandbox(id);
      const add = { command: 'ADD', containerID: id, netns };
      const soft = await limitFiles(spare);
      try {
        const { answer, stdout, exitCode } = await node.cni(add);
        if (exitCode === 0) expect(answer?.ips, stdout).toHaveLength(2);
        else {
          expect(answer, stdout).toMatchObject({
            msg: expect.stringMatching(/EMFILE|too many open files|agent/i) as string,
          });
          expect([11, 104], stdout).toContain(answer?.code);
        }
      } finally {
        await execa('prlimit', [`--pid=${String(agent.pid)}`, `--nofile=${soft}:`]);
      }
      const again = await node.cni(add);
      expect(again.answer?.ips, again.stdout).toHaveLength(2);
      expect((await node.cni({ ...add, command: 'DEL' })).exitCode).toBe(0);
      await nothingLeft(id);
      await node.removeSandbox(id);
    },
  );
});

describe('files that are not as they should be (F30)', () => {
  const NAME = `${'0'.repeat(64)}.json`;
  const note = { format: 1, network: 'weft', containerID: 'x', ifName: 'eth0', netns: '', notedAt: 'then' };

  test.each([
    ['a note of no bytes', `${RUN}/deleted/${NAME}`, ''],
    ['half a note', `${RUN}/deleted/${NAME}`, '{"format": 1, "netw'],
    ['a note of a later format', `${RUN}/deleted/${NAME}`, JSON.stringify({ ...note, format: 9 })],
    ['a note without what an earlier one has', `${RUN}/deleted/${NAME}`, JSON.stringify({ format: 1 })],
    ['a serving mark full of rubbish', `${RUN}/serving`, '\0rubbish'.repeat(100)],
    ['a lock with something in it', `${RUN}/agent.lock`, '4711'],
    ['half a conflist', CONFLIST, '{"cniVersion": "1.0.0", "plug'],
    ['a conflist of another', CONFLIST, '{"cniVersion": "9.9.9", "name": "other", "plugins": []}'],
  ])('%s keeps no agent from starting, and is put right', async (_what, path, text) => {
    await agent.kill();
    await mkdir(`${RUN}/deleted`, { recursive: true });
    await writeFile(path, text);
    agent = await node.startAgent();
    await works('after-rubbish');
    await conflistThere();
    expect(await readdir(`${RUN}/deleted`)).toEqual([]);
    expect((await node.cni({ command: 'STATUS' })).exitCode).toBe(0);
  });
});

/** A pod comes, has both its addresses, and goes without a trace. */
async function works(id: string): Promise<void> {
  const netns = await node.makeSandbox(id);
  const { answer, stdout } = await node.cni({ command: 'ADD', containerID: id, netns });
  expect(answer?.ips, `${stdout}\n${agent.log().slice(-2_000)}`).toHaveLength(2);
  expect((await node.cni({ command: 'DEL', containerID: id, netns })).exitCode).toBe(0);
  await nothingLeft(id);
  await node.removeSandbox(id);
}

async function nothingLeft(containerID: string): Promise<void> {
  await eventually(`nothing of ${containerID} to be left`, async () =>
    (await node.allocations(containerID)).length + (await weftLinks()).length === 0 ? true : undefined,
  );
}

/** Lets the agent open so many files more; answers what it was allowed before. */
async function limitFiles(spare: number): Promise<string> {
  const pid = String(agent.pid);
  const { stdout: soft } = await execa('prlimit', [
    ...[`--pid=${pid}`, '--nofile', '--raw', '--noheadings', '--output=SOFT'],
  ]);
  const open = new Set((await readdir(`/proc/${pid}/fd`)).map(Number));
  let limit = 0;
  for (let left = spare; open.has(limit) || left-- > 0;) limit++;
  await execa('prlimit', [`--pid=${pid}`, `--nofile=${limit}:`]);
  return soft.trim();
}

async function readOnly(directory: string): Promise<void> {
  await execa('mount', ['-o', 'remount,bind,ro', directory]);
}

async function conflistThere(): Promise<void> {
  await eventually('the conflist as it should be', async () =>
    (await readFile(CONFLIST, 'utf8').catch(() => '')) === renderConflist() ? true : undefined,
  );
}

/** Takes all the room that there is. */
async function fill(directory: string): Promise<void> {
  await execa('mount', ['-o', 'remount,size=64k', directory]);
  const { failed } = await execa('dd', ['if=/dev/zero', `of=${directory}/ballast`, 'bs=4k'], {
    reject: false,
  });
  expect(failed).toBe(true);
}

async function empty(directory: string): Promise<void> {
  await execa('rm', [`${directory}/ballast`]);
}
