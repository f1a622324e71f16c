import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  findSysctlRoot,
  InvalidBootIdError,
  readBootId,
  readSysctl,
  SysctlError,
  writeSysctl,
} from '../../src/kernel/index.ts';
import { useThrowaways } from './throwaway.ts';

const folder = mkdtempSync(join(tmpdir(), 'weft-sysctl-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});
mkdirSync(join(folder, 'ipv4'));
const { make } = useThrowaways();
const host = make('host');

describe('settings', () => {
  test('are read and written under the given root, also for links with dots in their names', () => {
    mkdirSync(join(folder, 'ipv4/conf/eth0.100'), { recursive: true });
    writeFileSync(join(folder, 'ipv4/conf/eth0.100/rp_filter'), '1\n');
    const path = ['ipv4', 'conf', 'eth0.100', 'rp_filter'];
    expect(readSysctl(folder, path)).toBe('1');
    expect(writeSysctl(folder, path, '0')).toBe(true);
    expect(readSysctl(folder, path)).toBe('0');
  });

  test('are not written without need', () => {
    const file = join(folder, 'ipv4/ip_forward');
    writeFileSync(file, '1\n');
    const before = statSync(file, { bigint: true }).mtimeNs;
    expect(writeSysctl(folder, ['ipv4', 'ip_forward'], '1')).toBe(false);
    expect(statSync(file, { bigint: true }).mtimeNs).toBe(before);
    expect(readFileSync(file, 'utf8')).toBe('1\n');
  });

  test('that the kernel does not have read as undefined, and cannot be written', () => {
    expect(readSysctl(folder, ['ipv6', 'conf', 'all', 'forwarding'])).toBeUndefined();
    expect(() => writeSysctl(folder, ['ipv4', 'nothing'], '1')).toThrow(SysctlError);
    expect(() => writeSysctl(folder, ['ipv4', 'nothing'], '1')).toThrow(/set to 1 .*nothing: ENOENT/);
    expect(() => readFileSync(join(folder, 'ipv4/nothing'))).toThrow();
  });

  test("the kernel's own refusal names the file", () => {
    const script = `
      import { readSysctl, writeSysctl } from '${process.cwd()}/src/kernel/index.ts';
      const root = '/proc/sys/net';
      console.log(writeSysctl(root, ['ipv4', 'ip_forward'], '1'), readSysctl(root, ['ipv4', 'ip_forward']));
      try { writeSysctl(root, ['ipv4', 'ip_forward'], 'x'); } catch (error) { console.log(error.message); }`;
    expect(host.sh(`node --input-type=module-typescript -e "${script}"`)).toBe(
      'true 1\nset to x /proc/sys/net/ipv4/ip_forward: EINVAL\n',
    );
  });

  test('the first root that is there is taken', () => {
    expect(findSysctlRoot([join(folder, 'nothing'), folder])).toBe(folder);
    expect(findSysctlRoot()).toMatch(/\/proc\/sys\/net$/);
    expect(() => findSysctlRoot([join(folder, 'nothing')])).toThrow(SysctlError);
  });
});

describe('boot id', () => {
  test('is read from the path given', () => {
    const file = join(folder, 'boot_id');
    writeFileSync(file, '0b9c7c8e-4a4e-4a53-9d5a-4f8b6f0f8c6e\n');
    expect(readBootId(file)).toBe('0b9c7c8e-4a4e-4a53-9d5a-4f8b6f0f8c6e');
    expect(readBootId()).toMatch(/^[0-9a-f-]{36}$/);
  });

  test.each(['', 'x', '0B9C7C8E-4A4E-4A53-9D5A-4F8B6F0F8C6E'])('"%s" is none', (content) => {
    const file = join(folder, 'bad_boot_id');
    writeFileSync(file, content);
    expect(() => readBootId(file)).toThrow(InvalidBootIdError);
  });
});
