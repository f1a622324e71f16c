import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  allocationName,
  API_VERSION,
  IP_ALLOCATION,
  IP_POOL,
  IPPoolSpec,
  NODE_SUBNET,
  nodeSubnetName,
  SCHEMA_REVISION,
  type Resource,
} from '../../src/api/index.ts';
import { InvalidError, requireSchemaRevision, SchemaRevisionError } from '../../src/kube/index.ts';
import { pathOf } from '../../src/kube/paths.ts';
import { formatAddress, formatCIDR, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { anyAddress, anyCIDR } from '../net/arbitraries.ts';
import { mustSucceed, SAMPLES, useApiserver } from './apiserver.ts';

const server = useApiserver();

type Spec = Record<string, unknown>;

const body = (resource: Resource, name: string, spec: Spec) => ({
  apiVersion: API_VERSION,
  kind: resource.kind,
  metadata: { name },
  spec,
});

/** Creates, or only tries to; answers what was stored. */
async function create(resource: Resource, name: string, spec: Spec, dryRun = true): Promise<unknown> {
  return server().client.request({
    method: 'POST',
    path: pathOf(resource),
    query: { dryRun: dryRun ? 'All' : undefined },
    body: body(resource, name, spec),
  });
}

/** Replaces the spec of a stored object as it is now. */
async function replace(resource: Resource, name: string, spec: Spec): Promise<unknown> {
  const path = `${pathOf(resource)}/${name}`;
  const stored = (await server().client.request({ method: 'GET', path })) as { metadata: object };
  return server().client.request({
    method: 'PUT',
    path,
    body: { ...body(resource, name, spec), metadata: stored.metadata },
  });
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

async function isAccepted(writing: Promise<unknown>): Promise<boolean> {
  try {
    await writing;
    return true;
  } catch (error) {
    if (error instanceof InvalidError) return false;
    throw error;
  }
}

/** Whether nothing is wrong with how a CIDR is written; that no pool may have it is another matter. */
async function isSpelledWell(writing: Promise<unknown>): Promise<boolean> {
  try {
    await writing;
    return true;
  } catch (error) {
    if (!(error instanceof InvalidError)) throw error;
    const { detail } = error;
    return ![NO_CIDR, CANONICAL, 'Too long', 'should be at least'].some((text) => detail.includes(text));
  }
}

const pool = (...cidrs: string[]): Spec => ({ cidrs });

const subnet = (cidr: string): Spec => ({
  cidr,
  pool: 'pods',
  poolUID: 'pool-uid',
  nodeName: 'node-1',
  nodeUID: 'node-uid',
  nextHops: ['192.0.2.1', '2001:db8::1'],
});

const allocation = (address: string): Spec => ({
  address,
  pool: 'pods',
  nodeName: 'node-1',
  attachment: {
    network: 'weft',
    containerID: 'c1',
    ifName: 'eth0',
    kind: 'Interface',
    netns: { path: '/run/netns/x', inode: 4026531840, bootID: 'b' },
  },
  pod: { namespace: 'default', name: 'web-0', uid: 'pod-uid' },
});

const CANONICAL = 'must be canonical: lower case, the shortest spelling, and no bits set behind the prefix';
const NO_CIDR =
  'must be a CIDR such as 10.244.0.0/16 or fd00:10::/48, without leading zeros, zones or IPv4-mapped IPv6';

describe('an IPPool', () => {
  it.each([
    ['10.0.0.0/33', NO_CIDR],
    ['10.0.0.1/24', CANONICAL],
    ['fd00::1/64', CANONICAL],
    ['010.0.0.0/8', NO_CIDR],
    ['10.0.0.0/08', NO_CIDR],
    ['10.0.0.0', NO_CIDR],
    ['::ffff:10.0.0.0/104', NO_CIDR],
    ['fe80::%eth0/64', NO_CIDR],
    ['FD00::/64', CANONICAL],
    ['fd00:0:0::/64', CANONICAL],
    ['fd00:0:0:0::/64', CANONICAL],
    ['0.0.0.0/0', 'must not be a default route (/0)'],
    ['::/0', 'must not be a default route (/0)'],
    ['127.0.0.0/16', 'must not overlap loopback addresses (127.0.0.0/8)'],
    ['126.0.0.0/7', 'must not overlap loopback addresses (127.0.0.0/8)'],
    ['::1/128', 'must not overlap unspecified, loopback or IPv4-mapped addresses (0.0.0.0/8, ::/8)'],
    ['0.0.0.0/16', 'must not overlap unspecified, loopback or IPv4-mapped addresses (0.0.0.0/8, ::/8)'],
    ['169.254.0.0/24', 'must not overlap link-local addresses (169.254.0.0/16, fe80::/10)'],
    ['fe80::/64', 'must not overlap link-local addresses (169.254.0.0/16, fe80::/10)'],
    ['224.0.0.0/8', 'must not overlap multicast addresses (224.0.0.0/4, ff00::/8)'],
    ['ff02::/64', 'must not overlap multicast addresses (224.0.0.0/4, ff00::/8)'],
  ])('with the CIDR %s is refused: %s', async (cidr, message) => {
    expect(await refusal(create(IP_POOL, 'p', pool(cidr)))).toContain(
      `spec.cidrs[0]: Invalid value: ${JSON.stringify(cidr)}: ${message}`,
    );
  });

  it.each([
    [['10.0.0.0/28'], {}, 'cidrs must not be longer than nodeSubnetPrefixLength of their family'],
    [['fd00::/124'], {}, 'cidrs must not be longer than nodeSubnetPrefixLength of their family'],
    [['10.0.0.0/16', '10.0.1.0/24'], {}, 'must be disjoint: one CIDR of the list contains another'],
    [['10.0.0.0/16', '10.0.0.0/16'], {}, 'must be disjoint: one CIDR of the list contains another'],
    [[], {}, 'spec.cidrs in body should have at least 1 items'],
    [['10.0.0.0/16'], { nodeSubnetPrefixLength: { ipv4: 33 } }, 'should be less than or equal to 32'],
    [['10.0.0.0/16'], { nodeSubnetPrefixLength: { ipv6: 63 } }, 'should be greater than or equal to 64'],
    [['10.0.0.0/16'], { reuseDelaySeconds: -1 }, 'should be greater than or equal to 0'],
    [['10.0.0.0/16'], { natOutgoing: 'no' }, 'must be of type boolean'],
  ])('with cidrs %j and %j is refused: %s', async (cidrs, more, message) => {
    expect(await refusal(create(IP_POOL, 'p', { ...pool(...cidrs), ...more }))).toContain(message);
  });

  it.each([
    ['10.0.0.5', 'accepted'],
    ['10.0.0.0/28', 'accepted'],
    ['fd00::/33', 'accepted'],
    ['fd00::5', 'accepted'],
    ['10.0.0.1/28', CANONICAL],
    ['FD00::5', 'must be a canonical IP address: lower case and the shortest spelling'],
    ['10.0.0.5-10.0.0.9', 'must be an IP address or a CIDR'],
    ['010.0.0.1', 'must be an IP address or a CIDR'],
    ['::ffff:10.0.0.1', 'must be an IP address or a CIDR'],
  ])('with %s reserved: %s', async (reserved, message) => {
    const creating = create(IP_POOL, 'p', { ...pool('10.0.0.0/16', 'fd00::/32'), reserved: [reserved] });
    if (message === 'accepted') await creating;
    else expect(await refusal(creating)).toContain(message);
    expect(IPPoolSpec.safeParse({ cidrs: ['10.0.0.0/16'], reserved: [reserved] }).success).toBe(
      message === 'accepted',
    );
  });

  it.each([
    [{ matchLabels: { tenant: 'blue' } }, 'accepted'],
    [{}, 'accepted'],
    [{ matchExpressions: [{ key: 'zone', operator: 'In', values: ['a'] }] }, 'accepted'],
    [{ matchExpressions: [{ key: 'zone', operator: 'Exists' }] }, 'accepted'],
    [{ matchExpressions: [{ key: 'zone', operator: 'In' }] }, 'values must be given for In and NotIn'],
    [{ matchExpressions: [{ key: 'zone', operator: 'NotIn', values: [] }] }, 'values must be given'],
    [{ matchExpressions: [{ key: 'zone', operator: 'Exists', values: ['a'] }] }, 'values must be given'],
    [{ matchExpressions: [{ key: 'zone', operator: 'Near' }] }, 'Unsupported value: "Near"'],
    [{ matchLabel: { tenant: 'blue' } }, 'unknown field'],
  ])('that selects namespaces and nodes by %j: %s', async (selector, message) => {
    for (const field of ['namespaceSelector', 'nodeSelector']) {
      const creating = create(IP_POOL, 'p', { ...pool('10.0.0.0/16'), [field]: selector });
      if (message === 'accepted') await creating;
      else expect(await refusal(creating)).toContain(message);
    }
  });

  it('with a field that no version knows is refused', async () => {
    expect(await refusal(create(IP_POOL, 'p', { ...pool('10.0.0.0/16'), natOutgoin: false }))).toContain(
      'unknown field "spec.natOutgoin"',
    );
  });

  it('has a name of at most 63 characters', async () => {
    await create(IP_POOL, 'p'.repeat(63), pool('10.0.0.0/16'));
    expect(await refusal(create(IP_POOL, 'p'.repeat(64), pool('10.0.0.0/16')))).toContain(
      'the name of an IPPool has at most 63 characters',
    );
  });

  it('may list 256 CIDRs, and is refused at once if two of them overlap', async () => {
    const many = Array.from({ length: 256 }, (_, n) => `10.${n}.0.0/16`);
    await create(IP_POOL, 'many', pool(...many));
    expect(await refusal(create(IP_POOL, 'many', pool(...many.slice(1), '10.255.128.0/17')))).toContain(
      'must be disjoint',
    );
  });

  it('gets its defaults from the apiserver, and may change its cidrs but not its sizes', async () => {
    const stored = await create(IP_POOL, 'sizes', pool('10.0.0.0/16'), false);
    expect(stored).toMatchObject({
      spec: { nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 }, natOutgoing: true, reuseDelaySeconds: 30 },
    });
    await replace(IP_POOL, 'sizes', pool('10.1.0.0/16', 'fd00::/64'));
    const message = 'nodeSubnetPrefixLength is immutable: create a new pool for another size';
    const sized = (size: unknown) => ({ ...pool('10.1.0.0/16'), nodeSubnetPrefixLength: size });
    expect(await refusal(replace(IP_POOL, 'sizes', sized({ ipv4: 24 })))).toContain(message);
    expect(await refusal(replace(IP_POOL, 'sizes', sized({ ipv4: 26, ipv6: 120 })))).toContain(message);
    // The same sizes, said or not said, are no change.
    await replace(IP_POOL, 'sizes', sized({ ipv4: 26 }));
    await replace(IP_POOL, 'sizes', sized({}));
  });

  it('keeps sizes that were set when they are changed and when they are removed', async () => {
    const sized = (size: unknown) => ({ ...pool('10.1.0.0/16'), nodeSubnetPrefixLength: size });
    await create(IP_POOL, 'set', sized({ ipv4: 24, ipv6: 120 }), false);
    const message = 'nodeSubnetPrefixLength is immutable';
    expect(await refusal(replace(IP_POOL, 'set', pool('10.1.0.0/16')))).toContain(message);
    expect(await refusal(replace(IP_POOL, 'set', sized({ ipv4: 24 })))).toContain(message);
    expect(await refusal(replace(IP_POOL, 'set', sized({ ipv4: 25, ipv6: 120 })))).toContain(message);
  });
});

describe('an IPAllocation', () => {
  it.each(['10.244.1.7', 'fd00::5', '2001:db8:a:b:c:d:e:f'])(
    'of %s is accepted under its name',
    async (address) => {
      await create(IP_ALLOCATION, allocationName(parseAddress(address)), allocation(address));
    },
  );

  it.each([
    ['10.244.1.8', '10.244.1.7'],
    ['pod-1', '10.244.1.7'],
    ['fd00-0000-0000-0000-0000-0000-0000-0006', 'fd00::5'],
    ['fd00-0-0-0-0-0-0-5', 'fd00::5'],
    ['fd00--5', 'fd00::5'],
    ['fd00-0000-0000-0000-0000-0000-0000', 'fd00::5'],
    ['10.244.1.7', 'fd00::5'],
  ])('cannot be called %s with the address %s', async (name, address) => {
    expect(await refusal(create(IP_ALLOCATION, name, allocation(address)))).toContain(
      'metadata.name must be spec.address: IPv4 as it is, IPv6 as eight full groups joined by ' +
        "'-' (fd00::5 is fd00-0000-0000-0000-0000-0000-0000-0005)",
    );
  });

  it.each([
    ['FD00::5', 'must be a canonical IP address: lower case and the shortest spelling'],
    ['fd00:0:0::5', 'must be a canonical IP address: lower case and the shortest spelling'],
    ['010.0.0.1', 'must be an IP address without leading zeros, zone or IPv4-mapped IPv6'],
    ['::ffff:10.0.0.1', 'must be an IP address without leading zeros, zone or IPv4-mapped IPv6'],
    ['fe80::1%eth0', 'must be an IP address without leading zeros, zone or IPv4-mapped IPv6'],
  ])('cannot have the address %s: %s', async (address, message) => {
    expect(await refusal(create(IP_ALLOCATION, 'x', allocation(address)))).toContain(
      `spec.address: Invalid value: ${JSON.stringify(address)}: ${message}`,
    );
  });

  it('has exactly one of attachment and holder', async () => {
    const message = 'exactly one of attachment and holder must be set';
    const { attachment, ...neither } = allocation('10.0.0.1');
    expect(await refusal(create(IP_ALLOCATION, '10.0.0.1', neither))).toContain(message);
    expect(
      await refusal(create(IP_ALLOCATION, '10.0.0.1', { ...neither, attachment, holder: 'me' })),
    ).toContain(message);
    await create(IP_ALLOCATION, '10.0.0.1', { ...neither, holder: 'me' });
  });

  it('never changes its spec: nothing added, changed or removed', async () => {
    const { nodeName, ...withoutNode } = allocation('10.0.0.2');
    await create(IP_ALLOCATION, '10.0.0.2', withoutNode, false);
    await create(IP_ALLOCATION, '10.0.0.3', allocation('10.0.0.3'), false);
    const message = "an IPAllocation's spec is immutable: release the address and claim it anew";
    expect(await refusal(replace(IP_ALLOCATION, '10.0.0.2', { ...withoutNode, nodeName }))).toContain(
      message,
    );
    const whole = allocation('10.0.0.3');
    const other = { ...(whole.attachment as object), containerID: 'c2' };
    expect(await refusal(replace(IP_ALLOCATION, '10.0.0.3', { ...whole, attachment: other }))).toContain(
      message,
    );
    expect(await refusal(replace(IP_ALLOCATION, '10.0.0.3', { ...whole, pool: 'other' }))).toContain(message);
    for (const field of ['nodeName', 'pod']) {
      const { [field]: _, ...less } = whole;
      expect(await refusal(replace(IP_ALLOCATION, '10.0.0.3', less)), field).toContain(message);
    }
    await replace(IP_ALLOCATION, '10.0.0.3', whole);
  });
});

describe('a sticky IPAllocation', () => {
  const pod = { namespace: 'shop', name: 'db-0' };
  const STICKY = 'shop/db-0';
  const message =
    "an IPAllocation's spec is immutable: release the address and claim it anew. A sticky one keeps address, pool and sticky";
  const bound = (address: string): Spec => ({ ...allocation(address), pod, sticky: STICKY });
  const kept = (address: string): Spec => {
    const { attachment: _, nodeName: __, ...rest } = bound(address);
    return { ...rest, holder: 'sticky' };
  };

  it('is emptied and bound again, to another sandbox on another node', async () => {
    await create(IP_ALLOCATION, '10.6.0.1', bound('10.6.0.1'), false);
    await replace(IP_ALLOCATION, '10.6.0.1', kept('10.6.0.1'));
    await replace(IP_ALLOCATION, '10.6.0.1', { ...bound('10.6.0.1'), nodeName: 'node-2' });
  });

  it('never changes its address, its pool or its pod', async () => {
    await create(IP_ALLOCATION, '10.6.0.2', kept('10.6.0.2'), false);
    const whole = bound('10.6.0.2');
    const { sticky: _, ...without } = whole;
    for (const spec of [without, { ...whole, sticky: 'shop/db-1' }, { ...whole, pool: 'other' }]) {
      expect(await refusal(replace(IP_ALLOCATION, '10.6.0.2', spec))).toContain(message);
    }
    expect(await refusal(replace(IP_ALLOCATION, '10.6.0.2', { ...whole, address: '10.6.0.3' }))).toContain(
      message,
    );
  });

  it('is what no other becomes, and no other is emptied', async () => {
    const other: Spec = { ...allocation('10.6.0.4'), pod };
    await create(IP_ALLOCATION, '10.6.0.4', other, false);
    expect(await refusal(replace(IP_ALLOCATION, '10.6.0.4', bound('10.6.0.4')))).toContain(message);
    expect(await refusal(replace(IP_ALLOCATION, '10.6.0.4', { ...other, fixed: true }))).toContain(message);
    const { attachment: _, ...rest } = other;
    expect(await refusal(replace(IP_ALLOCATION, '10.6.0.4', { ...rest, holder: 'me' }))).toContain(message);
  });

  it('alone may be held by "sticky": people use other words', async () => {
    const { sticky: _, ...rest } = kept('10.6.0.5');
    expect(await refusal(create(IP_ALLOCATION, '10.6.0.5', rest))).toContain(
      "the holder sticky is weft's own word, for addresses with spec.sticky",
    );
  });
});

describe('an exclusive NodeSubnet', () => {
  const exclusive = (cidr: string) => ({ ...subnet(cidr), exclusive: true });

  it.each([
    ['10.9.1.9/32', true],
    ['fd00::9/128', true],
    ['10.9.1.0/31', false],
    ['10.9.1.0/26', false],
    ['fd00::/127', false],
  ])('of %s: %s', async (cidr, isOne) => {
    const creating = create(NODE_SUBNET, nodeSubnetName(parseCIDR(cidr)), exclusive(cidr));
    if (isOne) await creating;
    else expect(await refusal(creating)).toContain('an exclusive NodeSubnet is one address: /32 or /128');
  });

  it('stays so, and no other becomes one', async () => {
    const message = 'a NodeSubnet is immutable but for nodeUID and nextHops';
    await create(NODE_SUBNET, '10.9.1.1-32', exclusive('10.9.1.1/32'), false);
    await create(NODE_SUBNET, '10.9.1.2-32', subnet('10.9.1.2/32'), false);
    await create(NODE_SUBNET, '10.9.1.3-32', { ...subnet('10.9.1.3/32'), exclusive: false }, false);
    const tries: [string, Spec][] = [
      ['10.9.1.1-32', { ...subnet('10.9.1.1/32'), exclusive: false }],
      ['10.9.1.1-32', subnet('10.9.1.1/32')],
      ['10.9.1.2-32', exclusive('10.9.1.2/32')],
      ['10.9.1.3-32', exclusive('10.9.1.3/32')],
      ['10.9.1.3-32', subnet('10.9.1.3/32')],
    ];
    for (const [name, spec] of tries) {
      expect(await refusal(replace(NODE_SUBNET, name, spec)), JSON.stringify(spec)).toContain(message);
    }
    await replace(NODE_SUBNET, '10.9.1.1-32', { ...exclusive('10.9.1.1/32'), nextHops: ['192.0.2.9'] });
  });
});

describe('a NodeSubnet', () => {
  it.each(['10.244.1.0/26', '10.0.0.9/32', 'fd00::/122', 'fd00:10:244::40/122', '2001:db8::/64'])(
    'of %s is accepted under its name',
    async (cidr) => {
      await create(NODE_SUBNET, nodeSubnetName(parseCIDR(cidr)), subnet(cidr));
    },
  );

  it.each([
    ['10.244.1.0-26', '10.244.2.0/26'],
    ['10.244.1.0-25', '10.244.1.0/26'],
    ['node-1', '10.244.1.0/26'],
    ['fd00-0000-0000-0000-0000-0000-0000-0000-123', 'fd00::/122'],
    ['fd00-0000-0000-0000-0000-0000-0000-0000-0122', 'fd00::/122'],
    ['fd00-0000-0000-0000-0000-0000-0000-0040-122', 'fd00::/122'],
    ['fd00-0-0-0-0-0-0-0-122', 'fd00::/122'],
    ['fd00-0000-0000-0000-0000-0000-0000-0000', 'fd00::/122'],
    ['fd00-0000-0000-0000-0000-0000-0000-0000-999999999999999999999', 'fd00::/122'],
  ])('cannot be called %s with the CIDR %s', async (name, cidr) => {
    expect(await refusal(create(NODE_SUBNET, name, subnet(cidr)))).toContain(
      "metadata.name must be spec.cidr with '-' for '/', IPv6 as eight full groups joined by '-' " +
        '(fd00::/122 is fd00-0000-0000-0000-0000-0000-0000-0000-122)',
    );
  });

  it.each([
    ['0.0.0.0/1', 'cidr must not be wider than the widest nodeSubnetPrefixLength'],
    ['10.0.0.0/15', 'cidr must not be wider than the widest nodeSubnetPrefixLength'],
    ['fd00::/63', 'cidr must not be wider than the widest nodeSubnetPrefixLength'],
    ['0.0.0.0/0', 'must not be a default route (/0)'],
    ['127.0.0.0/26', 'must not overlap loopback addresses'],
    ['169.254.1.0/26', 'must not overlap link-local addresses'],
  ])('of %s, which no pool has, is refused: %s', async (cidr, message) => {
    expect(await refusal(create(NODE_SUBNET, nodeSubnetName(parseCIDR(cidr)), subnet(cidr)))).toContain(
      message,
    );
  });

  it('changes nothing but nodeUID and nextHops', async () => {
    await create(NODE_SUBNET, '10.9.0.0-26', subnet('10.9.0.0/26'), false);
    const whole = subnet('10.9.0.0/26');
    await replace(NODE_SUBNET, '10.9.0.0-26', { ...whole, nodeUID: 'other', nextHops: ['192.0.2.9'] });
    const message = 'a NodeSubnet is immutable but for nodeUID and nextHops';
    for (const field of ['pool', 'poolUID', 'nodeName']) {
      expect(
        await refusal(replace(NODE_SUBNET, '10.9.0.0-26', { ...whole, [field]: 'other' })),
        field,
      ).toContain(message);
      const { [field]: _, ...less } = whole;
      expect(await refusal(replace(NODE_SUBNET, '10.9.0.0-26', less)), field).toContain(
        `spec.${field}: Required`,
      );
    }
    expect(await refusal(replace(NODE_SUBNET, '10.9.0.0-26', { ...whole, cidr: '10.9.0.64/26' }))).toContain(
      message,
    );
  });

  it('needs next hops that are addresses', async () => {
    expect(
      await refusal(create(NODE_SUBNET, '10.9.0.0-26', { ...subnet('10.9.0.0/26'), nextHops: ['node-1'] })),
    ).toContain('spec.nextHops[0]: Invalid value: "node-1": must be an IP address');
  });
});

describe('the apiserver and weft', () => {
  const letters = fc.constantFrom(...'0123456789abcdfF:./'.split(''));
  /** Random text, and canonical text with one character changed. */
  const nearly = (canonical: fc.Arbitrary<string>) =>
    fc.oneof(
      canonical,
      fc
        .tuple(canonical, fc.nat(), letters)
        .map(([text, at, letter]) => text.replace(text[at % text.length] ?? '', letter)),
    );
  const read = (work: () => unknown): boolean => {
    try {
      work();
      return true;
    } catch {
      return false;
    }
  };

  it('agree on which texts are addresses', async () => {
    const { nodeName: _, ...plain } = allocation('10.0.0.1');
    await fc.assert(
      fc.asyncProperty(nearly(anyAddress.map(formatAddress)), async (address) => {
        const name = read(() => parseAddress(address)) ? allocationName(parseAddress(address)) : 'x';
        const accepted = await isAccepted(create(IP_ALLOCATION, name, { ...plain, address }));
        expect(accepted, address).toBe(read(() => parseAddress(address)));
      }),
      { numRuns: 500 },
    );
  });

  it('agree on which texts are CIDRs', async () => {
    await fc.assert(
      fc.asyncProperty(nearly(anyCIDR.map(formatCIDR)), async (cidr) => {
        const name = read(() => parseCIDR(cidr)) ? nodeSubnetName(parseCIDR(cidr)) : 'x';
        expect(await isSpelledWell(create(NODE_SUBNET, name, subnet(cidr))), cidr).toBe(
          read(() => parseCIDR(cidr)),
        );
      }),
      { numRuns: 500 },
    );
  });
});

describe('kubectl', () => {
  it('accepts every sample', async () => {
    const samples = (await readdir(SAMPLES)).filter((file) => file.endsWith('.yaml'));
    expect(samples.length).toBeGreaterThan(0);
    for (const sample of samples) {
      if (sample === 'kustomization.yaml') continue;
      await mustSucceed(server().kubectl(['create', '--dry-run=server', '-f', join(SAMPLES, sample)]));
    }
  });

  it('shows who is where, and finds it by address, node, pool, namespace and pod', async () => {
    const name = 'fd00-0000-0000-0000-0000-0000-0000-0005';
    await create(IP_ALLOCATION, name, allocation('fd00::5'), false);
    await create(IP_ALLOCATION, '10.7.0.1', { address: '10.7.0.1', pool: 'elsewhere', holder: 'me' }, false);
    const table = await mustSucceed(server().kubectl(['get', 'ipallocations', name]));
    const [head, row] = table.split('\n').map((line) => line.split(/ {2,}/));
    expect(head).toEqual(['NAME', 'ADDRESS', 'POOL', 'NODE', 'NAMESPACE', 'POD', 'RELEASED', 'AGE']);
    expect(row?.slice(0, 6)).toEqual([name, 'fd00::5', 'pods', 'node-1', 'default', 'web-0']);
    for (const selector of [
      'spec.address=fd00::5',
      'spec.pod.name=web-0,spec.address!=10.0.0.2,spec.address!=10.0.0.3',
      'spec.pod.namespace=default,spec.nodeName=node-1,spec.pool=pods,spec.address!=10.0.0.3',
    ]) {
      const found = await mustSucceed(
        server().kubectl(['get', 'ipallocations', '-o', 'name', '--field-selector', selector]),
      );
      expect(found.split('\n'), selector).toEqual([`ipallocation.ipam.weft.dev/${name}`]);
    }
  });

  it('finds the addresses that are kept for a pod', async () => {
    const spec = { address: '10.7.0.2', pool: 'elsewhere', holder: 'sticky', sticky: 'shop/cache-0' };
    await create(IP_ALLOCATION, '10.7.0.2', spec, false);
    const selector = '--field-selector=spec.sticky=shop/cache-0';
    const found = await mustSucceed(server().kubectl(['get', 'ipallocations', '-o', 'name', selector]));
    expect(found).toBe('ipallocation.ipam.weft.dev/10.7.0.2');
  });

  it('shows node subnets, and finds them by node and pool', async () => {
    await create(
      NODE_SUBNET,
      '10.8.0.0-26',
      { ...subnet('10.8.0.0/26'), nodeName: 'node-8', pool: 'p8' },
      false,
    );
    const table = await mustSucceed(
      server().kubectl(['get', 'nodesubnets', '--field-selector', 'spec.nodeName=node-8,spec.pool=p8']),
    );
    const [head, row] = table.split('\n').map((line) => line.split(/ {2,}/));
    expect(head).toEqual(['NAME', 'CIDR', 'POOL', 'NODE', 'NEXT HOPS', 'AGE']);
    expect(row?.slice(0, 5)).toEqual([
      '10.8.0.0-26',
      '10.8.0.0/26',
      'p8',
      'node-8',
      '["192.0.2.1","2001:db8::1"]',
    ]);
  });

  it('shows pools with what is left of them', async () => {
    await create(IP_POOL, 'shown', pool('10.20.0.0/16', 'fd20::/64'), false);
    const usage = {
      capacity: '65536',
      allocated: 3,
      resting: 1,
      reserved: '0',
      free: '65532',
      nodeSubnets: 2,
      freeSubnets: '1022',
    };
    const status = {
      ipv4: usage,
      ipv6: { ...usage, capacity: '18446744073709551616', free: '18446744073709551612' },
      conditions: [
        {
          type: 'Ready',
          status: 'True',
          reason: 'Serving',
          message: 'pods get addresses',
          lastTransitionTime: '2030-01-01T00:00:00Z',
        },
      ],
    };
    await mustSucceed(
      server().kubectl([
        ...['patch', 'ippool', 'shown', '--subresource=status', '--type=merge'],
        ...['-p', JSON.stringify({ status })],
      ]),
    );
    const table = await mustSucceed(server().kubectl(['get', 'ippools', 'shown', '-o', 'wide']));
    const [head, row] = table.split('\n').map((line) => line.split(/ {2,}/));
    expect(Object.fromEntries((head ?? []).map((title, at) => [title, row?.[at]]))).toMatchObject({
      CIDRS: '["10.20.0.0/16","fd20::/64"]',
      'IPV4 USED': '3',
      'IPV4 RESTING': '1',
      'IPV4 FREE': '65532',
      'IPV4 SUBNETS': '2',
      'IPV6 FREE': '18446744073709551612',
      READY: 'True',
      REASON: 'Serving',
    });
  });
});

describe('the schema revision', () => {
  it('is found in the cluster, and an older or missing one is refused with the way out', async () => {
    await requireSchemaRevision(server().client);
    const annotate = (value: string) =>
      mustSucceed(
        server().kubectl([
          ...['annotate', '--overwrite', 'crd', 'ipallocations.ipam.weft.dev'],
          `ipam.weft.dev/schema-revision${value}`,
        ]),
      );
    await annotate('=0');
    await expect(requireSchemaRevision(server().client)).rejects.toThrow(
      'the CustomResourceDefinition ipallocations.ipam.weft.dev has revision 0, and this version of weft needs ' +
        `schema revision ${SCHEMA_REVISION}: apply the crds/ of this version`,
    );
    await annotate('-');
    await expect(requireSchemaRevision(server().client)).rejects.toThrow(SchemaRevisionError);
    await annotate(`=${SCHEMA_REVISION}`);
    await requireSchemaRevision(server().client);
  });
});
