import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { Encapsulation } from '../../../src/api/index.ts';
import { formatCIDR } from '../../../src/net/index.ts';
import { EVERY_MS, startPodFlows, toPod, toServiceAndOutside, type EndedFlow } from './flows.ts';
import { lostPaths, podOn } from './paths.ts';
import { isReady, type Stage } from './stage.ts';
import { POOL_NAME, WEB } from './workload.ts';

/** On one link; the third node is behind the router. */
const NEIGHBOURS = ['node-1', 'node-2'] as const;
const [NODE, NEIGHBOUR] = NEIGHBOURS;
const FAR_NODE = 'node-3';

/** The longest that all of a flow's packets may be lost while they go over to another way. */
const GAP_MS = 1_000;
/** TCP sends again at intervals that double: it stands still for up to twice as long as packets were lost. */
const STILL_MS = 2 * GAP_MS;

/** How long packets go each way. */
const SETTLED_MS = 1_000;

/** A living pool changes the way that its packets go between nodes, under flows that are open. */
export function encapsulationTests(stage: () => Stage): void {
  it('changes under open flows, of which nothing is lost for as long as a second', async () => {
    const { pods, eventually } = stage();
    const running = (await pods(`app=${WEB}`)).filter(isReady);
    const [near, beside, far] = [NODE, NEIGHBOUR, FAR_NODE].map((node) => podOn(running, node));
    if (near === undefined || beside === undefined || far === undefined) throw new Error('there are three');
    const onOneLink = [...toPod(near, beside, 'its neighbour'), ...toPod(beside, near, 'its neighbour')];
    const elsewhere = [
      ...toPod(near, far, 'behind the router'),
      ...toPod(far, beside, 'behind the router'),
      ...(await toServiceAndOutside(stage(), near)),
    ];

    const everywhere = await startPodFlows(stage(), [...onOneLink, ...elsewhere]);
    const there = ['Always', 'CrossSubnet'] as const;
    for (const encapsulation of there) await changeTo(stage(), encapsulation);
    expectShortGaps(await everywhere.end(), there.length);

    // Nobody routes pods behind the router, so nothing gets there for as long as it is Never.
    const neighbours = await startPodFlows(stage(), onOneLink);
    const around = ['Always', 'Never', 'CrossSubnet'] as const;
    for (const encapsulation of around) await changeTo(stage(), encapsulation);
    expectShortGaps(await neighbours.end(), around.length);
    await eventually('every path works', async () => expect(await lostPaths(stage())).toEqual([]));
  });
}

/** Whether packets to the neighbour and to the node behind the router go through the tunnel. */
const TUNNELLED: Record<Encapsulation, readonly [neighbour: boolean, far: boolean]> = {
  CrossSubnet: [false, true],
  Always: [true, true],
  Never: [false, false],
};

/** Answers when packets have gone the new way for a while. */
async function changeTo(stage: Stage, encapsulation: Encapsulation): Promise<void> {
  const { cluster, eventually, subnets } = stage;
  const patch = JSON.stringify({ spec: { encapsulation } });
  await cluster.kubectl(['patch', 'ippool', POOL_NAME, '--type=merge', '--patch', patch]);
  const pieces = (await subnets()).filter(({ spec }) => spec.pool === POOL_NAME);
  const isTunnelled = async (from: string, to: string): Promise<boolean[]> => {
    const own = pieces.filter(({ spec }) => spec.nodeName === to);
    const routes = own.map(({ spec: { cidr } }) =>
      cluster.execOnNode(from, [
        'ip',
        cidr.family === 'ipv4' ? '-4' : '-6',
        'route',
        'show',
        formatCIDR(cidr),
      ]),
    );
    return (await Promise.all(routes)).map((route) => route.includes('dev vxlan.weft'));
  };
  const [neighbour, far] = TUNNELLED[encapsulation];
  await eventually(`neighbours go the way of ${encapsulation}`, async () => {
    for (const [from = '', to = ''] of [[...NEIGHBOURS], [...NEIGHBOURS].reverse()]) {
      expect(new Set(await isTunnelled(from, to)), `${from} to ${to}`).toEqual(new Set([neighbour]));
      expect(new Set(await isTunnelled(from, FAR_NODE)), `${from} to ${FAR_NODE}`).toEqual(new Set([far]));
    }
  });
  await sleep(SETTLED_MS);
}

/**
 * No connection is lost, and by UDP nothing for longer than the gap; each flow has sent for at least half of the time
 * that `changes` took, of which this file knows what it waited itself.
 */
function expectShortGaps(flows: readonly EndedFlow[], changes: number): void {
  for (const { flow, sent, lost, gapMs, error, longestMs } of flows) {
    const story = `${flow}: ${lost} of ${sent} lost, for ${gapMs} ms at once, nothing came for ${longestMs} ms`;
    console.log(story);
    const protocol = flow.startsWith('TCP') ? 'TCP' : 'UDP';
    if (protocol === 'TCP') {
      expect({ lost, error }, story).toEqual({ lost: 0, error: undefined });
      expect(longestMs, story).toBeLessThan(STILL_MS);
    } else {
      expect(gapMs, story).toBeLessThan(GAP_MS);
    }
    expect(sent, story).toBeGreaterThan((changes * SETTLED_MS) / EVERY_MS[protocol] / 2);
  }
}
