import { jitteredBackOff, orAborted, type Clock, type Random } from '../ipam/index.ts';
import type { AgentParts } from './parts.ts';

/** What is done after a sign that etcd has gone back to an older state (design, section 5). */
export interface Recovery {
  /** A sign has come: from this moment on claims wait. */
  begin(sign: string): void;
  /**
   * Resolves when no recovery is under way, and answers whether one was. Claims ask before they begin and once more
   * before their addresses are used: the sign may have come by the very create that claimed them.
   */
  settled(signal: AbortSignal): Promise<boolean>;
}

export interface RecoveryParts {
  /** Brings caches and objects to what etcd and the kernel say. Repeated until it does not throw. */
  readonly recover: (signal: AbortSignal) => Promise<void>;
  /** Called with each sign. */
  readonly onSign: (sign: string) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentParts['log'];
  /** Ends the agent. */
  readonly signal: AbortSignal;
}

export function createRecovery(parts: RecoveryParts): Recovery {
  const { clock, random, log, signal } = parts;
  let signs = 0;
  let underWay: Promise<void> | undefined;

  return {
    begin(sign) {
      signs += 1;
      parts.onSign(sign);
      underWay ??= untilDone().finally(() => {
        underWay = undefined;
      });
    },
    async settled(until) {
      if (underWay === undefined) return false;
      while (underWay !== undefined) await orAborted(underWay, until);
      return true;
    },
  };

  async function untilDone(): Promise<void> {
    const backOff = jitteredBackOff(random, { firstMs: 200, maxMs: 10_000 });
    for (;;) {
      const before = signs;
      try {
        await parts.recover(signal);
        // A sign that came meanwhile may be of a later restore.
        if (signs === before) return log.info({}, 'recovered from an etcd that went back');
      } catch (error) {
        if (signal.aborted) return;
        log.error({ err: error }, 'the recovery from an etcd that went back is not complete: trying again');
        await clock.sleep(backOff.next(), signal).catch(() => undefined); // stopped: the loop ends by itself
      }
    }
  }
}
