import { describe, expect, it } from 'vitest';
import { IPAllocation, IPPool, NodeSubnet } from '../../src/api/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';

const metadata = { name: 'x', uid: 'u', resourceVersion: '1', creationTimestamp: '2030-01-01T00:00:00Z' };

describe('the schemas', () => {
  it('fill in what the apiserver fills in', () => {
    const pool = IPPool.parse({ metadata, spec: { cidrs: ['10.244.0.0/16', 'fd00::/64'] } });
    expect(pool.spec).toEqual({
      cidrs: [parseCIDR('10.244.0.0/16'), parseCIDR('fd00::/64')],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      use: 'Pods',
      priority: 0,
      disabled: false,
      fixedAddresses: false,
      encapsulation: 'CrossSubnet',
      natOutgoing: true,
      isolation: { mode: 'None', peers: [], dns: true },
      reuseDelaySeconds: 30,
    });
    expect(pool.metadata.finalizers).toEqual([]);
  });

  it('write what they read', () => {
    const stored = {
      metadata: { ...metadata, finalizers: [], annotations: {} },
      spec: { address: 'fd00::5', pool: 'p', holder: 'someone' },
      status: { releasedAt: '2030-01-01T00:00:00.000Z' },
    };
    expect(IPAllocation.encode(IPAllocation.parse(stored))).toEqual(stored);
    expect(IPAllocation.parse(stored).spec.address).toEqual(parseAddress('fd00::5'));
  });

  it('say which field is wrong, and why', () => {
    const read = NodeSubnet.safeParse({
      metadata,
      spec: {
        cidr: '10.0.0.1/24',
        pool: 'p',
        poolUID: 'u',
        nodeName: 'n',
        nodeUID: 'u',
        nextHops: ['010.0.0.1'],
      },
    });
    expect(read.error?.issues.map((issue) => [issue.path.join('.'), issue.message])).toEqual([
      ['spec.cidr', expect.stringContaining('write 10.0.0.0/24')],
      ['spec.nextHops.0', expect.stringContaining('leading zeros')],
    ]);
  });

  it('ignore fields of a later version', () => {
    const read = IPPool.parse({ metadata, spec: { cidrs: ['10.0.0.0/16'], later: true } });
    expect(read.spec).not.toHaveProperty('later');
  });
});
