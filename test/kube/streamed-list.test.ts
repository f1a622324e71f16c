import { describe, expect, it } from 'vitest';
import { errorOfAnswer, type KubeClient, type KubeRequest } from '../../src/kube/index.ts';
import { identityOf } from '../../src/kube/objects.ts';
import { listStreamed } from '../../src/kube/streamed-list.ts';
import { WatchIdleError } from '../../src/kube/watch.ts';
import { allElse, createFakeClock } from '../ipam/fake-clock.ts';

const PATH = '/things';
const object = (name: string, resourceVersion: string, uid = `uid-${name}`) => ({
  metadata: { name, uid, resourceVersion },
});
const bookmark = (resourceVersion: string, annotations = {}) => ({
  type: 'BOOKMARK',
  object: { metadata: { resourceVersion, annotations } },
});
const END = { 'k8s.io/initial-events-end': 'true' };

interface Begun {
  /** What the apiserver was asked. */
  readonly queries: KubeRequest['query'][];
  send(line: unknown): void;
  /** It ends the stream without an error. */
  end(): void;
}

function begin(answer: { readonly refuseStreams?: Error; readonly notOlderThan?: string } = {}) {
  const clock = createFakeClock();
  const lines: ((line: unknown) => void)[] = [];
  const ends: (() => void)[] = [];
  const queries: KubeRequest['query'][] = [];
  const client: KubeClient = {
    async request({ query }) {
      queries.push(query);
      return { metadata: { resourceVersion: '300' }, items: [object('paged', '12')] };
    },
    stream({ query, signal, onOpen, onLine }) {
      queries.push(query);
      if (answer.refuseStreams !== undefined) return Promise.reject(answer.refuseStreams);
      onOpen?.();
      return new Promise((resolve, reject) => {
        ends.push(resolve);
        lines.push((line) => {
          if (!signal.aborted) onLine(line);
        });
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      });
    },
    close: async () => undefined,
  };
  const { notOlderThan } = answer;
  const listed = listStreamed(
    { client, clock, random: () => 0.5 },
    {
      ...{ path: PATH, pageSize: 500, idleTimeoutMs: 90_000, signal: new AbortController().signal },
      ...(notOlderThan === undefined ? {} : { notOlderThan }),
    },
    identityOf,
  );
  // Told of where it is waited for.
  listed.catch(() => undefined);
  const begun: Begun = {
    queries,
    send: (line) => lines.at(-1)?.(line),
    end: () => ends.at(-1)?.(),
  };
  return { ...begun, clock, listed };
}

describe('a list that the apiserver streams', () => {
  it('is what is there at its end, changes that came meanwhile included', async () => {
    const { send, listed, queries } = begin();
    send({ type: 'ADDED', object: object('a', '10') });
    send({ type: 'ADDED', object: object('b', '11') });
    send({ type: 'ADDED', object: object('c', '12') });
    send(bookmark('19'));
    send({ type: 'MODIFIED', object: object('a', '20') });
    send({ type: 'DELETED', object: object('b', '21') });
    send(bookmark('25', END));
    send({ type: 'ADDED', object: object('late', '26') });
    expect(await listed).toEqual({
      items: [
        { key: 'a', uid: 'uid-a', resourceVersion: '20' },
        { key: 'c', uid: 'uid-c', resourceVersion: '12' },
      ],
      resourceVersion: '25',
    });
    expect(queries).toMatchObject([
      {
        watch: true,
        sendInitialEvents: true,
        resourceVersionMatch: 'NotOlderThan',
        allowWatchBookmarks: true,
      },
    ]);
    expect(queries[0]?.resourceVersion).toBeUndefined();
  });

  it('is at least as new as it is asked to be', async () => {
    const { send, listed, queries } = begin({ notOlderThan: '77' });
    send(bookmark('80', END));
    expect((await listed).resourceVersion).toBe('80');
    expect(queries).toMatchObject([{ resourceVersion: '77', resourceVersionMatch: 'NotOlderThan' }]);
  });

  it('fails where the apiserver ends it half-way: a part of it is no list', async () => {
    const { send, end, listed } = begin();
    send({ type: 'ADDED', object: object('a', '10') });
    end();
    await expect(listed).rejects.toThrow('the apiserver ended the list of /things after 1 objects');
  });

  it('fails where the apiserver falls silent', async () => {
    const { send, listed, clock } = begin();
    send({ type: 'ADDED', object: object('a', '10') });
    await allElse();
    await clock.advance(91_000);
    await expect(listed).rejects.toThrow(WatchIdleError);
  });

  it('comes page by page from an apiserver that does not know it', async () => {
    const text = 'sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled';
    const refuseStreams = errorOfAnswer(PATH, { statusCode: 422, text });
    const { listed, queries } = begin({ refuseStreams, notOlderThan: '77' });
    expect(await listed).toMatchObject({ items: [{ key: 'paged' }], resourceVersion: '300' });
    expect(queries[1]).toMatchObject({ limit: 500, resourceVersion: '77' });
  });

  it('is not given up for pages because of other trouble', async () => {
    const { listed, queries } = begin({ refuseStreams: errorOfAnswer(PATH, { statusCode: 500, text: '' }) });
    await expect(listed).rejects.toThrow('500');
    expect(queries).toHaveLength(1);
  });
});
