import { describe, expect, it } from 'vitest';
import {
  eventRecorder,
  getNode,
  getPod,
  patchNodeConsistent,
  patchNodeNetworkAvailable,
  watchNode,
  watchPodsOfNode,
} from '../../src/kube/index.ts';
import { formatAddress } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { informerParts, keepingLog, mustSucceed, useApiserver } from './apiserver.ts';

const server = useApiserver();
const apply = (object: object) =>
  mustSucceed(server().kubectl(['apply', '--server-side', '-f', '-'], object));
const within = (ms: number) => AbortSignal.timeout(ms);

describe('a Node', () => {
  it('is read with its addresses in order, and told that its network works', async () => {
    await apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-1', labels: { zone: 'n' } } });
    const addresses = [
      { type: 'Hostname', address: 'node-1' },
      { type: 'InternalIP', address: '2001:db8::1' },
      { type: 'InternalIP', address: '192.0.2.1' },
      { type: 'ExternalIP', address: '198.51.100.1' },
    ];
    await mustSucceed(
      server().kubectl([
        ...['patch', 'node', 'node-1', '--subresource=status', '--type=merge'],
        ...['-p', JSON.stringify({ status: { addresses } })],
      ]),
    );
    const node = watchNode(informerParts(server().client), 'node-1');
    await node.synced;
    expect(node.get('node-1')?.addresses.map(formatAddress)).toEqual(['2001:db8::1', '192.0.2.1']);
    expect(node.get('node-1')).toMatchObject({
      labels: { zone: 'n' },
      networkUnavailable: undefined,
      isReady: false,
    });
    await patchNodeNetworkAvailable(server().client, 'node-1', new Date());
    await node.waitFor(() => node.get('node-1')?.networkUnavailable === false, within(5_000));
    const bad = { status: 'False', reason: 'NoSandbox', message: '10.0.0.5' } as const;
    const seen = () => ({ name: 'node-1', consistent: node.get('node-1')?.consistent });
    expect(seen().consistent).toBeUndefined();
    await patchNodeConsistent(server().client, seen(), bad, { now: new Date('2026-01-01T00:00:00Z') });
    await node.waitFor(() => node.get('node-1')?.consistent?.reason === 'NoSandbox', within(5_000));
    expect(node.get('node-1')).toMatchObject({ consistent: bad, networkUnavailable: false });
    // What is said already is not said again, and what is said of a Node that is gone is nobody's.
    const revision = () =>
      mustSucceed(server().kubectl(['get', 'node', 'node-1', '-o', 'jsonpath={.metadata.resourceVersion}']));
    const before = await revision();
    await patchNodeConsistent(server().client, seen(), bad, { now: new Date() });
    await patchNodeConsistent(server().client, { name: 'nobody', consistent: undefined }, bad, {
      now: new Date(),
    });
    expect(await revision()).toBe(before);
    // Another reason for the same status is no turn.
    await patchNodeConsistent(
      server().client,
      seen(),
      { ...bad, reason: 'KernelDiffers' },
      { now: new Date() },
    );
    const turned = await mustSucceed(
      server().kubectl([
        ...['get', 'node', 'node-1', '-o'],
        'jsonpath={.status.conditions[?(@.type=="WeftConsistent")].lastTransitionTime}',
      ]),
    );
    expect(turned).toBe('2026-01-01T00:00:00Z');
    await node.stop();
    expect((await getNode(server().client, 'node-1'))?.uid).toBe(node.get('node-1')?.uid);
    expect(await getNode(server().client, 'node-2')).toBeUndefined();
  });
});

describe('pods', () => {
  it('are those of one node, under namespace and name', async () => {
    const pod = (name: string, nodeName: string) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'default', annotations: { 'ipam.weft.dev/pools': 'x' } },
      spec: { nodeName, containers: [{ name: 'c', image: 'i' }], automountServiceAccountToken: false },
    });
    await server().kubectl(['create', 'serviceaccount', 'default']);
    await apply(pod('here', 'node-1'));
    await apply(pod('there', 'node-2'));
    const pods = watchPodsOfNode(informerParts(server().client), 'node-1');
    await pods.synced;
    expect([...pods.keys()]).toEqual(['default/here']);
    expect(pods.get('default/here')).toMatchObject({
      name: 'here',
      namespace: 'default',
      nodeName: 'node-1',
      hostNetwork: false,
      phase: 'Pending',
      annotations: { 'ipam.weft.dev/pools': 'x' },
      isTerminating: false,
    });
    await pods.stop();
    expect((await getPod(server().client, { namespace: 'default', name: 'there' }))?.nodeName).toBe('node-2');
    expect(await getPod(server().client, { namespace: 'default', name: 'nowhere' })).toBeUndefined();
  });
});

describe('Events', () => {
  const object = { apiVersion: 'ipam.weft.dev/v1alpha1', kind: 'IPPool', name: 'pods', uid: 'uid-1' };
  const events = async (reason: string) => {
    const found = JSON.parse(
      await mustSucceed(
        server().kubectl([
          'get',
          'events',
          '-n',
          'default',
          '-o',
          'json',
          `--field-selector=reason=${reason}`,
        ]),
      ),
    ) as { items: { count: number; message: string; type: string; involvedObject: object }[] };
    return found.items;
  };

  it('are written about cluster-scoped objects in the namespace default, and counted when repeated', async () => {
    let nowMs = 0;
    const clock = { ...createSystemClock(), nowMs: () => nowMs };
    const log = keepingLog();
    const { record, settled, told } = recorder({ clock, log });
    const event = { object, type: 'Warning', reason: 'Exhausted', message: 'no address is left' } as const;
    for (let n = 0; n < 5; n++) record(event);
    nowMs += 61_000;
    record(event);
    record({ ...event, message: 'something else' });
    await settled();
    expect(log.lines).toEqual([]);
    expect(told).toEqual([...Array<string>(5).fill('repeated'), 'written', 'written']);
    const found = await events('Exhausted');
    expect(found).toHaveLength(2);
    expect(found.find(({ message }) => message === 'no address is left')).toMatchObject({
      count: 6,
      type: 'Warning',
      involvedObject: object,
    });
  });

  it('with ever other texts are a few, of which the last one says the latest', async () => {
    let nowMs = 0;
    const clock = { ...createSystemClock(), nowMs: () => nowMs };
    const { record, settled, told } = recorder({ clock, log: keepingLog() });
    const countsDown = (seconds: number) =>
      record({ object, type: 'Warning', reason: 'Waits', message: `the next comes free in ${seconds} s` });
    for (let seconds = 60; seconds > 0; seconds--) countsDown(seconds);
    nowMs += 61_000;
    countsDown(0);
    await settled();
    expect(told.filter((outcome) => outcome === 'dropped')).toEqual([]);
    const found = await events('Waits');
    expect(found.map(({ count, message }) => `${count} ${message}`).sort()).toEqual([
      ...[57, 58, 59, 60].map((seconds) => `1 the next comes free in ${seconds} s`),
      '57 the next comes free in 0 s',
    ]);
  });

  it('are dropped with a word in the log beyond what the apiserver should bear, but not what is said first', async () => {
    let nowMs = 0;
    const clock = { ...createSystemClock(), nowMs: () => nowMs };
    const log = keepingLog();
    const { record, settled, told } = recorder({ clock, log });
    const says = (number: number, message: string) =>
      record({ object: { ...object, uid: `uid-${number}` }, type: 'Normal', reason: 'Many', message });
    // Forty pods that wait, each with another text each time, for as long as one Event speaks for others.
    for (let round = 0; round < 40; round++) {
      nowMs += 15_000;
      for (let pod = 0; pod < 40; pod++) says(pod, `pod ${pod} waits, ${round}`);
    }
    record({ object: { ...object, uid: 'other' }, type: 'Warning', reason: 'Once', message: 'a conflict' });
    await settled();
    expect(await events('Once')).toHaveLength(1);
    expect(told.filter((outcome) => outcome === 'written').length).toBeLessThanOrEqual(1 + 40 * 5);
    const dropped = told.filter((outcome) => outcome === 'dropped').length;
    expect(dropped).toBeGreaterThan(0);
    expect(log.lines).toHaveLength(dropped);

    // At once, too: of a hundred that nobody has heard of as many are written as come at once.
    const crowd = recorder({ clock, log });
    for (let number = 0; number < 100; number++) {
      crowd.record({
        object: { ...object, uid: `crowd-${number}` },
        type: 'Normal',
        reason: 'Crowd',
        message: '',
      });
    }
    await crowd.settled();
    expect(crowd.told.filter((outcome) => outcome === 'written')).toHaveLength(50);
  });

  function recorder({
    clock,
    log,
  }: {
    clock: ReturnType<typeof createSystemClock>;
    log: ReturnType<typeof keepingLog>;
  }) {
    const told: string[] = [];
    const made = eventRecorder({
      client: server().client,
      clock,
      log,
      component: 'weft-test',
      instance: 'test',
      observe: (outcome) => told.push(outcome),
    });
    return { told, record: made.record.bind(made), settled: made.settled.bind(made) };
  }
});
