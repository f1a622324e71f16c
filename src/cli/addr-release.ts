import { allocationName, type IPAllocation } from '../api/index.ts';
import { isResting, judgeReleaseByHand } from '../ipam/index.ts';
import { ForbiddenError, getPod, isPodOf } from '../kube/index.ts';
import { formatAddress, type IPAddress } from '../net/index.ts';
import { addressFrom, nobodyText, ownerText } from './address.ts';
import { withCluster, type Cluster } from './cluster.ts';
import type { Call, Command, World } from './command.ts';
import { EXIT, RefusedError, type ExitCode } from './errors.ts';
import { durationText } from './figures.ts';
import { answer, formatOf, OUTPUT_FLAG } from './output.ts';

export const ADDR_RELEASE: Command = {
  words: ['addr', 'release'],
  summary: 'give an address back that is held without a pod',
  about: [
    'An address that a sandbox has is not released: its pod may be alive. With --force it',
    'is, at once, whoever has it. That is for nodes that are dead for good while their',
    'Node object stays; an agent that is alive puts the address of a living pod back.',
  ].join('\n'),
  operands: [{ name: 'IP' }],
  flags: [{ name: 'force', about: 'release it at once, whoever has it' }, OUTPUT_FLAG],
  run: releaseAddress,
};

async function releaseAddress(call: Call, world: World): Promise<ExitCode> {
  const format = formatOf(call);
  const address = addressFrom(call.operands[0] ?? '');
  const { outcome, allocation } = await withCluster(call, world, (cluster) =>
    release(cluster, world, address, call.isSet('force')),
  );
  const text = formatAddress(address);
  const owner = ownerText(allocation);
  const sentences = {
    deleted: `${text} is released; ${owner} had it`,
    resting: `${text} is released and rests before it is handed out again; ${owner} had it`,
    'rests already': `${text} was released ${agoText(allocation, world)} and rests; ${owner} had it`,
  };
  await answer(world, format, {
    data: { address: text, outcome, owner, pool: allocation.spec.pool },
    text: () => `${sentences[outcome]}\n`,
  });
  return EXIT.done;
}

interface Release {
  readonly outcome: 'deleted' | 'resting' | 'rests already';
  /** As it was found. */
  readonly allocation: IPAllocation;
}

async function release(cluster: Cluster, world: World, address: IPAddress, force: boolean): Promise<Release> {
  const { signal, clock } = world;
  const name = allocationName(address);
  let meant: IPAllocation | undefined;
  for (;;) {
    const found = await cluster.allocations.get(name, signal);
    if (found === undefined) return gone(cluster, address, meant, signal);
    // Whose release was asked for is settled by the first look: the next owner is somebody else.
    if (meant !== undefined && meant.metadata.uid !== found.metadata.uid)
      return { outcome: 'deleted', allocation: meant };
    meant = found;
    const reuseDelayMs = await reuseDelayOf(cluster, found, signal);
    const verdict = judgeReleaseByHand(found, { force, reuseDelayMs });
    if (verdict === 'refused') throw new RefusedError(await refusalText(cluster, found, signal));
    if (verdict === 'resting') return { outcome: 'rests already', allocation: found };
    const outcome =
      verdict === 'rest'
        ? await cluster.allocations.markReleased(found, clock.wallTime(), signal)
        : await cluster.allocations.delete(found, signal);
    if (outcome === 'done') return { outcome: verdict === 'rest' ? 'resting' : 'deleted', allocation: found };
  }
}

async function gone(
  { pools, subnets }: Cluster,
  address: IPAddress,
  meant: IPAllocation | undefined,
  signal: AbortSignal,
): Promise<Release> {
  // Somebody else released it while we were at it.
  if (meant !== undefined) return { outcome: 'deleted', allocation: meant };
  throw new RefusedError(nobodyText(address, await pools.listAll(signal), await subnets.listAll(signal)));
}

/** The pool may be gone, and its addresses still there: then nothing needs to rest. */
async function reuseDelayOf(
  { pools }: Cluster,
  { spec }: IPAllocation,
  signal: AbortSignal,
): Promise<number> {
  return ((await pools.get(spec.pool, signal))?.spec.reuseDelaySeconds ?? 0) * 1000;
}

async function refusalText(cluster: Cluster, allocation: IPAllocation, signal: AbortSignal): Promise<string> {
  const { spec } = allocation;
  const address = formatAddress(spec.address);
  const node = spec.nodeName === undefined ? '' : ` on node ${spec.nodeName}`;
  const force = `To release it all the same: kubectl weft addr release ${address} --force`;
  if (spec.attachment === undefined) {
    return `${address} is kept by weft itself (${ownerText(allocation)})${node}, to be given out again.\n${force}`;
  }
  const { containerID, ifName } = spec.attachment;
  const sandbox = `interface ${ifName} of container ${containerID.slice(0, 12)}${node}`;
  const owner = spec.pod === undefined ? sandbox : `pod ${ownerText(allocation)} (${sandbox})`;
  return `${address} belongs to ${owner}.\n${await podText(cluster, allocation, signal)}\n${force}`;
}

/** What is known of the pod: a person at 3 a.m. asks for exactly that next. */
async function podText({ client }: Cluster, { spec }: IPAllocation, signal: AbortSignal): Promise<string> {
  const itself = "It is released by itself when the sandbox goes, by its node's agent.";
  if (spec.pod === undefined) return itself;
  try {
    const pod = await getPod(client, spec.pod, signal);
    if (pod !== undefined && isPodOf(pod, spec.pod.uid)) {
      return `The pod is there (${pod.isTerminating ? 'terminating' : pod.phase}): delete the pod, and the address goes with it.`;
    }
    return `The pod is gone. ${itself}`;
  } catch (error) {
    if (error instanceof ForbiddenError) return itself;
    throw error;
  }
}

function agoText(allocation: IPAllocation, { clock }: World): string {
  if (!isResting(allocation)) return 'before';
  const since = Date.parse(allocation.status?.releasedAt ?? '');
  return `${durationText(clock.wallTime().getTime() - since)} ago`;
}
