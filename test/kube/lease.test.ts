import { expect, test } from 'vitest';
import { startElection, type KubeClient } from '../../src/kube/index.ts';
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
