import { expect, test } from 'vitest';
import { errorOfAnswer, startElection, type KubeClient } from '../../src/kube/index.ts';
import { createFakeClock } from '../controller/fake-clock.ts';

test.each([
  ['fails', () => Promise.reject(new Error('the work broke'))],
  ['ends', () => Promise.resolve()],
])('a leader whose work %s gives the Lease up, and stands again', async (_, work) => {
  const clock = createFakeClock();
  const holders: string[] = [];
  const lease = { metadata: { uid: 'u', resourceVersion: '1' }, spec: { holderIdentity: '' } };
  const client = {
    request({ method, body }: { method: string; body?: { spec: { holderIdentity: string } } }) {
      if (method === 'PUT' && body !== undefined) {
        lease.spec = body.spec;
        holders.push(body.spec.holderIdentity);
      }
      return Promise.resolve(structuredClone(lease));
    },
  };
  let elections = 0;
  const log = { info: () => undefined, warn: () => undefined, error: () => undefined };
  const election = startElection(
    { client: client as unknown as KubeClient, clock, random: () => 0.5, log },
    {
      namespace: 'default',
      name: 'l',
      identity: 'me',
      lead: () => {
        elections++;
        return work();
      },
    },
  );
  for (let i = 0; i < 20 && elections < 2; i++) await clock.advance(2_000);
  expect(elections).toBe(2);
  expect(holders.slice(0, 3)).toEqual(['me', '', 'me']);
  const stopping = election.stop();
  await clock.advance(5_000);
  await stopping;
  expect(election.isLeading).toBe(false);
});

test('a leader whose Lease is answered with a lower revision tells so once, and its Lease says more at once', async () => {
  const clock = createFakeClock();
  let revision = 1_000;
  const lease = {
    metadata: { uid: 'u', resourceVersion: '999', annotations: { theirs: 'x' } as Record<string, string> },
    spec: { holderIdentity: '' },
  };
  const puts: Record<string, string>[] = [];
  const client = {
    request({ method, body }: { method: string; body?: typeof lease }) {
      if (method === 'PUT' && body !== undefined) {
        Object.assign(lease, { spec: body.spec, metadata: { ...body.metadata, uid: 'u' } });
        lease.metadata.resourceVersion = String(++revision);
        puts.push(body.metadata.annotations);
      }
      return Promise.resolve(structuredClone(lease));
    },
  };
  const signs: string[] = [];
  const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };
  const election = startElection(
    { client: client as unknown as KubeClient, clock, random: () => 0.5, log: quiet },
    {
      namespace: 'default',
      name: 'l',
      identity: 'me',
      annotations: (found) => (signs.length > 0 ? { ...found, held: 'yes' } : found),
      onWentBack: (sign) => void signs.push(sign),
      lead: (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
    },
  );
  for (let i = 0; i < 4; i++) await clock.advance(2_000);
  expect(signs).toEqual([]);
  revision = 500;
  const before = puts.length;
  await clock.advance(2_000);
  expect(signs).toEqual([expect.stringContaining('answered with revision 501')]);
  // Without a wait between them.
  expect(puts.slice(before)).toEqual([{ theirs: 'x' }, { theirs: 'x', held: 'yes' }]);
  for (let i = 0; i < 4; i++) await clock.advance(2_000);
  expect(signs).toHaveLength(1);
  const stopping = election.stop();
  await clock.advance(5_000);
  await stopping;
});

test.each([
  ['with an older revision than was seen of it', '400'],
  ['no more', undefined],
])(
  'a Lease that is found %s tells that etcd went back, also where it was restored with higher revisions',
  async (_, found) => {
    const clock = createFakeClock();
    let revision = 1_000;
    type Stored = {
      metadata: { uid: string; resourceVersion: string; annotations: Record<string, string> };
      spec: { holderIdentity: string };
    };
    const at = (resourceVersion: string, spec = { holderIdentity: '' }): Stored => ({
      metadata: { uid: 'u', resourceVersion, annotations: {} },
      spec,
    });
    let lease: Stored | undefined = at('999');
    const written: { method: string; annotations: Record<string, string> }[] = [];
    const client = {
      request({ method, body }: { method: string; body?: Stored }) {
        if (body !== undefined) {
          const isStale = body.metadata.resourceVersion !== lease?.metadata.resourceVersion;
          if (method === 'PUT' && isStale) {
            return Promise.reject(
              errorOfAnswer('PUT', {
                statusCode: lease === undefined ? 404 : 409,
                text: JSON.stringify({ reason: lease === undefined ? 'NotFound' : 'Conflict' }),
              }),
            );
          }
          lease = {
            metadata: { ...at(String(++revision)).metadata, annotations: body.metadata.annotations },
            spec: body.spec,
          };
          written.push({ method, annotations: body.metadata.annotations });
        }
        if (lease === undefined) return Promise.reject(errorOfAnswer('GET', { statusCode: 404, text: '' }));
        return Promise.resolve(structuredClone(lease));
      },
    };
    const signs: string[] = [];
    const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };
    const election = startElection(
      { client: client as unknown as KubeClient, clock, random: () => 0.5, log: quiet },
      {
        namespace: 'default',
        name: 'l',
        identity: 'me',
        annotations: (known) => (signs.length > 0 ? { ...known, held: 'yes' } : known),
        onWentBack: (sign) => void signs.push(sign),
        lead: (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
      },
    );
    for (let i = 0; i < 4; i++) await clock.advance(2_000);
    expect(signs).toEqual([]);
    lease = found === undefined ? undefined : at(found, { holderIdentity: 'me' });
    revision = 1_000_000;
    const before = written.length;
    for (let i = 0; i < 4; i++) await clock.advance(2_000);
    expect(signs).toHaveLength(1);
    expect(signs[0]).toMatch(/found.*, after revision 10[0-9]+ had been seen$/);
    expect(written[before]).toEqual({
      method: found === undefined ? 'POST' : 'PUT',
      annotations: { held: 'yes' },
    });
    const stopping = election.stop();
    await clock.advance(5_000);
    await stopping;
  },
);
