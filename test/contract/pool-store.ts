import { expect, it } from 'vitest';
import { POOL_FINALIZER, type IPPool } from '../../src/api/index.ts';
import type { PoolStore } from '../../src/ipam/store.ts';

/** What every PoolStore does; `apply` writes a pool as a person would and answers it as stored. */
export function poolStoreContract(
  open: () => { readonly store: PoolStore; readonly apply: (name: string, spec: object) => Promise<IPPool> },
): void {
  it('reads a pool as it stands, or not at all', async () => {
    const { store, apply } = open();
    expect(await store.get('absent')).toBeUndefined();
    const applied = await apply('present', { cidrs: ['10.0.0.0/16', 'fd00::/64'] });
    expect(await store.get('present')).toEqual(applied);
  });

  it('puts the finalizer on, once, and leaves the spec alone', async () => {
    const { store, apply } = open();
    const applied = await apply('kept', { cidrs: ['10.1.0.0/16'] });
    expect(await store.addFinalizer(applied)).toBe('done');
    const found = await store.get('kept');
    expect(found?.metadata.finalizers).toEqual([POOL_FINALIZER]);
    expect(found?.spec).toEqual(applied.spec);
  });

  it('puts nothing on a version that was not seen', async () => {
    const { store, apply } = open();
    const older = await apply('edited', { cidrs: ['10.2.0.0/16'] });
    await apply('edited', { cidrs: ['10.2.0.0/16', '10.3.0.0/16'] });
    expect(await store.addFinalizer(older)).toBe('changed');
    expect((await store.get('edited'))?.metadata.finalizers).toEqual([]);
    expect(await store.addFinalizer({ ...older, metadata: { ...older.metadata, name: 'absent' } })).toBe(
      'gone',
    );
  });
}
