import { describe, expect, test } from 'vitest';
import {
  allocationName,
  type IPAllocationSpec,
  type NodeSubnet,
  type NodeSubnetSpec,
} from '../../src/api/index.ts';
import { createTwoOwners } from '../../src/agent/two-owners.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import { createFakeStores, type FakeCall, type Fault } from '../contract/fake-stores.ts';
import { attachmentOf } from '../ipam/objects.ts';

describe('a subnet', () => {
  test('in which an attachment of another node is found twice is disputed, until it has gone', async () => {
    const { owners, look, own, other, allocate, stores, told } = await setUp();
    await allocate('10.0.0.9', 'n2');
    owners.taken('10.0.0.9');
    expect(owners.isDisputed(own)).toBe(false);
    await look();
    expect(owners.isDisputed(own)).toBe(false);
    expect(told).toEqual([]);
    await look();
    expect(owners.isDisputed(own)).toBe(true);
    expect(owners.isDisputed(other)).toBe(false);
    expect(told).toEqual(['10.0.0.0-26 n2']);
    stores.deleteByHand('IPAllocation', '10.0.0.9');
    await look();
    expect(owners.isDisputed(own)).toBe(false);
  });

  test.each([
    ['this node’s own, only not in the cache yet', 'n1'],
    ['a person’s', undefined],
  ])('whose taken name is %s is not disputed', async (_, nodeName) => {
    const { owners, look, own, allocate } = await setUp();
    await allocate('10.0.0.9', nodeName);
    owners.taken('10.0.0.9');
    for (let i = 0; i < 3; i++) await look();
    expect(owners.isDisputed(own)).toBe(false);
  });

  test('in which the other node has a subnet of its own around the address is not disputed', async () => {
    const { owners, look, own, allocate, subnet } = await setUp();
    await allocate('10.0.0.9', 'n2');
    await subnet('10.0.0.9/32', 'n2');
    owners.taken('10.0.0.9');
    for (let i = 0; i < 3; i++) await look();
    expect(owners.isDisputed(own)).toBe(false);
  });

  test.each([{ fixed: true }, { sticky: 'shop/db-0' }])(
    'in which a pod of another node has an address of its own, %j, is not disputed',
    async (marks) => {
      const { owners, look, own, allocate } = await setUp();
      await allocate('10.0.0.9', 'n2', marks);
      owners.taken('10.0.0.9');
      for (let i = 0; i < 3; i++) await look();
      expect(owners.isDisputed(own)).toBe(false);
    },
  );

  test('is disputed also where the other node has an exclusive one for what was drawn there', async () => {
    const { owners, look, own, allocate, subnet } = await setUp();
    await allocate('10.0.0.9', 'n2');
    await subnet('10.0.0.9/32', 'n2', { exclusive: true });
    owners.taken('10.0.0.9');
    for (let i = 0; i < 3; i++) await look();
    expect(owners.isDisputed(own)).toBe(true);
  });

  test('stays as it was judged while the apiserver is away, and others are looked at all the same', async () => {
    let isAway = false;
    const { owners, look, own, other, allocate } = await setUp(({ verb, name }) =>
      isAway && verb === 'get' && name === '10.0.0.9' ? 'fail' : 'none',
    );
    await allocate('10.0.0.9', 'n2');
    await allocate('10.0.0.70', 'n3');
    for (const name of ['10.0.0.9', '10.0.0.70']) owners.taken(name);
    for (let i = 0; i < 2; i++) await look();
    isAway = true;
    await look();
    expect([own, other].map(owners.isDisputed)).toEqual([true, true]);
  });
});

async function setUp(fault: (call: FakeCall) => Fault = () => 'none') {
  const stores = createFakeStores({ fault });
  const told: string[] = [];
  const subnet = async (
    cidr: string,
    nodeName: string,
    extra: Partial<NodeSubnetSpec> = {},
  ): Promise<NodeSubnet> => {
    const spec = { cidr: parseCIDR(cidr), pool: 'p', poolUID: 'u', nodeName, nodeUID: nodeName, ...extra };
    const made = await stores.subnets.create({ ...spec, nextHops: [parseAddress('192.0.2.1')] });
    if (made.kind !== 'created') throw new Error(`${cidr} is taken`);
    return made.object;
  };
  const own = await subnet('10.0.0.0/26', 'n1');
  const other = await subnet('10.0.0.64/26', 'n1');
  const owners = createTwoOwners({
    store: stores.allocations,
    nodeName: 'n1',
    subnets: () => [...stores.stored.NodeSubnet.values()],
    onTwoOwners: ({ metadata }, node) => void told.push(`${metadata.name} ${node}`),
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
  });
  return {
    stores,
    owners,
    own,
    other,
    told,
    subnet,
    look: () => owners.look(new AbortController().signal),
    allocate: async (
      address: string,
      nodeName: string | undefined,
      marks: Partial<IPAllocationSpec> = {},
    ) => {
      const holds =
        nodeName === undefined ? { holder: 'a person' } : { nodeName, attachment: attachmentOf('far') };
      const spec = { address: parseAddress(address), pool: 'p', ...holds, ...marks };
      const made = await stores.allocations.create(spec);
      expect(stores.stored.IPAllocation.has(allocationName(parseAddress(address)))).toBe(true);
      return made;
    },
  };
}
