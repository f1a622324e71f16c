import { beforeEach, describe, expect, it } from 'vitest';
import type { IPAllocation, IPAllocationSpec } from '../../src/api/index.ts';
import type { AllocationStore, CreateOutcome } from '../../src/ipam/store.ts';
import { parseAddress } from '../../src/net/index.ts';

/** What every AllocationStore does; `open` answers an empty one. Addresses are each used by one test alone. */
export function allocationStoreContract(open: () => AllocationStore | Promise<AllocationStore>): void {
  let store: AllocationStore;
  beforeEach(async () => {
    store = await open();
  });

  describe.each([
    ['ipv4', '10.244.0.', '10.244.0.'],
    ['ipv6', 'fd00::', 'fd00-0000-0000-0000-0000-0000-0000-000'],
  ])('an allocation of %s', (_family, prefix, name) => {
    it('is created once, under the name of its address', async () => {
      const created = objectOf(await store.create(spec(`${prefix}1`, 'first')));
      expect(created.metadata.name).toBe(`${name}1`);
      expect(created.metadata.uid).not.toBe('');
      expect(created.spec).toEqual(spec(`${prefix}1`, 'first'));
      expect(await store.create(spec(`${prefix}1`, 'second'))).toEqual({ kind: 'taken' });
      expect((await store.get(`${name}1`))?.spec.attachment?.containerID).toBe('first');
    });

    it('has one winner among many who create it at once', async () => {
      const claims = await Promise.all(
        Array.from({ length: 20 }, (_, n) => store.create(spec(`${prefix}2`, `c${n}`))),
      );
      const winners = claims.flatMap((claim) => (claim.kind === 'created' ? [claim.object] : []));
      expect(winners).toHaveLength(1);
      expect((await store.get(`${name}2`))?.metadata.uid).toBe(winners[0]?.metadata.uid);
    });

    it('is read as it stands, or not at all', async () => {
      expect(await store.get(`${name}3`)).toBeUndefined();
      const created = objectOf(await store.create(spec(`${prefix}3`)));
      expect(await store.get(`${name}3`)).toEqual(created);
    });

    it('is marked as released, which is a new version of the same object', async () => {
      const created = objectOf(await store.create(spec(`${prefix}4`)));
      const releasedAt = new Date('2030-01-02T03:04:05.678Z');
      expect(await store.markReleased(created, releasedAt)).toBe('done');
      const found = await store.get(`${name}4`);
      expect(new Date(found?.status?.releasedAt ?? '')).toEqual(releasedAt);
      expect(found?.metadata.uid).toBe(created.metadata.uid);
      expect(found?.metadata.resourceVersion).not.toBe(created.metadata.resourceVersion);
      expect(found?.spec).toEqual(created.spec);
      // A resting object still locks its name.
      expect(await store.create(spec(`${prefix}4`, 'next'))).toEqual({ kind: 'taken' });
    });

    it('is marked only if it is the version that was seen', async () => {
      const created = objectOf(await store.create(spec(`${prefix}5`)));
      expect(await store.markReleased(created, new Date())).toBe('done');
      expect(await store.markReleased(created, new Date())).toBe('changed');
    });

    it('is deleted, and its name is free again', async () => {
      const created = objectOf(await store.create(spec(`${prefix}6`)));
      expect(await store.delete(created)).toBe('done');
      expect(await store.get(`${name}6`)).toBeUndefined();
      expect(await store.delete(created)).toBe('gone');
      expect(await store.markReleased(created, new Date())).toBe('gone');
      expect((await store.create(spec(`${prefix}6`, 'next'))).kind).toBe('created');
    });

    it('is not deleted by who saw an older version', async () => {
      const created = objectOf(await store.create(spec(`${prefix}7`)));
      expect(await store.markReleased(created, new Date())).toBe('done');
      expect(await store.delete(created)).toBe('changed');
      expect(await store.get(`${name}7`)).toBeDefined();
    });

    it('survives the late release and the late delete of its name’s former owner', async () => {
      const former = objectOf(await store.create(spec(`${prefix}8`, 'former')));
      expect(await store.delete(former)).toBe('done');
      const owner = objectOf(await store.create(spec(`${prefix}8`, 'owner')));
      expect(await store.markReleased(former, new Date())).toBe('changed');
      expect(await store.delete(former)).toBe('changed');
      expect(await store.get(`${name}8`)).toEqual(owner);
    });

    it('survives a delete with a wrong uid, and one with a wrong resourceVersion', async () => {
      const created = objectOf(await store.create(spec(`${prefix}9`)));
      const { metadata } = created;
      const wrongUID = { ...created, metadata: { ...metadata, uid: '00000000-0000-0000-0000-000000000000' } };
      const wrongVersion = { ...created, metadata: { ...metadata, resourceVersion: '1' } };
      expect(await store.delete(wrongUID)).toBe('changed');
      expect(await store.delete(wrongVersion)).toBe('changed');
      expect(await store.markReleased(wrongVersion, new Date())).toBe('changed');
      expect(await store.get(`${name}9`)).toEqual(created);
    });
  });

  describe('a sticky allocation', () => {
    const sticky = (address: string) => ({ ...spec(address), sticky: 'default/web-0' });
    const binding = {
      nodeName: 'node-2',
      attachment: { network: 'weft', containerID: 'c2', ifName: 'eth0', kind: 'Interface' as const },
      pod: { namespace: 'default', name: 'web-0', uid: 'next-uid' },
    };

    it('is emptied, found by its pod, and bound to the next sandbox: one object all the time', async () => {
      const created = objectOf(await store.create(sticky('10.244.2.1')));
      await store.create(spec('10.244.2.2'));
      expect(await store.empty(created)).toBe('done');
      const { attachment: _, nodeName: __, ...rest } = created.spec;
      const [kept, ...others] = await store.listSticky('default/web-0');
      expect(others).toEqual([]);
      expect(kept?.spec).toEqual({ ...rest, holder: 'sticky' });
      expect(await store.create(spec('10.244.2.1', 'thief'))).toEqual({ kind: 'taken' });
      if (kept === undefined) return;
      const bound = await store.bind(kept, binding);
      expect(bound.kind).toBe('done');
      const found = await store.get('10.244.2.1');
      expect(bound.kind === 'done' ? bound.object : undefined).toEqual(found);
      expect(found?.spec).toEqual({ ...rest, ...binding });
      expect(found?.metadata.uid).toBe(created.metadata.uid);
    });

    it('is bound by one of two who saw it empty', async () => {
      const created = objectOf(await store.create(sticky('10.244.2.3')));
      expect(await store.empty(created)).toBe('done');
      const kept = await store.get('10.244.2.3');
      if (kept === undefined) throw new Error('it is gone');
      const outcomes = await Promise.all([store.bind(kept, binding), store.bind(kept, binding)]);
      expect(outcomes.map(({ kind }) => kind).sort()).toEqual(['changed', 'done']);
    });

    it('survives what its former owner still does to it', async () => {
      const former = objectOf(await store.create(sticky('10.244.2.4')));
      expect(await store.empty(former)).toBe('done');
      expect(await store.empty(former)).toBe('changed');
      expect(await store.delete(former)).toBe('changed');
      expect(await store.bind(former, binding)).toEqual({ kind: 'changed' });
      const kept = await store.get('10.244.2.4');
      expect(kept?.spec.holder).toBe('sticky');
      if (kept === undefined) return;
      expect(await store.delete(kept)).toBe('done');
      expect(await store.empty(kept)).toBe('gone');
      expect(await store.bind(kept, binding)).toEqual({ kind: 'gone' });
      expect(await store.listSticky('default/web-0')).toEqual([]);
    });

    it('that no runtime has named a UID for loses that of the pod before', async () => {
      const created = objectOf(await store.create(sticky('10.244.2.5')));
      expect(await store.empty(created)).toBe('done');
      const kept = await store.get('10.244.2.5');
      if (kept === undefined) throw new Error('it is gone');
      const pod = { namespace: 'default', name: 'web-0' };
      await store.bind(kept, { ...binding, pod });
      expect((await store.get('10.244.2.5'))?.spec.pod).toEqual(pod);
    });
  });

  it('any other never changes its owner', async () => {
    const created = objectOf(await store.create(spec('10.244.1.3')));
    await expect(store.empty(created)).rejects.toThrow("an IPAllocation's spec is immutable");
    expect(await store.get('10.244.1.3')).toEqual(created);
  });

  it('keeps a holder, and a pod without a node', async () => {
    const { attachment: _, nodeName: __, ...rest } = spec('10.244.1.1');
    const held = { ...rest, holder: 'someone' };
    expect(objectOf(await store.create(held)).spec).toEqual(held);
  });

  it('does nothing for a caller who has gone', async () => {
    const gone = AbortSignal.abort(new Error('the caller has gone'));
    await expect(store.create(spec('10.244.1.2'), gone)).rejects.toThrow('the caller has gone');
    expect(await store.get('10.244.1.2')).toBeUndefined();
  });
}

function objectOf(outcome: CreateOutcome<IPAllocation>): IPAllocation {
  if (outcome.kind === 'taken') throw new Error('the name was taken');
  return outcome.object;
}

function spec(address: string, containerID = 'c1'): IPAllocationSpec {
  return {
    address: parseAddress(address),
    pool: 'pods',
    nodeName: 'node-1',
    attachment: {
      network: 'weft',
      containerID,
      ifName: 'eth0',
      kind: 'Interface',
      netns: { path: '/run/netns/x', inode: 4026531840, bootID: 'boot' },
    },
    pod: { namespace: 'default', name: 'web-0', uid: 'pod-uid' },
  };
}
