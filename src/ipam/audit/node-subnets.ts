import { vxlanMAC, type IPPool, type NodeSubnet } from '../../api/index.ts';
import { formatCIDR, type CIDR, type Family } from '../../net/index.ts';
import { isGeneral } from '../pools.ts';
import { countFreeSubnets, isDrained, isExclusive, usableFamilies } from '../subnets.ts';
import { foreignOf, unreadableNames, type AuditedNode, type Book } from './book.ts';
import type { Finding } from './finding.ts';
import { areSettled } from './settled.ts';

/**
 * Invariant 8, every ready node has a subnet of every pool that it draws from, with its present UID; and of 5, every
 * subnet is a piece of a pool that is there. A subnet outside of its pool's ranges is being drained.
 */
export function auditNodeSubnets(book: Book): Finding[] {
  const nodes = new Map(book.nodes.map((node) => [node.name, node]));
  const pools = new Map(book.pools.map((pool) => [pool.metadata.uid, pool]));
  const unreadPools = unreadableNames(book, 'IPPool');
  return [
    ...book.subnets.flatMap((subnet) => {
      if (!areSettled(book, subnet.metadata.creationTimestamp)) return [];
      return [
        ...(unreadPools.has(subnet.spec.pool) ? [] : wrongPiece(subnet, pools.get(subnet.spec.poolUID))),
        ...olderUID(subnet, nodes.get(subnet.spec.nodeName), book),
      ];
    }),
    ...missingSubnets(book),
    ...sharedMACs(book),
  ];
}

/** Of 3 and 8 what nodes leave behind that are gone: the controller frees it after a quarantine. */
export function auditGoneNodes(book: Book): Finding[] {
  const nodes = new Set([...book.nodes.map(({ name }) => name), ...unreadableNames(book, 'Node')]);
  const left = new Map<string, { nodeName: string; pool: string; allocations: number; subnets: number }>();
  const leftOf = (nodeName: string, pool: string) => {
    const key = `${nodeName} ${pool}`;
    const found = left.get(key) ?? { nodeName, pool, allocations: 0, subnets: 0 };
    left.set(key, found);
    return found;
  };
  for (const { nodeName, attachment, spec, createdAtMs } of book.allocations) {
    // What a person holds by name outlives the node.
    if (nodeName === undefined || nodes.has(nodeName) || attachment === undefined) continue;
    if (areSettled(book, createdAtMs)) leftOf(nodeName, spec.pool).allocations++;
  }
  for (const { spec, metadata } of book.subnets) {
    if (nodes.has(spec.nodeName) || !areSettled(book, metadata.creationTimestamp)) continue;
    leftOf(spec.nodeName, spec.pool).subnets++;
  }
  return [...left.values()].map(({ nodeName, pool, allocations, subnets }): Finding => ({
    invariant: allocations > 0 ? 3 : 8,
    severity: 'warning',
    reason: 'NodeGone',
    object: { kind: 'Node', name: nodeName },
    node: nodeName,
    pool,
    message:
      `there is no Node ${nodeName}, and ${allocations} IPAllocations and ${subnets} NodeSubnets of IPPool ${pool} ` +
      'still name it: weft-controller frees them five minutes after the Node went; if this stays, read its log',
  }));
}

function wrongPiece(subnet: NodeSubnet, pool: IPPool | undefined): Finding[] {
  const { metadata, spec } = subnet;
  const finding = {
    invariant: 5,
    severity: 'warning',
    object: { kind: 'NodeSubnet', name: metadata.name, uid: metadata.uid },
    node: spec.nodeName,
    pool: spec.pool,
  } as const;
  if (pool?.metadata.name !== spec.pool) {
    return [
      {
        ...finding,
        reason: 'PoolGone',
        message:
          `NodeSubnet ${metadata.name} of node ${spec.nodeName} is of an IPPool ${spec.pool} that is no longer there: ` +
          'nothing is drawn from it. Start the pods that have addresses of it anew; the agent then gives it back',
      },
    ];
  }
  const { family, prefixLength } = spec.cidr;
  const expected = pool.spec.nodeSubnetPrefixLength[family];
  if (prefixLength === expected || isExclusive(subnet)) return [];
  return [
    {
      ...finding,
      reason: 'WrongSize',
      message:
        `NodeSubnet ${metadata.name} of node ${spec.nodeName} is a /${prefixLength}, and the pieces of IPPool ` +
        `${spec.pool} are /${expected}: weft did not make it. Start the pods that have addresses of it anew, then delete it`,
    },
  ];
}

function olderUID(
  { metadata, spec }: NodeSubnet,
  node: AuditedNode | undefined,
  book: Pick<Book, 'settledBeforeMs'>,
): Finding[] {
  if (node === undefined || node.uid === spec.nodeUID || !areSettled(book, node.settledAtMs)) return [];
  return [
    {
      invariant: 8,
      severity: 'warning',
      reason: 'OlderNodeUID',
      object: { kind: 'NodeSubnet', name: metadata.name, uid: metadata.uid },
      node: spec.nodeName,
      pool: spec.pool,
      message:
        `NodeSubnet ${metadata.name} was bound to Node ${spec.nodeName} when its UID was ${spec.nodeUID}; it is ` +
        `${node.uid} by now: nothing is drawn from it. The agent binds it anew, or gives it back when it is empty; if ` +
        'this stays, see which pods still have addresses of it',
    },
  ];
}

/** Nodes are told apart behind the tunnel by MACs that follow from their UIDs: of two with one only one is reached. */
function sharedMACs(book: Book): Finding[] {
  const holders = new Map<string, AuditedNode[]>();
  for (const node of book.nodes) {
    if (!areSettled(book, node.settledAtMs)) continue;
    const mac = vxlanMAC(node.uid);
    holders.set(mac, [...(holders.get(mac) ?? []), node]);
  }
  return [...holders].flatMap(([mac, nodes]) => {
    const [first, ...others] = nodes.sort((a, b) => (a.name < b.name ? -1 : 1));
    if (first === undefined) return [];
    return others.map(({ name, uid }): Finding => ({
      invariant: 8,
      severity: 'critical',
      reason: 'SharedMAC',
      object: { kind: 'Node', name, uid },
      node: name,
      message:
        `Nodes ${first.name} (UID ${first.uid}) and ${name} (UID ${uid}) have one VXLAN MAC, ${mac}, which follows from ` +
        'the UID: through the tunnel only one of them is reached. Delete the Node object of one of them and restart ' +
        'its kubelet, so that it registers under another UID',
    }));
  });
}

function missingSubnets(book: Book): Finding[] {
  const held = heldKeys(book);
  const foreign = foreignOf(book);
  const nodes = book.nodes.filter(({ isReady, settledAtMs }) => isReady && areSettled(book, settledAtMs));
  const pools = book.pools.filter(({ metadata }) => areSettled(book, metadata.creationTimestamp));
  return pools.flatMap((pool) => {
    const room = new Map<Family, boolean>();
    const hasRoom = (family: Family) => {
      const known = room.get(family) ?? countFreeSubnets({ ...book, pool, family, foreign }) > 0n;
      room.set(family, known);
      return known;
    };
    return nodes
      .filter((node) => isGeneral(pool, book, node))
      .flatMap((node) =>
        usableFamilies(pool, node.addresses)
          .filter((family) => !held.has(keyOf(pool, node, family)) && hasRoom(family))
          .map((family) => missing(pool, node, family)),
      );
  });
}

/** A subnet of an older UID counts, too: that it is one is a finding of its own. A drained or exclusive one does not. */
function heldKeys({ pools, subnets }: Book): ReadonlySet<string> {
  const byUID = new Map(pools.map((pool) => [pool.metadata.uid, pool]));
  return new Set(
    subnets.flatMap((subnet) => {
      const pool = byUID.get(subnet.spec.poolUID);
      if (pool === undefined || isExclusive(subnet) || isDrained(subnet, pool)) return [];
      return [keyOf(pool, { name: subnet.spec.nodeName }, subnet.spec.cidr.family)];
    }),
  );
}

function keyOf(pool: IPPool, node: Pick<AuditedNode, 'name'>, family: Family): string {
  return `${pool.metadata.uid} ${node.name} ${family}`;
}

function missing(pool: IPPool, node: AuditedNode, family: Family): Finding {
  const ranges: CIDR[] = pool.spec.cidrs.filter((cidr) => cidr.family === family);
  return {
    invariant: 8,
    severity: 'warning',
    reason: 'NoSubnet',
    object: { kind: 'Node', name: node.name, uid: node.uid },
    node: node.name,
    pool: pool.metadata.name,
    message:
      `Node ${node.name} is ready and holds no ${family} subnet of IPPool ${pool.metadata.name} ` +
      `(${ranges.map(formatCIDR).join(', ')}), which has room: see whether weft-agent runs there, and its log`,
  };
}
