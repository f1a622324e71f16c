import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { scrape } from '../metrics/scrape.ts';
import { CONFIG, eventually, NODE_NAME, pool, startNode, type TestAgent, type TestNode } from './node.ts';
import { ip } from './namespaces.ts';
import { notOwn, subnetOfAnother } from './subnet-of-another.ts';

/** What an agent finds on its own node and can mend neither by sweep nor by sync: it tells of it all the time. */

const PORT = 9153;

let node: TestNode;
let agent: TestAgent;

beforeAll(async () => {
  node = await startNode({ flags: ['--audit-seconds=0.5', `--metrics-address=127.0.0.1:${PORT}`] });
  await node.apply(
    pool('findings', { cidrs: ['10.46.0.0/24', 'fd00:46::/64'], nodeSubnetPrefixLength: { ipv4: 26 } }),
  );
  agent = await node.startAgent();
  const netns = await node.makeSandbox('lives');
  const { answer, stdout } = await node.cni({ command: 'ADD', containerID: 'lives', netns, config: CONFIG });
  expect(answer?.ips, stdout).toHaveLength(2);
  await says('True NothingFound');
});

afterAll(async () => {
  await node.stop();
});

describe('what an agent cannot mend is the condition of its Node, an Event and a metric, until it is right again', () => {
  test('an address that a pod has taken away', async () => {
    const address = await liveAddress();
    await ip('-n', 'lives', 'address', 'delete', `${address}/32`, 'dev', 'eth0');
    await says('False AddressMissingInPod');
    expect(await condition('message')).toContain(`was given ${address} and no longer has it`);
    expect(await node.kubectl('get', 'events', '-n', 'default')).toMatch(
      /AddressMissingInPod\s+node\/test-node/,
    );
    await counted('10', 1);
    await ip('-n', 'lives', 'address', 'add', `${address}/32`, 'dev', 'eth0');
    await says('True NothingFound');
    await counted('10', 0);
  });

  test("a pod's route without a pod", async () => {
    await ip('route', 'add', '10.99.1.1', 'dev', 'lo', 'proto', '85');
    await says('False KernelDiffers');
    expect(await condition('message')).toContain('10.99.1.1/32');
    await ip('route', 'delete', '10.99.1.1', 'proto', '85');
    await says('True NothingFound');
  });

  test('a route of somebody else that takes packets for the pods of another node (B20)', async () => {
    const cidr = await notOwn(node, 'findings', ['10.46.0.128/26', '10.46.0.192/26']);
    await subnetOfAnother(node, cidr, 'findings');
    const inside = cidr.replace('/26', '/28');
    await ip('route', 'add', inside, 'via', '192.0.2.1', 'proto', 'static');
    await says('False PacketsDiverted');
    expect(await condition('message')).toContain(`route ${inside} via 192.0.2.1`);
    expect(await node.kubectl('get', 'events', '-n', 'default')).toMatch(/PacketsDiverted\s+node\/test-node/);
    await counted('10', 1);
    // It is not ours to take away.
    expect(await ip('route', 'show', inside)).toContain('proto static');
    await ip('route', 'delete', inside);
    await says('True NothingFound');
    await counted('10', 0);
  });

  test("a living pod's address that is somebody else's by the book, which another node's watch does not show", async () => {
    const address = await liveAddress();
    // The sweep makes it again within a second: whoever is faster has it.
    await eventually('somebody else to have the address', async () => {
      await node.kubectl('delete', 'ipallocation', address, '--ignore-not-found');
      const spec = { address, pool: 'findings', nodeName: 'another', holder: 'somebody' };
      const metadata = { name: address };
      await node
        .apply({ apiVersion: 'ipam.weft.dev/v1alpha1', kind: 'IPAllocation', metadata, spec })
        .catch(() => undefined);
      return (await holderOf(address)) === 'somebody' ? true : undefined;
    });
    await says('False AddressOfAnother');
    expect(await condition('message')).toContain('holder "somebody"');
    await counted('2', 1);
    expect(await node.kubectl('get', 'events', '-n', 'default')).toMatch(
      new RegExp(`AddressOfAnother\\s+ipallocation/${address}`),
    );
    await node.kubectl('delete', 'ipallocation', address);
    await says('True NothingFound');
  });
});

test('an agent that starts anew does not take back what its predecessor said before it has looked itself', async () => {
  await ip('route', 'add', '10.99.1.1', 'dev', 'lo', 'proto', '85');
  await says('False KernelDiffers');
  const before = await condition('lastTransitionTime');
  await agent.kill();
  agent = await node.startAgent();
  await counted('10', 1);
  expect(await condition('lastTransitionTime')).toBe(before);
  await ip('route', 'delete', '10.99.1.1', 'proto', '85');
  await says('True NothingFound');
});

test('a Node made anew is told again', async () => {
  await node.kubectl(
    'patch',
    'node',
    NODE_NAME,
    '--subresource=status',
    '--type=merge',
    '-p',
    '{"status":{"conditions":[]}}',
  );
  await says('True NothingFound');
});

/** Waits until the Node's condition has that status and reason. */
async function says(expected: string): Promise<void> {
  await eventually(`the Node to say ${expected}`, async () => {
    const [status, reason] = [await condition('status'), await condition('reason')];
    return `${status} ${reason}` === expected ? true : undefined;
  });
}

function condition(field: string): Promise<string> {
  const path = `{.status.conditions[?(@.type=="WeftConsistent")].${field}}`;
  return node.kubectl('get', 'node', NODE_NAME, '-o', `jsonpath=${path}`);
}

/** Waits until the metric says so: its text may be half a second old. */
async function counted(invariant: string, findings: number): Promise<void> {
  await eventually(`${findings} findings of invariant ${invariant}`, async () =>
    // A new agent's port may not be open yet.
    (await scrape(PORT).catch(() => undefined))?.value('weft_node_findings', { invariant }) === findings
      ? true
      : undefined,
  );
}

/** The IPv4 address of the sandbox, which is the name of its allocation, too. */
async function liveAddress(): Promise<string> {
  const found = (await node.allocations('lives')).find(({ name }) => name.includes('.'));
  if (found === undefined) throw new Error('the sandbox has no IPv4 address');
  return found.name;
}

function holderOf(name: string): Promise<string> {
  return node.kubectl('get', 'ipallocation', name, '--ignore-not-found', '-o', 'jsonpath={.spec.holder}');
}
