import { CheckFailedError, type AddressCheckRequest } from '../cni/index.ts';
import { addressesOnly } from './attachments.ts';
import { comparePreviousResult } from './check.ts';
import type { AgentParts } from './parts.ts';

/**
 * CHECK of weft-ipam: whether the result of the plugin that asked for addresses has those that the book gives to its
 * attachment. The interface is that plugin's to check.
 * @throws CheckFailedError
 */
export function createAddressCheck(
  parts: AgentParts,
): (request: AddressCheckRequest, signal: AbortSignal) => Promise<void> {
  return (request, signal) =>
    parts.locks.run(request.attachment, async () => checkAddresses(parts, request), { signal });
}

function checkAddresses(parts: AgentParts, { attachment, previous }: AddressCheckRequest): void {
  const where = `interface ${attachment.ifName} of container ${attachment.containerID}`;
  const held = addressesOnly(parts.allocations, attachment).map(({ spec }) => spec.address);
  if (held.length === 0) {
    throw new CheckFailedError(
      `${where}: no IPAllocation of network ${attachment.network} gives it an address`,
    );
  }
  comparePreviousResult(
    where,
    previous.ips.map(({ address }) => address),
    held,
  );
}
