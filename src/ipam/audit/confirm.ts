import type { Suspicion } from '../sweep.ts';
import type { Finding } from './finding.ts';

/** Of two audits what both found, word for word: what has changed in between was on its way. */
export function foundInBoth(first: readonly Finding[], second: readonly Finding[]): Finding[] {
  const earlier = new Set(first.map(findingKey));
  return second.filter((finding) => earlier.has(findingKey(finding)));
}

/** What one audit hands to the next: since when each finding has stood, and how often it was seen. Monotonic. */
export type AuditMemory = ReadonlyMap<string, Suspicion>;

export const EMPTY_AUDIT_MEMORY: AuditMemory = new Map();

/**
 * The findings of one of many audits that are to be believed: seen at least twice on end, and for as long as
 * `graceMsOf` says. Pure: what it remembers goes in and comes out; what is not found any more is forgotten.
 */
export function confirmFindings(
  findings: readonly Finding[],
  {
    memory,
    nowMs,
    graceMsOf,
  }: {
    readonly memory: AuditMemory;
    readonly nowMs: number;
    readonly graceMsOf: (finding: Finding) => number;
  },
): { readonly confirmed: readonly Finding[]; readonly memory: AuditMemory } {
  const seen = new Map(
    findings.map((finding) => {
      const key = findingKey(finding);
      const earlier = memory.get(key);
      return [
        key,
        { sinceMs: earlier?.sinceMs ?? nowMs, observations: (earlier?.observations ?? 0) + 1 },
      ] as const;
    }),
  );
  const confirmed = findings.filter((finding) => {
    const suspicion = seen.get(findingKey(finding));
    return (
      suspicion !== undefined &&
      suspicion.observations >= 2 &&
      nowMs - suspicion.sinceMs >= graceMsOf(finding)
    );
  });
  return { confirmed, memory: seen };
}

/** What makes two findings one: all of it. The message holds the values, and a value that changes is being worked on. */
export function findingKey({ invariant, reason, object, node, message }: Finding): string {
  return JSON.stringify([invariant, reason, object.kind, object.name, object.uid, node, message]);
}
