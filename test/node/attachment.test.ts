import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CONFIG, eventually, pool, startNode, type TestAgent, type TestNode } from './node.ts';
import { ip, UPLINK, weftLinks } from './namespaces.ts';

/** What a runtime may do to one attachment, through the real executable, agent, apiserver and kernel. */

let node: TestNode;
let agent: TestAgent | undefined;

beforeAll(async () => {
  node = await startNode();
  await node.apply(
    pool('pods', {
      cidrs: ['10.2.0.0/16', 'fd00:2::/64'],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      reuseDelaySeconds: 1,
    }),
  );
  agent = await node.startAgent();
});

afterAll(async () => {
  await agent?.kill();
  await node.stop();
});

describe('ADD', () => {
  test('gives both families, and pod and node reach each other', async () => {
    const netns = await node.makeSandbox('reach');
    const { answer, stdout } = await node.cni({ command: 'ADD', containerID: 'reach', netns });
    const [ipv4, ipv6] = answer?.ips?.map(({ address }) => address.split('/')[0] ?? '') ?? [];
    expect(ipv4, stdout).toMatch(/^10\.2\./);
    expect(ipv6, stdout).toMatch(/^fd00:2:/);
    for (const address of UPLINK.addresses) await ping('reach', address);
    await execa('ping', ['-c1', '-W2', ipv4 ?? '']);
    await execa('ping', ['-c1', '-W2', ipv6 ?? '']);
    await node.cni({ command: 'DEL', containerID: 'reach', netns });
  });

  test('two pods of one node reach each other', async () => {
    const [a, b] = [await node.makeSandbox('pair-a'), await node.makeSandbox('pair-b')];
    await node.cni({ command: 'ADD', containerID: 'pair-a', netns: a });
    const { answer } = await node.cni({ command: 'ADD', containerID: 'pair-b', netns: b });
    for (const { address } of answer?.ips ?? []) await ping('pair-a', address.split('/')[0] ?? '');
    expect(answer?.ips).toHaveLength(2);
    await node.cni({ command: 'DEL', containerID: 'pair-a', netns: a });
    await node.cni({ command: 'DEL', containerID: 'pair-b', netns: b });
  });

  test('said twice answers the same (B10)', async () => {
    const netns = await node.makeSandbox('twice');
    const first = await node.cni({ command: 'ADD', containerID: 'twice', netns });
    const second = await node.cni({ command: 'ADD', containerID: 'twice', netns });
    expect(first.exitCode).toBe(0);
    expect(second.answer).toEqual(first.answer);
    await node.cni({ command: 'DEL', containerID: 'twice', netns });
  });

  test('refuses an interface name that is taken, leaves it alone and keeps no address (B9)', async () => {
    const netns = await node.makeSandbox('occupied');
    await ip('-n', 'occupied', 'link', 'add', 'eth0', 'type', 'bridge');
    const { exitCode, answer } = await node.cni({ command: 'ADD', containerID: 'occupied', netns });
    expect(exitCode).not.toBe(0);
    expect(answer?.code).toBeGreaterThanOrEqual(100);
    expect(await ip('-n', 'occupied', 'link', 'show', 'eth0', 'type', 'bridge')).toContain('eth0');
    await noAllocation('occupied');
  });

  test('right after a DEL, in the same namespace under the same name, works', async () => {
    const netns = await node.makeSandbox('anew');
    for (const containerID of ['anew-1', 'anew-2', 'anew-3']) {
      const added = await node.cni({ command: 'ADD', containerID, netns });
      expect(added.exitCode, added.stdout).toBe(0);
      expect((await node.cni({ command: 'DEL', containerID, netns })).exitCode).toBe(0);
    }
  });

  test.each(['0.3.1', '0.4.0', '1.0.0', '1.1.0'])('answers in version %s', async (cniVersion) => {
    const id = `version-${cniVersion.replaceAll('.', '-')}`;
    const netns = await node.makeSandbox(id);
    const config = { ...CONFIG, cniVersion };
    const added = await node.cni({ command: 'ADD', containerID: id, netns, config });
    expect(JSON.parse(added.stdout)).toMatchObject({ cniVersion });
    await node.cni({ command: 'DEL', containerID: id, netns, config });
  });
});

test('an ADD that cannot be finished takes back all it did, and leaves the sandbox’s other interface alone', async () => {
  const netns = await node.makeSandbox('second');
  const first = await node.cni({ command: 'ADD', containerID: 'second', netns });
  // Where it would lead, something leads already, and routes are one of the last steps.
  await ip('-n', 'second', 'route', 'add', '10.2.0.0/16', 'dev', 'lo');
  const second = await node.cni({ command: 'ADD', containerID: 'second', netns, ifName: 'net1' });
  expect(second.answer?.code, second.stdout).toBe(104);
  expect(await ip('-n', 'second', '-brief', 'link')).not.toContain('net1');
  await eventually('the addresses of the first alone to be left', async () =>
    (await liveAllocations('second')) === 2 ? true : undefined,
  );
  expect(await weftLinks()).toHaveLength(1);
  for (const { address } of first.answer?.ips ?? []) {
    await execa('ping', ['-c1', '-W2', address.split('/')[0] ?? '']);
  }
  await node.cni({ command: 'DEL', containerID: 'second', netns });
  await noAllocation('second');
});

describe('DEL answers success to all the odd ones (F5)', () => {
  test('three times, with the address free after the first', async () => {
    const netns = await node.makeSandbox('thrice');
    await node.cni({ command: 'ADD', containerID: 'thrice', netns });
    for (let i = 0; i < 3; i++) {
      expect((await node.cni({ command: 'DEL', containerID: 'thrice', netns })).exitCode).toBe(0);
      await noAllocation('thrice');
    }
  });

  test('with an empty CNI_NETNS the address is released too', async () => {
    const netns = await node.makeSandbox('empty');
    await node.cni({ command: 'ADD', containerID: 'empty', netns });
    expect((await node.cni({ command: 'DEL', containerID: 'empty' })).exitCode).toBe(0);
    await noAllocation('empty');
  });

  test('with a namespace that has vanished', async () => {
    const netns = await node.makeSandbox('vanished');
    await node.cni({ command: 'ADD', containerID: 'vanished', netns });
    await node.removeSandbox('vanished');
    expect((await node.cni({ command: 'DEL', containerID: 'vanished', netns })).exitCode).toBe(0);
    await noAllocation('vanished');
  });

  test('for a container that nobody knows', async () => {
    const deleted = await node.cni({ command: 'DEL', containerID: 'unknown', netns: '/run/netns/unknown' });
    expect(deleted).toMatchObject({ exitCode: 0, stdout: '' });
  });

  test('without prevResult, and with one that cannot be read', async () => {
    const netns = await node.makeSandbox('previous');
    await node.cni({ command: 'ADD', containerID: 'previous', netns });
    const config = { ...CONFIG, prevResult: { cniVersion: '1.1.0', ips: [] } };
    expect((await node.cni({ command: 'DEL', containerID: 'previous', netns, config })).exitCode).toBe(0);
    await noAllocation('previous');
  });

  test('does not touch the interface of another that has taken the namespace over', async () => {
    const netns = await node.makeSandbox('reused');
    await node.cni({ command: 'ADD', containerID: 'reused-old', netns });
    await node.removeSandbox('reused');
    await node.makeSandbox('reused');
    await node.cni({ command: 'ADD', containerID: 'reused-new', netns });
    await node.cni({ command: 'DEL', containerID: 'reused-old', netns });
    await ping('reused', UPLINK.addresses[0]);
    await node.cni({ command: 'DEL', containerID: 'reused-new', netns });
  });
});

describe('CHECK', () => {
  test('is content with what ADD made, and names what has changed since', async () => {
    const netns = await node.makeSandbox('check');
    const added = await node.cni({ command: 'ADD', containerID: 'check', netns });
    const config = { ...CONFIG, prevResult: JSON.parse(added.stdout) as object };
    const call = { command: 'CHECK', containerID: 'check', netns, config };
    expect(await node.cni(call)).toMatchObject({ exitCode: 0, stdout: '' });
    await ip('-n', 'check', 'address', 'flush', 'dev', 'eth0');
    const { answer } = await node.cni(call);
    expect(answer?.msg).toContain('lacks its address');
    await node.cni({ command: 'DEL', containerID: 'check', netns });
  });

  test.each([
    ['route del default', 'it has no ipv4 route via 169.254.1.1'],
    ['-6 route del default', 'it has no ipv6 route via fe80::1'],
    [
      'neigh replace 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent',
      'does not know 169.254.1.1',
    ],
    ['neigh del fe80::1 dev eth0', 'does not know fe80::1'],
    ['link set eth0 down', 'it is down'],
    ['link set eth0 name other', 'it is called other by now'],
  ])('names what was done in the pod: %s', async (sabotage, message) => {
    const { call, end } = await addedForCheck('sabotaged');
    try {
      await ip('-n', 'sabotaged', ...sabotage.split(' '));
      const { answer } = await node.cni(call);
      expect(answer).toMatchObject({ msg: expect.stringContaining(message) as unknown });
    } finally {
      await end();
    }
  });

  // All else on the node's side is put back at once, by this very agent.
  test("names the route on the node that another's has taken the place of", async () => {
    const { call, end, address } = await addedForCheck('displaced');
    try {
      await ip('route', 'replace', `${address}/32`, 'dev', 'lo', 'proto', 'static');
      const { answer } = await node.cni(call);
      expect(answer).toMatchObject({ msg: expect.stringContaining('its node must add route') as unknown });
    } finally {
      await ip('route', 'del', `${address}/32`, 'dev', 'lo', 'proto', 'static');
      await end();
    }
  });
});

async function addedForCheck(id: string) {
  const netns = await node.makeSandbox(id);
  const added = await node.cni({ command: 'ADD', containerID: id, netns });
  const prevResult = JSON.parse(added.stdout) as { ips: readonly { address: string }[] };
  const [address = ''] = prevResult.ips.map((one) => one.address.replace(/\/.*/, ''));
  return {
    call: { command: 'CHECK', containerID: id, netns, config: { ...CONFIG, prevResult } },
    address,
    async end() {
      await node.cni({ command: 'DEL', containerID: id, netns });
      await node.removeSandbox(id);
    },
  };
}

describe('GC', () => {
  test('removes what the runtime does not list, of its own network and older than the grace alone', async () => {
    const ids = ['gc-listed', 'gc-unlisted', 'gc-other-network'];
    for (const containerID of ids) {
      const netns = await node.makeSandbox(containerID);
      const config = containerID === 'gc-other-network' ? { ...CONFIG, name: 'other' } : CONFIG;
      expect((await node.cni({ command: 'ADD', containerID, netns, config })).exitCode).toBe(0);
    }
    const valid = { 'cni.dev/valid-attachments': [{ containerID: 'gc-listed', ifname: 'eth0' }] };
    const gc = { command: 'GC', config: { ...CONFIG, ...valid } };
    expect((await node.cni(gc)).exitCode).toBe(0);
    expect(await liveAllocations('gc-unlisted')).toBe(2); // too young
    await eventually('the grace to pass and GC to remove it', async () => {
      await node.cni(gc);
      return (await liveAllocations('gc-unlisted')) === 0 ? true : undefined;
    });
    expect(await liveAllocations('gc-listed')).toBe(2);
    expect(await liveAllocations('gc-other-network')).toBe(2);
    await eventually('an Event that names it', async () =>
      /AttachmentsCollected +node.*interface eth0 of container gc-unlisted/.test(
        await node.kubectl('get', 'events', '-n', 'default'),
      )
        ? true
        : undefined,
    );

    // Of two lists the one by its present name counts (B12), whatever the other says.
    const both = { ...valid, 'cni.dev/attachments': [] };
    expect((await node.cni({ command: 'GC', config: { ...CONFIG, ...both } })).exitCode).toBe(0);
    expect(await liveAllocations('gc-listed')).toBe(2);
    // An empty list is a list: of that network nothing lives.
    const none = { 'cni.dev/valid-attachments': [] };
    expect((await node.cni({ command: 'GC', config: { ...CONFIG, ...none } })).exitCode).toBe(0);
    expect(await liveAllocations('gc-listed')).toBe(0);
    expect(await liveAllocations('gc-other-network')).toBe(2);
    for (const containerID of ids) await node.cni({ command: 'DEL', containerID });
  });
});

describe('STATUS', () => {
  test('is content while the agent serves', async () => {
    expect(await node.cni({ command: 'STATUS' })).toMatchObject({ exitCode: 0, stdout: '' });
  });
});

async function ping(from: string, to: string): Promise<void> {
  await execa('ip', ['netns', 'exec', from, 'ping', '-c1', '-W2', to]);
}

async function noAllocation(containerID: string): Promise<void> {
  await eventually(`no live allocation of ${containerID}`, async () =>
    (await liveAllocations(containerID)) === 0 ? true : undefined,
  );
}

async function liveAllocations(containerID: string): Promise<number> {
  const list = JSON.parse(await node.kubectl('get', 'ipallocations', '-o', 'json')) as {
    items: { spec: { attachment?: { containerID: string } }; status?: { releasedAt?: string } }[];
  };
  return list.items.filter(
    ({ spec, status }) => spec.attachment?.containerID === containerID && status?.releasedAt === undefined,
  ).length;
}
