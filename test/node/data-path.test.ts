import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { scrape } from '../metrics/scrape.ts';
import { ip, UPLINK, weftLinks } from './namespaces.ts';
import { CONFIG, eventually, NODE_NAME, pool, startNode, type TestAgent, type TestNode } from './node.ts';

/** What an agent makes of its node's data path, through the real executable, agent, apiserver and kernel. */

const PORT = 9144;
let node: TestNode;
let agent: TestAgent | undefined;

beforeAll(async () => {
  node = await startNode();
  for (const [name, encapsulation, index] of [
    ['pods', 'CrossSubnet', 2],
    ['plain', 'Never', 3],
  ] as const) {
    const cidrs = [`10.${index}.0.0/16`, `fd00:${index}::/64`];
    await node.apply(
      pool(name, { cidrs, encapsulation, reuseDelaySeconds: 5, priority: name === 'pods' ? 1 : 0 }),
    );
  }
  agent = await node.startAgent();
});

afterAll(async () => {
  await agent?.kill();
  await node.stop();
});

/** ADD of a sandbox of that name; the MTU that the answer says, and the addresses. */
async function add(
  name: string,
  config: object = {},
): Promise<{ mtu: number | undefined; addresses: string[] }> {
  const netns = await node.makeSandbox(name);
  const { answer, stdout } = await node.cni({
    command: 'ADD',
    containerID: name,
    netns,
    config: { ...CONFIG, ...config },
  });
  expect(answer?.ips, stdout).toHaveLength(2);
  const { interfaces } = JSON.parse(stdout) as { interfaces: { mtu: number }[] };
  return {
    mtu: interfaces.at(-1)?.mtu,
    addresses: answer?.ips?.map(({ address }) => address.split('/')[0] ?? '') ?? [],
  };
}

async function del(name: string): Promise<void> {
  await node.cni({ command: 'DEL', containerID: name, netns: `/run/netns/${name}` });
  await node.removeSandbox(name);
}

async function mtuIn(sandbox: string): Promise<number | undefined> {
  const links = JSON.parse(await ip('-json', '-n', sandbox, 'link', 'show', 'eth0')) as { mtu: number }[];
  return links[0]?.mtu;
}

describe('the MTU', () => {
  test('is by the pool, is what ADD says, and follows the uplink while the pod lives', async () => {
    expect((await add('encapsulated')).mtu).toBe(1450);
    expect((await add('whole', { pool: 'plain' })).mtu).toBe(1500);
    expect((await add('named', { mtu: 1400 })).mtu).toBe(1400);
    const sandboxes = ['encapsulated', 'whole', 'named'];
    expect(await Promise.all(sandboxes.map(mtuIn))).toEqual([1450, 1500, 1400]);

    await ip('link', 'set', UPLINK.name, 'mtu', '9000');
    await eventually('the links to follow', async () =>
      (await Promise.all(sandboxes.map(mtuIn))).join() === '8950,9000,1400' ? true : undefined,
    );
    expect((await add('later')).mtu).toBe(8950);
    await ip('link', 'set', UPLINK.name, 'mtu', '1500');
    await eventually('the links to go back', async () =>
      (await Promise.all([...sandboxes, 'later'].map(mtuIn))).join() === '1450,1500,1400,1450'
        ? true
        : undefined,
    );
    const hosts = (await weftLinks()).map(({ mtu }) => mtu);
    expect(hosts.sort()).toEqual([1400, 1450, 1450, 1500]);
    // Said again it answers with what stands.
    const again = await node.cni({
      command: 'ADD',
      containerID: 'whole',
      netns: '/run/netns/whole',
      config: { ...CONFIG, pool: 'plain' },
    });
    expect(again.stdout).toContain('"mtu":1500');
    for (const name of [...sandboxes, 'later']) await del(name);
  });
});

describe('connections that are tracked of an address', () => {
  const trackedOf = async (address: string) => {
    const family = address.includes(':') ? 'ipv6' : 'ipv4';
    const { stdout } = await execa('conntrack', ['-L', '-f', family]);
    return stdout.split('\n').filter((line) => line.includes(`=${address} `));
  };

  test('are ended within its reuse delay, and those of others are not (F36)', async () => {
    const [gone, stays] = [await add('gone'), await add('stays')];
    // One connection each: a Service's clients choose their ports.
    const attachments = [
      { addresses: gone.addresses, port: '5555' },
      { addresses: stays.addresses, port: '5556' },
    ];
    for (const { addresses, port } of attachments) {
      for (const address of addresses) {
        const service = address.includes(':') ? 'fd96::1' : '10.96.0.1';
        const client = address.includes(':') ? '2001:db8:2::77' : '192.0.2.77';
        // As a Service's translation leaves it: the address is that of the answers alone.
        await execa('conntrack', [
          ...['-I', '-p', 'udp', '-t', '300', '--sport', port, '--dport', '53'],
          ...['-s', client, '-d', service, '--dst-nat', address],
        ]);
        expect(await trackedOf(address)).toHaveLength(1);
      }
    }
    await del('gone');
    for (const address of gone.addresses) {
      await eventually(`the end of what is tracked of ${address}`, async () =>
        (await trackedOf(address)).length === 0 ? true : undefined,
      );
    }
    // Its name is still locked: nobody has it yet.
    expect((await node.allocations('gone')).map(({ released }) => released)).toEqual([true, true]);
    for (const address of stays.addresses) expect(await trackedOf(address)).toHaveLength(1);
    await eventually('the count', async () =>
      ((await scrape(PORT)).value('weft_connections_ended_total') ?? 0) >= 2 ? true : undefined,
    );
    await del('stays');
  });
});

describe('a node that cannot be reached', () => {
  test('is said by an Event on this Node and by a metric, until it can (F37)', async () => {
    const uid = await node.kubectl('get', 'node', NODE_NAME, '-o', 'jsonpath={.metadata.uid}');
    const poolUID = await node.kubectl('get', 'ippool', 'pods', '-o', 'jsonpath={.metadata.uid}');
    await node.apply({
      apiVersion: 'ipam.weft.dev/v1alpha1',
      kind: 'NodeSubnet',
      metadata: { name: '10.2.255.192-26' },
      spec: {
        cidr: '10.2.255.192/26',
        pool: 'pods',
        poolUID,
        nodeName: 'twin',
        // By which its device has this node's MAC.
        nodeUID: uid,
        nextHops: ['198.51.100.7'],
      },
    });
    const events = async () => {
      const text = await node.kubectl(
        'get',
        'events',
        '-A',
        '--field-selector=involvedObject.kind=Node',
        '-o',
        'json',
      );
      return (JSON.parse(text) as { items: { reason: string; message: string }[] }).items;
    };
    const event = await eventually('the Event', async () =>
      (await events()).find(({ reason }) => reason === 'NodesUnreachable'),
    );
    expect(event.message).toContain('no route to 10.2.255.192/26 of node "twin": its VXLAN MAC');
    const unmet = async () => (await scrape(PORT)).value('weft_unmet_needs', { cause: 'objects' });
    await eventually('the metric', async () => ((await unmet()) === 1 ? true : undefined));
    await node.kubectl('delete', 'nodesubnet', '10.2.255.192-26');
    await eventually('the metric to fall', async () => ((await unmet()) === 0 ? true : undefined));
  });
});
