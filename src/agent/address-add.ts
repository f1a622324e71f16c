import type { Attachment, IPAllocation, IPPool } from '../api/index.ts';
import type { AddressAddRequest, AddResult } from '../cni/index.ts';
import { isResting, UNKNOWN_SETTLES_MS } from '../ipam/index.ts';
import {
  familiesRoutedOtherwise,
  getLink,
  LinkExistsError,
  listAddresses,
  openNamespaceSocket,
  type NamespaceSocket,
} from '../kernel/index.ts';
import { sameAddress } from '../net/index.ts';
import { addressResult } from './address-result.ts';
import { addressesOnly, allocationsOf, releaseAll } from './attachments.ts';
import { claimFor } from './claim.ts';
import type { AgentParts } from './parts.ts';

/**
 * ADD of weft-ipam: claims addresses for an interface that another plugin makes, from the one pool that its
 * configuration names, and answers how they stand in their network. The kernel is only looked at. Said again it
 * answers the same for as long as the interface is not complete: the plugin still waits for its first answer.
 */
export function createAddressAdd(
  parts: AgentParts,
): (request: AddressAddRequest, signal: AbortSignal) => Promise<AddResult> {
  return (request, signal) =>
    parts.locks.run(request.attachment, (ends) => addAddresses(parts, request, ends), { signal });
}

async function addAddresses(
  parts: AgentParts,
  request: AddressAddRequest,
  signal: AbortSignal,
): Promise<AddResult> {
  parts.observe('add:accepted');
  const sandbox = openNamespaceSocket(parts.ownNamespace, request.netns);
  try {
    refuseTaken(parts, request, sandbox);
    const attachment = attachmentOf(parts, request, sandbox);
    const standing = await standingAddresses(parts, request, attachment, signal);
    if (standing !== undefined) return resultOf(parts, request, sandbox, standing);

    void releaseAll(parts, attachment, 'AddressOnly');
    const { configuration, pod } = request;
    // The reference bridge plugin puts one IPv4 gateway on its bridge and refuses every other one.
    const mayGrow = configuration.plugin !== 'bridge';
    const claiming = claimFor(parts, { attachment, pod, pool: configuration.pool, mayGrow }, signal);
    parts.observe('add:claim-sent');
    const claimed = await claiming;
    parts.observe('add:claimed');
    try {
      signal.throwIfAborted();
      await parts.dataPath.isolationInForce(signal);
      const result = resultOf(parts, request, sandbox, claimed);
      parts.ages.born(attachment);
      return result;
    } catch (error) {
      // They were never used, and come free at once.
      for (const allocation of claimed) void parts.releases.release(allocation, { reuseDelayMs: 0 });
      throw error;
    }
  } finally {
    sandbox.close();
  }
}

/**
 * Refuses where the interface stands already, before anything is claimed. The plugin that asks will fail, and some say
 * DEL then: if these addresses were its answer, what the living interface has would go with it.
 * @throws LinkExistsError
 */
function refuseTaken(parts: AgentParts, { attachment }: AddressAddRequest, sandbox: NamespaceSocket): void {
  const link = getLink(sandbox.socket, { name: attachment.ifName });
  if (link === undefined) return;
  const its = listAddresses(sandbox.socket, { linkIndex: link.index });
  const specs = [
    ...allocationsOf(parts.allocations, attachment).map(({ spec }) => spec),
    ...parts.lost.specs(attachment),
  ];
  const stands = specs.some((spec) => its.some(({ address }) => sameAddress(address, spec.address)));
  if (stands) throw new LinkExistsError(attachment.ifName, 'pod', undefined);
}

function attachmentOf(
  parts: AgentParts,
  { attachment, netns }: AddressAddRequest,
  sandbox: NamespaceSocket,
): Attachment {
  const { inode } = sandbox.identity;
  return {
    ...attachment,
    kind: 'AddressOnly',
    netns: { path: netns, inode: Number(inode), bootID: parts.bootID },
  };
}

/** What an earlier ADD of this attachment was given in this sandbox, if all of it is still there. */
async function standingAddresses(
  parts: AgentParts,
  { configuration }: AddressAddRequest,
  attachment: Attachment,
  signal: AbortSignal,
): Promise<IPAllocation[] | undefined> {
  const known = addressesOnly(parts.allocations, attachment).filter(
    (allocation) =>
      allocation.spec.pool === configuration.pool &&
      allocation.spec.attachment?.netns?.inode === attachment.netns?.inode &&
      allocation.spec.attachment?.netns?.bootID === parts.bootID &&
      !parts.releases.isReleasing(allocation),
  );
  const pool = findPool(parts, configuration.pool);
  const families = pool === undefined ? [] : parts.subnetSource.families(pool);
  if (families.length === 0 || known.length !== families.length) return undefined;
  if (parts.ages.isBornHere(attachment)) return known;
  return (await areSettled(parts, known, attachment, signal)) ? known : undefined;
}

/**
 * Whether what an earlier process claimed is really still there: a release that it had sent when it was killed may be on
 * its way, and would free what lives by then. It is given the time to arrive, and then the apiserver is asked.
 */
async function areSettled(
  parts: AgentParts,
  known: readonly IPAllocation[],
  attachment: Attachment,
  signal: AbortSignal,
): Promise<boolean> {
  const { clock, store } = parts.claims;
  const unsettledMs = UNKNOWN_SETTLES_MS - parts.ages.ageMs(attachment);
  if (unsettledMs > 0) await clock.sleep(unsettledMs, signal);
  const found = await Promise.all(known.map(({ metadata }) => store.get(metadata.name, signal)));
  const areThere = found.every(
    (one, i) => one !== undefined && one.metadata.uid === known[i]?.metadata.uid && !isResting(one),
  );
  if (areThere) parts.ages.born(attachment);
  return areThere;
}

function resultOf(
  parts: AgentParts,
  { attachment, configuration }: AddressAddRequest,
  sandbox: NamespaceSocket,
  allocations: readonly IPAllocation[],
): AddResult {
  return addressResult({
    configuration,
    addresses: allocations.map(({ spec }) => spec.address),
    pool: findPool(parts, configuration.pool),
    routedOtherwise: familiesRoutedOtherwise(sandbox, attachment.ifName),
  });
}

function findPool(parts: AgentParts, name: string): IPPool | undefined {
  return parts.pools().find(({ metadata }) => metadata.name === name);
}
