import { IPPoolSpec, type Labels, type NodeSubnet } from '../../src/api/index.ts';
import {
  cidrContains,
  cidrHasAddress,
  cidrsOverlap,
  formatAddress,
  formatCIDR,
} from '../../src/net/index.ts';
import type { Claimed } from './history.ts';

/** A pool's object, as the apiserver has made it: one that is made again under its name is another. */
export interface PoolIdentity {
  readonly uid: string;
  /** In whole seconds. */
  readonly creationTimestamp: string;
}

/**
 * What the pools were at what time, as people wrote them: what is given and claimed must be by a spec that stood a moment
 * ago. A node may still go by the one before, since it learns of a write by its watch; but not for ever.
 */
export interface PoolHistory {
  /** Carries out a write that makes the pool or replaces its spec. One of a pool at a time. */
  write(name: string, spec: object, write: () => Promise<PoolIdentity>): Promise<void>;
  /** Carries out its deletion: from then on nothing of it is given, however long it takes to go. */
  delete(name: string, remove: () => Promise<void>): Promise<void>;
  /** Why the address must not be given to a pod of that node now; undefined if it may. */
  whyNotGiven(claim: Claimed, nodeName: string): string | undefined;
  /** Why the node must not have claimed the subnet when it did; undefined if it might. */
  whyNotClaimed(subnet: NodeSubnet): string | undefined;
}

export interface PoolHistoryParts {
  /** Monotonic. */
  readonly nowMs: () => number;
  /** The time of day, as the apiserver writes it into objects. */
  readonly wallMs: () => number;
  /** For how long a node may go by what has been replaced. */
  readonly lagMs: number;
  readonly labelsOf: (nodeName: string) => Labels;
}

/** One state of a pool: from the moment its write was sent to the moment the next one's was answered. */
interface Version {
  /** Undefined: the pool is deleted. */
  readonly spec: IPPoolSpec | undefined;
  readonly fromMs: number;
  untilMs: number;
  /** Undefined until the write is answered. */
  identity: PoolIdentity | undefined;
}

export function createPoolHistory({ nowMs, wallMs, lagMs, labelsOf }: PoolHistoryParts): PoolHistory {
  const pools = new Map<string, Version[]>();

  return {
    write: (name, spec, write) => become(name, IPPoolSpec.parse(spec), write),
    delete: (name, remove) =>
      become(name, undefined, async () => {
        await remove();
        return undefined;
      }),

    whyNotGiven({ address, pool }, nodeName) {
      const now = nowMs();
      const specs = versionsAt(pool, now, now).flatMap(({ spec }) => spec ?? []);
      const isGiven = specs.some(
        (spec) =>
          isDrawnFrom(spec, nodeName) &&
          spec.cidrs.some((cidr) => cidrHasAddress(cidr, address)) &&
          spec.reserved?.some((cidr) => cidrHasAddress(cidr, address)) !== true,
      );
      return isGiven
        ? undefined
        : `${formatAddress(address)} is given on ${nodeName} from ${pool}, which gives it no more since ${lagMs} ms or longer`;
    },

    whyNotClaimed({ metadata, spec: { cidr, pool, poolUID, nodeName, exclusive } }) {
      // What a pool of an earlier soak has left is not to be judged.
      if (exclusive === true || !pools.has(pool)) return undefined;
      // Of the whole second that its object names.
      const bornMs = nowMs() - (wallMs() - Date.parse(metadata.creationTimestamp));
      const versions = (name: string) => versionsAt(name, bornMs, bornMs + 1_000);
      const allowing = versions(pool).filter(
        ({ spec, identity }) =>
          spec !== undefined &&
          (identity === undefined || identity.uid === poolUID) &&
          isDrawnFrom(spec, nodeName) &&
          spec.cidrs.some((listed) => cidrContains(listed, cidr)),
      );
      const what = `${formatCIDR(cidr)} was claimed by ${nodeName} from ${pool}`;
      if (allowing.length === 0) return `${what}, which gave no such subnet any more`;
      const inTheWay = [...pools.keys()].filter(
        (other) =>
          other !== pool &&
          versions(other).length > 0 &&
          versions(other).every((its) => allowing.every((own) => isInTheWay(its, other, own, pool, cidr))),
      );
      return inTheWay.length === 0
        ? undefined
        : `${what}, although the older ${inTheWay.join(', ')} had it as well`;
    },
  };

  async function become(
    name: string,
    spec: IPPoolSpec | undefined,
    write: () => Promise<PoolIdentity | undefined>,
  ): Promise<void> {
    const versions = pools.get(name) ?? [];
    const earlier = versions.filter(({ untilMs }) => untilMs === Infinity);
    const next: Version = { spec, fromMs: nowMs(), untilMs: Infinity, identity: undefined };
    pools.set(name, [...versions, next]);
    // Where it fails, nobody knows which of them stands.
    next.identity = await write();
    for (const one of earlier) one.untilMs = nowMs();
  }

  /** Those by which a node may have gone at some moment of that time. */
  function versionsAt(name: string, firstMs: number, lastMs: number): Version[] {
    const versions = pools.get(name) ?? [];
    return versions.filter(({ fromMs, untilMs }) => fromMs <= lastMs && untilMs + lagMs >= firstMs);
  }

  function isDrawnFrom({ disabled, nodeSelector }: IPPoolSpec, nodeName: string): boolean {
    const labels = labelsOf(nodeName);
    const selected = Object.entries(nodeSelector?.matchLabels ?? {});
    return !disabled && selected.every(([key, value]) => labels[key] === value);
  }
}

/** Whether the one pool, as it was, keeps the other from claiming there: it was older, and had a part of it as well. */
function isInTheWay(
  its: Version,
  itsName: string,
  own: Version,
  ownName: string,
  cidr: NodeSubnet['spec']['cidr'],
): boolean {
  if (its.spec === undefined || its.identity === undefined || own.identity === undefined) return false;
  const listed = own.spec?.cidrs.find((one) => cidrContains(one, cidr));
  if (listed === undefined || !its.spec.cidrs.some((one) => cidrsOverlap(one, listed))) return false;
  const [itsTime, ownTime] = [its.identity.creationTimestamp, own.identity.creationTimestamp];
  return itsTime !== ownTime ? itsTime < ownTime : itsName < ownName;
}
