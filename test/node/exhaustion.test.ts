import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allocationName } from '../../src/api/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { CONFIG, eventually, pool, startNode, type CallResult, type TestNode } from './node.ts';
import { ip, weftLinks } from './namespaces.ts';

/** What happens when subnets and pools fill up and empty again. */

let node: TestNode;

beforeAll(async () => {
  // The grace never ends: what is given back here, the sweep has not freed.
  node = await startNode({ flags: ['--grace-seconds=600'] });
  await node.startAgent();
});

afterAll(async () => {
  await node.stop();
});

describe('a subnet with exactly as many addresses as pods (F27)', () => {
  const PODS = 100;
  /** A /25 has 127 addresses to hand out. The others are somebody else's. */
  const HELD = 27;
  const ids = Array.from({ length: PODS }, (_, i) => `crowd-${i}`);
  const added = new Map<string, CallResult>();

  beforeAll(async () => {
    await node.apply(
      pool('crowd', {
        cidrs: ['10.3.0.0/25'],
        nodeSubnetPrefixLength: { ipv4: 25 },
        reuseDelaySeconds: 3,
      }),
    );
    const items = Array.from({ length: HELD }, (_, i) => heldAddress(`10.3.0.${20 + i}`, 'crowd'));
    await node.apply({ apiVersion: 'v1', kind: 'List', items });
    for (const id of [...ids, 'crowd-late']) await node.makeSandbox(id);
    await eventually('the subnet', async () =>
      (await node.subnets('crowd')).length === 1 ? true : undefined,
    );
  }, 180_000);

  afterAll(async () => {
    for (const id of [...ids, 'crowd-late']) await node.removeSandbox(id);
    await node.kubectl('delete', 'ippool', 'crowd', '--wait=false');
  });

  test('gives all of them one, at once', { timeout: 180_000 }, async () => {
    await Promise.all(ids.map(async (id) => added.set(id, await add(id, 'crowd'))));
    const failures = [...added.values()].filter(({ exitCode }) => exitCode !== 0);
    expect(failures.map(({ stdout }) => stdout)).toEqual([]);
    const addresses = new Set([...added.values()].map(addressOf));
    expect(addresses.size).toBe(PODS);
    const inUse = (await node.allocations()).filter((one) => one.pool === 'crowd');
    expect(inUse).toHaveLength(PODS + HELD);
    for (const id of ['crowd-0', 'crowd-57', 'crowd-99']) {
      expect(inUse.find(({ containerID }) => containerID === id)?.name).toBe(addressOf(added.get(id)));
      expect(await ip('-n', id, 'address', 'show', 'dev', 'eth0')).toContain(
        `${addressOf(added.get(id))}/32`,
      );
    }
  });

  test('the next one gets code 11, and is told why', async () => {
    const { answer } = await add('crowd-late', 'crowd');
    expect(answer?.code).toBe(11);
    expect(answer?.msg).toBe(
      'IPPool crowd has no free ipv4 address on this node: of 127 usable in 10.3.0.0/25, 127 are in use and ' +
        '0 rest after their release. Add a CIDR to the pool, or wait for pods to go',
    );
    expect(await ip('-n', 'crowd-late', '-brief', 'link')).not.toContain('eth0');
    // A node is not out of order for that: its pods stay in their Services.
    expect(await node.cni({ command: 'STATUS' })).toMatchObject({ exitCode: 0, stdout: '' });
  });

  test('when one has gone its address rests, and then the next one gets it (F28)', async () => {
    await node.cni({ command: 'DEL', containerID: 'crowd-7', netns: '/run/netns/crowd-7' });
    await eventually('the address to rest', async () =>
      (await node.allocations('crowd-7')).some(({ released }) => released) ? true : undefined,
    );
    const { answer } = await add('crowd-late', 'crowd');
    expect(answer?.code).toBe(11);
    expect(answer?.msg).toMatch(
      /126 are in use and 1 rest after their release, the next comes free in [123] s/,
    );
    const late = await eventually('the delay to pass', async () => {
      const again = await add('crowd-late', 'crowd');
      return again.exitCode === 0 ? again : undefined;
    });
    expect(addressOf(late)).toBe(addressOf(added.get('crowd-7')));
  });

  test('all at once they go, and every address comes free', { timeout: 180_000 }, async () => {
    const gone = await Promise.all(
      [...ids, 'crowd-late'].map((id) =>
        node.cni({ command: 'DEL', containerID: id, netns: `/run/netns/${id}` }),
      ),
    );
    expect(gone.filter(({ exitCode }) => exitCode !== 0)).toEqual([]);
    await eventually('only what others hold to be left', async () =>
      (await node.allocations()).filter((one) => one.pool === 'crowd').length === HELD ? true : undefined,
    );
  });
});

describe('subnets on demand', () => {
  const ids = ['grow-1', 'grow-2', 'grow-3', 'grow-4'];

  test('a node that is full claims one more', async () => {
    await node.apply(
      pool('grow', {
        cidrs: ['10.6.0.0/24'],
        nodeSubnetPrefixLength: { ipv4: 30 },
        reuseDelaySeconds: 1,
      }),
    );
    for (const id of ids) {
      await node.makeSandbox(id);
      const { exitCode, stdout } = await add(id, 'grow');
      expect(exitCode, stdout).toBe(0);
    }
    expect(await node.subnets('grow')).toHaveLength(2); // 3 addresses each
  });

  test('the one that is empty is given back, and one is kept', async () => {
    for (const id of ids) await node.cni({ command: 'DEL', containerID: id });
    await eventually('one to be given back', async () =>
      (await node.subnets('grow')).length === 1 ? true : undefined,
    );
  });

  test('a pool that is deleted keeps its subnet for as long as a pod uses it', async () => {
    expect((await add('grow-1', 'grow')).exitCode).toBe(0);
    await node.kubectl('delete', 'ippool', 'grow', '--wait=false');
    await eventually('nothing to be drawn any more', async () => {
      const { answer } = await add('grow-2', 'grow');
      return answer?.msg?.includes('grow: it is being deleted') === true ? true : undefined;
    });
    expect(await node.subnets('grow')).toHaveLength(1);
    await node.cni({ command: 'DEL', containerID: 'grow-1', netns: '/run/netns/grow-1' });
    await eventually('the subnet to go with its last address', async () =>
      (await node.subnets('grow')).length === 0 ? true : undefined,
    );
    await eventually('its route to go', async () =>
      (await ip('route', 'show', 'type', 'unreachable')).includes('10.6.0.') ? undefined : true,
    );
    for (const id of ids) await node.removeSandbox(id);
  });
});

describe.each([
  {
    full: 'ipv4',
    cidrs: ['10.7.0.0/30', 'fd00:7::/122'],
    scarce: ['10.7.0.1', '10.7.0.2', '10.7.0.3'],
  },
  {
    full: 'ipv6',
    cidrs: ['10.7.1.0/26', 'fd00:7:1::/126'],
    scarce: ['fd00:7:1::1', 'fd00:7:1::2', 'fd00:7:1::3'],
  },
])('a pool of which only $full is full (F39)', ({ full, cidrs, scarce }) => {
  const name = `only-${full}`;

  test('gives neither address, names the family, and leaves nothing in book or kernel', async () => {
    const nodeSubnetPrefixLength = { ipv4: full === 'ipv4' ? 30 : 26, ipv6: full === 'ipv6' ? 126 : 122 };
    await node.apply(pool(name, { cidrs, nodeSubnetPrefixLength, reuseDelaySeconds: 1 }));
    await eventually('a subnet of each family', async () =>
      (await node.subnets(name)).length === 2 ? true : undefined,
    );
    for (const id of ['half-1', 'half-2']) await node.makeSandbox(id);
    const first = (await add('half-1', name)).answer?.ips?.map(({ address }) => address.split('/')[0]) ?? [];
    expect(first).toHaveLength(2);
    // What is held without a node the agent does not see: it finds out by its creates, the other family's under way.
    const others = scarce.filter((address) => !first.includes(address));
    const held = others.map((address) => heldAddress(address, name));
    await node.apply({ apiVersion: 'v1', kind: 'List', items: held });
    const before = await podState();

    for (let i = 0; i < 3; i++) {
      const { answer } = await add('half-2', name);
      expect(answer?.code).toBe(11);
      expect(answer?.msg).toContain(`IPPool ${name} has no free ${full} address on this node: of 3 usable`);
      expect(await podState()).toEqual(before);
      expect(await ip('-n', 'half-2', '-brief', 'link')).not.toContain('eth0');
      // Before the next ADD, which lets go what an earlier one has left.
      await eventually('no address to stay claimed for it', async () =>
        (await node.allocations('half-2')).length === 0 ? true : undefined,
      );
    }
    expect((await node.allocations()).filter((one) => one.pool === name)).toHaveLength(2 + held.length);

    await node.cni({ command: 'DEL', containerID: 'half-1', netns: '/run/netns/half-1' });
    await eventually('both, when both are free', async () =>
      (await add('half-2', name)).answer?.ips?.length === 2 ? true : undefined,
    );
    await node.cni({ command: 'DEL', containerID: 'half-2', netns: '/run/netns/half-2' });
    for (const id of ['half-1', 'half-2']) await node.removeSandbox(id);
    await node.kubectl('delete', 'ippool', name, '--wait=false');
  });
});

/** What pods' interfaces are in the node's kernel: links, neighbours and the destinations of routes. */
async function podState(): Promise<object> {
  const links = (await weftLinks()).map((link) => link.name).sort();
  const shown = await Promise.all(
    ['-4', '-6'].flatMap((family) => [
      ip(family, 'route', 'show', 'table', 'all', 'proto', '85'),
      ip(family, 'neighbour', 'show', 'nud', 'permanent'),
    ]),
  );
  const destinations = shown.flatMap((text) => text.split('\n').map((line) => line.split(' ')[0]));
  return { links, destinations };
}

test('a pod that names no pool gets an address of the next one when the first is full', async () => {
  const small = { nodeSubnetPrefixLength: { ipv4: 30 }, reuseDelaySeconds: 1 };
  await node.apply(pool('first', { cidrs: ['10.4.0.0/30'], ...small }));
  await node.apply(pool('second', { cidrs: ['10.5.0.0/30'], ...small }));
  await eventually('both subnets', async () =>
    (await node.subnets('first')).length + (await node.subnets('second')).length === 2 ? true : undefined,
  );
  const ids = Array.from({ length: 7 }, (_, i) => `spill-${i}`);
  const prefixes: string[] = [];
  for (const id of ids) {
    await node.makeSandbox(id);
    const result = await add(id);
    prefixes.push(
      result.exitCode === 0 ? addressOf(result).split('.').slice(0, 2).join('.') : String(result.answer?.msg),
    );
  }
  expect(prefixes.slice(0, 6)).toEqual(['10.4', '10.4', '10.4', '10.5', '10.5', '10.5']);
  // The reason that its people look for is the first pool's.
  expect(prefixes[6]).toContain('IPPool first has no free ipv4 address');
  for (const id of ids) {
    await node.cni({ command: 'DEL', containerID: id });
    await node.removeSandbox(id);
  }
});

function add(containerID: string, poolName?: string): Promise<CallResult> {
  return node.cni({
    command: 'ADD',
    containerID,
    netns: `/run/netns/${containerID}`,
    config: { ...CONFIG, ...(poolName === undefined ? {} : { pool: poolName }) },
  });
}

function addressOf(result: CallResult | undefined): string {
  return result?.answer?.ips?.[0]?.address.split('/')[0] ?? 'none';
}

/** An address that a person holds, without a node. */
function heldAddress(address: string, poolName: string): object {
  return {
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'IPAllocation',
    metadata: { name: allocationName(parseAddress(address)) },
    spec: { address, pool: poolName, holder: 'printer' },
  };
}
