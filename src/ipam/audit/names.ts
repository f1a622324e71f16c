import { allocationName, nodeSubnetName } from '../../api/index.ts';
import { formatAddress, formatCIDR } from '../../net/index.ts';
import type { Book } from './book.ts';
import type { Finding } from './finding.ts';

/** Invariant 6: name and address agree. The name is the lock: two names of one address are two locks. */
export function auditNames({ allocations, subnets, unreadable }: Book): Finding[] {
  return [
    ...allocations.flatMap(({ metadata, spec, nodeName }) => {
      const expected = allocationName(spec.address);
      if (metadata.name === expected) return [];
      return wrongName({
        object: { kind: 'IPAllocation', name: metadata.name, uid: metadata.uid },
        says: `is for address ${formatAddress(spec.address)}`,
        expected,
        pool: spec.pool,
        node: nodeName,
      });
    }),
    ...subnets.flatMap(({ metadata, spec }) => {
      const expected = nodeSubnetName(spec.cidr);
      if (metadata.name === expected) return [];
      return wrongName({
        object: { kind: 'NodeSubnet', name: metadata.name, uid: metadata.uid },
        says: `is for ${formatCIDR(spec.cidr)}`,
        expected,
        pool: spec.pool,
        node: spec.nodeName,
      });
    }),
    ...unreadable.map(({ object, problem }): Finding => ({
      invariant: 6,
      severity: 'critical',
      reason: 'Unreadable',
      object,
      message:
        `${object.kind} ${object.name} cannot be read: ${problem}. It keeps its name in use; mend it, or delete it ` +
        'if no pod has the address',
    })),
  ];
}

function wrongName({
  object,
  says,
  expected,
  pool,
  node,
}: Pick<Finding, 'object'> & {
  readonly says: string;
  readonly expected: string;
  readonly pool: string;
  readonly node: string | undefined;
}): Finding {
  return {
    invariant: 6,
    severity: 'critical',
    reason: 'WrongName',
    object,
    ...(node === undefined ? {} : { node }),
    pool,
    message:
      `${object.kind} ${object.name} ${says}, whose name is ${expected}: nothing keeps others from claiming it. ` +
      `Delete ${object.name}; if a pod has the address its agent makes the object again`,
  };
}
