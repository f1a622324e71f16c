import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startElection, type Election, type KubeClient } from '../../src/kube/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { keepingLog, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';
import { startLossyProxy, type LossyProxy } from './lossy-proxy.ts';

const server = useApiserver();
let proxy: LossyProxy;
let through: KubeClient;
const running = new Set<Election>();
beforeAll(async () => {
  proxy = await startLossyProxy(server().plane, server().dir);
  through = await server().connect({ server: proxy.url });
});
afterEach(async () => {
  await proxy.setDown(false);
  for (const election of running) await election.stop();
  running.clear();
});
afterAll(() => proxy.stop());

interface Candidate {
  readonly election: Election;
  /** Since its last election; aborted when it ended. */
  signal?: AbortSignal;
  elections: number;
}

/** A candidate with a Lease of 3 s, renewed every 0.2 s, given up after 1.5 s. */
function stand(name: string, identity: string, client = server().client, leaseMs = 3_000): Candidate {
  const candidate: { -readonly [K in keyof Candidate]?: Candidate[K] } = { elections: 0 };
  candidate.election = startElection(
    { client, clock: createSystemClock(), random: Math.random, log: keepingLog() },
    {
      namespace: 'default',
      name,
      identity,
      leaseMs,
      renewDeadlineMs: 1_500,
      retryMs: 200,
      async lead(signal) {
        candidate.signal = signal;
        candidate.elections = (candidate.elections ?? 0) + 1;
        await new Promise<void>((resolve) =>
          signal.addEventListener('abort', () => resolve(), { once: true }),
        );
      },
    },
  );
  running.add(candidate.election);
  return candidate as Candidate;
}

async function holder(name: string): Promise<unknown> {
  const lease = (await server().client.request({
    method: 'GET',
    path: `/apis/coordination.k8s.io/v1/namespaces/default/leases/${name}`,
  })) as { spec: { holderIdentity?: string } };
  return lease.spec.holderIdentity;
}

describe('an election', () => {
  it('has one winner, and hands over at once when that one stops', async () => {
    const name = `lease-${randomUUID()}`;
    const candidates = [stand(name, 'a'), stand(name, 'b'), stand(name, 'c')];
    const first = await eventually('a leader', () => candidates.find(({ election }) => election.isLeading));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(candidates.filter(({ election }) => election.isLeading)).toEqual([first]);
    expect(first.signal?.aborted).toBe(false);
    const stoppedAtMs = performance.now();
    await first.election.stop();
    expect(first.signal?.aborted).toBe(true);
    const second = await eventually('another', () => candidates.find(({ election }) => election.isLeading));
    expect(second).not.toBe(first);
    expect(performance.now() - stoppedAtMs).toBeLessThan(2_500);
  });

  it('ends for who cannot renew, before another can win; who comes back follows', async () => {
    const name = `lease-${randomUUID()}`;
    const cut = stand(name, 'cut', through);
    await eventually('the first leader', () => cut.election.isLeading);
    const other = stand(name, 'other');
    await proxy.setDown(true);
    await eventually('the end of the first', () => !cut.election.isLeading);
    expect(cut.signal?.aborted).toBe(true);
    expect(String(cut.signal?.reason)).toContain('not renewed for 1500 ms');
    expect(other.election.isLeading).toBe(false);
    await eventually('the other', () => other.election.isLeading);
    await proxy.setDown(false);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(cut.election.isLeading).toBe(false);
    expect(await holder(name)).toBe('other');
  });

  it('is over when somebody else holds the Lease', async () => {
    const name = `lease-${randomUUID()}`;
    const leader = stand(name, 'leader');
    await eventually('the leader', () => leader.election.isLeading);
    await server().client.request({
      method: 'PATCH',
      path: `/apis/coordination.k8s.io/v1/namespaces/default/leases/${name}`,
      contentType: 'application/merge-patch+json',
      body: { spec: { holderIdentity: 'usurper', leaseDurationSeconds: 60 } },
    });
    await eventually('its end', () => !leader.election.isLeading);
    expect(String(leader.signal?.reason)).toContain('held by "usurper"');
    expect(await holder(name)).toBe('usurper');
  });
});
