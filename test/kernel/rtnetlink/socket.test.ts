import { describe, expect, test } from 'vitest';
import {
  addAddress,
  deleteAddress,
  DumpInterruptedError,
  getLink,
  openNamespaceSocket,
} from '../../../src/kernel/index.ts';
import { decodeAttributes } from '../../../src/kernel/rtnetlink/codec.ts';
import { linkUpRequest } from '../../../src/kernel/rtnetlink/links.ts';
import type { NetlinkRequest } from '../../../src/kernel/rtnetlink/socket.ts';
import { parseAddress } from '../../../src/net/index.ts';
import { useThrowaways } from '../throwaway.ts';

const { own, make } = useThrowaways();
const host = make('host');
const socket = host.namespace.socket;
const linkIndex = host.addLink('l0');
const other = openNamespaceSocket(own, host.path).socket;
const spec = { linkIndex, address: parseAddress('10.255.0.1'), prefixLength: 32 };

describe('a listing that changes while it is read', () => {
  // Far more than one datagram holds.
  const count = 1000;
  host.sh(
    `for i in $(seq 0 ${count - 1}); do echo "addr add 10.0.$((i / 250)).$((i % 250))/32 dev l0"; done | ip -batch -`,
  );
  const listAddresses: NetlinkRequest = {
    type: 22,
    header: Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]),
    describe: () => 'list addresses',
  };
  const addressOf = (payload: Buffer) => decodeAttributes(payload, 8).get(2)?.toString('hex');

  test('is read again, as a whole', () => {
    let parsed = 0;
    const listed = socket.dump(listAddresses, ({ payload }) => {
      if (parsed++ === 0) addAddress(other, spec);
      return addressOf(payload);
    });
    expect(parsed).toBeGreaterThan(listed.length);
    expect(listed).toHaveLength(count + 2);
    expect(new Set(listed).size).toBe(count + 2);
    expect(listed).toContain('0aff0001');
  });

  test('and changes for ever is an error', () => {
    const listing = () =>
      socket.dump(listAddresses, ({ payload }) => {
        const address = addressOf(payload);
        // The first of each attempt.
        if (address === '7f000001' && !deleteAddress(other, spec)) addAddress(other, spec);
        return address;
      });
    expect(listing).toThrow(DumpInterruptedError);
    expect(listing).toThrow("list addresses: the kernel's tables changed during each of 10 attempts");
    expect(getLink(socket, { index: linkIndex })?.name).toBe('l0');
  });
});

test('a thousand requests in one go are all answered, in their order', () => {
  const requests = Array.from({ length: 1000 }, (_, i) => linkUpRequest(i % 10 === 3 ? 9999 : linkIndex));
  const outcomes = socket.transact(requests);
  expect(outcomes).toHaveLength(1000);
  expect(outcomes.map((outcome) => outcome?.code)).toEqual(
    requests.map((_, i) => (i % 10 === 3 ? 'ENODEV' : undefined)),
  );
});

test('a parser that throws leaves a socket that still answers what it is asked', () => {
  const broken = () =>
    socket.get(
      { type: 18, header: Buffer.from('0000000001000000'.padEnd(32, '0'), 'hex'), describe: () => 'get' },
      () => {
        throw new Error('parser broke');
      },
    );
  expect(broken).toThrow('parser broke');
  expect(() =>
    socket.dump({ type: 18, header: Buffer.alloc(16), describe: () => 'list' }, () => {
      throw new Error('parser broke');
    }),
  ).toThrow('parser broke');
  expect(getLink(socket, { name: 'l0' })?.index).toBe(linkIndex);
  expect(getLink(socket, { name: 'lo' })?.index).toBe(1);
});
