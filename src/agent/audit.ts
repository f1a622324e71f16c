import { allocationName, type IPAllocation } from '../api/index.ts';
import {
  attachmentID,
  auditSandboxes,
  confirmFindings,
  countByInvariant,
  EMPTY_AUDIT_MEMORY,
  findingKey,
  summarizeFindings,
  type AllocationStore,
  type Clock,
  type Finding,
  type Invariant,
  type NodeSnapshot,
  type Random,
} from '../ipam/index.ts';
import type { ConditionState } from '../kube/index.ts';
import type { AgentParts, OwnAllocations } from './parts.ts';

export interface NodeAuditParts {
  /** What the kernel shows now (snapshot.ts). */
  readonly snapshot: () => Promise<NodeSnapshot>;
  /** Those of this node. */
  readonly allocations: OwnAllocations & {
    /** Whether the cache is complete and its watch lives: whoever cannot see everything does not judge. */
    isLiving(): boolean;
  };
  readonly store: Pick<AllocationStore, 'get'>;
  /** How long a finding must have stood to be believed: sweep and sync mend sooner what they can. */
  readonly graceMs: number;
  readonly everyMs: number;
  readonly clock: Pick<Clock, 'nowMs' | 'sleep'>;
  readonly random: Random;
  /** A finding has come to be believed. */
  readonly onFound: (finding: Finding) => void;
  /** After each look that could judge, from the first one on that could have believed something. */
  readonly onLook: (counts: ReadonlyMap<Invariant, number>) => void;
  /** Writes the Node's condition where it says something else; what fails is tried again with the next look. */
  readonly tell: (condition: ConditionState, signal: AbortSignal) => Promise<void>;
  readonly log: AgentParts['log'];
}

/** How many findings the condition names. */
const MOST_NAMED = 3;

/** A part of `everyMs` by which looks are late at random: nodes that start together do not look together for ever. */
const JITTER = 0.2;

/**
 * The part of `kubectl weft check` that only this node's kernel can answer, all the time, until the signal aborts
 * (design, section 10): each living sandbox has its IPAllocation and each IPAllocation its sandbox, and what carries
 * our mark in the kernel is what the objects ask for. A finding is an Event, a metric and the Node's condition.
 */
export async function auditNode(parts: NodeAuditParts, signal: AbortSignal): Promise<void> {
  const { allocations, clock, everyMs, graceMs } = parts;
  let memory = EMPTY_AUDIT_MEMORY;
  let firstMs: number | undefined;
  let standing: ReadonlySet<string> = new Set();

  async function look(): Promise<void> {
    if (!allocations.isLiving()) return;
    const snapshot = await parts.snapshot();
    const own = [...allocations.values()];
    const findings = auditSandboxes({
      allocations: [...own, ...(await strangersOf(snapshot, parts, signal))],
      snapshots: [snapshot],
    });
    // What was seen while the watch fell silent may be old.
    if (!allocations.isLiving()) return;
    const nowMs = clock.nowMs();
    const judged = confirmFindings(findings, { memory, nowMs, graceMsOf: () => graceMs });
    memory = judged.memory;
    firstMs ??= nowMs;
    if (nowMs - firstMs < graceMs) return;
    for (const finding of judged.confirmed) if (!standing.has(findingKey(finding))) parts.onFound(finding);
    standing = new Set(judged.confirmed.map(findingKey));
    parts.onLook(countByInvariant(judged.confirmed));
    await parts.tell(conditionOf(judged.confirmed), signal);
  }

  while (!signal.aborted) {
    try {
      await clock.sleep(everyMs * (1 + JITTER * parts.random()), signal);
      await look();
    } catch (error) {
      if (!signal.aborted) parts.log.error({ err: error }, 'the audit of this node failed: trying again');
    }
  }
}

/** The IPAllocations of addresses that living sandboxes have and that are not this node's by the book. */
async function strangersOf(
  { sandboxes, strays, inFlight }: NodeSnapshot,
  { allocations, store }: NodeAuditParts,
  signal: AbortSignal,
): Promise<IPAllocation[]> {
  const names = [
    // Of what is under way nothing is judged.
    ...sandboxes
      .filter((sandbox) => !inFlight.includes(attachmentID(sandbox)))
      .flatMap(({ addresses }) => addresses),
    ...strays.map(({ address }) => address),
  ]
    .map(allocationName)
    .filter((name) => !allocations.has(name));
  const found: IPAllocation[] = [];
  for (const name of names) {
    const stranger = await store.get(name, signal);
    if (stranger !== undefined) found.push(stranger);
  }
  return found;
}

/** True is good, as with Ready. */
function conditionOf(findings: readonly Finding[]): ConditionState {
  const found = summarizeFindings(findings, MOST_NAMED);
  if (found !== undefined) return { status: 'False', ...found };
  const message = "the node's pods, IPAllocations, routes and filters agree with each other";
  return { status: 'True', reason: 'NothingFound', message };
}
