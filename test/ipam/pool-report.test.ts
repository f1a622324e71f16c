import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PoolUsage } from '../../src/api/index.ts';
import { poolReport, type PoolReportInput } from '../../src/ipam/index.ts';
import { FAMILIES, formatAddress, formatCIDR } from '../../src/net/index.ts';
import { allocationOf, poolOf, RELEASED, subnetOf } from './objects.ts';
import { DENSE } from './spaces.ts';

const pool = poolOf('p', {
  cidrs: ['10.1.0.0/24', '10.0.0.0/24', 'fd00::/32'],
  nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
});

describe('poolReport', () => {
  const report = poolReport(
    inputOf({
      subnets: [
        subnetOf('10.0.0.0/28', pool, 'n10'),
        subnetOf('10.1.0.16/28', pool, 'n2'),
        subnetOf('10.9.0.0/28', pool, 'n2'), // no longer listed
        subnetOf('10.0.0.16/28', poolOf('other', { cidrs: ['10.0.0.0/24'] }), 'n2'),
      ],
      allocations: [
        allocationOf('10.0.0.1'),
        allocationOf('10.0.0.2', {}, RELEASED),
        allocationOf('10.9.0.1'),
        allocationOf('10.9.0.2', { holder: 'an old printer' }),
        allocationOf('10.0.0.200', { holder: 'a load balancer' }),
        allocationOf('10.0.0.3', { holder: 'rests' }, RELEASED),
        // Another's, and not free.
        allocationOf('10.0.0.4', { pool: 'other', holder: 'of another pool' }),
      ],
    }),
  );

  it('names holders without a pod, by address, and no resting ones', () => {
    expect(report.holders.map(({ spec }) => `${formatAddress(spec.address)} ${spec.holder ?? ''}`)).toEqual([
      '10.0.0.200 a load balancer',
      '10.9.0.2 an old printer',
    ]);
  });

  it('counts each CIDR, and last what is left of those that are no longer listed', () => {
    expect(
      report.cidrs.map(({ cidr, usage }) => [
        cidr === undefined ? 'drained' : formatCIDR(cidr),
        figures(usage.ipv4),
      ]),
    ).toEqual([
      ['10.0.0.0/24', { allocated: 2, resting: 2, free: '235', reserved: '17', nodeSubnets: 1 }],
      ['10.1.0.0/24', { allocated: 0, resting: 0, free: '240', reserved: '16', nodeSubnets: 1 }],
      ['fd00::/32', undefined],
      ['drained', { allocated: 2, resting: 0, free: '0', reserved: '14', nodeSubnets: 1 }],
    ]);
  });

  it('counts each node in the order in which people count, and says which of its subnets are drained', () => {
    expect(
      report.nodes.map(({ nodeName, subnets, usage }) => [
        nodeName,
        subnets.map(({ cidr, isDrained }) => `${formatCIDR(cidr)}${isDrained ? ' drained' : ''}`),
        figures(usage.ipv4),
      ]),
    ).toEqual([
      [
        'n2',
        ['10.1.0.16/28', '10.9.0.0/28 drained'],
        { allocated: 2, resting: 0, free: '15', reserved: '15', nodeSubnets: 2 },
      ],
      ['n10', ['10.0.0.0/28'], { allocated: 1, resting: 2, free: '11', reserved: '2', nodeSubnets: 1 }],
    ]);
  });

  it('counts an address for the node with the longest subnet around it', () => {
    const { nodes } = poolReport(
      inputOf({
        subnets: [subnetOf('10.0.0.0/28', pool, 'n1'), subnetOf('10.0.0.5/32', pool, 'n2')],
        allocations: [allocationOf('10.0.0.5'), allocationOf('10.0.0.6')],
      }),
    );
    expect(nodes.map(({ nodeName, usage }) => [nodeName, usage.ipv4?.allocated])).toEqual([
      ['n1', 1],
      ['n2', 1],
    ]);
  });

  it('counts the free addresses of nodes that the pool does not select as nobody’s', () => {
    const selecting = poolOf('p', { cidrs: ['10.0.0.0/24'], nodeSelector: { matchLabels: { zone: 'a' } } });
    const { nodes } = poolReport({
      ...inputOf({ pool: selecting, subnets: [subnetOf('10.0.0.0/26', selecting, 'n1')] }),
      labelsOf: () => ({ zone: 'b' }),
    });
    expect(nodes[0]?.subnets.map(({ isDrained }) => isDrained)).toEqual([true]);
    expect(nodes[0]?.usage.ipv4).toMatchObject({ free: '0', reserved: '64' });
  });

  it.each(DENSE)('has parts that add up to the whole, $family', (space) => {
    // Its third block is not listed.
    const of = poolOf('p', {
      cidrs: [space.cidr(0, 8), space.cidr(256, 8)],
      nodeSubnetPrefixLength: { [space.family]: space.prefixLength(4) },
    });
    const slot = fc.record({ cidr: fc.integer({ min: 0, max: 47 }), node: fc.integer({ min: 1, max: 4 }) });
    const use = fc.record({ value: fc.integer({ min: 0, max: 767 }), rests: fc.boolean() });
    fc.assert(
      fc.property(
        fc.uniqueArray(slot, { selector: ({ cidr }) => cidr, maxLength: 12 }),
        fc.uniqueArray(use, { selector: ({ value }) => value, maxLength: 40 }),
        (slots, uses) => {
          const input = inputOf({
            pool: of,
            pools: [of],
            subnets: slots.map(({ cidr, node }) => subnetOf(space.cidr(cidr * 16, 4), of, `n${node}`)),
            allocations: uses.map(({ value, rests }) =>
              allocationOf(space.text(value), {}, rests ? RELEASED : undefined),
            ),
          });
          const { usage, cidrs, nodes } = poolReport(input);
          for (const family of FAMILIES) {
            const whole = usage[family];
            const parts = cidrs.flatMap((part) => part.usage[family] ?? []);
            if (whole !== undefined) expect(sumOf(parts)).toEqual(sumOf([whole]));
          }
          const inSubnets = nodes.flatMap((node) => node.usage[space.family] ?? []);
          expect(sumOf(inSubnets).nodeSubnets).toBe(slots.length);
          expect(sumOf(inSubnets).capacity).toBe(BigInt(slots.length * 16));
        },
      ),
    );
  });
});

function inputOf(input: Partial<PoolReportInput>): PoolReportInput {
  return { pool, pools: [pool], subnets: [], allocations: [], ...input };
}

/** Those of a part in which something is in use. */
function figures(usage: PoolUsage | undefined) {
  if (usage === undefined) return undefined;
  const { allocated, resting, free, reserved, nodeSubnets } = usage;
  return { allocated, resting, free, reserved, nodeSubnets };
}

function sumOf(usages: readonly PoolUsage[]) {
  const sum = (of: (usage: PoolUsage) => number | string) =>
    usages.reduce((total, usage) => total + BigInt(of(usage)), 0n);
  return {
    capacity: sum(({ capacity }) => capacity),
    allocated: sum(({ allocated }) => allocated),
    resting: sum(({ resting }) => resting),
    free: sum(({ free }) => free),
    reserved: sum(({ reserved }) => reserved),
    nodeSubnets: Number(sum(({ nodeSubnets }) => nodeSubnets)),
  };
}
