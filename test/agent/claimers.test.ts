import { describe, expect, test } from 'vitest';
import { ClaimerUnknownError, createFindClaimer, marksOf } from '../../src/agent/claimers.ts';
import { InvalidAnnotationError, POOLS_ANNOTATION } from '../../src/ipam/index.ts';
import type { Namespace, Pod } from '../../src/kube/index.ts';
import { parseAddress } from '../../src/net/index.ts';

const pod = { namespace: 'shop', name: 'web-0', uid: 'u1' };
const { signal } = new AbortController();

describe('who asks', () => {
  test('is read from the caches, without asking the apiserver', async () => {
    const { find, asked } = setUp({ namespaces: [namespaceOf()], pods: [podOf()] });
    const claimer = await find(pod, 'obeyed', signal);
    expect(claimer).toEqual({
      node: { name: 'n1', labels: { zone: 'a' } },
      namespace: { name: 'shop', labels: { tenant: 'blue' }, pools: ['blue', 'green'] },
      podPools: ['blue'],
    });
    expect(asked).toEqual([]);
  });

  test('without Kubernetes arguments is the node alone', async () => {
    const { find } = setUp({});
    expect(await find(undefined, 'obeyed', signal)).toEqual({ node: { name: 'n1', labels: { zone: 'a' } } });
  });

  test('is asked for where a cache lags: that is never "no labels"', async () => {
    const { find, asked } = setUp({ inApi: { namespaces: [namespaceOf()], pods: [podOf()] } });
    const claimer = await find(pod, 'obeyed', signal);
    expect(claimer.namespace?.labels).toEqual({ tenant: 'blue' });
    expect(claimer.podPools).toEqual(['blue']);
    expect(asked).toEqual(['namespace shop', 'pod shop/web-0']);
  });

  test('an earlier pod of the name in the cache is not the one that asks', async () => {
    const earlier = podOf({ uid: 'u0', annotations: { [POOLS_ANNOTATION]: 'green' } });
    const { find } = setUp({ namespaces: [namespaceOf()], pods: [earlier], inApi: { pods: [podOf()] } });
    expect((await find(pod, 'obeyed', signal)).podPools).toEqual(['blue']);
  });

  test('that the apiserver does not know either is an error', async () => {
    const { find } = setUp({ namespaces: [namespaceOf()], inApi: { pods: [podOf({ uid: 'u0' })] } });
    await expect(find(pod, 'obeyed', signal)).rejects.toThrow(ClaimerUnknownError);
    await expect(find({ ...pod, namespace: 'x' }, 'obeyed', signal)).rejects.toThrow('no namespace x');
  });

  test('a static pod runs under the hash that its mirror tells (F24)', async () => {
    const mirror = podOf({ uid: 'other', annotations: { 'kubernetes.io/config.hash': 'u1' } });
    const { find, asked } = setUp({ namespaces: [namespaceOf()], pods: [mirror] });
    expect((await find(pod, 'obeyed', signal)).podPools).toBeUndefined();
    expect(asked).toEqual([]);
  });

  test('a runtime that says no UID means the pod of that name', async () => {
    const { find } = setUp({ namespaces: [namespaceOf()], pods: [podOf()] });
    const { namespace, name } = pod;
    expect((await find({ namespace, name }, 'obeyed', signal)).podPools).toEqual(['blue']);
  });

  test('where the configuration names the pool, annotations mean nothing, and labels do', async () => {
    const broken = namespaceOf({ annotations: { [POOLS_ANNOTATION]: '[]' } });
    const { find, asked } = setUp({ namespaces: [broken] });
    const claimer = await find(pod, 'ignored', signal);
    expect(claimer.namespace).toEqual({ name: 'shop', labels: { tenant: 'blue' } });
    expect(asked).toEqual([]);
    await expect(find(pod, 'obeyed', signal)).rejects.toThrow(ClaimerUnknownError);
  });

  describe('wishes', () => {
    const wishesOf = async (fields: Partial<Pod>) => {
      const { find } = setUp({ namespaces: [namespaceOf()], pods: [podOf(fields)] });
      return (await find(pod, 'obeyed', signal)).wishes;
    };
    const sticky = { 'ipam.weft.dev/sticky': 'true' };

    test('are none where no annotation says so', async () => {
      expect(await wishesOf({})).toBeUndefined();
    });

    test('are the addresses that the pod names', async () => {
      const annotations = { 'ipam.weft.dev/addresses': '10.0.0.9' };
      expect(await wishesOf({ annotations })).toEqual({ addresses: { ipv4: parseAddress('10.0.0.9') } });
    });

    test('are the addresses that it keeps, if a StatefulSet made it', async () => {
      const controller = { kind: 'StatefulSet', name: 'web' };
      expect(await wishesOf({ annotations: sticky, controller })).toEqual({ sticky: 'shop/web-0' });
    });

    test.each([undefined, { kind: 'ReplicaSet', name: 'web' }, { kind: 'StatefulSet', name: 'other' }])(
      'are not granted to what no StatefulSet makes again under its name: %j',
      async (controller) => {
        expect(await wishesOf({ annotations: sticky, controller })).toEqual({
          notSticky: expect.stringContaining('on the pods of a StatefulSet only') as string,
        });
      },
    );

    test.each(['ipam.weft.dev/sticky', 'ipam.weft.dev/addresses'])(
      'that cannot be read are an error: %s',
      async (key) => {
        await expect(wishesOf({ annotations: { [key]: 'x' } })).rejects.toThrow(
          `Pod shop/web-0 has the annotation ${key}`,
        );
      },
    );
  });

  test('an annotation that cannot be read is told with its place', async () => {
    const broken = podOf({ annotations: { [POOLS_ANNOTATION]: '["blue"]' } });
    const { find } = setUp({ namespaces: [namespaceOf()], pods: [broken] });
    await expect(find(pod, 'obeyed', signal)).rejects.toThrow(InvalidAnnotationError);
    await expect(find(pod, 'obeyed', signal)).rejects.toThrow('Pod shop/web-0 has the annotation');
  });
});

describe('the marks of an address whose object was lost', () => {
  const address = parseAddress('10.0.0.9');
  const controller = { kind: 'StatefulSet', name: 'web' };

  test.each<[string, Partial<Pod>, object]>([
    [
      'is the pod’s to keep',
      { annotations: { 'ipam.weft.dev/sticky': 'true' }, controller },
      { sticky: 'shop/web-0' },
    ],
    ['was asked for', { annotations: { 'ipam.weft.dev/addresses': '10.0.0.9' } }, { fixed: true }],
    ['is another than was asked for', { annotations: { 'ipam.weft.dev/addresses': '10.0.0.8' } }, {}],
    ['was drawn', {}, {}],
    [
      'has a pod whose annotation cannot be read any more',
      { annotations: { 'ipam.weft.dev/sticky': '!' } },
      {},
    ],
  ])('that %s', (_, fields, marks) => {
    expect(marksOf(podOf(fields), address)).toEqual(marks);
  });
});

interface World {
  readonly namespaces?: readonly Namespace[];
  readonly pods?: readonly Pod[];
}

function setUp({ inApi = {}, ...cached }: World & { readonly inApi?: World }) {
  const asked: string[] = [];
  const namespaceIn = ({ namespaces = [] }: World, name: string) =>
    namespaces.find((one) => one.name === name);
  const podIn = ({ pods = [] }: World, key: string) =>
    pods.find((one) => `${one.namespace}/${one.name}` === key);
  const find = createFindClaimer({
    node: () => ({ name: 'n1', labels: { zone: 'a' } }),
    namespace: (name) => namespaceIn(cached, name),
    getNamespace: (name) => {
      asked.push(`namespace ${name}`);
      return Promise.resolve(namespaceIn(inApi, name));
    },
    pod: (key) => podIn(cached, key),
    getPod: ({ namespace, name }) => {
      asked.push(`pod ${namespace}/${name}`);
      return Promise.resolve(podIn(inApi, `${namespace}/${name}`));
    },
  });
  return { find, asked };
}

function namespaceOf(fields: Partial<Namespace> = {}): Namespace {
  const annotations = { [POOLS_ANNOTATION]: 'blue, green' };
  return { name: 'shop', labels: { tenant: 'blue' }, annotations, ...fields };
}

function podOf(fields: Partial<Pod> = {}): Pod {
  return {
    ...pod,
    nodeName: 'n1',
    annotations: { [POOLS_ANNOTATION]: 'blue' },
    phase: 'Pending',
    hostNetwork: false,
    podIPs: [],
    isTerminating: false,
    ...fields,
  };
}
