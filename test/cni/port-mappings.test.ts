import { describe, expect, it } from 'vitest';
import { InvalidConfigurationError } from '../../src/cni/index.ts';
import { parsePortMappings } from '../../src/cni/port-mappings.ts';
import { parseAddress } from '../../src/net/index.ts';

describe('the capability portMappings', () => {
  it.each([
    { value: undefined, parsed: [] },
    { value: null, parsed: [] },
    { value: [], parsed: [] },
    { value: [{ containerPort: 80 }], parsed: [] },
    { value: [{ hostPort: 0, containerPort: 80, protocol: 'tcp' }], parsed: [] },
    {
      value: [{ hostPort: 8080, containerPort: 80 }],
      parsed: [{ protocol: 'tcp', hostPort: 8080, containerPort: 80, hostAddress: undefined }],
    },
    {
      value: [{ hostPort: 53, containerPort: 5353, protocol: 'UDP', hostIP: '' }],
      parsed: [{ protocol: 'udp', hostPort: 53, containerPort: 5353, hostAddress: undefined }],
    },
    {
      value: [{ hostPort: 9, containerPort: 9, protocol: 'SCTP', hostIP: 'FD01::0:1', more: 'ignored' }],
      parsed: [{ protocol: 'sctp', hostPort: 9, containerPort: 9, hostAddress: parseAddress('fd01::1') }],
    },
    {
      // As containerd writes it.
      value: [{ HostPort: 8080, ContainerPort: 80, Protocol: 'tcp', HostIP: '' }],
      parsed: [{ protocol: 'tcp', hostPort: 8080, containerPort: 80, hostAddress: undefined }],
    },
  ])('reads $value', ({ value, parsed }) => {
    expect(parsePortMappings(value)).toEqual(parsed);
  });

  it.each([
    { value: 'x', message: /portMappings/ },
    { value: {}, message: /portMappings/ },
    { value: [{ hostPort: 65_536, containerPort: 80 }], message: /portMappings\.0\.hostPort/ },
    { value: [{ hostPort: -1, containerPort: 80 }], message: /portMappings\.0\.hostPort/ },
    { value: [{ hostPort: 80, containerPort: 0 }], message: /portMappings\.0\.containerPort/ },
    { value: [{ hostPort: '80', containerPort: 80 }], message: /portMappings\.0\.hostPort/ },
    { value: [{ hostPort: 80, containerPort: 80, protocol: 'icmp' }], message: /portMappings\.0\.protocol/ },
    {
      value: [{ hostPort: 80, containerPort: 80, hostIP: 'node' }],
      message: /hostIP "node" is no IP address/,
    },
    { value: [{ hostPort: 80, containerPort: 80, hostIP: '10.0.0.1/8' }], message: /is no IP address/ },
  ])('refuses $value (B8)', ({ value, message }) => {
    expect(() => parsePortMappings(value)).toThrow(InvalidConfigurationError);
    expect(() => parsePortMappings(value)).toThrow(message);
  });
});
