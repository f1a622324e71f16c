import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  isAlive,
  parseRecord,
  recordOf,
  startProcess,
  stopProcess,
} from '../../../hack/cluster/processes.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-processes-'));
});
afterEach(() => rm(directory, { recursive: true }));

const boot = '8c00ade5-064d-48ca-b05a-774834e3a93c';
const after = (start: number) => [...Array.from({ length: 18 }, (_, index) => index), start, 7, 7].join(' ');

describe('parseRecord', () => {
  it.each(['sleep', 'a (b) S 1', 'two\nlines'])('finds the start time behind the program name %j', (name) => {
    expect(parseRecord(`42 (${name}) S ${after(4711)}\n${boot}\n`)).toEqual({
      pid: 42,
      startTime: '4711',
      bootId: boot,
    });
  });

  it.each([`42 (sleep) Z ${after(1)}\n${boot}\n`, `42 (sleep) S ${after(1)}\n`, ''])(
    'knows no process in %j',
    (text) => {
      expect(parseRecord(text)).toBeUndefined();
    },
  );
});

describe('stopProcess', () => {
  it('ends the process, by force after the grace', async () => {
    const logFile = join(directory, 'log');
    const args = ['-c', 'trap "echo asked" TERM; echo ready; while :; do sleep 0.05; done'];
    const record = await startProcess({ command: 'sh', args, logFile, survives: true });
    while (!(await readFile(logFile, 'utf8')).includes('ready'));
    await stopProcess(record, 200);
    expect(await isAlive(record)).toBe(false);
    expect(await readFile(logFile, 'utf8')).toContain('asked');
  });

  it('leaves a process alone that only has the number', async () => {
    const other = spawn('sleep', ['60']);
    await once(other, 'spawn');
    const record = await recordOf(other.pid ?? 0);
    if (record === undefined) throw new Error('sleep is not there');
    await stopProcess({ ...record, startTime: `${Number(record.startTime) - 1}` }, 0);
    expect(await isAlive(record)).toBe(true);
    await stopProcess(record, 1_000);
    expect(await isAlive(record)).toBe(false);
  });
});
