import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { breakNft } from './broken-nft.ts';
import { eventually, NODE_NAME, pool, startNode, type TestNode } from './node.ts';

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
  const uid = await node.kubectl('get', 'ippool', 'full', '-o', 'jsonpath={.metadata.uid}');
  await node.apply({
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'NodeSubnet',
    metadata: { name: '10.48.0.0-27' },
    spec: {
      cidr: '10.48.0.0/27',
      pool: 'full',
      poolUID: uid,
      nodeName: 'another',
      nodeUID: 'uid-another',
      nextHops: ['192.0.2.77'],
    },
  });
  await node.kubectl('patch', 'ippool', 'full', '--type=merge', '-p', '{"spec":{"disabled":false}}');
  expect(await told('NoNodeSubnet')).toMatch(
    /IPPool full on this node.*no \/27 is free in its CIDRs: nodes hold 1/,
  );
});

test('filters that have not been right for a while, and why; then all is put right', async () => {
  const nft = await breakNft();
  await node.apply(pool('more', { cidrs: ['10.49.0.0/24'] }));
  const message = await told('NetworkBroken');
  expect(message).toMatch(/have not been right for \d+ s: .*nft is broken/);
  await nft.mend();
  await eventually('the filters to know the pool', async () =>
    (await execa('nft', ['list', 'table', 'inet', 'weft'])).stdout.includes('10.49.0.0/24')
      ? true
      : undefined,
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
