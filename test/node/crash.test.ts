import { readdir, rm, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ADD_STEPS, DEL_STEPS } from '../../src/agent/steps.ts';
import { eventually, pool, startNode, type TestAgent, type TestNode } from './node.ts';
import { ip, weftLinks } from './namespaces.ts';

/** The agent is killed at every step of ADD and DEL; after it has come back nothing is lost and nothing is left. */

let node: TestNode;
let agent: TestAgent;

/** Where the agent reads at which step it is to die. */
const FATAL_STEP = '/run/weft/fatal-step';
const MORTAL = {
  program: new URL('./kill-at-step.ts', import.meta.url).pathname,
  env: { WEFT_TEST_FATAL_STEP: FATAL_STEP },
};

beforeAll(async () => {
  node = await startNode({ flags: ['--sweep-seconds=0.5', '--grace-seconds=1'] });
  await node.apply(
    pool('crash', {
      cidrs: ['10.1.0.0/24', 'fd00:1::/64'],
      nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
      reuseDelaySeconds: 1,
    }),
  );
  agent = await node.startAgent(MORTAL);
});

afterAll(async () => {
  await node.stop();
});

describe.each(ADD_STEPS)('killed at %s', (step) => {
  test('the runtime tries again with the same container: one address of each family, and it works', async () => {
    const id = `again-${step.replace(':', '-')}`;
    const netns = await node.makeSandbox(id);
    await killDuring('ADD', { containerID: id, netns, step });

    const again = await node.cni({ command: 'ADD', containerID: id, netns });
    expect(again.answer?.code, again.stdout).toBeUndefined();
    const addresses = again.answer?.ips?.map(({ address }) => address.split('/')[0]) ?? [];
    expect(addresses).toHaveLength(2);
    const inside = await ip('-n', id, '-json', 'address', 'show', 'dev', 'eth0');
    for (const address of addresses) expect(inside).toContain(`"${address ?? ''}"`);
    await eventually('one allocation of each family', async () => {
      const live = (await node.allocations(id)).filter(({ released }) => !released);
      return live.length === 2 ? true : undefined;
    });

    await node.cni({ command: 'DEL', containerID: id, netns });
    await settled(id);
    await node.removeSandbox(id);
  });

  test('the runtime gives up and removes the sandbox: nothing is left', async () => {
    const id = `gone-${step.replace(':', '-')}`;
    const netns = await node.makeSandbox(id);
    await killDuring('ADD', { containerID: id, netns, step }, () => node.removeSandbox(id));
    await settled(id);
  });
});

describe.each(DEL_STEPS)('killed at %s', (step) => {
  test('the addresses come free and the interface goes', async () => {
    const id = `del-${step.replace(':', '-')}`;
    const netns = await node.makeSandbox(id);
    expect((await node.cni({ command: 'ADD', containerID: id, netns })).exitCode).toBe(0);
    await killDuring('DEL', { containerID: id, netns, step });

    expect((await node.cni({ command: 'DEL', containerID: id, netns })).exitCode).toBe(0);
    await settled(id);
    await node.removeSandbox(id);
  });
});

describe('while there is no agent', () => {
  test('ADD answers code 11 after its 8 s of trying, and says what to look at', async () => {
    await agent.kill();
    const netns = await node.makeSandbox('alone');
    const startedMs = performance.now();
    const { answer } = await node.cni({ command: 'ADD', containerID: 'alone', netns });
    expect(answer?.code).toBe(11);
    expect(answer?.msg).toContain('for 8 s');
    expect(answer?.msg).toContain('kubectl -n weft-system get pods -o wide');
    expect(performance.now() - startedMs).toBeGreaterThan(7_500);
    await node.removeSandbox('alone');
  });

  test('DEL succeeds and leaves a note, which the next agent works off', async () => {
    const id = 'noted';
    const netns = await node.makeSandbox(id);
    agent = await node.startAgent();
    expect((await node.cni({ command: 'ADD', containerID: id, netns })).exitCode).toBe(0);
    await agent.kill();

    expect(await node.cni({ command: 'DEL', containerID: id, netns })).toMatchObject({
      exitCode: 0,
      stdout: '',
    });
    expect(await readdir('/run/weft/deleted')).toHaveLength(1);
    expect(await weftLinks()).toHaveLength(1);

    // A sweep that never comes: what goes, goes because of the note.
    agent = await node.startAgent({ flags: ['--grace-seconds=600'] });
    await settled(id);
    await eventually('the folder to be empty', async () =>
      (await readdir('/run/weft/deleted')).length === 0 ? true : undefined,
    );
    await node.removeSandbox(id);
  });
});

/**
 * Calls the executable and lets the agent die at the step; the executable goes too, since a runtime may not wait.
 * Then another agent comes.
 */
async function killDuring(
  command: 'ADD' | 'DEL',
  { containerID, netns, step }: { containerID: string; netns: string; step: string },
  whileDead: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  await writeFile(FATAL_STEP, step);
  const call = node.beginCni({ command, containerID, netns });
  await agent.ended;
  call.kill();
  // Nobody had an answer: the agent died before it could give one.
  expect((await call.result).stdout).toBe('');
  await rm(FATAL_STEP);
  await whileDead();
  agent = await node.startAgent(MORTAL);
}

/** No object names the container, and no link of weft's is left on the host. */
async function settled(containerID: string): Promise<void> {
  await eventually(`nothing left of ${containerID}`, async () => {
    if ((await node.allocations(containerID)).length > 0) return undefined;
    return (await weftLinks()).length > 0 ? undefined : true;
  });
}
