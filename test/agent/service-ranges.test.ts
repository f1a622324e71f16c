import { expect, test } from 'vitest';
import { watchServiceRanges } from '../../src/agent/service-ranges.ts';
import type { Informer } from '../../src/kube/index.ts';
import { formatCIDR, parseCIDR, type CIDR } from '../../src/net/index.ts';
import { createFakeClock } from '../ipam/fake-clock.ts';

const GIVEN = [parseCIDR('10.96.0.0/12')];

type Watch = () => Promise<Informer<readonly CIDR[]> | undefined>;

function start(watch: Watch) {
  const clock = createFakeClock();
  const warned: string[] = [];
  const log = {
    info: () => undefined,
    warn: (_: object, message: string) => {
      warned.push(message);
    },
    error: () => undefined,
    debug: () => undefined,
  };
  const ranges = watchServiceRanges({ watch, given: GIVEN, clock, random: () => 0.5, log });
  return { clock, warned, ranges, listed: () => ranges.list().map(formatCIDR) };
}

/** As far as the ranges need it: complete from the start. */
function informer(...cidrs: string[]): Informer<readonly CIDR[]> {
  const complete: Partial<Informer<readonly CIDR[]>> = {
    isSynced: true,
    list: () => [cidrs.map(parseCIDR)],
    waitFor: () => Promise.resolve(),
    stop: () => Promise.resolve(),
  };
  return complete as Informer<readonly CIDR[]>;
}

test('what the apiserver tells is known besides what is given', async () => {
  const { ranges, listed } = start(() => Promise.resolve(informer('10.0.0.0/16', 'fd00::/108')));
  await ranges.settled;
  expect(listed()).toEqual(['10.96.0.0/12', '10.0.0.0/16', 'fd00::/108']);
  await ranges.stop();
});

test('an apiserver that does not tell leaves what is given, without a wait', async () => {
  const { ranges, listed } = start(() => Promise.resolve(undefined));
  await ranges.settled;
  expect(listed()).toEqual(['10.96.0.0/12']);
  await ranges.stop();
});

test('a refusal keeps nobody waiting for long, and is tried again until it has gone', async () => {
  let isRefused = true;
  const { clock, ranges, listed, warned } = start(() =>
    isRefused ? Promise.reject(new Error('forbidden')) : Promise.resolve(informer('10.0.0.0/16')),
  );
  const startedMs = clock.nowMs();
  await clock.until(ranges.settled);
  expect(clock.nowMs() - startedMs).toBeLessThanOrEqual(3_000);
  expect(listed()).toEqual(['10.96.0.0/12']);
  expect(warned).toContain('the ranges of Services are not known yet: trying again');
  isRefused = false;
  await clock.advance(60_000);
  expect(listed()).toEqual(['10.96.0.0/12', '10.0.0.0/16']);
  await ranges.stop();
});
