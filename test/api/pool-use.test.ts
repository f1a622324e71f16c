import { describe, expect, test } from 'vitest';
import { IPPoolSpec, nodeAddressIn } from '../../src/api/index.ts';
import { formatAddress, parseCIDR } from '../../src/net/index.ts';

const problems = (spec: object) =>
  IPPoolSpec.safeParse(spec).error?.issues.map(({ message }) => message) ?? [];

const lan = { use: 'Lan', cidrs: ['192.168.7.0/24'], gateway: { ipv4: '192.168.7.1' } };

/** The apiserver refuses the same (test/apiserver/pool-use.test.ts). */
describe('a pool', () => {
  test.each<{ name: string; spec: object }>([
    { name: 'of pods, by default', spec: { cidrs: ['10.0.0.0/16'] } },
    {
      name: 'of an isolated bridge',
      spec: { use: 'Bridge', cidrs: ['10.0.0.0/16'], isolation: { mode: 'Isolated' } },
    },
    { name: 'of a bridge', spec: { use: 'Bridge', cidrs: ['10.0.0.0/16', 'fd00::/64'] } },
    { name: 'of a LAN', spec: lan },
    {
      name: 'of a LAN of both families, in single addresses',
      spec: {
        ...lan,
        cidrs: ['192.168.7.0/24', 'fd07::/64'],
        gateway: { ipv4: '192.168.7.1', ipv6: 'fd07::1' },
        nodeSubnetPrefixLength: { ipv4: 32, ipv6: 128 },
      },
    },
  ])('$name is read', ({ spec }) => {
    expect(problems(spec)).toEqual([]);
  });

  test.each<{ name: string; spec: object; message: RegExp }>([
    { name: 'a use that nobody knows', spec: { ...lan, use: 'Wan' }, message: /expected one of "Pods"/ },
    {
      name: 'a gateway on a bridge',
      spec: { ...lan, use: 'Bridge' },
      message: /^gateway is for pools of use Lan/,
    },
    {
      name: 'single addresses for pods',
      spec: { cidrs: ['10.0.0.0/16'], nodeSubnetPrefixLength: { ipv4: 31 } },
      message: /^nodeSubnetPrefixLength above 30 \(ipv4\) or 126 \(ipv6\) is for pools of use Lan$/,
    },
    ...[lan, { use: 'Bridge', cidrs: ['10.0.0.0/16'] }].map((spec) => ({
      name: `${spec.use} addresses that pods name`,
      spec: { ...spec, fixedAddresses: true },
      message: /^fixedAddresses is for pools of use Pods/,
    })),
    ...['Always', 'Never'].map((encapsulation) => ({
      name: `a LAN with encapsulation ${encapsulation}`,
      spec: { ...lan, encapsulation },
      message: /^encapsulation is for pools of use Pods and Bridge/,
    })),
    {
      name: 'an encapsulation that nobody knows',
      spec: { cidrs: ['10.0.0.0/16'], encapsulation: 'Sometimes' },
      message: /expected one of "CrossSubnet"/,
    },
    {
      name: 'a LAN that is to be isolated',
      spec: { ...lan, isolation: { mode: 'Isolated' } },
      message: /^isolation is for pools of use Pods or Bridge/,
    },
    {
      name: 'a peer that no pool can be',
      spec: { cidrs: ['10.0.0.0/16'], isolation: { peers: ['Blue!'] } },
      message: /must match pattern/,
    },
    ...[lan, { use: 'Bridge', cidrs: ['10.0.0.0/16'] }].map((spec) => ({
      name: `${spec.use} addresses whose owners may send from others`,
      spec: { ...spec, allowedSources: ['192.168.0.0/16'] },
      message: /^allowedSources is for pools of use Pods/,
    })),
    {
      name: 'a LAN without its router',
      spec: { ...lan, gateway: {} },
      message: /^gateway.ipv4 is missing/,
    },
    {
      name: 'a LAN without the router of its second family',
      spec: { ...lan, cidrs: ['192.168.7.0/24', 'fd07::/64'] },
      message: /^gateway.ipv6 is missing/,
    },
    {
      name: 'a router elsewhere',
      spec: { ...lan, gateway: { ipv4: '192.168.8.1' } },
      message: /^gateway.ipv4 must lie in a CIDR of the pool$/,
    },
    {
      name: 'a router of the other family',
      spec: { ...lan, cidrs: ['192.168.7.0/24', 'fd07::/64'], gateway: { ipv4: 'fd07::1', ipv6: 'fd07::1' } },
      message: /^must be an IPv4 address$/,
    },
    {
      name: 'two LANs in one pool',
      spec: { ...lan, cidrs: ['192.168.7.0/24', '192.168.8.0/24'] },
      message: /^a pool of use Lan lists one ipv4 CIDR at the most/,
    },
  ])('with $name is refused', ({ spec, message }) => {
    expect(problems(spec)).toEqual([expect.stringMatching(message)]);
  });
});

test.each([
  ['10.9.0.64/26', 'Pods', '10.9.0.64'],
  ['10.9.0.64/26', 'Bridge', '10.9.0.65'],
  ['10.9.0.64/26', undefined, '10.9.0.64'],
  ['fd09::40/122', 'Pods', 'fd09::40'],
  ['fd09::40/122', 'Bridge', 'fd09::41'],
] as const)("the node's own address in %s of use %s is %s", (cidr, use, address) => {
  expect(formatAddress(nodeAddressIn(parseCIDR(cidr), use))).toBe(address);
});
