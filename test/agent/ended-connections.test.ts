import { describe, expect, test } from 'vitest';
import { createEndConnections } from '../../src/agent/ended-connections.ts';
import { formatAddress, parseAddress, type IPAddress } from '../../src/net/index.ts';
import { allElse, createFakeClock } from '../ipam/fake-clock.ts';

interface Options {
  /** How long a pass takes. */
  readonly passMs?: number;
  readonly fails?: () => boolean;
}

function setUp({ passMs = 0, fails = () => false }: Options = {}) {
  const clock = createFakeClock();
  const passes: { readonly atMs: number; readonly addresses: string[] }[] = [];
  const outcomes: (number | 'failed')[] = [];
  const errors: string[] = [];
  const startMs = clock.nowMs();
  const end = createEndConnections({
    end: async (addresses: readonly IPAddress[]) => {
      passes.push({ atMs: clock.nowMs() - startMs, addresses: addresses.map(formatAddress) });
      if (passMs > 0) await clock.sleep(passMs);
      if (fails()) throw new Error('no such table');
      return addresses.length;
    },
    clock,
    onPass: (outcome) => outcomes.push(outcome),
    log: { error: (_, message) => errors.push(message) },
  });
  const ask = (address: string, when: 'soon' | 'now') => end(parseAddress(address), when);
  return { clock, passes, outcomes, errors, ask };
}

describe('the connections of released addresses', () => {
  test('are ended together, a second after the first one came', async () => {
    const { clock, passes, outcomes, ask } = setUp();
    const first = ask('10.0.0.1', 'soon');
    await clock.advance(600);
    const second = ask('fd00::1', 'soon');
    await clock.advance(399);
    expect(passes).toEqual([]);
    await clock.advance(1);
    await Promise.all([first, second]);
    expect(passes).toEqual([{ atMs: 1000, addresses: ['10.0.0.1', 'fd00::1'] }]);
    expect(outcomes).toEqual([2]);
  });

  test('are ended at once where somebody waits, with whatever else is due', async () => {
    const { clock, passes, ask } = setUp();
    void ask('10.0.0.1', 'soon');
    await ask('10.0.0.2', 'now');
    expect(passes).toEqual([{ atMs: 0, addresses: ['10.0.0.1', '10.0.0.2'] }]);
    await clock.advance(10_000);
    expect(passes).toHaveLength(1);
  });

  test('of one that comes during a pass are ended by the next one, not before the machine has rested', async () => {
    const { clock, passes, ask } = setUp({ passMs: 300 });
    const first = ask('10.0.0.1', 'now');
    await clock.advance(100);
    const second = ask('10.0.0.2', 'now');
    await clock.until(Promise.all([first, second]));
    expect(passes).toEqual([
      { atMs: 0, addresses: ['10.0.0.1'] },
      { atMs: 300 + 4 * 300, addresses: ['10.0.0.2'] },
    ]);
  });

  test('that cannot be ended keep nobody from anything: it is said once, until it works again', async () => {
    let works = false;
    const { clock, outcomes, errors, ask } = setUp({ fails: () => !works });
    await clock.until(ask('10.0.0.1', 'now'));
    await clock.until(ask('10.0.0.2', 'soon'));
    expect(outcomes).toEqual(['failed', 'failed']);
    expect(errors).toHaveLength(1);
    works = true;
    await clock.until(ask('10.0.0.3', 'now'));
    works = false;
    await clock.until(ask('10.0.0.4', 'now'));
    await allElse();
    expect(outcomes).toEqual(['failed', 'failed', 1, 'failed']);
    expect(errors).toHaveLength(2);
  });
});
