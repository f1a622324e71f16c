import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { formatAddress } from '../../../src/net/index.ts';
import { prepareAgentProcess, removeAgent, returnAgent, startAgentProcess } from './agent-process.ts';
import { cnitool, makeSandbox, plainAdd, removeSandbox } from './cni-calls.ts';
import { addressesOf, podOn } from './paths.ts';
import { isReady, readiness, type Pod, type Stage } from './stage.ts';
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
    const running = (await pods(`app=${WEB}`)).filter(isReady);
    const [near, far] = [podOn(running, NODE), podOn(running, FAR_NODE)];
    const first = await serveOnce(stage());
    await first.kill();
    const kernel = await kernelState(stage());
    const ready = readiness(await node(NODE));
    expect(ready.status).toBe('True');

    await startFlows(stage(), near, addressesOf(far));
    for (let restart = 1; restart <= RESTARTS; restart++) {
      const agent = await startAgentProcess(stage(), NODE);
      // Every other one is killed somewhere on its way to serving.
      if (restart % 2 === 0) await agent.serving();
      else await sleep(restart * 30);
      await agent.kill();
    }
    const last = await serveOnce(stage());
    const flows = await endFlows(stage(), near, addressesOf(far));
    await last.kill();

    for (const { address, sent, echoed, inOrder, exitCode } of flows) {
      expect({ address, echoed, inOrder, exitCode }).toEqual({
        ...{ address, echoed: sent, inOrder: true, exitCode: 0 },
      });
      // The flow did flow: twenty numbers a second.
      expect(sent).toBeGreaterThan(RESTARTS * 4);
    }
    expect(await kernelState(stage())).toEqual(kernel);
    expect(readiness(await node(NODE))).toEqual(ready);
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

/** From the pod to each address, twenty numbers a second to its echo; what comes back is written down there. */
async function startFlows({ inPod }: Stage, from: Pod, addresses: readonly string[]): Promise<void> {
  const flows = addresses.map((address, index) => {
    const file = `/tmp/flow-${index}`;
    const send = `i=0; while [ ! -e ${file}.stop ]; do i=$((i+1)); echo $i; usleep 50000; done; echo $i >${file}.sent`;
    return `rm -f ${file}.*
      ( { ${send}; } | nc ${address} 7 >${file}.echoed 2>${file}.error; echo $? >${file}.code ) \\
        </dev/null >/dev/null 2>&1 &`;
  });
  await inPod(from.metadata.name, flows.join('\n'));
}

interface Flow {
  readonly address: string;
  readonly sent: number;
  readonly echoed: number;
  readonly inOrder: boolean;
  readonly exitCode: number;
}

/** Ends the flows and answers what came of them. */
async function endFlows({ inPod }: Stage, from: Pod, addresses: readonly string[]): Promise<Flow[]> {
  const script = addresses.map((_address, index) => {
    const file = `/tmp/flow-${index}`;
    return `touch ${file}.stop
      for wait in 1 2 3 4 5 6 7 8 9 10; do [ -e ${file}.code ] || sleep 1; done
      echo "$(cat ${file}.sent || echo -1) $(cat ${file}.code || echo -1) $(awk '$1!=NR{wrong=1} END{print NR, wrong+0}' ${file}.echoed)"`;
  });
  const lines = (await inPod(from.metadata.name, script.join('\n'))).split('\n');
  return addresses.map((address, index) => {
    const [sent = -1, exitCode = -1, echoed = -1, wrong = 1] = (lines[index] ?? '').split(' ').map(Number);
    return { address, sent, echoed, inOrder: wrong === 0, exitCode };
  });
}
