import { describe } from 'vitest';
import { allocationStoreContract } from '../allocation-store.ts';
import { createFakeStores } from '../fake-stores.ts';
import { nodeSubnetStoreContract } from '../node-subnet-store.ts';
import { poolStoreContract } from '../pool-store.ts';

describe('the AllocationStore in memory', () => {
  allocationStoreContract(() => createFakeStores().allocations);
});

describe('the NodeSubnetStore in memory', () => {
  nodeSubnetStoreContract(() => createFakeStores().subnets);
});

describe('the PoolStore in memory', () => {
  poolStoreContract(() => {
    const stores = createFakeStores();
    return { store: stores.pools, apply: async (name, spec) => stores.applyPool(name, spec) };
  });
});
