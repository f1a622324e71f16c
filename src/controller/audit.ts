import {
  BOOK_AUDITS,
  confirmFindings,
  countByInvariant,
  EMPTY_AUDIT_MEMORY,
  findingKey,
  type Book,
  type Clock,
  type Finding,
  type FindingReason,
  type Invariant,
} from '../ipam/index.ts';
import type { Log } from '../kube/index.ts';

export interface AuditParts {
  /** What the caches hold; undefined while they may be behind: whoever cannot see everything does not judge. */
  readonly book: () => Book | undefined;
  readonly clock: Clock;
  readonly everyMs: number;
  /** How long a finding must have stood to be believed. */
  readonly graceMs: number;
  /** How long the Node must be gone before what it held is freed. */
  readonly quarantineMs: number;
  /** What findingsOf answers for that pool is not what it was. */
  readonly onChange: (pool: string) => void;
  /** A finding has come to be believed. */
  readonly onFound: (finding: Finding) => void;
  readonly onFindings: (counts: ReadonlyMap<Invariant, number>) => void;
  readonly log: Log;
}

/** The part of `kubectl weft check` that the objects alone can answer, all the time (design, section 10). */
export interface Audit {
  /**
   * The findings that count for the pool; undefined until it has been looked at for as long as the grace. What counts
   * for no pool that is there counts for all of them: otherwise no condition would show it.
   */
  findingsOf(pool: string): readonly Finding[] | undefined;
  /** Audits until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

/** What a node leaves behind, and what a new one under its name finds, takes its time in the normal course of things. */
const PATIENT: ReadonlySet<FindingReason> = new Set(['NodeGone', 'OlderNodeUID']);

/** For how many quarantines these stand before they are reported. */
const PATIENCE = 2;

export function createAudit(parts: AuditParts): Audit {
  const { clock, graceMs, quarantineMs } = parts;
  let memory = EMPTY_AUDIT_MEMORY;
  let firstMs: number | undefined;
  let standing: Standing | undefined;

  const graceMsOf = ({ reason }: Finding) =>
    PATIENT.has(reason) ? graceMs + quarantineMs * PATIENCE : graceMs;

  async function look(signal: AbortSignal): Promise<void> {
    const book = parts.book();
    if (book === undefined) return;
    const findings: Finding[] = [];
    for (const audit of BOOK_AUDITS) {
      findings.push(...audit(book));
      // Each takes a while in a large cluster, and the Lease is renewed in between.
      await clock.sleep(0, signal);
    }
    const nowMs = clock.nowMs();
    const judged = confirmFindings(findings, { memory, nowMs, graceMsOf });
    memory = judged.memory;
    firstMs ??= nowMs;
    if (nowMs - firstMs >= graceMs) publish(judged.confirmed, book);
  }

  function publish(confirmed: readonly Finding[], { pools }: Book): void {
    const before = standing;
    const known = new Set(before?.findings.map(findingKey));
    const now = { findings: confirmed, pools: new Set(pools.map(({ metadata }) => metadata.name)) };
    standing = now;
    for (const finding of confirmed) if (!known.has(findingKey(finding))) parts.onFound(finding);
    for (const name of now.pools) {
      // The first time all are told, those too of which nothing bad can be said.
      const same = before !== undefined && keysOf(before, name) === keysOf(now, name);
      if (!same) parts.onChange(name);
    }
    parts.onFindings(countByInvariant(confirmed));
  }

  return {
    findingsOf: (pool) => standing && findingsFor(pool, standing),
    async run(signal) {
      while (!signal.aborted) {
        try {
          await clock.sleep(parts.everyMs, signal);
          await look(signal);
        } catch (error) {
          if (!signal.aborted) parts.log.error({ err: error }, 'the audit failed: trying again');
        }
      }
    },
  };
}

/** What one audit came to, and the pools that were there. */
interface Standing {
  readonly findings: readonly Finding[];
  readonly pools: ReadonlySet<string>;
}

function findingsFor(name: string, { findings, pools }: Standing): Finding[] {
  return findings.filter(({ pool }) => pool === name || pool === undefined || !pools.has(pool));
}

function keysOf(standing: Standing, pool: string): string {
  return JSON.stringify(findingsFor(pool, standing).map(findingKey));
}
