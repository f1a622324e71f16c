import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { formatAddress } from '../../../src/net/index.ts';
import { prepareAgentProcess, removeAgent, returnAgent, startAgentProcess } from './agent-process.ts';
import { cnitool, makeSandbox, plainAdd, removeSandbox } from './cni-calls.ts';
import { expectNothingLost, startPodFlows, toPod } from './flows.ts';
import { podOn } from './paths.ts';
import { isReady, readiness, type Stage } from './stage.ts';
import { WEB } from './workload.ts';

const RESTARTS = 50;
/** Behind the router, with a FORWARD policy of DROP: what it sends goes through the tunnel. */
const NODE = 'node-3';
const FAR_NODE = 'node-1';

/** What a node without an agent, or with one that dies all the time, still does. */
export function restartTests(stage: () => Stage): void {
  beforeAll(() => removeAgent(stage(), NODE));
  afterAll(() => returnAgent(stage(), NODE));

  it('answers ADD with code 11 after 8 s, notes a DEL, and carries it out when an agent is back', async () => {
    const { cluster, eventually, allocations } = stage();
    const agent = await serveOnce(stage());
    await makeSandbox(cluster, NODE, 'absent-1');
    await makeSandbox(cluster, NODE, 'absent-2');
    expect((await cnitool(cluster, NODE, 'add', 'absent-1')).failed).toBe(false);
    const [address = ''] = await heldBy('absent-1');
    expect(address).not.toBe('');
    await agent.kill();

    const begun = performance.now();
    const add = await plainAdd(cluster, NODE, 'absent-2');
    const seconds = (performance.now() - begun) / 1000;
    expect(add).toMatchObject({ code: 11, cniVersion: '1.0.0' });
    expect(JSON.stringify(add)).toContain('kubectl -n weft-system');
    expect(seconds).toBeGreaterThan(7.5);
    expect(seconds).toBeLessThan(15);

    expect((await cnitool(cluster, NODE, 'del', 'absent-1')).output).toBe('');
    const notes = () => cluster.execOnNode(NODE, ['ls', '/run/weft/deleted']);
    expect(await notes()).not.toBe('');
    expect(await heldBy('absent-1')).toContain(address);

    const next = await serveOnce(stage());
    expect(await notes()).toBe('');
    await eventually(
      'its addresses are released',
      async () => expect(await heldBy('absent-1')).toEqual([]),
      20,
    );
    await next.kill();
    for (const name of ['absent-1', 'absent-2']) await removeSandbox(cluster, NODE, name);

    async function heldBy(name: string): Promise<string[]> {
      const all = await allocations();
      const own = all.filter(({ spec }) => spec.attachment?.netns?.path === `/run/netns/${name}`);
      return own
        .filter(({ status }) => status?.releasedAt === undefined)
        .map(({ spec }) => formatAddress(spec.address));
    }
  });

  it(`keeps a TCP flow, the kernel and the kubelet's Ready over ${RESTARTS} kills of the agent`, async () => {
    const { cluster, pods, node } = stage();
    const ready = (await pods(`app=${WEB}`)).filter(isReady);
    const [near, far] = [podOn(ready, NODE), podOn(ready, FAR_NODE)];
    const first = await serveOnce(stage());
    await first.kill();
    const kernel = await kernelState(stage());
    const readyBefore = readiness(await node(NODE));
    expect(readyBefore.status).toBe('True');

    const running = await startPodFlows(stage(), toPod(near, far, 'a pod behind the router', ['TCP']));
    for (let restart = 1; restart <= RESTARTS; restart++) {
      const agent = await startAgentProcess(stage(), NODE);
      // Every other one is killed somewhere on its way to serving.
      if (restart % 2 === 0) await agent.serving();
      else await sleep(restart * 30);
      await agent.kill();
    }
    const last = await serveOnce(stage());
    const flows = await running.end();
    await last.kill();

    expectNothingLost(flows);
    // The flow did flow: twenty numbers a second.
    for (const { sent } of flows) expect(sent).toBeGreaterThan(RESTARTS * 4);
    expect(await kernelState(stage())).toEqual(kernel);
    expect(readiness(await node(NODE))).toEqual(readyBefore);
    expect(cluster.nodes).toContain(NODE);
  });
}

async function serveOnce(stage: Stage) {
  await prepareAgentProcess(stage, NODE);
  const agent = await startAgentProcess(stage, NODE);
  await agent.serving();
  return agent;
}

/** What of the node's network is weft's, without ages and counters. */
async function kernelState({ cluster }: Stage): Promise<string[]> {
  const commands = [
    'ip -4 route show table all',
    'ip -6 route show table all',
    'ip neighbour show nud permanent',
    'bridge fdb show dev vxlan.weft',
    'ip -oneline address show dev vxlan.weft',
    'ip -oneline link show type veth',
    'nft list table inet weft',
    'iptables -S FORWARD; ip6tables -S FORWARD; iptables -S INPUT',
    'cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding',
  ];
  const output = await cluster.execOnNode(NODE, ['sh', '-c', commands.join('\n')]);
  return output
    .split('\n')
    .filter((line) => !line.includes(' fe80::') && !line.includes('multicast'))
    .map((line) => line.replace(/ (expires|counter packets|bytes) [0-9]+(sec)?/g, '').trimEnd());
}
