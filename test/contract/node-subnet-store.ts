import { beforeEach, describe, expect, it } from 'vitest';
import type { NodeSubnet, NodeSubnetSpec } from '../../src/api/index.ts';
import type { CreateOutcome, NodeSubnetStore } from '../../src/ipam/store.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';

/** What every NodeSubnetStore does; `open` answers an empty one. CIDRs are each used by one test alone. */
export function nodeSubnetStoreContract(open: () => NodeSubnetStore | Promise<NodeSubnetStore>): void {
  let store: NodeSubnetStore;
  beforeEach(async () => {
    store = await open();
  });

  describe.each([
    ['ipv4', (n: number) => [`10.244.${n}.0/26`, `10.244.${n}.0-26`] as const],
    ['ipv6', (n: number) => [`fd00:${n}::/122`, `fd00-000${n}-0000-0000-0000-0000-0000-0000-122`] as const],
  ])('a subnet of %s', (_family, numbered) => {
    it('of one address is exclusive if it says so', async () => {
      const [cidr, name] = numbered(7);
      const host = cidr.replace(/[0-9]+$/, cidr.includes(':') ? '128' : '32');
      const exclusive = { ...spec(host), exclusive: true };
      expect(objectOf(await store.create(exclusive)).spec).toEqual(exclusive);
      expect((await store.get(name.replace(/[0-9]+$/, cidr.includes(':') ? '128' : '32')))?.spec).toEqual(
        exclusive,
      );
    });

    it('is created once, under the name of its CIDR', async () => {
      const [cidr, name] = numbered(1);
      const created = objectOf(await store.create(spec(cidr, 'node-1')));
      expect(created.metadata.name).toBe(name);
      expect(created.spec).toEqual(spec(cidr, 'node-1'));
      expect(await store.create(spec(cidr, 'node-2'))).toEqual({ kind: 'taken' });
      expect(await store.get(name)).toEqual(created);
    });

    it('has one winner among many who create it at once', async () => {
      const [cidr, name] = numbered(2);
      const claims = await Promise.all(
        Array.from({ length: 20 }, (_, n) => store.create(spec(cidr, `node-${n}`))),
      );
      const winners = claims.flatMap((claim) => (claim.kind === 'created' ? [claim.object] : []));
      expect(winners).toHaveLength(1);
      expect((await store.get(name))?.spec.nodeName).toBe(winners[0]?.spec.nodeName);
    });

    it('is bound anew to its node, and keeps the rest', async () => {
      const [cidr, name] = numbered(3);
      const created = objectOf(await store.create(spec(cidr)));
      const owner = { nodeUID: 'later', nextHops: [parseAddress('192.0.2.9')] };
      expect(await store.rebind(created, owner)).toBe('done');
      const found = await store.get(name);
      expect(found?.spec).toEqual({ ...created.spec, ...owner });
      expect(found?.metadata.uid).toBe(created.metadata.uid);
      // The version that was seen is no longer the one that stands.
      expect(await store.rebind(created, owner)).toBe('changed');
      expect(await store.delete(created)).toBe('changed');
    });

    it('is deleted, and its name is free again', async () => {
      const [cidr, name] = numbered(4);
      const created = objectOf(await store.create(spec(cidr)));
      expect(await store.delete(created)).toBe('done');
      expect(await store.get(name)).toBeUndefined();
      expect(await store.delete(created)).toBe('gone');
      expect(await store.rebind(created, created.spec)).toBe('gone');
      expect((await store.create(spec(cidr, 'node-2'))).kind).toBe('created');
    });

    it('survives what its former owner still does to it', async () => {
      const [cidr, name] = numbered(5);
      const former = objectOf(await store.create(spec(cidr, 'node-1')));
      expect(await store.delete(former)).toBe('done');
      const owner = objectOf(await store.create(spec(cidr, 'node-2')));
      expect(await store.delete(former)).toBe('changed');
      expect(await store.rebind(former, former.spec)).toBe('changed');
      expect(await store.get(name)).toEqual(owner);
    });

    it('survives a delete with a wrong uid, and one with a wrong resourceVersion', async () => {
      const [cidr, name] = numbered(6);
      const created = objectOf(await store.create(spec(cidr)));
      const { metadata } = created;
      const wrongUID = { ...created, metadata: { ...metadata, uid: '00000000-0000-0000-0000-000000000000' } };
      const wrongVersion = { ...created, metadata: { ...metadata, resourceVersion: '1' } };
      expect(await store.delete(wrongUID)).toBe('changed');
      expect(await store.delete(wrongVersion)).toBe('changed');
      expect(await store.rebind(wrongVersion, created.spec)).toBe('changed');
      expect(await store.get(name)).toEqual(created);
    });
  });
}

function objectOf(outcome: CreateOutcome<NodeSubnet>): NodeSubnet {
  if (outcome.kind === 'taken') throw new Error('the name was taken');
  return outcome.object;
}

function spec(cidr: string, nodeName = 'node-1'): NodeSubnetSpec {
  return {
    cidr: parseCIDR(cidr),
    pool: 'pods',
    poolUID: 'pool-uid',
    nodeName,
    nodeUID: 'node-uid',
    nextHops: [parseAddress('192.0.2.1'), parseAddress('2001:db8::1')],
  };
}
