import { describe, expect, test } from 'vitest';
import { createWiredAddresses, type WiredAddresses } from '../../src/agent/wired-addresses.ts';
import { parseAddress } from '../../src/net/index.ts';
import { RESTLESS } from './restless.ts';

const A = { containerID: 'a', ifName: 'eth0' };
const B = { containerID: 'b', ifName: 'eth0' };
const ipv4 = parseAddress('10.0.0.1');
const ipv6 = parseAddress('fd00::1');

describe('addresses that interfaces have', () => {
  test('are known by the names of their objects, of both families', () => {
    const wired = createWiredAddresses(RESTLESS);
    wired.wired(A, { ipv4, ipv6 });
    expect([...wired.keys()]).toEqual(['10.0.0.1', 'fd00-0000-0000-0000-0000-0000-0000-0001']);
  });

  test('go with their own interface alone', () => {
    const wired = createWiredAddresses(RESTLESS);
    wired.wired(A, { ipv4 });
    wired.wired(B, { ipv6 });
    wired.gone(A);
    expect([wired.has('10.0.0.1'), [...wired.keys()].length]).toEqual([false, 1]);
  });

  test('stay with the next owner of the same address when the former one goes late', () => {
    const wired = createWiredAddresses(RESTLESS);
    wired.wired(A, { ipv4 });
    wired.wired(B, { ipv4 });
    wired.gone(A);
    expect(wired.has('10.0.0.1')).toBe(true);
  });

  test('are what the last dump says', () => {
    const wired = createWiredAddresses(RESTLESS);
    wired.wired(A, { ipv4 });
    wired.read([{ ...B, addresses: { ipv6 } }]);
    expect([...wired.keys()]).toEqual(['fd00-0000-0000-0000-0000-0000-0000-0001']);
  });
});

describe('an address whose interface has gone', () => {
  function resting() {
    let nowMs = 1_000;
    const wired = createWiredAddresses({ restMs: () => 30_000, nowMs: () => nowMs });
    return { wired, pass: (ms: number) => (nowMs += ms) };
  }

  test.each([
    ['was taken down', (wired: WiredAddresses) => wired.gone(A)],
    ['had vanished by the next dump', (wired: WiredAddresses) => wired.read([])],
  ])('rests where it %s, also without an object to say so', (_, end) => {
    const { wired, pass } = resting();
    wired.wired(A, { ipv4 });
    end(wired);
    pass(29_999);
    // Nobody has it, and others may have it by now on another node: it is not in the way of theirs.
    expect(wired.has('10.0.0.1')).toBe(false);
    expect([wired.rests('10.0.0.1'), ...wired.resting()]).toEqual([true, '10.0.0.1']);
    pass(1);
    expect([wired.rests('10.0.0.1'), ...wired.resting()]).toEqual([false]);
  });

  test('rests from when it went, however often it is dumped', () => {
    const { wired, pass } = resting();
    wired.wired(A, { ipv4 });
    wired.gone(A);
    pass(29_999);
    wired.read([]);
    pass(1);
    expect(wired.rests('10.0.0.1')).toBe(false);
  });
});
