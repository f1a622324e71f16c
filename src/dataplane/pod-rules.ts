import { FAMILIES, type CIDR } from '../net/index.ts';
import { addressSet } from './address-set.ts';
import type { HostPort } from './host-ports.ts';
import { address, addRule, addSets, match, set, type NftCommand } from './nft-commands.ts';

/** What one attachment has in the filters beyond what all have (design, section 6). */
export interface PodRules {
  readonly hostPorts: readonly HostPort[];
  /** Sources that are not its own and that it may send from, since it routes for others. */
  readonly allowedSources: readonly CIDR[];
}

/** Those of the attachment whose host end has that name. */
export interface AttachmentRules extends PodRules {
  readonly linkName: string;
}

/**
 * Accepts packets from pods that route for others, before the rule that drops foreign sources. Whatever is allowed,
 * the source is never in a pool, and never a node: nobody can take the place of another pod or of a node.
 */
export function allowedSources(
  chain: string,
  attachments: readonly AttachmentRules[],
): readonly NftCommand[] {
  return attachments.flatMap(({ linkName, allowedSources: cidrs }) => {
    const sources = addressSet(cidrs);
    const families = FAMILIES.filter((family) => sources[family].length > 0);
    const name = `sources_${linkName}_v`;
    return [
      ...(families.length === 0 ? [] : addSets(name, sources)),
      ...families.map((family) =>
        addRule(chain, 'routes for others', [
          match('==', { meta: { key: 'iifname' } }, linkName),
          match('==', address(family, 'saddr'), set(name, family)),
          match('!=', address(family, 'saddr'), set('pools', family)),
          match('!=', address(family, 'saddr'), set('nodes', family)),
          match('!=', { fib: { result: 'type', flags: ['saddr'] } }, 'local'),
          { accept: null },
        ]),
      ),
    ];
  });
}
