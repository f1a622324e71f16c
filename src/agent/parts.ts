import {
  DEFAULT_REUSE_DELAY_SECONDS,
  type IPAllocation,
  type IPPool,
  type NodeSubnet,
} from '../api/index.ts';
import type { HostPort } from '../dataplane/index.ts';
import {
  poolOfAddress,
  type AttachmentLocks,
  type ClaimParts,
  type NamesInUse,
  type ReleaseQueue,
  type SubnetHold,
} from '../ipam/index.ts';
import type { Namespace, NetlinkSocket } from '../kernel/index.ts';
import type { Family, IPAddress } from '../net/index.ts';
import type { AttachmentAges } from './ages.ts';
import type { Announce } from './announce.ts';
import type { ClaimOutcome } from './claim.ts';
import type { FindClaimer } from './claimers.ts';
import type { LostAllocations } from './lost-allocations.ts';
import type { StrayAddresses } from './stray-addresses.ts';
import type { Reaper } from './reaper.ts';
import type { Recovery } from './recovery.ts';
import type { StepObserver } from './steps.ts';
import type { WiredAddresses } from './wired-addresses.ts';

/** This node's allocations by name: the cache with this process's own writes laid over it. */
export interface OwnAllocations extends NamesInUse {
  get(name: string): IPAllocation | undefined;
  values(): Iterable<IPAllocation>;
}

/** Where the node's own subnets come from when an ADD finds none. */
export interface SubnetSource {
  /** The node's subnets of the pool that may be drawn from. */
  drawable(pool: IPPool): NodeSubnet[];
  /** Claims one more subnet of that family; all who ask meanwhile get the same. */
  claimMore(pool: IPPool, family: Family, signal: AbortSignal): Promise<void>;
  /** The families in which this node can use the pool. */
  families(pool: IPPool): Family[];
}

/** The way to single addresses that lie in none of the node's own subnets: those of pods that are to have them. */
export interface ExclusiveSubnets {
  /**
   * Resolves when the address, whose IPAllocation this node holds, leads here, and this node's kernel knows it.
   * @throws SubnetUnavailableError, or the signal's reason
   */
  secure(allocation: IPAllocation, signal: AbortSignal): Promise<void>;
  /** The exclusive subnet of that address, whichever node has it. */
  of(address: IPAddress): NodeSubnet | undefined;
}

/** What the node's data path says to those who wire pods. */
export interface DataPath {
  /**
   * MTU of the link of a pod with these addresses, bytes: it depends on their pool. Without addresses: what is right
   * for most.
   */
  podMTU(addresses: readonly IPAddress[]): number;
  /** Preferred source of the node's own packets to pods. */
  hostSources(): Readonly<Partial<Record<Family, IPAddress>>>;
  /**
   * Resolves when pods are isolated as the pools say that this agent knows: before any new pod of theirs can send.
   * @throws FiltersNotInForceError, or the signal's reason
   */
  isolationInForce(signal: AbortSignal): Promise<void>;
  /**
   * Brings the filters to what links record of their attachments' own rules (kernel/pod-rules.ts). Resolves when they
   * are in force.
   * @throws CommandError
   */
  podRulesChanged(): Promise<void>;
  /** @throws CommandError */
  forgetFlows(hostPorts: readonly HostPort[]): Promise<void>;
  /** Whether the filters are in the kernel as they were set. */
  filtersHold(): Promise<boolean>;
}

/** A pod of this node, and whether it runs yet or any more. */
export interface OwnPod {
  readonly namespace: string;
  readonly name: string;
  readonly phase: string;
}

/** What the verbs of one agent share. Made once, in main.ts. */
export interface AgentParts {
  readonly nodeName: string;
  readonly bootID: string;
  /** rtnetlink in the host's namespace. */
  readonly host: NetlinkSocket;
  readonly ownNamespace: Namespace;
  readonly pools: () => readonly IPPool[];
  readonly subnets: () => readonly NodeSubnet[];
  readonly allocations: OwnAllocations;
  /** Whether a node has the address, as far as this one knows: it is never handed out. */
  readonly isNodeAddress: (address: IPAddress, pool: IPPool) => boolean;
  readonly findClaimer: FindClaimer;
  /** The pod of this node that runs under that UID, as the cache knows it. */
  readonly findOwnPod: (uid: string) => OwnPod | undefined;
  readonly announce: Announce;
  readonly subnetSource: SubnetSource;
  readonly exclusiveSubnets: ExclusiveSubnets;
  /** Whether the leader holds claims, after etcd has gone back: of subnets, and of addresses that pods are to have. */
  readonly hold?: SubnetHold;
  /** The addresses that are kept for that pod, `namespace/name`: a list, and the only one in an ADD. */
  readonly listSticky: (pod: string, signal: AbortSignal) => Promise<IPAllocation[]>;
  readonly dataPath: DataPath;
  readonly claims: ClaimParts;
  readonly releases: ReleaseQueue;
  readonly locks: AttachmentLocks;
  readonly reaper: Reaper;
  readonly recovery: Pick<Recovery, 'settled'>;
  readonly ages: AttachmentAges;
  readonly wired: WiredAddresses;
  readonly lost: LostAllocations;
  readonly strays: Pick<StrayAddresses, 'has' | 'values'>;
  readonly settings: {
    readonly addDeadlineMs: number;
    readonly subnetWaitMs: number;
    readonly graceMs: number;
  };
  readonly observe: StepObserver;
  /** Is told how each claim of an attachment's addresses ended. */
  readonly onClaimEnded?: (outcome: ClaimOutcome) => void;
  readonly log: {
    info(facts: object, message: string): void;
    warn(facts: object, message: string): void;
    error(facts: object, message: string): void;
  };
}

/** How long an address of the pool rests; a pool that is gone no longer says. */
export function reuseDelayMs(pools: readonly IPPool[], poolName: string): number {
  const pool = pools.find(({ metadata }) => metadata.name === poolName);
  return (pool?.spec.reuseDelaySeconds ?? DEFAULT_REUSE_DELAY_SECONDS) * 1000;
}

/** The same of the pool that the address belongs to. */
export function restMsOf(
  address: IPAddress,
  pools: readonly IPPool[],
  subnets: readonly NodeSubnet[],
): number {
  return reuseDelayMs(pools, poolOfAddress(address, pools, subnets)?.poolName ?? '');
}
