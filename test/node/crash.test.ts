import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ADD_STEPS, DEL_STEPS } from '../../src/agent/steps.ts';
import { eventually, pool, startNode, type TestNode } from './node.ts';
import { ip } from './namespaces.ts';

/** The agent is killed at every step of ADD and DEL; after it has come back nothing is lost and nothing is left. */

let node: TestNode;

beforeAll(async () => {
  node = await startNode();
  await node.apply(
    pool('crash', {
      cidrs: ['10.1.0.0/24', 'fd00:1::/64'],
      nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
      reuseDelaySeconds: 1,
    }),
  );
});

afterAll(async () => {
  await node.stop();
});

const killer = new URL('./kill-at-step.ts', import.meta.url).pathname;

describe.each(ADD_STEPS)('killed at %s', (step) => {
  test('the runtime tries again with the same container: one address of each family, and it works', async () => {
    const id = `again-${step.replace(':', '-')}`;
    const netns = await node.makeSandbox(id);
    await killDuring('ADD', { containerID: id, netns, step });

    const agent = await node.startAgent();
    const again = await node.cni({ command: 'ADD', containerID: id, netns });
    expect(again.answer?.code, again.stdout).toBeUndefined();
    const addresses = again.answer?.ips?.map(({ address }) => address.split('/')[0]) ?? [];
    expect(addresses).toHaveLength(2);
    const inside = await ip('-n', id, '-json', 'address', 'show', 'dev', 'eth0');
    for (const address of addresses) expect(inside).toContain(`"${address ?? ''}"`);
    await eventually('one allocation of each family', async () => {
      const live = (await allocationsOf(id)).filter(({ released }) => !released);
      return live.length === 2 ? true : undefined;
    });

    await node.cni({ command: 'DEL', containerID: id, netns });
    await settled(id);
    await agent.kill();
    await node.removeSandbox(id);
  });

  test('the runtime gives up and removes the sandbox: nothing is left', async () => {
    const id = `gone-${step.replace(':', '-')}`;
    const netns = await node.makeSandbox(id);
    await killDuring('ADD', { containerID: id, netns, step });
    await node.removeSandbox(id);

    const agent = await node.startAgent();
    await settled(id);
    await agent.kill();
  });
});

describe.each(DEL_STEPS)('killed at %s', (step) => {
  test('the addresses come free and the interface goes', async () => {
    const id = `del-${step.replace(':', '-')}`;
    const netns = await node.makeSandbox(id);
    const agent = await node.startAgent();
    expect((await node.cni({ command: 'ADD', containerID: id, netns })).exitCode).toBe(0);
    await agent.kill();
    await killDuring('DEL', { containerID: id, netns, step });

    const next = await node.startAgent();
    expect((await node.cni({ command: 'DEL', containerID: id, netns })).exitCode).toBe(0);
    await settled(id);
    await next.kill();
    await node.removeSandbox(id);
  });
});

/** Starts an agent that dies at the step, calls the executable, and waits until the agent is dead. */
async function killDuring(
  command: 'ADD' | 'DEL',
  { containerID, netns, step }: { containerID: string; netns: string; step: string },
): Promise<void> {
  const doomed = await node.startAgent({ program: killer, env: { WEFT_TEST_KILL_AT: step } });
  const call = node.cni({ command, containerID, netns });
  await doomed.ended;
  const { exitCode, answer } = await call;
  // ADD says "try again later" once its patience is over; DEL leaves a note for the next agent.
  if (command === 'ADD') expect(answer?.code).toBe(11);
  else expect(exitCode).toBe(0);
}

interface Allocation {
  readonly name: string;
  readonly released: boolean;
}

async function allocationsOf(containerID: string): Promise<Allocation[]> {
  const list = JSON.parse(await node.kubectl('get', 'ipallocations', '-o', 'json')) as {
    items: {
      metadata: { name: string };
      spec: { attachment?: { containerID: string } };
      status?: { releasedAt?: string };
    }[];
  };
  return list.items
    .filter(({ spec }) => spec.attachment?.containerID === containerID)
    .map(({ metadata, status }) => ({ name: metadata.name, released: status?.releasedAt !== undefined }));
}

/** No object names the container, and no link of weft's is left on the host. */
async function settled(containerID: string): Promise<void> {
  await eventually(`nothing left of ${containerID}`, async () => {
    if ((await allocationsOf(containerID)).length > 0) return undefined;
    const links = await ip('-brief', 'link', 'show', 'type', 'veth');
    return /^x?weft/m.test(links) ? undefined : true;
  });
}
