import { describe, expect, test } from 'vitest';
import { parseAddress, parseCIDR } from '../../../src/net/index.ts';
import {
  bytes,
  decodeAttributes,
  decodeMessages,
  encodeMessages,
  MalformedNetlinkError,
  nested,
  readText,
  text,
  u16be,
  u32,
  u8,
} from '../../../src/kernel/rtnetlink/codec.ts';
import { addAddressRequest } from '../../../src/kernel/rtnetlink/addresses.ts';
import { replaceFdbRequest } from '../../../src/kernel/rtnetlink/fdb.ts';
import { changeLinkRequest, linkUpRequest } from '../../../src/kernel/rtnetlink/links.ts';
import { replaceNeighbourRequest } from '../../../src/kernel/rtnetlink/neighbours.ts';
import { addRouteRequest, parseRoute } from '../../../src/kernel/rtnetlink/routes.ts';
import type { NetlinkRequest } from '../../../src/kernel/rtnetlink/socket.ts';

describe('encodeMessages', () => {
  test('pads attributes to 4 bytes, but not their stated lengths, and marks nested ones', () => {
    const message = {
      type: 16,
      flags: 0x605,
      sequence: 7,
      header: Buffer.from('0000000001000000', 'hex'),
      attributes: [text(3, 'eth0'), nested(18, [text(1, 'veth'), u8(7, 0)]), u16be(15, 4789), u32(4, 1450)],
    };
    expect(hex(encodeMessages([message]))).toBe(
      [
        '4c000000 1000 0506 07000000 00000000', // length 76, type, flags, sequence, port
        '00000000 01000000',
        '0900 0300 65746830 00 000000', // 9 bytes: "eth0\0"
        '1800 1280 0900 0100 76657468 00 000000 0500 0700 00 000000', // type 18 with the nested bit
        '0600 0f00 12b5 0000', // network byte order
        '0800 0400 aa050000',
      ]
        .join('')
        .replaceAll(' ', ''),
    );
  });

  test('messages of a batch stand one after the other', () => {
    const one = { type: 1, flags: 1, sequence: 1, header: new Uint8Array(), attributes: [] };
    const batch = encodeMessages([
      one,
      { ...one, sequence: 2, attributes: [u8(1, 9)] },
      { ...one, sequence: 3 },
    ]);
    expect(decodeMessages(batch).map((message) => [message.sequence, message.payload.length])).toEqual([
      [1, 0],
      [2, 8],
      [3, 0],
    ]);
  });
});

describe('requests, byte for byte', () => {
  const rows: [string, NetlinkRequest, string][] = [
    [
      'link up: ifinfomsg with IFF_UP in flags and in the mask of changes',
      linkUpRequest(5),
      '00 00 0000 05000000 01000000 01000000',
    ],
    [
      'alias without closing zero, group',
      changeLinkRequest(5, { alias: 'dying', group: 9 }),
      '00 00 0000 05000000 00000000 00000000' + '0900 1400 6479696e67 000000' + '0800 1b00 09000000',
    ],
    [
      'IPv4 address',
      addAddressRequest({ linkIndex: 5, address: parseAddress('10.0.0.5'), prefixLength: 32 }),
      '02 20 00 00 05000000' + '0800 0200 0a000005' + '0800 0100 0a000005',
    ],
    [
      'IPv6 address with IFA_F_NODAD',
      addAddressRequest({ linkIndex: 5, address: parseAddress('fd00::5'), prefixLength: 128 }),
      '0a 80 00 00 05000000' +
        '1400 0200 fd000000000000000000000000000005' +
        '1400 0100 fd000000000000000000000000000005' +
        '0800 0800 02000000',
    ],
    [
      'IPv4 route straight to a link: scope link, preferred source',
      addRouteRequest({
        dst: parseCIDR('10.0.0.5/32'),
        type: 'unicast',
        oif: 5,
        prefSrc: parseAddress('10.0.0.1'),
        metric: 0,
        protocol: 85,
      }),
      '02 20 00 00 00 55 fd 01 00000000' +
        '0800 0f00 fe000000' +
        '0800 0600 00000000' +
        '0800 0100 0a000005' +
        '0800 0400 05000000' +
        '0800 0700 0a000001',
    ],
    [
      'IPv4 route over an IPv6 next hop: RTA_VIA, onlink',
      addRouteRequest({
        dst: parseCIDR('10.0.0.0/26'),
        type: 'unicast',
        via: parseAddress('fe80::1'),
        onlink: true,
        oif: 5,
        metric: 0,
        protocol: 84,
      }),
      '02 1a 00 00 00 54 00 01 04000000' +
        '0800 0f00 fe000000' +
        '0800 0600 00000000' +
        '0800 0100 0a000000' +
        '1600 1200 0a00 fe800000000000000000000000000001 0000' +
        '0800 0400 05000000',
    ],
    [
      'IPv6 unreachable',
      addRouteRequest({ dst: parseCIDR('fd00::/122'), type: 'unreachable', metric: 4096, protocol: 84 }),
      '0a 7a 00 00 00 54 00 07 00000000' +
        '0800 0f00 fe000000' +
        '0800 0600 00100000' +
        '1400 0100 fd000000000000000000000000000000',
    ],
    [
      'permanent neighbour',
      replaceNeighbourRequest({ linkIndex: 5, address: parseAddress('10.0.0.5'), mac: '02:00:00:00:00:01' }),
      '02 00 0000 05000000 8000 00 00' + '0800 0100 0a000005' + '0a00 0200 020000000001 0000',
    ],
    [
      'FDB entry: AF_BRIDGE, NTF_SELF',
      replaceFdbRequest({ linkIndex: 5, mac: '02:00:00:00:00:01', destination: parseAddress('192.0.2.2') }),
      '07 00 0000 05000000 8000 02 00' + '0800 0100 c0000202' + '0a00 0200 020000000001 0000',
    ],
  ];
  test.each(rows)('%s', (_, request, expected) => {
    const message = { ...request, flags: 0, sequence: 0, attributes: request.attributes ?? [] };
    expect(hex(encodeMessages([message]).subarray(16))).toBe(expected.replaceAll(' ', ''));
  });
});

describe('decodeMessages', () => {
  test.each([
    ['a cut header', '10000000100000'],
    ['a length beyond the end', '14000000100000000100000000000000'],
    ['a length shorter than the header', '08000000100000000100000000000000'],
  ])('refuses %s', (_, data) => {
    expect(() => decodeMessages(Buffer.from(data, 'hex'))).toThrow(MalformedNetlinkError);
  });
});

describe('decodeAttributes', () => {
  test('drops the flag bits of a type and reads strings up to their zero', () => {
    const attributes = decodeAttributes(
      Buffer.from('000000000900038065746830000000000800018011223344', 'hex'),
      4,
    );
    expect(readText(attributes.get(3))).toBe('eth0');
    expect(attributes.get(1)?.toString('hex')).toBe('11223344');
  });

  test.each([
    ['a length beyond the end', '0c000100aabbccdd'],
    ['a length shorter than its own header', '03000100aabbccdd'],
    ['a cut header', '0800'],
  ])('refuses %s', (_, data) => {
    expect(() => decodeAttributes(Buffer.from(data, 'hex'))).toThrow(MalformedNetlinkError);
  });

  test('what was encoded is decoded, whatever the lengths', () => {
    for (let length = 0; length < 9; length++) {
      const data = Buffer.alloc(length, 0xab);
      const [message] = decodeMessages(
        encodeMessages([
          {
            type: 1,
            flags: 0,
            sequence: 0,
            header: Buffer.alloc(3),
            attributes: [bytes(5, data), u32(6, 1)],
          },
        ]),
      );
      const attributes = decodeAttributes(message?.payload ?? Buffer.alloc(0), 3);
      expect(attributes.get(5)).toEqual(data);
      expect(attributes.get(6)?.readUInt32LE(0)).toBe(1);
    }
  });
});

test('a route with an IPv6 next hop for IPv4 is read as it was written', () => {
  const route = {
    dst: parseCIDR('10.0.0.0/26'),
    type: 'unicast' as const,
    via: parseAddress('fe80::1'),
    onlink: true,
    oif: 5,
    prefSrc: undefined,
    metric: 7,
    protocol: 84,
    scope: 'universe' as const,
    table: 254,
  };
  const request = addRouteRequest(route);
  const [message] = decodeMessages(
    encodeMessages([{ ...request, flags: 0, sequence: 1, attributes: request.attributes ?? [] }]),
  );
  expect(message && parseRoute(message)).toEqual(route);
});

function hex(data: Uint8Array): string {
  return Buffer.from(data).toString('hex');
}
