import { chmod, readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { uptime } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { workOffDeletedNotes } from '../../../src/agent/deleted-notes.ts';
import { renderServingMark } from '../../../src/cni/serving-mark.ts';
import { uptimeMs } from '../../../src/kernel/uptime.ts';
import type { AddResult, DelRequest } from '../../../src/cni/index.ts';
import { CONFIGURATION, environment, expectError, isThere, startMachine, type Machine } from './machine.ts';

const RESULT: AddResult = { interfaces: [], ips: [], routes: [], dns: {} };
const PREVIOUS = { cniVersion: '1.1.0', ips: [{ address: '10.0.0.2/32' }] };
const WHERE_TO_LOOK = /kubectl -n weft-system get pods/;

/** A loaded test machine starts processes slowly. */
const SLACK_MS = 4_000;

describe.concurrent('the executable without an agent', () => {
  it.for([
    ['ADD', CONFIGURATION],
    ['CHECK', { ...CONFIGURATION, prevResult: PREVIOUS }],
  ] as const)('answers %s with code 11 after 8 s', { timeout: 30_000 }, async ([verb, stdin]) => {
    await using machine = await startMachine();
    const result = await machine.call({ env: environment(verb), stdin });
    expectError(result, 11, /does not answer on \/run\/weft\/agent\.sock for 8 s/);
    expectError(result, 11, WHERE_TO_LOOK);
    expect(result.ms).toBeGreaterThan(7_500);
    expect(result.ms).toBeLessThan(8_000 + SLACK_MS);
  });

  it('answers GC with code 11 at once', { timeout: 30_000 }, async () => {
    await using machine = await startMachine();
    const stdin = { ...CONFIGURATION, 'cni.dev/valid-attachments': [] };
    const result = await machine.call({ env: environment('GC'), stdin });
    expectError(result, 11, WHERE_TO_LOOK);
    expect(result.ms).toBeLessThan(SLACK_MS);
  });

  it('says at once what is wrong with the environment', { timeout: 30_000 }, async () => {
    await using machine = await startMachine();
    const result = await machine.call({ env: environment('ADD', { CNI_CONTAINERID: '../../x' }) });
    expectError(result, 4, /^invalid CNI_CONTAINERID/);
    expect(result.ms).toBeLessThan(SLACK_MS);
  });

  it('answers VERSION alone, in the version that asks', { timeout: 30_000 }, async () => {
    await using machine = await startMachine();
    const result = await machine.call({ env: { CNI_COMMAND: 'VERSION' }, stdin: { cniVersion: '0.4.0' } });
    expect(JSON.parse(result.stdout)).toEqual({
      cniVersion: '0.4.0',
      supportedVersions: ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'],
    });
    expect(result.exitCode).toBe(0);
  });

  it('is served by an agent that comes back in time', { timeout: 30_000 }, async () => {
    await using machine = await startMachine();
    const called = machine.call({});
    await sleep(2_000);
    await machine.serve({ add: async () => RESULT });
    const result = await called;
    expect(result.exitCode).toBe(0);
    expect(JSON.parse(result.stdout)).toMatchObject({ cniVersion: '1.1.0' });
  });

  it('says a call again that was cut off', { timeout: 30_000 }, async () => {
    await using machine = await startMachine();
    let cut = 0;
    const dying = await machine.serveSilently((socket) => {
      cut++;
      socket.once('data', () => socket.destroy());
    });
    const called = machine.call({});
    await sleep(1_000);
    await dying();
    await machine.serve({ add: async () => RESULT });
    expect((await called).exitCode).toBe(0);
    expect(cut).toBeGreaterThan(0);
  });
});

describe.concurrent('STATUS without an agent', () => {
  it.for([
    ['one that served a moment ago', 0, true],
    ['one that was silent for 9 minutes', 9, true],
    ['one that was silent for 11 minutes', 11, false],
    ['one that never served', undefined, false],
  ] as const)('judges %s', { timeout: 30_000 }, async ([, minutes, fit]) => {
    await using machine = await startMachine();
    await markServing(machine, minutes);
    const result = await machine.call({ env: environment('STATUS') });
    if (fit) expect(result).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
    else expectError(result, 50, WHERE_TO_LOOK);
    expect(result.ms).toBeLessThan(SLACK_MS);
  });
});

describe.concurrent('STATUS without an agent, after the time of day was set (F31)', () => {
  it.for([
    ['forward by an hour, under an agent that served a moment ago', 0, 60, true],
    ['back by an hour, under an agent that has been silent for 11 minutes', 11, -60, false],
    ['back by an hour, under an agent that was silent for 9 minutes', 9, -60, true],
  ] as const)('%s', { timeout: 30_000 }, async ([, minutes, step, fit]) => {
    await using machine = await startMachine();
    const bootedEarlierBy = 3_600;
    await markServing(machine, minutes + step, uptimeMs() + bootedEarlierBy * 1_000 - minutes * 60_000);
    const result = await machine.call({ env: environment('STATUS'), bootedEarlierBy });
    if (fit) expect(result).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
    else expectError(result, 50, /silent on this node for 11 minutes/);
  });

  it('goes by the time since boot that the agent reads', () => {
    expect(Math.abs(uptimeMs() / 1000 - uptime())).toBeLessThan(5);
  });
});

describe.concurrent('DEL without an agent', () => {
  const env = environment('DEL', { CNI_CONTAINERID: 'deadbeef', CNI_NETNS: '' });

  it('notes the attachment for the agent and succeeds after 3 s', { timeout: 30_000 }, async () => {
    await using machine = await startMachine();
    const result = await machine.call({ env });
    expect(result).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
    expect(result.ms).toBeGreaterThan(2_500);
    expect(result.ms).toBeLessThan(3_000 + SLACK_MS);

    const directory = join(machine.run, 'deleted');
    const [name = '', ...others] = await readdir(directory);
    expect(others).toEqual([]);
    expect(name).toMatch(/^[0-9a-f]{64}\.json$/);
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    expect((await stat(join(directory, name))).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await readFile(join(directory, name), 'utf8'))).toMatchObject({
      format: 1,
      network: 'weft',
      containerID: 'deadbeef',
      ifName: 'eth0',
      netns: '',
    });

    const deleted: DelRequest[] = [];
    await workOffDeletedNotes({ directory, del: async (request) => void deleted.push(request), log: SILENT });
    expect(deleted).toEqual([
      {
        verb: 'DEL',
        asks: 'Interface',
        cniVersion: '1.1.0',
        attachment: { network: 'weft', containerID: 'deadbeef', ifName: 'eth0' },
        netns: undefined,
      },
    ]);
    expect(await readdir(directory)).toEqual([]);
  });

  it(
    'of another plugin’s interface is noted as that: its addresses alone are given back',
    { timeout: 30_000 },
    async () => {
      await using machine = await startMachine();
      const stdin = { cniVersion: '1.0.0', name: 'bridged', type: 'bridge', ipam: { type: 'weft-ipam' } };
      expect(await machine.call({ env, stdin })).toMatchObject({ exitCode: 0, stdout: '' });
      const deleted: DelRequest[] = [];
      const directory = join(machine.run, 'deleted');
      await workOffDeletedNotes({
        directory,
        del: async (request) => void deleted.push(request),
        log: SILENT,
      });
      expect(deleted).toMatchObject([{ asks: 'AddressOnly', attachment: { network: 'bridged' } }]);
    },
  );

  it('is served by an agent that comes back in time, and leaves no note', { timeout: 30_000 }, async () => {
    await using machine = await startMachine();
    const called = machine.call({ env });
    await sleep(1_500);
    const deleted: DelRequest[] = [];
    await machine.serve({ del: async (request) => void deleted.push(request) });
    expect((await called).exitCode).toBe(0);
    expect(deleted).toHaveLength(1);
    expect(await isThere(join(machine.run, 'deleted'))).toBe(false);
  });

  /**
   * The agent opens its socket just after the last try, and has read the notes before this one was written: told
   * by the socket alone it would not know, and the note would wait for a later attachment of that name.
   */
  it('takes its note back if the agent opened meanwhile and was told', { timeout: 30_000 }, async () => {
    await using machine = await startMachine();
    const called = machine.call({ env });
    const deleted: DelRequest[] = [];
    while (!(await isThere(join(machine.run, 'deleted')))) await sleep(1);
    await machine.serve({ del: async (request) => void deleted.push(request) });
    expect((await called).exitCode).toBe(0);
    const notes = (await readdir(join(machine.run, 'deleted'))).length;
    expect(deleted.length + notes).toBe(1);
  });

  it(
    'fails where the note cannot be kept, in words that no runtime takes for success',
    { timeout: 30_000 },
    async () => {
      await using machine = await startMachine();
      await writeFile(join(machine.run, 'deleted'), 'a file where the folder should be');
      const result = await machine.call({ env });
      expectError(result, 5, /cannot be noted in \/run\/weft\/deleted/);
      expect(result.stdout).not.toMatch(/not found|no such file or directory/i);
    },
  );

  it.for([
    ['room', 'ENOSPC', ['full 4096']],
    ['inodes', 'ENOSPC', []],
    ['writability', 'EROFS', []],
  ] as const)(
    'fails on a disk without %s, so that the runtime says it again, and leaves no half note (F29, F30)',
    { timeout: 30_000 },
    async ([disk, reason, left]) => {
      await using machine = await startMachine();
      const result = await machine.call({ env, disk });
      expectError(result, 5, /cannot be noted in \/run\/weft\/deleted/);
      expect(result.stdout).toContain(reason);
      expect(result.left).toEqual(left);
    },
  );

  it('fails for a configuration without a name', { timeout: 30_000 }, async () => {
    await using machine = await startMachine();
    expectError(await machine.call({ env, stdin: { cniVersion: '1.1.0' } }), 7, /network name/);
  });
});

describe.concurrent('an agent that takes calls and never answers', () => {
  it.for([
    ['ADD', 60_000, CONFIGURATION],
    ['GC', 60_000, { ...CONFIGURATION, 'cni.dev/valid-attachments': [] }],
    ['DEL', 20_000, CONFIGURATION],
    ['CHECK', 10_000, { ...CONFIGURATION, prevResult: PREVIOUS }],
  ] as const)('is given up by %s after its %i ms', { timeout: 90_000 }, async ([verb, deadlineMs, stdin]) => {
    await using machine = await startMachine();
    await machine.serveSilently();
    const result = await machine.call({ env: environment(verb), stdin });
    expectError(
      result,
      11,
      new RegExp(`^${verb} did not end within ${deadlineMs / 1000} s; .*did not answer`),
    );
    expect(result.ms).toBeGreaterThan(deadlineMs - 100);
    expect(result.ms).toBeLessThan(deadlineMs + SLACK_MS);
  });

  it.for([
    ['fails where no agent has been able to serve', undefined, false],
    ['succeeds where one was until now', 1, true],
  ] as const)('lets STATUS end after 1 s: it %s', { timeout: 30_000 }, async ([, minutes, fit]) => {
    await using machine = await startMachine();
    await markServing(machine, minutes);
    await machine.serveSilently();
    const result = await machine.call({ env: environment('STATUS') });
    if (fit) expect(result).toMatchObject({ exitCode: 0, stdout: '' });
    else expectError(result, 50, WHERE_TO_LOOK);
    expect(result.ms).toBeGreaterThan(900);
    expect(result.ms).toBeLessThan(1_000 + SLACK_MS);
  });
});

describe.concurrent('the executable with hardly a file that it may open (F30)', () => {
  it.for([4, 6, 8, 10, 12, 16, 24, 32])(
    'with %i of them it answers, or fails in a way that no runtime takes for success',
    { timeout: 30_000 },
    async (openFiles) => {
      await using machine = await startMachine();
      await machine.serve({ add: async () => RESULT });
      const { exitCode, stdout } = await machine.call({ openFiles });
      if (exitCode === 0) expect(JSON.parse(stdout)).toMatchObject({ cniVersion: '1.1.0' });
      else if (stdout !== '') expect(JSON.parse(stdout)).toHaveProperty('code');
    },
  );
});

describe('what goes wrong in the executable itself', () => {
  let machine: Machine;
  beforeEach(async () => {
    machine = await startMachine();
  });
  afterEach(() => machine[Symbol.asyncDispose]());

  it.each([
    ['no HTTP', 'hello\r\n\r\n'],
    ['another status', 'HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}'],
    ['no JSON', 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{x'],
    ['other JSON', 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]'],
  ])('answers one error object where the agent speaks %s', async (_name, text) => {
    await machine.serveSilently((socket) => socket.once('data', () => socket.end(text)));
    const result = await machine.call({ env: environment('GC') });
    expectError(result, text.startsWith('HTTP') ? 5 : 11, /agent/);
  });

  it('answers one error object where nobody may open the socket', async () => {
    await writeFile(join(machine.run, 'agent.sock'), '');
    await chmod(join(machine.run, 'agent.sock'), 0o000);
    expectError(await machine.call({ env: environment('GC') }), 11, WHERE_TO_LOOK);
  });
});

const SILENT = {
  info: () => undefined,
  error: () => undefined,
};

/** As an agent leaves the mark; without `touchedMs` one of a version that wrote nothing into it. */
async function markServing(
  machine: Machine,
  minutesAgo: number | undefined,
  touchedMs?: number,
): Promise<void> {
  if (minutesAgo === undefined) return;
  const mark = join(machine.run, 'serving');
  await writeFile(mark, touchedMs === undefined ? '' : renderServingMark(touchedMs));
  const at = Date.now() / 1000 - minutesAgo * 60;
  await utimes(mark, at, at);
}
