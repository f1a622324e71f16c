import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  EARLIER_SETTINGS_FILE,
  readEarlierSettings,
  rememberSettings,
  restoreSettings,
} from '../../src/agent/earlier-settings.ts';

let directory: string;
const FORWARD = ['ipv4', 'ip_forward'];
const LINK = ['ipv4', 'conf', 'eth0.100', 'forwarding'];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-settings-'));
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

async function set(path: readonly string[], value: string): Promise<void> {
  const file = join(directory, 'net', ...path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, value);
}

const value = (path: readonly string[]) => readFile(join(directory, 'net', ...path), 'utf8');

test('the first value that was written down is given back, to settings that are still there', async () => {
  rememberSettings(directory, [
    { path: FORWARD, value: '0' },
    { path: LINK, value: '1' },
    { path: ['ipv4', 'conf', 'gone', 'forwarding'], value: '1' },
  ]);
  rememberSettings(directory, [{ path: FORWARD, value: '7' }]);
  await set(FORWARD, '1');
  await set(LINK, '0');
  const root = join(directory, 'net');
  expect(restoreSettings(directory, root)).toEqual([
    'net.ipv4.ip_forward=0',
    'net.ipv4.conf.eth0.100.forwarding=1',
  ]);
  expect([await value(FORWARD), await value(LINK)]).toEqual(['0', '1']);
  expect(restoreSettings(directory, root)).toEqual([]);
});

test.each([
  ['no record', undefined],
  ['one that was cut off', '[{"path":["ipv4"'],
  ['one that leads elsewhere', '[{"path":["ipv4","..","..","passwd"],"value":"0"}]'],
  ['one with a path in a name', '[{"path":["ipv4","a/b"],"value":"0"}]'],
])('%s: settings stay as they are', async (_, text) => {
  if (text !== undefined) await writeFile(join(directory, EARLIER_SETTINGS_FILE), text);
  await set(FORWARD, '1');
  expect(readEarlierSettings(directory)).toEqual([]);
  expect(restoreSettings(directory, join(directory, 'net'))).toEqual([]);
  expect(await value(FORWARD)).toBe('1');
});
