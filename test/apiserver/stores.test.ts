import { describe, expect, it } from 'vitest';
import {
  API_VERSION,
  GROUP,
  IP_ALLOCATION,
  IP_POOL,
  IPPool,
  NODE_SUBNET,
  VERSION,
} from '../../src/api/index.ts';
import { allocationStore, InvalidError, nodeSubnetStore, poolStore } from '../../src/kube/index.ts';
import { pathOf } from '../../src/kube/paths.ts';
import { parseAddress } from '../../src/net/index.ts';
import { allocationStoreContract } from '../contract/allocation-store.ts';
import { nodeSubnetStoreContract } from '../contract/node-subnet-store.ts';
import { poolStoreContract } from '../contract/pool-store.ts';
import { mustSucceed, useApiserver } from './apiserver.ts';

const server = useApiserver();

/** Deletes all objects of a kind, so that each test begins with none. */
async function empty(plural: string): Promise<void> {
  await server().client.request({ method: 'DELETE', path: `/apis/${GROUP}/${VERSION}/${plural}` });
}

const apply = async (name: string, spec: object): Promise<IPPool> => {
  const object = { apiVersion: API_VERSION, kind: IP_POOL.kind, metadata: { name }, spec };
  await mustSucceed(server().kubectl(['apply', '--server-side', '-f', '-'], object));
  return IPPool.parse(await server().client.request({ method: 'GET', path: `${pathOf(IP_POOL)}/${name}` }));
};

describe('the AllocationStore in the apiserver', () => {
  allocationStoreContract(async () => {
    await empty(IP_ALLOCATION.plural);
    return allocationStore(server().client);
  });

  it('lists the allocations of one node', async () => {
    const store = allocationStore(server().client);
    for (const [address, nodeName] of [
      ['10.1.0.1', 'node-1'],
      ['10.1.0.2', 'node-2'],
      ['10.1.0.3', 'node-1'],
    ] as const) {
      await store.create({ address: parseAddress(address), pool: 'p', nodeName, holder: 'h' });
    }
    const found = await store.listOfNode('node-1');
    expect(found.map(({ metadata }) => metadata.name)).toEqual(
      expect.arrayContaining(['10.1.0.1', '10.1.0.3']),
    );
    expect(found.map(({ metadata }) => metadata.name)).not.toContain('10.1.0.2');
  });

  it('throws what the apiserver refuses, with the message of the rule', async () => {
    const neither = { address: parseAddress('10.1.0.9'), pool: 'p' };
    const creating = allocationStore(server().client).create(neither);
    await expect(creating).rejects.toThrow(InvalidError);
    await expect(creating).rejects.toThrow(/exactly one of attachment and holder must be set/);
  });
});

describe('the NodeSubnetStore in the apiserver', () => {
  nodeSubnetStoreContract(async () => {
    await empty(NODE_SUBNET.plural);
    return nodeSubnetStore(server().client);
  });
});

describe('the PoolStore in the apiserver', () => {
  poolStoreContract(() => ({ store: poolStore(server().client), apply }));

  const usage = {
    capacity: '65536',
    allocated: 1,
    resting: 0,
    reserved: '1',
    free: '65534',
    nodeSubnets: 1,
    freeSubnets: '1023',
  };
  const condition = {
    type: 'Ready',
    status: 'True',
    reason: 'Serving',
    message: '',
    lastTransitionTime: '2030-01-01T00:00:00Z',
  } as const;

  it('writes a status, and takes a family away that the pool no longer has', async () => {
    const store = poolStore(server().client);
    const applied = await apply('status', { cidrs: ['10.0.0.0/16', 'fd00::/64'] });
    const both = { observedGeneration: 1, ipv4: usage, ipv6: { ...usage, free: '18446744073709551614' } };
    expect(await store.writePoolStatus(applied, { ...both, conditions: [condition] })).toBe('done');
    const found = await store.get('status');
    expect(found?.status).toEqual({ ...both, conditions: [condition] });
    expect(found?.metadata.generation).toBe(applied.metadata.generation);
    if (found === undefined) return;
    expect(await store.writePoolStatus(applied, both)).toBe('changed');
    expect(await store.writePoolStatus(found, { ipv4: usage, conditions: [] })).toBe('done');
    expect((await store.get('status'))?.status).toEqual({
      observedGeneration: 1,
      ipv4: usage,
      conditions: [],
    });
  });

  it('lets a deleted pool go when its finalizer goes', async () => {
    const store = poolStore(server().client);
    const applied = await apply('going', { cidrs: ['10.0.0.0/16'] });
    expect(await store.addFinalizer(applied)).toBe('done');
    await mustSucceed(server().kubectl(['delete', 'ippool', 'going', '--wait=false']));
    const terminating = await store.get('going');
    expect(terminating?.metadata.deletionTimestamp).toBeDefined();
    if (terminating === undefined) return;
    expect(await store.removeFinalizer(terminating)).toBe('done');
    expect(await store.get('going')).toBeUndefined();
  });
});
