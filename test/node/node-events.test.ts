import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { breakNft } from './broken-nft.ts';
import { ip } from './namespaces.ts';
import { eventually, NODE_NAME, pool, startNode, type TestNode } from './node.ts';
import { ANOTHER_HOP, notOwn, subnetOfAnother } from './subnet-of-another.ts';

/** What an agent tells people of its node by Events on the Node, and nobody asks for. */

let node: TestNode;

beforeAll(async () => {
  node = await startNode();
  await node.apply(pool('pods', { cidrs: ['10.47.0.0/24'], nodeSubnetPrefixLength: { ipv4: 26 } }));
  await node.startAgent();
});

afterAll(async () => {
  await node.stop();
});

test('a firewall of the host that drops what pods send, and what to run', async () => {
  const chain = 'chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy drop; }';
  await execa('nft', [`add table inet firewalld; add ${chain}`]);
  const message = await told('ForeignFirewall');
  expect(message).toContain('inet firewalld filter_FORWARD may drop what pods send');
  expect(message).toContain('firewall-cmd --permanent --zone=trusted --add-interface=vxlan.weft');
  expect(message).toContain('--add-source=10.47.0.0/24');
  await execa('nft', ['delete table inet firewalld']);
});

test('a pool of which this node has no subnet, and why', async () => {
  await node.apply(
    pool('full', { cidrs: ['10.48.0.0/27'], nodeSubnetPrefixLength: { ipv4: 27 }, disabled: true }),
  );
  await subnetOfAnother(node, '10.48.0.0/27', 'full');
  await node.kubectl('patch', 'ippool', 'full', '--type=merge', '-p', '{"spec":{"disabled":false}}');
  expect(await told('NoNodeSubnet')).toMatch(
    /IPPool full on this node.*no \/27 is free in its CIDRs: nodes hold 1/,
  );
});

test(
  'filters that have not been right for a while, and why; then all is put right',
  { timeout: 200_000 },
  async () => {
    const nft = await breakNft();
    await node.apply(pool('more', { cidrs: ['10.49.0.0/24'] }));
    const message = await told('NetworkBroken');
    expect(message).toMatch(/have not been right for \d+ s: .*nft is broken/);
    // The node's pods are taken out of their Services for that: not before it has lasted for a minute.
    const failed = await eventually(
      'STATUS to fail',
      async () => {
        const { answer } = await node.cni({ command: 'STATUS' });
        return answer?.code === undefined ? undefined : answer;
      },
      90_000,
    );
    expect(failed.code).toBe(51);
    expect(failed.msg).toMatch(/broken for [67]\d s: .*nft is broken/);
    await nft.mend();
    await eventually('the filters to know the pool', async () =>
      (await execa('nft', ['list', 'table', 'inet', 'weft'])).stdout.includes('10.49.0.0/24')
        ? true
        : undefined,
    );
    await eventually('STATUS to be content', async () =>
      (await node.cni({ command: 'STATUS' })).exitCode === 0 ? true : undefined,
    );
  },
);

test('a route of somebody else in the place of one to another node, until it goes (F44)', async () => {
  const free = await notOwn(node, 'pods', ['10.47.0.128/26', '10.47.0.192/26']);
  await ip('route', 'add', free, 'via', '192.0.2.1', 'proto', 'static');
  await subnetOfAnother(node, free, 'pods');
  const message = await told('NetworkRefused');
  expect(message).toMatch(
    /the kernel of this node refuses what single nodes or pods need.*route 10\.47\.0\.\d+\/26.*EEXIST/,
  );
  expect(message).toContain(free);
  expect(await ip('route', 'show', free)).toContain('proto static');
  await ip('route', 'delete', free);
  await eventually('the route to the node', async () =>
    (await ip('route', 'show', free)).includes(`via ${ANOTHER_HOP} dev eth0 proto 84`) ? true : undefined,
  );
});

/** The message of the Event with that reason on this node. */
function told(reason: string): Promise<string> {
  return eventually(`an Event ${reason}`, async () => {
    const list = await node.kubectl('get', 'events', '-n', 'default', '-o', 'json');
    const { items } = JSON.parse(list) as {
      items: { reason: string; message: string; involvedObject: { kind: string; name: string } }[];
    };
    return items.find(
      (one) =>
        one.reason === reason && one.involvedObject.kind === 'Node' && one.involvedObject.name === NODE_NAME,
    )?.message;
  });
}
