import { describe, expect, test } from 'vitest';
import { createWiredAddresses } from '../../src/agent/wired-addresses.ts';
import { parseAddress } from '../../src/net/index.ts';

const A = { containerID: 'a', ifName: 'eth0' };
const B = { containerID: 'b', ifName: 'eth0' };
const ipv4 = parseAddress('10.0.0.1');
const ipv6 = parseAddress('fd00::1');

describe('addresses that interfaces have', () => {
  test('are known by the names of their objects, of both families', () => {
    const wired = createWiredAddresses();
    wired.wired(A, { ipv4, ipv6 });
    expect([...wired.keys()]).toEqual(['10.0.0.1', 'fd00-0000-0000-0000-0000-0000-0000-0001']);
  });

  test('go with their own interface alone', () => {
    const wired = createWiredAddresses();
    wired.wired(A, { ipv4 });
    wired.wired(B, { ipv6 });
    wired.gone(A);
    expect([wired.has('10.0.0.1'), [...wired.keys()].length]).toEqual([false, 1]);
  });

  test('stay with the next owner of the same address when the former one goes late', () => {
    const wired = createWiredAddresses();
    wired.wired(A, { ipv4 });
    wired.wired(B, { ipv4 });
    wired.gone(A);
    expect(wired.has('10.0.0.1')).toBe(true);
  });

  test('are what the last dump says', () => {
    const wired = createWiredAddresses();
    wired.wired(A, { ipv4 });
    wired.read([{ ...B, addresses: { ipv6 } }]);
    expect([...wired.keys()]).toEqual(['fd00-0000-0000-0000-0000-0000-0000-0001']);
  });
});
