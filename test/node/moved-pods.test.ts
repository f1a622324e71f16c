import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CONFIG, eventually, NODE_NAME, pool, startNode, type TestNode } from './node.ts';
import { startSecondNode, type SecondNode } from './second-node.ts';

/** Pods that are made again under their names on another node at once, with a real agent on each of two (F23). */

let node: TestNode;
let second: SecondNode;
let places: readonly Place[];

/** A node, as its runtime sees it. */
interface Place extends Pick<TestNode, 'cni' | 'makeSandbox' | 'removeSandbox'> {
  readonly nodeName: string;
  run(file: string, ...args: string[]): Promise<string>;
}

/** A GC that has not heard of an attachment must not take it as long as it is younger. */
const GRACE_SECONDS = 6;
const REACHED_MS = 10_000;

beforeAll(async () => {
  node = await startNode({ flags: [`--grace-seconds=${GRACE_SECONDS}`] });
  await node.apply(
    pool('moved', {
      cidrs: ['10.25.0.0/24', 'fd00:25::/64'],
      nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
      fixedAddresses: true,
      reuseDelaySeconds: 1,
    }),
  );
  await node.startAgent();
  second = await startSecondNode(node);
  places = [
    { ...node, nodeName: NODE_NAME, run: async (file, ...args) => (await execa(file, args)).stdout },
    { ...second, nodeName: second.name },
  ];
});

afterAll(async () => {
  await second.stop();
  await node.stop();
});

interface Wish {
  readonly addresses?: string;
  readonly sticky?: boolean;
}

const PODS: readonly (Wish & { readonly what: string; readonly name: string })[] = [
  { what: 'with any address', name: 'any-0' },
  { what: 'that names its addresses', name: 'named-0', addresses: '10.25.0.77,fd00:25::4d' },
  { what: 'whose addresses are kept for it', name: 'kept-0', sticky: true },
];
const ORDERS = [
  { when: 'comes with the ADD', delMs: 0 },
  { when: 'comes when the ADD has begun', delMs: 500 },
  // Whose addresses must come free first would wait in vain.
  { when: 'comes when the ADD has ended', delMs: undefined },
];
const CASES = PODS.flatMap((pod) =>
  ORDERS.filter(({ delMs }) => delMs !== undefined || !isOwed(pod)).map((order) => ({ ...pod, ...order })),
);

test.each(CASES)(
  'a pod $what is made again under its name on the other node and on the same, GC running on both; the old sandbox’s DEL $when: it is reached there (F23)',
  async ({ name, delMs, ...wish }) => {
    const id = (generation: number) => `${name}-${String(delMs)}-${generation}`;
    let before: readonly string[] = [];
    const journey = [...places, ...places.toReversed(), ...places.slice(0, 1)];
    for (const [generation, place] of journey.entries()) {
      const earlier = journey[generation - 1];
      const old = earlier === undefined ? undefined : { at: earlier, id: id(generation - 1) };
      const netns = await place.makeSandbox(id(generation));
      if (old !== undefined) await node.kubectl('delete', 'pod', name, '--grace-period=0', '--force');
      const args = await node.makePod(name, { ...metadataOf(name, wish), nodeName: place.nodeName });

      const collecting = collect(old === undefined ? [] : [old.id], id(generation));
      const removeOld = async () => {
        if (old !== undefined) expect((await del(old.at, old.id)).exitCode).toBe(0);
      };
      const removing = delMs === undefined ? undefined : sleep(delMs).then(removeOld);
      const adding = place.cni({ command: 'ADD', containerID: id(generation), netns, args });
      const { answer, stdout } = await adding;
      expect(answer?.code, stdout).toBeUndefined();
      await removing;
      // Late, and again: it is not the new one's.
      for (let i = 0; i < 2; i++) await removeOld();
      await collecting.end();

      const addresses = answer?.ips?.map(({ address }) => address.split('/')[0] ?? '') ?? [];
      expect(addresses).toHaveLength(2);
      if (wish.addresses !== undefined) expect(addresses.join()).toBe(wish.addresses);
      if (wish.sticky === true && old !== undefined) expect(addresses).toEqual(before);
      before = addresses;
      await expectToStand(place, id(generation), addresses);
      if (old !== undefined) await old.at.removeSandbox(old.id);
    }
    const [last] = places;
    if (last === undefined) throw new Error('there is no node');
    await del(last, id(journey.length - 1));
    await node.kubectl('delete', 'pod', name, '--grace-period=0', '--force');
    await last.removeSandbox(id(journey.length - 1));
    // What a controller does when the StatefulSet has gone.
    await node.kubectl('delete', 'ipallocations', '--all');
  },
);

function isOwed({ addresses, sticky }: Wish): boolean {
  return addresses !== undefined || sticky === true;
}

function metadataOf(name: string, { addresses, sticky }: Wish) {
  const set = { apiVersion: 'apps/v1', kind: 'StatefulSet', uid: 'u', controller: true };
  return {
    annotations: {
      ...(addresses === undefined ? {} : { 'ipam.weft.dev/addresses': addresses }),
      ...(sticky === true ? { 'ipam.weft.dev/sticky': 'true' } : {}),
    },
    ownerReferences: sticky === true ? [{ ...set, name: name.replace(/-[0-9]+$/, '') }] : [],
  };
}

function other(place: Place): Place {
  const found = places.find((one) => one !== place);
  if (found === undefined) throw new Error('there is one node alone');
  return found;
}

function del(place: Place, containerID: string) {
  const netns = `/run/netns/${containerID}`;
  return place.cni({ command: 'DEL', containerID, netns, config: CONFIG });
}

/**
 * GC over and over on both nodes, by the lists of runtimes that read them a moment ago and of such that read them now: the
 * old sandbox alone, and both.
 */
function collect(earlier: readonly string[], now: string): { end(): Promise<void> } {
  let isOver = false;
  const running = Promise.all(
    places.map(async (place) => {
      while (!isOver) for (const listed of [earlier, [...earlier, now]]) await collectOnce(place, listed);
    }),
  );
  return {
    async end() {
      isOver = true;
      await running;
    },
  };
}

async function collectOnce(place: Place, listed: readonly string[]): Promise<void> {
  const valid = listed.map((containerID) => ({ containerID, ifname: 'eth0' }));
  const config = { ...CONFIG, 'cni.dev/valid-attachments': valid };
  const { exitCode, stdout } = await place.cni({ command: 'GC', config });
  expect(exitCode, stdout).toBe(0);
}

/** By the book, in the kernels of both nodes, and also when GC has been told of it on its node and of nothing on the other. */
async function expectToStand(place: Place, containerID: string, addresses: readonly string[]): Promise<void> {
  await collectOnce(place, [containerID]);
  await collectOnce(other(place), []);
  const held = (await node.allocations(containerID)).filter(({ released }) => !released);
  expect(held).toHaveLength(addresses.length);
  for (const address of addresses) {
    const name = allocationNameOf(held, address);
    const owner = ['get', 'ipallocation', name, '-o', 'jsonpath={.spec.nodeName}'];
    expect(await node.kubectl(...owner)).toBe(place.nodeName);
    await place.run('ping', '-c1', '-W1', address);
    // The other node learns of it by its watch.
    const reach = () =>
      other(place)
        .run('ping', '-c1', '-W1', address)
        .then(
          () => true as const,
          () => undefined,
        );
    await eventually(`${address} on ${place.nodeName} to be reached from the other node`, reach, REACHED_MS);
    // And not by a way that leads over the node where it was before.
    const family = address.includes(':') ? '-6' : '-4';
    expect(await place.run('ip', family, 'route', 'get', address)).toMatch(/ dev weft/);
    expect(await other(place).run('ip', family, 'route', 'get', address)).toMatch(/ via \S+ dev eth0/);
  }
}

function allocationNameOf(held: readonly { readonly name: string }[], address: string): string {
  const isIPv6 = address.includes(':');
  const found = held.find(({ name }) => (isIPv6 ? name.includes('-') : name === address));
  if (found === undefined) throw new Error(`${address} has no object`);
  return found.name;
}
