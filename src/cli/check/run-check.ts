import {
  auditCluster,
  findingKey,
  foundInBoth,
  type Clock,
  type Finding,
  type Invariant,
  type NodeSnapshot,
} from '../../ipam/index.ts';
import { KubeError, UnreachableError, type KubeClient } from '../../kube/index.ts';
import type { ExecInAgent } from './kubectl.ts';
import { readCluster, type ApiReading } from './reading.ts';
import { readSnapshots, type Snapshots, type UnknownNode } from './snapshots.ts';

export interface CheckParts {
  readonly client: KubeClient;
  readonly exec: ExecInAgent;
  readonly clock: Pick<Clock, 'wallTime' | 'sleep'>;
  /** Where the agents run. */
  readonly namespace: string;
  /** What is younger than this is not judged: it is on its way. */
  readonly graceMs: number;
  /** Between the two looks at what seems wrong. */
  readonly confirmMs: number;
  /** Before a third look, where counts seem wrong: a status may be so much behind the objects. */
  readonly recountMs: number;
  readonly signal: AbortSignal;
}

/** The waiting times of a check as people run it. */
export const CHECK_TIMES = { graceMs: 120_000, confirmMs: 3_000, recountMs: 40_000 } as const;

/** What a check says; can be printed as JSON as it is. */
export interface CheckResult {
  /** The worst first. */
  readonly findings: readonly Finding[];
  /** Nodes of which nothing is said, neither good nor bad. */
  readonly unknownNodes: readonly UnknownNode[];
  /** Why nothing can be said at all; absent where the objects could be read. */
  readonly couldNot?: string;
}

/** Invariants that a look at the nodes decides. */
const OF_NODES: ReadonlySet<Invariant> = new Set([1, 2, 3, 4, 10]);

/**
 * Whether the invariants hold (design, section 10): reads the objects, the nodes, and the objects again, and the nodes
 * of which something seems wrong, too; reports what both looks show word for word. Read-only.
 */
export async function runCheck(parts: CheckParts): Promise<CheckResult> {
  try {
    return await check(parts);
  } catch (error) {
    if (!(error instanceof KubeError || error instanceof UnreachableError)) throw error;
    return { findings: [], unknownNodes: [], couldNot: error.message };
  }
}

async function check(parts: CheckParts): Promise<CheckResult> {
  const { client, clock, confirmMs, recountMs, signal } = parts;
  const first = await readCluster(client, parts);
  const nodes = await readSnapshots(first.agentNodes, { ...parts, agents: first.agents });
  const suspected = auditReading(first, nodes.snapshots, parts);
  if (suspected.length === 0) return { findings: [], unknownNodes: nodes.unknownNodes };

  await clock.sleep(confirmMs, signal);
  // The nodes before the objects: what a DEL takes down in between is released by the time the objects are read.
  const again = await readSnapshots(nodesOf(suspected, nodes.snapshots), { ...parts, agents: first.agents });
  const { snapshots, unknownNodes } = mergeSnapshots(nodes, again);
  const confirmed = foundInBoth(suspected, auditReading(await readCluster(client, parts), snapshots, parts));
  if (!confirmed.some(isOfCounts)) return { findings: confirmed, unknownNodes };

  await clock.sleep(recountMs, signal);
  const later = auditReading(await readCluster(client, parts), snapshots, parts);
  const stillThere = new Set(foundInBoth(confirmed, later).map(findingKey));
  const findings = confirmed.filter((finding) => !isOfCounts(finding) || stillThere.has(findingKey(finding)));
  return { findings, unknownNodes };
}

function isOfCounts({ invariant }: Finding): boolean {
  return invariant === 9;
}

function auditReading(
  { book, allocations, youngestMs }: ApiReading,
  snapshots: readonly NodeSnapshot[],
  { clock, graceMs }: CheckParts,
): Finding[] {
  // A clock here that is behind the apiserver's must not make everything young.
  const nowMs = Math.max(clock.wallTime().getTime(), youngestMs);
  return auditCluster({ book: { ...book, settledBeforeMs: nowMs - graceMs }, allocations, snapshots });
}

/** Those that the findings are about; one that names none is about several. */
function nodesOf(findings: readonly Finding[], snapshots: readonly NodeSnapshot[]): string[] {
  const ofNodes = findings.filter(({ invariant }) => OF_NODES.has(invariant));
  const answered = snapshots.map(({ nodeName }) => nodeName);
  if (ofNodes.some(({ node }) => node === undefined)) return answered;
  const named = new Set(ofNodes.map(({ node }) => node));
  return answered.filter((nodeName) => named.has(nodeName));
}

/** The later look counts; a node that fell silent in between is unknown. */
function mergeSnapshots(before: Snapshots, again: Snapshots): Snapshots {
  const askedAgain = new Set([
    ...again.snapshots.map(({ nodeName }) => nodeName),
    ...again.unknownNodes.map(({ name }) => name),
  ]);
  return {
    snapshots: [...before.snapshots.filter(({ nodeName }) => !askedAgain.has(nodeName)), ...again.snapshots],
    unknownNodes: [...before.unknownNodes, ...again.unknownNodes],
  };
}
