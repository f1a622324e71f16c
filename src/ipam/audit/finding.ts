/** The invariants by their numbers in the design, section 10. */
export const INVARIANTS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] as const;
export type Invariant = (typeof INVARIANTS)[number];

/**
 * critical: two may use one address, or packets go to the wrong place. warning: the book and the world differ, and
 * nobody is harmed by it yet.
 */
export type Severity = 'critical' | 'warning';

/** What a finding is about. The uid is absent where the object is not there, or could not be read. */
export interface FindingObject {
  readonly kind: 'IPPool' | 'NodeSubnet' | 'IPAllocation' | 'Node';
  readonly name: string;
  readonly uid?: string;
}

/** One invariant that does not hold. */
export interface Finding {
  readonly invariant: Invariant;
  readonly severity: Severity;
  /** What is wrong in one CamelCase word: the reason of conditions and Events. */
  readonly reason: FindingReason;
  readonly object: FindingObject;
  /** The node where it is so. */
  readonly node?: string;
  /** The pool that it counts for, there or not. */
  readonly pool?: string;
  /** Names object and value, says why that is wrong, and the way out. */
  readonly message: string;
}

export type FindingReason =
  // 1
  | 'AddressOnTwoSandboxes'
  // 2
  | 'NoAllocation'
  | 'AddressOfAnother'
  | 'NamesAnotherNode'
  | 'RestsWhileInUse'
  // 3
  | 'NoSandbox'
  | 'NodeGone'
  // 4
  | 'TwoOfOneFamily'
  | 'NoAddress'
  // 5
  | 'OutsideSubnets'
  | 'OutsidePool'
  | 'SubnetOfAnotherNode'
  | 'SubnetOfAnotherPool'
  | 'AddressOfTheNode'
  | 'AddressOfANode'
  | 'NeverHandedOut'
  | 'Reserved'
  | 'NoNode'
  | 'PoolGone'
  | 'WrongSize'
  // 6
  | 'WrongName'
  | 'Unreadable'
  // 7
  | 'SubnetsOverlap'
  | 'OverlapNotMarked'
  // 8
  | 'NoSubnet'
  | 'OlderNodeUID'
  | 'SharedMAC'
  // 9
  | 'WrongCount'
  | 'NoStatus'
  // 10
  | 'KernelDiffers'
  | 'PacketsDiverted'
  | 'AddressMissingInPod';

/** The worst first, then by invariant and object: the order in which people read them. */
export function compareFindings(a: Finding, b: Finding): number {
  if (a.severity !== b.severity) return a.severity === 'critical' ? -1 : 1;
  if (a.invariant !== b.invariant) return a.invariant - b.invariant;
  const [nameOfA, nameOfB] = [`${a.object.kind} ${a.object.name}`, `${b.object.kind} ${b.object.name}`];
  return nameOfA < nameOfB ? -1 : nameOfA > nameOfB ? 1 : 0;
}

/** How many findings there are of each invariant, those without any included. */
export function countByInvariant(findings: readonly Finding[]): ReadonlyMap<Invariant, number> {
  const counts = new Map<Invariant, number>(INVARIANTS.map((invariant) => [invariant, 0]));
  for (const { invariant } of findings) counts.set(invariant, (counts.get(invariant) ?? 0) + 1);
  return counts;
}

/** Several findings in one condition: the worst is its reason, so many are named. Undefined: there are none. */
export function summarizeFindings(
  findings: readonly Finding[],
  mostNamed: number,
): { readonly reason: FindingReason; readonly message: string } | undefined {
  const sorted = [...findings].sort(compareFindings);
  const [worst] = sorted;
  if (worst === undefined) return undefined;
  const more = sorted.length - mostNamed;
  const messages = sorted.slice(0, mostNamed).map(({ message }) => message);
  const message = [...messages, ...(more > 0 ? [`and ${more} more: kubectl weft check`] : [])].join('; ');
  return { reason: worst.reason, message };
}
