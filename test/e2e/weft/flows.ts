import {
  startFlows,
  serveFlows,
  type Enter,
  type FlowOutcome,
  type FlowServer,
  type FlowSpec,
} from '../../flows/flows.ts';
import { expect, onTestFinished } from 'vitest';
import { addressesOf, clusterIPs } from './paths.ts';
import { isReady, type Pod, type Stage } from './stage.ts';
import { FLOW_PORT, WEB } from './workload.ts';

/** A way that numbers take, there and back. */
export interface FlowPath {
  readonly from: Pod;
  /** For messages: `another pod of its node`. */
  readonly to: string;
  readonly address: string;
  readonly protocols: readonly FlowSpec['protocol'][];
}

/** A flow that has ended, told in a message's words: `TCP from web-… on node-1 to the Service, 10.96.3.4`. */
export interface EndedFlow extends FlowOutcome {
  readonly flow: string;
}

export interface RunningFlows {
  /** Ends them, waiting for what is still on its way. */
  end(): Promise<EndedFlow[]>;
}

export const BOTH_PROTOCOLS = ['TCP', 'UDP'] as const;

/** By TCP twenty numbers a second, as they have ever been; by UDP more, so that a short gap takes some. */
export const EVERY_MS = { TCP: 50, UDP: 20 } as const;

/**
 * Starts all flows, at once as soon as there is somebody at every other end: in the namespaces of the pods that tests
 * measure with, and on the addresses outside of the cluster. They are no processes of the pods, whose busybox cannot
 * count so fast. Resolves when the connections stand.
 */
export async function startPodFlows(stage: Stage, paths: readonly FlowPath[]): Promise<RunningFlows> {
  const { cluster } = stage;
  const { outside } = cluster.plan;
  const running = (await stage.pods(`app=${WEB}`)).filter(isReady);
  const servers = await Promise.all([
    ...running.map(async (pod) => serve(await insidePod(stage, pod))),
    serve((command) => cluster.commandOn('router', command), [outside.ipv4, outside.ipv6]),
  ]);
  const bySource = Map.groupBy(paths, ({ from }) => from.metadata.uid);
  const senders = await Promise.all(
    [...bySource.values()].map(async (own) => {
      const [first] = own;
      if (first === undefined) throw new Error('no group is empty');
      const flows = own.flatMap((path) => path.protocols.map((protocol) => ({ path, protocol })));
      const specs = flows.map(({ path: { address }, protocol }) => ({
        ...{ protocol, address, port: FLOW_PORT, everyMs: EVERY_MS[protocol] },
      }));
      const sending = await startFlows(await insidePod(stage, first.from), specs);
      onTestFinished(() => sending.stop());
      return { flows, sending };
    }),
  );
  return {
    async end() {
      const ended = await Promise.all(
        senders.map(async ({ flows, sending }) => {
          const outcomes = await sending.end();
          return outcomes.map((outcome, index) => ({ ...outcome, flow: nameOf(flows[index]) }));
        }),
      );
      for (const server of servers) server.stop();
      return ended.flat();
    },
  };
}

/** Until the test is over, whatever its outcome. */
async function serve(enter: Enter, addresses?: string[]): Promise<FlowServer> {
  const server = await serveFlows(enter, FLOW_PORT, addresses);
  onTestFinished(() => server.stop());
  return server;
}

/** By TCP every number came back in its order and nothing was reset; by UDP every number came back. */
export function expectNothingLost(flows: readonly EndedFlow[]): void {
  const spoiled = flows.filter(({ lost, error }) => lost > 0 || error !== undefined);
  expect(spoiled, `of ${flows.length} flows`).toEqual([]);
}

/** To both addresses of a pod. */
export function toPod(
  from: Pod,
  pod: Pod,
  to: string,
  protocols: FlowPath['protocols'] = BOTH_PROTOCOLS,
): FlowPath[] {
  return addressesOf(pod).map((address) => ({ from, to, address, protocols }));
}

/** To the Service in front of the pods, and to the outside, which sees the node's address. */
export async function toServiceAndOutside(stage: Stage, from: Pod): Promise<FlowPath[]> {
  const { outside } = stage.cluster.plan;
  const protocols = BOTH_PROTOCOLS;
  return [
    ...(await clusterIPs(stage)).map((address) => ({ from, to: 'the Service', address, protocols })),
    ...[outside.ipv4, outside.ipv6].map((address) => ({ from, to: 'the outside', address, protocols })),
  ];
}

/** What runs there is in the pod's network, and else in the node's namespaces. */
async function insidePod({ cluster, allocations }: Stage, pod: Pod): Promise<Enter> {
  const own = (await allocations()).find(({ spec }) => spec.pod?.uid === pod.metadata.uid);
  const path = own?.spec.attachment?.netns?.path;
  if (path === undefined) throw new Error(`no allocation says where the network of ${pod.metadata.name} is`);
  const node = pod.spec.nodeName ?? '';
  return (command) => cluster.commandOn(node, ['nsenter', `--net=${path}`, ...command]);
}

function nameOf(
  flow: { readonly path: FlowPath; readonly protocol: FlowSpec['protocol'] } | undefined,
): string {
  if (flow === undefined) throw new Error('every flow has one outcome');
  const { from, to, address } = flow.path;
  return `${flow.protocol} from ${from.metadata.name} on ${from.spec.nodeName} to ${to}, ${address}`;
}
