import { allocationName, type IPAllocation } from '../../api/index.ts';
import { formatAddress, sameAddress, type IPAddress } from '../../net/index.ts';
import { attachmentID } from '../attachment-lock.ts';
import { isResting } from '../release.ts';
import type { Book } from './book.ts';
import type { Finding } from './finding.ts';
import { areSettled } from './settled.ts';
import type { NodeSnapshot, SnapshotSandbox } from './snapshot.ts';

/** The book, and what the nodes that answered say. */
export interface SandboxAudit extends Pick<Book, 'settledBeforeMs'> {
  readonly allocations: readonly IPAllocation[];
  readonly snapshots: readonly NodeSnapshot[];
}

/**
 * Invariants 1 to 4 and 10, as far as nodes have answered: of a silent one nothing is said. What is under way on a
 * node (`inFlight`) is not judged.
 */
export function auditSandboxes(audit: SandboxAudit): Finding[] {
  const sandboxes = audit.snapshots.flatMap((snapshot) =>
    snapshot.sandboxes
      .filter((sandbox) => !snapshot.inFlight.includes(attachmentID(sandbox)))
      .map((sandbox): Located => ({ sandbox, nodeName: snapshot.nodeName })),
  );
  const twice = onTwoSandboxes(sandboxes, audit.allocations);
  const mismatches = withoutAllocation(sandboxes, audit, new Set(twice.map(({ object }) => object.name)));
  const explained = new Set([...twice, ...mismatches].map(({ object }) => object.name));
  return [
    ...twice,
    ...mismatches,
    ...withoutSandbox(audit).filter(({ object }) => !explained.has(object.name)),
    ...sandboxes.filter(({ sandbox }) => sandbox.addresses.length === 0).map(noAddress),
    ...sandboxes.flatMap(missingInPod),
    ...audit.snapshots.flatMap((snapshot) => strays(snapshot, audit)),
    ...audit.snapshots.flatMap(kernelDiffers),
    ...audit.snapshots.flatMap(packetsDiverted),
  ];
}

interface Located {
  readonly sandbox: SnapshotSandbox;
  readonly nodeName: string;
}

/** 1. What a pod has given itself counts only where it is another's: then it may answer for it. */
function onTwoSandboxes(sandboxes: readonly Located[], allocations: readonly IPAllocation[]): Finding[] {
  const holders = new Map<string, { readonly address: IPAddress; readonly by: Located[] }>();
  for (const located of sandboxes) {
    const { addresses, addressesInPod = [] } = located.sandbox;
    const own = [
      ...addresses,
      ...addressesInPod.filter((inPod) => !addresses.some((one) => sameAddress(one, inPod))),
    ];
    for (const address of own) {
      const name = allocationName(address);
      const found = holders.get(name) ?? { address, by: [] };
      found.by.push(located);
      holders.set(name, found);
    }
  }
  const owners = byAddress(allocations);
  return [...holders].flatMap(([name, { address, by }]): Finding[] => {
    if (by.length < 2) return [];
    const owner = owners.get(name);
    const who = by.map(titleOf).sort().join(' and ');
    return [
      {
        invariant: 1,
        severity: 'critical',
        reason: 'AddressOnTwoSandboxes',
        object: objectOf(name, owner),
        ...(owner === undefined ? {} : { pool: owner.spec.pool }),
        message:
          `${formatAddress(address)} is on ${by.length} living sandboxes: ${who}. By the book it belongs to ` +
          `${ownerText(owner)}: delete the pods of the others`,
      },
    ];
  });
}

/** 2. */
function withoutAllocation(
  sandboxes: readonly Located[],
  { allocations }: SandboxAudit,
  disputed: ReadonlySet<string>,
): Finding[] {
  const owners = byAddress(allocations);
  return sandboxes.flatMap((located) =>
    located.sandbox.addresses.flatMap((address) => {
      const name = allocationName(address);
      const owner = owners.get(name);
      const wrong = disputed.has(name) ? undefined : whatIsWrong(located, owner);
      if (wrong === undefined) return [];
      return [
        {
          invariant: 2 as const,
          severity: wrong.severity,
          reason: wrong.reason,
          object: objectOf(name, owner),
          node: located.nodeName,
          ...(owner === undefined ? {} : { pool: owner.spec.pool }),
          message: `${titleOf(located)} has ${formatAddress(address)}, ${wrong.text}`,
        },
      ];
    }),
  );
}

/** 2, of what another plugin made: no more is known than where the address is. */
function strays({ nodeName, strays: found }: NodeSnapshot, { allocations }: SandboxAudit): Finding[] {
  const owners = byAddress(allocations);
  return found.map(({ address, path }): Finding => {
    const name = allocationName(address);
    const owner = owners.get(name);
    const whose =
      owner === undefined
        ? 'and there is no IPAllocation of it'
        : `which by the book belongs to ${ownerText(owner)}`;
    return {
      invariant: 2,
      severity: owner === undefined ? 'warning' : 'critical',
      reason: owner === undefined ? 'NoAllocation' : 'AddressOfAnother',
      object: objectOf(name, owner),
      node: nodeName,
      ...(owner === undefined ? {} : { pool: owner.spec.pool }),
      message:
        `the namespace ${path} on node ${nodeName} has ${formatAddress(address)}, ${whose}. This node gives it to ` +
        'nobody while it is there: start the container of that namespace anew',
    };
  });
}

/**
 * | the IPAllocation of that address        | verdict          |
 * |-----------------------------------------|------------------|
 * | there is none                           | NoAllocation     |
 * | names another attachment, or a holder   | AddressOfAnother |
 * | names this attachment, on another node  | NamesAnotherNode |
 * | names this attachment, and rests        | RestsWhileInUse  |
 * | names this attachment                   | all is well      |
 */
function whatIsWrong(
  { sandbox, nodeName }: Located,
  owner: IPAllocation | undefined,
): (Pick<Finding, 'severity' | 'reason'> & { readonly text: string }) | undefined {
  if (owner === undefined) {
    return {
      severity: 'warning',
      reason: 'NoAllocation',
      text: 'and there is no IPAllocation of it: the agent makes it again with its next sweep; if this stays, read its log',
    };
  }
  const { attachment } = owner.spec;
  if (attachment === undefined || attachmentID(attachment) !== attachmentID(sandbox)) {
    return {
      severity: 'critical',
      reason: 'AddressOfAnother',
      text: `which by the book belongs to ${ownerText(owner)}: delete the pod of this sandbox`,
    };
  }
  if (owner.spec.nodeName !== nodeName) {
    return {
      severity: 'critical',
      reason: 'NamesAnotherNode',
      text:
        `and its IPAllocation names node ${owner.spec.nodeName ?? 'none'}, whose agent frees it: delete the pod, and ` +
        'it gets another address',
    };
  }
  if (isResting(owner)) {
    return {
      severity: 'critical',
      reason: 'RestsWhileInUse',
      text: 'which has been released and is about to be handed out again: delete the pod of this sandbox',
    };
  }
  return undefined;
}

/** 3. The same table that the sweep of the node goes by (ipam/sweep.ts). */
function withoutSandbox(audit: SandboxAudit): Finding[] {
  const byNode = Map.groupBy(audit.allocations, ({ spec }) => spec.nodeName);
  return audit.snapshots.flatMap((snapshot) => {
    const live = new Map(snapshot.sandboxes.map((sandbox) => [attachmentID(sandbox), sandbox]));
    return (byNode.get(snapshot.nodeName) ?? [])
      .filter((allocation) => areSettled(audit, allocation.metadata.creationTimestamp))
      .filter((allocation) => isLeaked(allocation, snapshot, live))
      .map((allocation): Finding => ({
        invariant: 3,
        severity: 'warning',
        reason: 'NoSandbox',
        object: objectOf(allocation.metadata.name, allocation),
        node: snapshot.nodeName,
        pool: allocation.spec.pool,
        message:
          `IPAllocation ${allocation.metadata.name} belongs to ${ownerText(allocation)}, and no such sandbox lives on node ` +
          `${snapshot.nodeName}: the agent frees it after the grace; if this stays, read its log`,
      }));
  });
}

function isLeaked(
  allocation: IPAllocation,
  snapshot: NodeSnapshot,
  live: ReadonlyMap<string, SnapshotSandbox>,
): boolean {
  const { attachment, address } = allocation.spec;
  if (attachment === undefined || isResting(allocation)) return false;
  const id = attachmentID(attachment);
  if (snapshot.inFlight.includes(id)) return false;
  if (live.get(id)?.addresses.some((its) => sameAddress(its, address)) === true) return false;
  const { netns, kind } = attachment;
  if (netns !== undefined && netns.bootID !== snapshot.bootID) return true;
  if (kind === 'Interface') return true;
  return snapshot.namespaces.some(
    ({ path, inode, state }) => path === netns?.path && inode === netns.inode && state === 'dead',
  );
}

/** 4. At most one of a family is what an alias can say, and the book is audited by itself. */
function noAddress(located: Located): Finding {
  return {
    invariant: 4,
    severity: 'warning',
    reason: 'NoAddress',
    object: { kind: 'Node', name: located.nodeName },
    node: located.nodeName,
    message: `${titleOf(located)} has no address at all: delete its pod`,
  };
}

/** 10, inside of the pod. */
function missingInPod(located: Located): Finding[] {
  const { addresses, addressesInPod } = located.sandbox;
  if (addressesInPod === undefined) return [];
  return addresses
    .filter((address) => !addressesInPod.some((inPod) => sameAddress(inPod, address)))
    .map((address) => ({
      invariant: 10,
      severity: 'warning',
      reason: 'AddressMissingInPod',
      object: { kind: 'IPAllocation', name: allocationName(address) },
      node: located.nodeName,
      message:
        `${titleOf(located)} was given ${formatAddress(address)} and no longer has it: someone in the pod has taken it ` +
        'away. Start the pod anew',
    }));
}

/** How many differences one message names. */
const MOST_NAMED = 10;

/** 10. */
function kernelDiffers({ nodeName, nodeUID, kernel }: NodeSnapshot): Finding[] {
  const differences = [
    ...kernel.missing.map((object) => `${object} is missing`),
    ...kernel.extra.map((object) => `${object} is there, and nothing asks for it`),
  ];
  if (differences.length === 0) return [];
  return [
    {
      invariant: 10,
      severity: 'warning',
      reason: 'KernelDiffers',
      object: { kind: 'Node', name: nodeName, uid: nodeUID },
      node: nodeName,
      message:
        `the kernel of node ${nodeName} is not as the objects say: ${named(differences)}. The agent repairs it within 30 s; if ` +
        'this stays, read its log',
    },
  ];
}

/** 10. The kernel goes by the longer route, and of equal ones by the lower metric, whoever set it. */
function packetsDiverted({ nodeName, nodeUID, kernel: { diverting } }: NodeSnapshot): Finding[] {
  if (diverting.length === 0) return [];
  return [
    {
      invariant: 10,
      severity: 'critical',
      reason: 'PacketsDiverted',
      object: { kind: 'Node', name: nodeName, uid: nodeUID },
      node: nodeName,
      message:
        `routes of node ${nodeName} that are not weft's lead packets for pods of other nodes elsewhere: ` +
        `${named(diverting)}. Delete them, or take their ranges out of the pools`,
    },
  ];
}

function named(phrases: readonly string[]): string {
  const more = phrases.length - MOST_NAMED;
  return [...phrases.slice(0, MOST_NAMED), ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
}

/** By the address's own name, which may not be the object's: that is another finding. */
function byAddress(allocations: readonly IPAllocation[]): ReadonlyMap<string, IPAllocation> {
  return new Map(allocations.map((allocation) => [allocationName(allocation.spec.address), allocation]));
}

function objectOf(name: string, owner: IPAllocation | undefined): Finding['object'] {
  return { kind: 'IPAllocation', name, ...(owner === undefined ? {} : { uid: owner.metadata.uid }) };
}

function titleOf({ sandbox, nodeName }: Located): string {
  const pod = sandbox.podUID === undefined ? '' : ` of pod UID ${sandbox.podUID}`;
  return `interface ${sandbox.ifName} of container ${sandbox.containerID}${pod} on node ${nodeName}`;
}

/** Who has an address by the book, for messages. */
export function ownerText(allocation: IPAllocation | undefined): string {
  if (allocation === undefined) return 'nobody';
  const { attachment, pod, holder, nodeName } = allocation.spec;
  if (attachment === undefined) return `holder "${holder ?? ''}"`;
  const whose = pod === undefined ? '' : `pod ${pod.namespace}/${pod.name}, `;
  return `${whose}interface ${attachment.ifName} of container ${attachment.containerID} on node ${nodeName ?? 'unknown'}`;
}
