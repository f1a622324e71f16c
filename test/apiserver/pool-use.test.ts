import { describe, expect, it } from 'vitest';
import { API_VERSION, IP_POOL, NODE_SUBNET, type Resource } from '../../src/api/index.ts';
import { InvalidError } from '../../src/kube/index.ts';
import { pathOf } from '../../src/kube/paths.ts';
import { useApiserver } from './apiserver.ts';

/** What a pool's use allows, as the apiserver judges it; the twin for whoever reads is test/api/pool-use.test.ts. */

const server = useApiserver();

type Spec = Record<string, unknown>;

const object = (resource: Resource, name: string, spec: Spec, metadata: object = {}) => ({
  apiVersion: API_VERSION,
  kind: resource.kind,
  metadata: { ...metadata, name },
  spec,
});

async function create(name: string, spec: Spec, resource = IP_POOL): Promise<unknown> {
  return server().client.request({
    method: 'POST',
    path: pathOf(resource),
    body: object(resource, name, spec),
  });
}

/** Creates it only to see whether it may be. */
async function attempt(spec: Spec): Promise<unknown> {
  const body = object(IP_POOL, 'tried', spec);
  return server().client.request({ method: 'POST', path: pathOf(IP_POOL), query: { dryRun: 'All' }, body });
}

async function replace(name: string, spec: Spec): Promise<unknown> {
  const path = `${pathOf(IP_POOL)}/${name}`;
  const { metadata } = (await server().client.request({ method: 'GET', path })) as { metadata: object };
  return server().client.request({ method: 'PUT', path, body: object(IP_POOL, name, spec, metadata) });
}

/** The apiserver's words for refusing; fails if it does not. */
async function refusal(writing: Promise<unknown>): Promise<string> {
  const error: unknown = await writing.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error, 'it was accepted').toBeInstanceOf(InvalidError);
  return error instanceof InvalidError ? error.detail : '';
}

const lan: Spec = { use: 'Lan', cidrs: ['192.168.7.0/24'], gateway: { ipv4: '192.168.7.1' } };
const dual: Spec = {
  ...lan,
  cidrs: ['192.168.7.0/24', 'fd07::/64'],
  gateway: { ipv4: '192.168.7.1', ipv6: 'fd07::1' },
};

describe('a pool', () => {
  it.each<[string, Spec]>([
    ['of a bridge', { use: 'Bridge', cidrs: ['10.9.0.0/16', 'fd09::/64'] }],
    [
      'of a bridge that always encapsulates',
      { use: 'Bridge', cidrs: ['10.9.0.0/16'], encapsulation: 'Always' },
    ],
    ['of pods that never encapsulates', { cidrs: ['10.9.0.0/16'], encapsulation: 'Never' }],
    ['of a LAN', lan],
    ['of a LAN that says what is so by default', { ...lan, encapsulation: 'CrossSubnet' }],
    ['of a LAN of both families', dual],
    ['of a LAN in single addresses', { ...dual, nodeSubnetPrefixLength: { ipv4: 32, ipv6: 128 } }],
  ])('%s is accepted', async (_, spec) => {
    await attempt(spec);
  });

  it.each<[string, Spec, string]>([
    ['with a use that nobody knows', { ...lan, use: 'Wan' }, 'Unsupported value: "Wan"'],
    ['of a bridge with a gateway', { ...lan, use: 'Bridge' }, 'gateway is for pools of use Lan: on a bridge'],
    [
      'of a LAN with fixed addresses',
      { ...lan, fixedAddresses: true },
      'fixedAddresses is for pools of use Pods',
    ],
    [
      'of a LAN with an encapsulation',
      { ...lan, encapsulation: 'Never' },
      'encapsulation is for pools of use Pods and Bridge: what lies on a LAN is routed by no node',
    ],
    [
      'of pods with an encapsulation that nobody knows',
      { cidrs: ['10.9.0.0/16'], encapsulation: 'Sometimes' },
      'Unsupported value: "Sometimes"',
    ],
    ['of pods with a gateway', { ...lan, use: 'Pods' }, 'gateway is for pools of use Lan: on a bridge'],
    [
      'of pods with pieces of one address',
      { cidrs: ['10.9.0.0/16'], nodeSubnetPrefixLength: { ipv4: 31 } },
      'nodeSubnetPrefixLength above 30 (ipv4) or 126 (ipv6) is for pools of use Lan',
    ],
    [
      'of a bridge with pieces of one address',
      { use: 'Bridge', cidrs: ['fd09::/64'], nodeSubnetPrefixLength: { ipv6: 127 } },
      'nodeSubnetPrefixLength above 30 (ipv4) or 126 (ipv6) is for pools of use Lan',
    ],
    [
      'of a LAN that is to be isolated',
      { ...lan, isolation: { mode: 'Isolated' } },
      'isolation is for pools of use Pods or Bridge: what lies on a LAN is not filtered',
    ],
    [
      'with an isolation that nobody knows',
      { cidrs: ['10.9.0.0/16'], isolation: { mode: 'Strict' } },
      'Unsupported value: "Strict"',
    ],
    [
      'with a peer that no pool can be',
      { cidrs: ['10.9.0.0/16'], isolation: { mode: 'Isolated', peers: ['Blue!'] } },
      'spec.isolation.peers[0]',
    ],
    [
      'with a peer twice',
      { cidrs: ['10.9.0.0/16'], isolation: { mode: 'Isolated', peers: ['blue', 'blue'] } },
      'Duplicate value: "blue"',
    ],
    ['of a LAN without gateway', { ...lan, gateway: undefined }, 'gateway.ipv4 is missing'],
    ['of a LAN with an empty gateway', { ...lan, gateway: {} }, 'gateway.ipv4 is missing'],
    [
      'of a LAN without the gateway of its second family',
      { ...dual, gateway: lan.gateway },
      'gateway.ipv6 is missing',
    ],
    [
      'of a LAN with a gateway elsewhere',
      { ...lan, gateway: { ipv4: '192.168.8.1' } },
      'gateway.ipv4 must lie in a CIDR of the pool',
    ],
    [
      'of a LAN with a gateway of a family that it does not list',
      { ...lan, gateway: { ipv4: '192.168.7.1', ipv6: 'fd07::1' } },
      'gateway.ipv6 must lie in a CIDR of the pool',
    ],
    [
      'of a LAN with a gateway of the wrong family',
      { ...dual, gateway: { ipv4: 'fd07::1', ipv6: 'fd07::1' } },
      'must be an IPv4 address',
    ],
    ['of a LAN with a gateway that is none', { ...lan, gateway: { ipv4: '192.168.7.01' } }, 'leading zeros'],
    [
      'of a LAN with a gateway in another spelling',
      { ...dual, gateway: { ipv4: '192.168.7.1', ipv6: 'FD07::1' } },
      'must be a canonical IP address',
    ],
    [
      'of two LANs',
      { ...lan, cidrs: ['192.168.7.0/24', '192.168.8.0/24'] },
      'a pool of use Lan lists one ipv4 CIDR at the most, that of the LAN: create a pool for each LAN',
    ],
  ])('%s is refused', async (_, spec, message) => {
    expect(await refusal(attempt(spec))).toContain(message);
  });
});

it('isolation may change at any time, and is none where nothing is said', async () => {
  const spec = { cidrs: ['10.9.0.0/16'] };
  const isolationOf = async () =>
    (
      (await server().client.request({ method: 'GET', path: `${pathOf(IP_POOL)}/isolated` })) as {
        spec: Spec;
      }
    ).spec.isolation;
  await create('isolated', spec);
  expect(await isolationOf()).toEqual({ mode: 'None', peers: [], dns: true });
  await replace('isolated', { ...spec, isolation: { mode: 'Isolated', peers: ['blue'], dns: false } });
  expect(await isolationOf()).toEqual({ mode: 'Isolated', peers: ['blue'], dns: false });
  await replace('isolated', { ...spec, isolation: { mode: 'Isolated' } });
  expect(await isolationOf()).toEqual({ mode: 'Isolated', peers: [], dns: true });
  await replace('isolated', spec);
  expect(await isolationOf()).toEqual({ mode: 'None', peers: [], dns: true });
});

describe('the encapsulation of a pool', () => {
  it('is CrossSubnet unless told, and may change at any time', async () => {
    const spec = { cidrs: ['10.19.0.0/16'] };
    const encapsulationOf = (object: unknown) =>
      (object as { spec: { encapsulation: string } }).spec.encapsulation;
    expect(encapsulationOf(await create('encapsulated', spec))).toBe('CrossSubnet');
    for (const encapsulation of ['Always', 'Never', 'CrossSubnet']) {
      expect(encapsulationOf(await replace('encapsulated', { ...spec, encapsulation }))).toBe(encapsulation);
    }
    expect(encapsulationOf(await replace('encapsulated', spec))).toBe('CrossSubnet');
  });
});

describe('the use of a pool', () => {
  const message = 'use is immutable: create a new pool for another use';
  const bridge = { use: 'Bridge', cidrs: ['10.9.0.0/16'] };

  it('cannot be added (B19)', async () => {
    await create('without-use', { cidrs: ['10.9.0.0/16'] });
    expect(await refusal(replace('without-use', bridge))).toContain(message);
    await replace('without-use', { use: 'Pods', cidrs: ['10.9.0.0/16'] }); // what it was all the time
  });

  it('cannot be changed (B19)', async () => {
    await create('bridged', bridge);
    expect(await refusal(replace('bridged', lan))).toContain(message);
  });

  it('cannot be removed (B19)', async () => {
    await create('bridged-too', bridge);
    expect(await refusal(replace('bridged-too', { cidrs: ['10.9.0.0/16'] }))).toContain(message);
    expect(await refusal(replace('bridged-too', { use: null, cidrs: ['10.9.0.0/16'] }))).toContain(message);
  });
});

it("a LAN's router may change, as routers do", async () => {
  await create('lan', lan);
  await replace('lan', { ...lan, gateway: { ipv4: '192.168.7.254' } });
  await replace('lan', { ...lan, cidrs: ['192.168.9.0/24'], gateway: { ipv4: '192.168.9.1' } });
});

it('a NodeSubnet of a LAN has no next hops, and is of one address at the least', async () => {
  const spec = { pool: 'lan', poolUID: 'u', nodeName: 'n', nodeUID: 'n', nextHops: [] };
  await create('192.168.7.9-32', { ...spec, cidr: '192.168.7.9/32' }, NODE_SUBNET);
});
