import { describe, expect, test } from 'vitest';
import {
  dyingLinkName,
  formatAlias,
  hostLinkName,
  parseAlias,
  podMac,
  VXLAN_LINK_NAME,
  type AttachmentAlias,
} from '../../src/kernel/index.ts';
import { parseAddress } from '../../src/net/index.ts';

describe('names of links', () => {
  test('a host end is named by container and interface, in 15 characters', () => {
    expect(hostLinkName('abc', 'eth0')).toBe('weftji354av993b');
    const names = new Set<string>();
    for (let i = 0; i < 2000; i++)
      names.add(hostLinkName(`container-${i % 1000}`, i < 1000 ? 'eth0' : 'net1'));
    expect(names.size).toBe(2000);
    expect([...names].every((name) => /^weft[0-9a-z]{11}$/.test(name))).toBe(true);
  });

  test('container and interface cannot be confused', () => {
    expect(hostLinkName('ab', 'c')).not.toBe(hostLinkName('a', 'bc'));
  });

  test('the MAC of a pod is its own, unicast and locally administered', () => {
    expect(podMac('abc', 'eth0')).toBe('72:a7:4d:45:32:1e');
    for (let i = 0; i < 500; i++) {
      const first = Number.parseInt(podMac(`container-${i}`, 'eth0').slice(0, 2), 16);
      expect(first & 0x03).toBe(0x02);
    }
  });

  test('neither the VXLAN device nor a dying link is matched by weft*', () => {
    expect(VXLAN_LINK_NAME.startsWith('weft')).toBe(false);
    expect(dyingLinkName(2 ** 31 - 1)).toBe('xweft2147483647');
  });
});

describe('alias', () => {
  const full: AttachmentAlias = {
    network: 'weft',
    containerID: 'abc',
    ifName: 'eth0',
    addresses: { ipv4: parseAddress('10.244.1.5'), ipv6: parseAddress('fd00::5') },
    podUID: '0b9c7c8e-4a4e-4a53-9d5a-4f8b6f0f8c6e',
  };
  test.each<[string, AttachmentAlias]>([
    ['w1 weft abc eth0 10.244.1.5 fd00::5 0b9c7c8e-4a4e-4a53-9d5a-4f8b6f0f8c6e', full],
    [
      'w1 weft abc eth0 10.244.1.5 - -',
      { ...full, addresses: { ipv4: parseAddress('10.244.1.5') }, podUID: undefined },
    ],
    [
      'w1 weft abc eth0 - fd00::5 -',
      { ...full, addresses: { ipv6: parseAddress('fd00::5') }, podUID: undefined },
    ],
  ])('%s', (text, attachment) => {
    expect(formatAlias(attachment)).toBe(text);
    expect(parseAlias(text)).toEqual(attachment);
  });

  test.each([
    ['no alias', undefined],
    ['a dying link', 'dying'],
    ['another version', 'w2 weft abc eth0 10.244.1.5 - -'],
    ['a field too few', 'w1 weft abc eth0 10.244.1.5 -'],
    ['a field too many', 'w1 weft abc eth0 10.244.1.5 - - -'],
    ['an empty field', 'w1 weft  eth0 10.244.1.5 - -'],
    ['families in the wrong places', 'w1 weft abc eth0 fd00::5 10.244.1.5 -'],
    ['no address', 'w1 weft abc eth0 10.244.1.999 - -'],
    ["another tool's", 'COIL:default:abc:eth0'],
  ])('%s is no attachment', (_, alias) => {
    expect(parseAlias(alias)).toBeUndefined();
  });

  test.each(['a b', '', 'a\nb'])(
    'a field "%s" is refused, since it could not be read back',
    (containerID) => {
      expect(() => formatAlias({ ...full, containerID })).toThrow('cannot be a field');
    },
  );
});
