import { describe, expect, test } from 'vitest';
import { createDNSServers, knownDNSServers } from '../../src/agent/dns-servers.ts';
import type { DNSServer } from '../../src/dataplane/index.ts';
import type { Informer, ServiceEndpoint } from '../../src/kube/index.ts';
import { formatAddress, parseAddress } from '../../src/net/index.ts';
import { allElse, createFakeClock } from '../ipam/fake-clock.ts';

const endpoint = (
  address: string,
  port = 53,
  protocol: ServiceEndpoint['protocol'] = 'UDP',
  portName = '',
): ServiceEndpoint => ({ address: parseAddress(address), port, protocol, portName });

/** The slices of a Service as a test leaves them. */
function fakeSlices() {
  const slices = {
    slices: new Map<string, readonly ServiceEndpoint[]>(),
    isSynced: false,
    isAlive: true,
    isStopped: false,
    change: () => undefined as void,
  };
  const watch: Partial<Informer<readonly ServiceEndpoint[]>> = {
    get isSynced() {
      return slices.isSynced;
    },
    isAlive: () => slices.isAlive,
    list: () => [...slices.slices.values()],
    keys: () => slices.slices.keys(),
    onChange(listener) {
      slices.change = () => void listener({ key: '', before: undefined, after: undefined });
      return () => true;
    },
    waitFor: (predicate, signal) =>
      new Promise((resolve, reject) => {
        const look = setInterval(() => {
          if (predicate()) resolve();
          if (predicate() || signal.aborted) clearInterval(look);
          if (signal.aborted) reject(signal.reason as Error);
        }, 1);
      }),
    startAfresh: () => undefined,
    stop() {
      slices.isStopped = true;
      return Promise.resolve();
    },
  };
  return { slices, watch: watch as Informer<readonly ServiceEndpoint[]> };
}

function start(known: readonly DNSServer[] = []) {
  const clock = createFakeClock();
  const watches: ReturnType<typeof fakeSlices>[] = [];
  const told: string[] = [];
  let changes = 0;
  const dns = createDNSServers({
    service: 'kube-system/kube-dns',
    watch() {
      const made = fakeSlices();
      watches.push(made);
      return made.watch;
    },
    known: () => Promise.resolve(known),
    onChange: () => void changes++,
    onTrouble: (message) => void told.push(message),
    clock,
    log: { info: (_, message) => void told.push(message), warn: () => undefined, error: () => undefined },
  });
  const slices = () => {
    const last = watches.at(-1);
    if (last === undefined) throw new Error('nothing is watched');
    return last.slices;
  };
  const listed = () =>
    dns.list().map(({ address, protocol, port }) => `${formatAddress(address)} ${protocol} ${port}`);
  return { clock, dns, watches, slices, told, listed, changes: () => changes };
}

const never = new AbortController().signal;

describe('the servers of DNS', () => {
  test('are watched for as long as somebody needs them, and no longer', () => {
    const { dns, watches, listed } = start();
    dns.follow(false);
    expect(watches).toHaveLength(0);
    dns.follow(true);
    dns.follow(true);
    expect(watches).toHaveLength(1);
    const [first] = watches;
    first?.slices.slices.set('one', [endpoint('10.0.0.5')]);
    if (first !== undefined) first.slices.isSynced = true;
    expect(listed()).toEqual(['10.0.0.5 udp 53']);
    dns.follow(false);
    expect(first?.slices.isStopped).toBe(true);
    expect(listed()).toEqual([]);
    dns.follow(true);
    expect(watches).toHaveLength(2);
  });

  test('are all endpoints of all slices at the ports of DNS, and nothing else of them', () => {
    const { dns, slices, listed, changes } = start();
    dns.follow(true);
    slices().slices.set('one', [
      endpoint('10.0.0.5', 53, 'UDP', 'dns'),
      endpoint('10.0.0.5', 53, 'TCP', 'dns-tcp'),
      endpoint('10.0.0.5', 9153, 'TCP', 'metrics'),
      endpoint('10.0.0.5', 53, 'SCTP'),
    ]);
    slices().slices.set('two', [
      endpoint('fd00::5', 5353, 'UDP', 'dns'),
      endpoint('fd00::5', 53, 'TCP', 'any name'),
    ]);
    slices().isSynced = true;
    slices().change();
    expect(changes()).toBe(1);
    expect(listed()).toEqual(['10.0.0.5 udp 53', '10.0.0.5 tcp 53', 'fd00::5 udp 5353', 'fd00::5 tcp 53']);
  });

  test('that cannot be read at a start are those that an earlier process allowed, until they can', async () => {
    const { clock, dns, slices, listed } = start([
      { address: parseAddress('10.0.0.9'), protocol: 'udp', port: 53 },
    ]);
    dns.follow(true);
    const startedMs = clock.nowMs();
    await clock.until(dns.settled(never));
    expect(clock.nowMs() - startedMs).toBe(3_000);
    expect(listed()).toEqual(['10.0.0.9 udp 53']);
    slices().slices.set('one', [endpoint('10.0.0.5')]);
    slices().isSynced = true;
    expect(listed()).toEqual(['10.0.0.5 udp 53']);
  });

  test('that are read in time keep a start waiting no longer, and no start waits for what nobody needs', async () => {
    const { clock, dns, slices, listed } = start([
      { address: parseAddress('10.0.0.9'), protocol: 'udp', port: 53 },
    ]);
    const startedMs = clock.nowMs();
    await dns.settled(never);
    dns.follow(true);
    const settled = dns.settled(never);
    await allElse();
    slices().isSynced = true;
    await settled;
    expect(clock.nowMs()).toBe(startedMs);
    expect(listed()).toEqual([]);
  });

  test('a start that is ended ends the wait', async () => {
    const { dns } = start();
    dns.follow(true);
    await expect(dns.settled(AbortSignal.abort(new Error('over')))).rejects.toThrow('over');
  });
});

describe('people are told once', () => {
  test('when they have not been readable for a minute, and when they are again', async () => {
    const { clock, dns, slices, told } = start();
    dns.look();
    dns.follow(true);
    for (let i = 0; i < 5; i++) {
      dns.look();
      await clock.advance(10_000);
    }
    expect(told).toEqual([]);
    await clock.advance(10_000);
    dns.look();
    dns.look();
    expect(told).toEqual([expect.stringContaining('kube-system/kube-dns cannot be read')]);
    slices().slices.set('one', [endpoint('10.0.0.5')]);
    slices().isSynced = true;
    dns.look();
    expect(told.at(-1)).toContain('known again');
    slices().isAlive = false;
    await clock.advance(61_000);
    dns.look();
    expect(told).toHaveLength(3);
  });

  test('when the Service has no slice at all', () => {
    const { dns, slices, told } = start();
    dns.follow(true);
    slices().isSynced = true;
    dns.look();
    dns.look();
    expect(told).toEqual([expect.stringContaining('--dns-service')]);
  });
});

test('what the kernel allows is read in both spellings of a protocol, and what is strange is left out', async () => {
  const elements = {
    dns_servers4: [
      { concat: ['10.0.0.5', 'udp', 53] },
      { concat: ['10.0.0.5', 6, 53] },
      { concat: ['10.0.0.5', 'sctp', 53] },
      'x',
    ],
    dns_servers6: [{ concat: ['fd00::5', 17, 5353] }],
  };
  const known = await knownDNSServers((_, args) => {
    const name = args.at(-1) as keyof typeof elements;
    return Promise.resolve(
      JSON.stringify({ nftables: [{ metainfo: {} }, { set: { elem: elements[name] } }] }),
    );
  });
  expect(known.map(({ address, protocol, port }) => `${formatAddress(address)} ${protocol} ${port}`)).toEqual(
    ['10.0.0.5 udp 53', '10.0.0.5 tcp 53', 'fd00::5 udp 5353'],
  );
});
