import { describe, expect, it } from 'vitest';
import { errorOfAnswer, startInformer, type KubeClient, type KubeRequest } from '../../src/kube/index.ts';
import { allElse, createFakeClock } from '../ipam/fake-clock.ts';

/** An apiserver in words: what it lists, and what becomes of watches. */
interface Script {
  /** What lists answer. */
  items: { name: string; uid: string; resourceVersion: string }[];
  /** What reads by name answer; those of the list if absent. */
  stored?: Script['items'];
  resourceVersion: string;
  /** Thrown by lists that ask for a revision. */
  refuseRevisions?: Error;
  /** Of the open watch. */
  send?: (line: unknown) => void;
}

const object = ({ name, uid, resourceVersion }: Script['items'][number]) => ({
  metadata: { name, uid, resourceVersion },
});

function scriptedClient(
  script: Script,
): KubeClient & { readonly lists: KubeRequest[]; readonly watches: string[] } {
  const lists: KubeRequest[] = [];
  const watches: string[] = [];
  return {
    lists,
    watches,
    async request(request) {
      const name = /^\/things\/(.+)$/.exec(request.path)?.[1];
      if (name !== undefined) {
        const found = (script.stored ?? script.items).find((item) => item.name === name);
        if (found === undefined) throw errorOfAnswer(request.path, { statusCode: 404, text: '' });
        return object(found);
      }
      lists.push(request);
      if (request.query?.resourceVersion !== undefined && script.refuseRevisions !== undefined) {
        throw script.refuseRevisions;
      }
      return { metadata: { resourceVersion: script.resourceVersion }, items: script.items.map(object) };
    },
    stream({ query, signal, onOpen, onLine }) {
      watches.push(String(query?.resourceVersion));
      onOpen?.();
      return new Promise((_resolve, reject) => {
        script.send = (line) => {
          try {
            onLine(line);
          } catch (error) {
            reject(error instanceof Error ? error : new Error(String(error)));
          }
        };
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      });
    },
    close: async () => undefined,
  };
}

const silent = { info: () => undefined, warn: () => undefined, error: () => undefined };
const gone = { type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' } };

function start(script: Script, selects = () => true) {
  const random = () => 0.5;
  const clock = createFakeClock();
  const client = scriptedClient(script);
  const signs: string[] = [];
  const onWentBack = (sign: string) => void signs.push(sign);
  const informer = startInformer(
    { client, clock, random, log: silent, idleTimeoutMs: 90_000, relistJitterMs: 60_000, onWentBack },
    {
      path: '/things',
      parse: (thing) => (thing as { metadata: { uid: string } }).metadata.uid,
      selects,
    },
  );
  return { clock, client, informer, signs };
}

describe('an informer', () => {
  it('resumes a watch that is silent for too long, from its last revision and bookmark', async () => {
    const script: Script = { items: [], resourceVersion: '100' };
    const { clock, client, informer } = start(script);
    await allElse();
    expect(informer.isAlive()).toBe(true);
    await clock.advance(80_000);
    script.send?.({ type: 'BOOKMARK', object: { metadata: { resourceVersion: '150' } } });
    await clock.advance(80_000);
    expect(client.watches).toEqual(['100']);
    await clock.advance(15_000);
    expect(client.watches).toEqual(['100', '150']);
    expect(client.lists).toHaveLength(1);
    await informer.stop();
    expect(informer.isAlive()).toBe(false);
  });

  it('tells who waits for it that its watch lives', async () => {
    const { informer } = start({ items: [], resourceVersion: '100' });
    await informer.waitFor(() => informer.isAlive(), AbortSignal.timeout(2_000));
    await informer.stop();
  });

  it('waits its jitter before it lists again after a 410', async () => {
    const script: Script = {
      items: [{ name: 'a', uid: 'u1', resourceVersion: '90' }],
      resourceVersion: '100',
    };
    const { clock, client, informer } = start(script);
    await allElse();
    await clock.advance(80_000);
    script.items = [];
    script.send?.(gone);
    await clock.advance(29_000);
    expect(client.lists).toHaveLength(1);
    expect(informer.get('a')).toBe('u1');
    await clock.advance(2_000);
    expect(client.lists).toHaveLength(2);
    expect(client.lists[1]?.query).toMatchObject({
      resourceVersion: '100',
      resourceVersionMatch: 'NotOlderThan',
    });
    expect(informer.has('a')).toBe(false);
    await informer.stop();
  });

  it('keeps what a list shows unchanged as the object that its listeners know', async () => {
    const script: Script = {
      items: [
        { name: 'a', uid: 'u1', resourceVersion: '90' },
        { name: 'b', uid: 'u2', resourceVersion: '91' },
      ],
      resourceVersion: '100',
    };
    const clock = createFakeClock();
    const client = scriptedClient(script);
    const informer = startInformer(
      { client, clock, random: () => 0.5, log: silent },
      { path: '/things', parse: (thing) => ({ thing }) },
    );
    await allElse();
    const [a, b] = [informer.get('a'), informer.get('b')];
    await clock.advance(80_000);
    script.items = script.items.map((item) =>
      item.name === 'b' ? { ...item, resourceVersion: '101' } : item,
    );
    script.resourceVersion = '101';
    script.send?.(gone);
    await clock.advance(31_000);
    expect(client.lists).toHaveLength(2);
    expect(informer.get('a')).toBe(a);
    expect(informer.get('b')).not.toBe(b);
    expect(informer.get('b')).toMatchObject({ thing: { metadata: { resourceVersion: '101' } } });
    await informer.stop();
  });

  it('waits no longer than its list is old: a kind that has just been made is watched by nobody else', async () => {
    const script: Script = { items: [], resourceVersion: '100' };
    const { clock, client, informer } = start(script);
    await allElse();
    await clock.advance(1_000);
    script.items = [{ name: 'a', uid: 'u1', resourceVersion: '101' }];
    script.send?.(gone);
    await clock.advance(1_000);
    expect(client.lists).toHaveLength(2);
    expect(informer.get('a')).toBe('u1');
    // Where every list is followed by a 410, the waits grow.
    for (let i = 0; i < 100; i++) {
      script.send?.(gone);
      await clock.advance(100);
    }
    expect(client.lists.length).toBeLessThan(10);
    await informer.stop();
  });

  it('believes an apiserver that has gone back after a minute, not before, and starts afresh', async () => {
    const script: Script = {
      items: [{ name: 'a', uid: 'u1', resourceVersion: '900' }],
      resourceVersion: '1000',
    };
    const { clock, client, informer, signs } = start(script);
    await allElse();
    await clock.advance(80_000);
    // What this process wrote last is no more, either.
    informer.wrote(object({ name: 'b', uid: 'u2', resourceVersion: '1001' }));
    script.items = [{ name: 'a', uid: 'u0', resourceVersion: '40' }];
    script.resourceVersion = '50';
    script.refuseRevisions = errorOfAnswer('GET /things', {
      statusCode: 504,
      text: JSON.stringify({ reason: 'Timeout', message: 'Too large resource version: 1000, current: 50' }),
    });
    script.send?.(gone);
    await clock.advance(30_000); // the jitter
    await clock.advance(50_000);
    expect(informer.get('a')).toBe('u1');
    expect(informer.get('b')).toBe('u2');
    await clock.advance(60_000);
    expect(informer.revision).toBe('50');
    expect([...informer.keys()]).toEqual(['a']);
    expect(informer.get('a')).toBe('u0');
    expect(client.lists.at(-1)?.query?.resourceVersion).toBeUndefined();
    expect(client.watches.at(-1)).toBe('50');
    expect(signs).toHaveLength(1);
    await informer.stop();
  });

  it('comes back with growing waits from an apiserver that answers nothing', async () => {
    const script: Script = { items: [], resourceVersion: '1' };
    const { clock, client, informer } = start(script);
    await allElse();
    const before = client.watches.length;
    for (let at = 0; at < 60; at++) {
      script.send?.({ type: 'ERROR', object: { kind: 'Status', code: 500, message: 'no' } });
      await clock.advance(1_000);
    }
    expect(client.watches.length - before).toBeGreaterThan(4);
    expect(client.watches.length - before).toBeLessThan(12);
    await informer.stop();
  });
});

describe('an etcd that is back at an older state', () => {
  const created = (informer: ReturnType<typeof start>['informer'], item: Script['items'][number]) =>
    informer.created(object(item), informer.mark());

  it('is known by the answer to a create, at once, and what is cached is listed again', async () => {
    const script: Script = {
      items: [{ name: 'ghost', uid: 'g', resourceVersion: '900' }],
      resourceVersion: '1000',
    };
    const { client, informer, signs } = start(script);
    await allElse();
    script.items = [{ name: 'old', uid: 'o', resourceVersion: '40' }];
    script.resourceVersion = '52';
    created(informer, { name: 'own', uid: 'n', resourceVersion: '51' });
    expect(signs).toHaveLength(1);
    expect(informer.isStartingAfresh).toBe(true);
    expect(informer.get('own')).toBe('n');
    script.items.push({ name: 'own', uid: 'n', resourceVersion: '51' });
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(5_000));
    expect([...informer.keys()].sort()).toEqual(['old', 'own']);
    expect(client.lists.at(-1)?.query?.resourceVersion).toBeUndefined();
    await allElse();
    expect(client.watches.at(-1)).toBe('52');
    created(informer, { name: 'next', uid: 'x', resourceVersion: '53' });
    expect(signs).toHaveLength(1);
    await informer.stop();
  });

  it('behind an apiserver that did not notice: own writes stay, reads by name tell the truth', async () => {
    const script: Script = {
      items: [
        { name: 'ghost', uid: 'g', resourceVersion: '900' },
        { name: 'kept', uid: 'k', resourceVersion: '30' },
      ],
      resourceVersion: '1000',
    };
    const { clock, client, informer, signs } = start(script);
    await allElse();
    script.stored = [
      { name: 'kept', uid: 'k', resourceVersion: '30' },
      { name: 'back', uid: 'b', resourceVersion: '40' },
    ];
    created(informer, { name: 'own', uid: 'n', resourceVersion: '51' });
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(5_000));
    expect([...informer.keys()].sort()).toEqual(['ghost', 'kept', 'own']);
    await informer.reread(['ghost', 'kept', 'back', 'none'], AbortSignal.timeout(5_000));
    expect([...informer.keys()].sort()).toEqual(['back', 'kept', 'own']);
    // Bookmarks from before say nothing of what was written since.
    script.send?.({ type: 'BOOKMARK', object: { metadata: { resourceVersion: '1000' } } });
    created(informer, { name: 'own2', uid: 'n2', resourceVersion: '52' });
    informer.removed('n', 'own');
    expect([...informer.keys()].sort()).toEqual(['back', 'kept', 'own2']);
    expect(signs).toHaveLength(1);
    // The apiserver is restarted: the watch breaks, and the next list is of the new state.
    script.items = script.stored;
    script.resourceVersion = '60';
    const lists = client.lists.length;
    script.send?.({ type: 'ERROR', object: { kind: 'Status', code: 500, message: 'shutting down' } });
    await clock.advance(1_000);
    expect(client.lists.length).toBe(lists + 1);
    expect(client.lists.at(-1)?.query?.resourceVersion).toBeUndefined();
    expect([...informer.keys()].sort()).toEqual(['back', 'kept']);
    await allElse();
    expect(client.watches.at(-1)).toBe('60');
    await informer.stop();
  });

  it('is past what it was, behind an apiserver that did not notice: its watch counts, and what it missed stays', async () => {
    const script: Script = { items: [], resourceVersion: '1000' };
    const { clock, client, informer, signs } = start(script);
    await allElse();
    created(informer, { name: 'gap', uid: 'g', resourceVersion: '51' });
    created(informer, { name: 'gap2', uid: 'g2', resourceVersion: '52' });
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(5_000));
    await allElse();
    created(informer, { name: 'new', uid: 'n', resourceVersion: '1003' });
    created(informer, { name: 'new2', uid: 'n2', resourceVersion: '1004' });
    script.send?.({ type: 'ADDED', object: object({ name: 'new', uid: 'n', resourceVersion: '1003' }) });
    script.send?.({ type: 'DELETED', object: object({ name: 'gap2', uid: 'g2', resourceVersion: '1005' }) });
    script.send?.({ type: 'DELETED', object: object({ name: 'new2', uid: 'n2', resourceVersion: '1006' }) });
    expect([...informer.keys()].sort()).toEqual(['gap', 'new']);
    // A watch that ends is resumed again.
    const lists = client.lists.length;
    script.send?.({ type: 'ERROR', object: { kind: 'Status', code: 500, message: 'shutting down' } });
    await clock.advance(2_000);
    expect(client.lists.length).toBe(lists);
    expect(client.watches.at(-1)).toBe('1006');
    expect([...informer.keys()].sort()).toEqual(['gap', 'new']);
    // The apiserver is restarted: what was written of it since then is shown, and so is its end.
    for (const items of [[{ name: 'gap', uid: 'g', resourceVersion: '1010' }], []]) {
      script.items = items;
      script.resourceVersion = String(Number(script.resourceVersion) + 100);
      script.send?.(gone);
      await clock.advance(61_000);
      await allElse();
      expect([...informer.keys()]).toEqual(items.map(({ name }) => name));
    }
    expect(signs).toHaveLength(1);
    await informer.stop();
  });

  it('and was restored with higher revisions: lists count at once after the next create, and lack what has gone', async () => {
    const script: Script = {
      items: [{ name: 'old', uid: 'o', resourceVersion: '40' }],
      resourceVersion: '1000',
    };
    const { clock, client, informer, signs } = start(script);
    await allElse();
    script.resourceVersion = '5000';
    informer.startAfresh();
    await informer.reread(['old'], AbortSignal.timeout(5_000));
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(5_000));
    await allElse();
    created(informer, { name: 'new', uid: 'n', resourceVersion: '5001' });
    script.items = [];
    script.resourceVersion = '5003';
    script.send?.(gone);
    await clock.advance(61_000);
    expect([...informer.keys()]).toEqual([]);
    // Trusted again: not older than what is known.
    expect(client.lists.at(-1)?.query?.resourceVersion).toBe('5000');
    expect(signs).toEqual([]);
    await informer.stop();
  });

  it('what was read of it by name is not kept when the list has shown the same version', async () => {
    const kept = { name: 'kept', uid: 'k', resourceVersion: '30' };
    const script: Script = { items: [], resourceVersion: '1000', stored: [kept] };
    const { clock, informer } = start(script);
    await allElse();
    informer.startAfresh();
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(5_000));
    await informer.reread(['kept'], AbortSignal.timeout(5_000));
    expect([...informer.keys()]).toEqual(['kept']);
    for (const items of [[kept], []]) {
      script.items = items;
      await allElse();
      script.send?.({ type: 'ERROR', object: { kind: 'Status', code: 500, message: 'shutting down' } });
      await clock.advance(3_000);
      expect([...informer.keys()]).toEqual(items.map(({ name }) => name));
      // Nor when it is read once more after that.
      if (items.length > 0) await informer.reread(['kept'], AbortSignal.timeout(5_000));
    }
    await informer.stop();
  });

  it('what is another’s under the same uid by then is left out, and shown when it is ours again', async () => {
    const at = (uid: string, resourceVersion: string) => ({ name: 'a', uid, resourceVersion });
    const script: Script = { items: [at('ours', '900')], resourceVersion: '1000' };
    let isOurs = true;
    const { informer } = start(script, () => isOurs);
    await allElse();
    created(informer, { name: 'own', uid: 'n', resourceVersion: '50' });
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(5_000));
    expect(informer.has('a')).toBe(true);
    script.stored = [at('ours', '41')];
    isOurs = false;
    await informer.reread(['a'], AbortSignal.timeout(5_000));
    expect(informer.has('a')).toBe(false);
    isOurs = true;
    informer.wrote(object(at('ours', '52')));
    expect(informer.has('a')).toBe(true);
    await informer.stop();
  });

  it('is not believed of a create that was overtaken by the watch', async () => {
    const script: Script = { items: [], resourceVersion: '100' };
    const { informer, signs } = start(script);
    await allElse();
    const sentAt = informer.mark();
    script.send?.({ type: 'ADDED', object: object({ name: 'a', uid: 'a', resourceVersion: '105' }) });
    informer.created(object({ name: 'b', uid: 'b', resourceVersion: '101' }), sentAt);
    expect(signs).toEqual([]);
    await informer.stop();
  });
});
