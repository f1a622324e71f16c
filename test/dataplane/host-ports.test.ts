import { describe, expect, it } from 'vitest';
import {
  hostPortsOf,
  hostPortText,
  portsClash,
  renderHostPorts,
  UnservedHostPortError,
  type HostPort,
  type PortMapping,
} from '../../src/dataplane/index.ts';
import { FAMILIES, formatAddress, parseAddress } from '../../src/net/index.ts';

const addresses = { ipv4: parseAddress('10.64.0.5'), ipv6: parseAddress('fd64::5') };

function mapping(hostIP?: string, changes: Partial<PortMapping> = {}): PortMapping {
  const hostAddress = hostIP === undefined ? undefined : parseAddress(hostIP);
  return { protocol: 'tcp', hostPort: 8080, containerPort: 80, hostAddress, ...changes };
}

function one(hostIP?: string, changes: Partial<PortMapping> = {}): HostPort {
  const [port] = hostPortsOf([mapping(hostIP, changes)], addresses);
  if (port === undefined) throw new Error('no port');
  return port;
}

describe('the host ports of a pod', () => {
  it.each([
    { hostIP: undefined, ports: ['8080/tcp 10.64.0.5', '8080/tcp fd64::5'] },
    { hostIP: '0.0.0.0', ports: ['8080/tcp 10.64.0.5'] },
    { hostIP: '::', ports: ['8080/tcp fd64::5'] },
    { hostIP: '192.0.2.1', ports: ['8080/tcp of 192.0.2.1 10.64.0.5'] },
    { hostIP: '2001:db8::1', ports: ['8080/tcp of 2001:db8::1 fd64::5'] },
  ])('of $hostIP lead to its address of that family', ({ hostIP, ports }) => {
    const found = hostPortsOf([mapping(hostIP)], addresses);
    expect(found.map((port) => `${hostPortText(port)} ${formatAddress(port.podAddress)}`)).toEqual(ports);
  });

  it('are refused in a family that the pod has not', () => {
    const { ipv4 } = addresses;
    expect(() => hostPortsOf([mapping('2001:db8::1')], { ipv4 })).toThrow(UnservedHostPortError);
    expect(hostPortsOf([mapping()], { ipv4 })).toHaveLength(1);
  });
});

describe('two ports clash', () => {
  it.each([
    { other: one(), clash: true },
    { other: one('192.0.2.1'), clash: true },
    { other: one('0.0.0.0'), clash: true },
    { other: one('::'), clash: false },
    { other: one(undefined, { protocol: 'udp' }), clash: false },
    { other: one(undefined, { hostPort: 8081 }), clash: false },
    { other: one(undefined, { containerPort: 81 }), clash: true },
  ])('8080/tcp with $other.hostPort/$other.protocol of $other.hostAddress: $clash', ({ other, clash }) => {
    expect(portsClash(one(), other)).toBe(clash);
    expect(portsClash(other, one())).toBe(clash);
  });

  it('of two addresses do not', () => {
    expect(portsClash(one('192.0.2.1'), one('192.0.2.2'))).toBe(false);
  });
});

describe('the rules', () => {
  it('are none where no pod has a port', () => {
    expect(renderHostPorts([], FAMILIES)).toEqual([]);
  });

  it('are the same text, whatever the order of what does not clash', () => {
    const ports = [
      one(),
      one('192.0.2.1'),
      one(undefined, { hostPort: 9 }),
      one(undefined, { protocol: 'udp' }),
    ];
    expect(renderHostPorts([...ports].reverse(), FAMILIES)).toEqual(renderHostPorts(ports, FAMILIES));
  });

  it('lead to the later of two pods', () => {
    const other = { ...one(), podAddress: parseAddress('10.64.0.6') };
    const text = (ports: readonly HostPort[]) => JSON.stringify(renderHostPorts(ports, FAMILIES));
    expect(text([one(), other])).toContain('[{"concat":["tcp",8080]},"10.64.0.6"]');
    expect(text([other, one()])).toContain('[{"concat":["tcp",8080]},"10.64.0.5"]');
  });

  it('speak of a family only if a port is of it', () => {
    expect(JSON.stringify(renderHostPorts([one('0.0.0.0')], FAMILIES))).not.toContain('ip6');
  });
});
