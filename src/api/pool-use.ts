import type * as z from 'zod';
import { cidrHasAddress, FAMILIES, type CIDR, type Family, type IPAddress } from '../net/index.ts';
import type { Rule } from './rules.ts';

/** As much of a pool's spec as its use is judged by. */
interface UsedSpec {
  readonly use: 'Pods' | 'Bridge' | 'Lan';
  readonly cidrs: readonly CIDR[];
  readonly nodeSubnetPrefixLength: Readonly<Record<Family, number>>;
  readonly fixedAddresses: boolean;
  readonly isolation: { readonly mode: 'None' | 'Isolated' };
  readonly encapsulation: 'CrossSubnet' | 'Always' | 'Never';
  readonly allowedSources?: readonly CIDR[] | undefined;
  readonly gateway?: Readonly<Partial<Record<Family, IPAddress | undefined>>> | undefined;
}

/** What a use allows: for the apiserver in CEL, and the same for whoever reads an object. */
interface UseRule extends Rule {
  readonly holds: (spec: UsedSpec) => boolean;
}

/** On a bridge, and in a subnet of pods, smaller pieces would hold nothing but what is never handed out. */
const MOST_SPECIFIC: Readonly<Record<Family, number>> = { ipv4: 30, ipv6: 126 };

const RULES: readonly UseRule[] = [
  {
    rule:
      "self.use == 'Lan' || (self.nodeSubnetPrefixLength.ipv4 <= 30 && " +
      'self.nodeSubnetPrefixLength.ipv6 <= 126)',
    message: 'nodeSubnetPrefixLength above 30 (ipv4) or 126 (ipv6) is for pools of use Lan',
    holds: ({ use, nodeSubnetPrefixLength }) =>
      use === 'Lan' || FAMILIES.every((family) => nodeSubnetPrefixLength[family] <= MOST_SPECIFIC[family]),
  },
  {
    rule: "self.use == 'Lan' || !has(self.gateway)",
    message: "gateway is for pools of use Lan: on a bridge it is the node's own address",
    holds: ({ use, gateway }) => use === 'Lan' || gateway === undefined,
  },
  {
    rule: "self.use == 'Pods' || !self.fixedAddresses",
    message: 'fixedAddresses is for pools of use Pods: other plugins name no address',
    holds: ({ use, fixedAddresses }) => use === 'Pods' || !fixedAddresses,
  },
  {
    rule: "self.use != 'Lan' || !has(self.isolation) || self.isolation.mode == 'None'",
    message: 'isolation is for pools of use Pods or Bridge: what lies on a LAN is not filtered',
    holds: ({ use, isolation }) => use !== 'Lan' || isolation.mode === 'None',
  },
  {
    // The default is there before the rule is asked, so only another value can be told from none.
    rule: "self.use != 'Lan' || self.encapsulation == 'CrossSubnet'",
    message: 'encapsulation is for pools of use Pods and Bridge: what lies on a LAN is routed by no node',
    holds: ({ use, encapsulation }) => use !== 'Lan' || encapsulation === 'CrossSubnet',
  },
  {
    rule: "self.use == 'Pods' || !has(self.allowedSources)",
    message:
      'allowedSources is for pools of use Pods: the interfaces of other plugins are not filtered by source',
    holds: ({ use, allowedSources }) => use === 'Pods' || allowedSources === undefined,
  },
  ...FAMILIES.flatMap(lanRules),
];

/** In the form that stands in the CRD. */
export const USE_RULES: readonly Rule[] = RULES.map(({ rule, message }) => ({ rule, message }));

/** Their twin for zod. */
export function refuseMisuse(context: z.core.ParsePayload<UsedSpec>): void {
  for (const { holds, message } of RULES) {
    if (!holds(context.value)) context.issues.push({ code: 'custom', message, input: context.value });
  }
}

/** A LAN has one prefix and one router in each family: the interface gets the prefix of the CIDR. */
function lanRules(family: Family): UseRule[] {
  const number = family === 'ipv4' ? 4 : 6;
  const ofFamily = `isCIDR(c) && cidr(c).ip().family() == ${number}`;
  const hasGateway = `has(self.gateway) && has(self.gateway.${family})`;
  const listed = ({ cidrs }: UsedSpec) => cidrs.filter((cidr) => cidr.family === family);
  return [
    {
      rule: `self.use != 'Lan' || self.cidrs.filter(c, ${ofFamily}).size() <= 1`,
      message: `a pool of use Lan lists one ${family} CIDR at the most, that of the LAN: create a pool for each LAN`,
      holds: (spec) => spec.use !== 'Lan' || listed(spec).length <= 1,
    },
    {
      rule: `self.use != 'Lan' || !self.cidrs.exists(c, ${ofFamily}) || (${hasGateway})`,
      message: `gateway.${family} is missing: a pool of use Lan names the router of each family of its cidrs`,
      holds: (spec) =>
        spec.use !== 'Lan' || listed(spec).length === 0 || spec.gateway?.[family] !== undefined,
    },
    {
      rule:
        `!(${hasGateway}) || !isIP(self.gateway.${family}) || ` +
        `self.cidrs.exists(c, isCIDR(c) && cidr(c).containsIP(self.gateway.${family}))`,
      message: `gateway.${family} must lie in a CIDR of the pool`,
      holds: (spec) => {
        const address = spec.gateway?.[family];
        return address === undefined || spec.cidrs.some((cidr) => cidrHasAddress(cidr, address));
      },
    },
  ];
}
