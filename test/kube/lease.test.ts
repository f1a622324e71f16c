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
