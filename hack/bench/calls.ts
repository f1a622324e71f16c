import { performance } from 'node:perf_hooks';
import type { Command, Spawner } from './spawn.ts';

/** What one run of call-loop.ts does, in order. */
export type CallPlan = {
  /** The environment of every program. */
  readonly environment: Readonly<Record<string, string>>;
  readonly steps: readonly Step[];
};

export type Step =
  /** Not measured: what calls need, or leave behind. */
  | { readonly kind: 'aside'; readonly command: Command }
  | { readonly kind: 'pause'; readonly ms: number }
  /** Measured, each from before its start until its end has been seen. */
  | {
      readonly kind: 'calls';
      readonly calls: readonly Command[];
      /** How many run at once; the next starts when one ends. */
      readonly inFlight: number;
      /** Rest before each call, not measured; only where one runs at a time. */
      readonly restMs: number;
    };

/** Of one step of calls: each one's time, in the order of the calls, and that of all together. */
export type Timed = { readonly durationsMs: readonly number[]; readonly ms: number };

/** Runs the plan and answers one Timed per step of calls. Throws CallFailedError, SpawnError. */
export function runPlan(plan: CallPlan, spawner: Spawner): Timed[] {
  return plan.steps.flatMap((step) => {
    switch (step.kind) {
      case 'aside':
        timeCalls([step.command], 1, 0, spawner);
        return [];
      case 'pause':
        rest(step.ms);
        return [];
      case 'calls':
        return [timeCalls(step.calls, step.inFlight, step.restMs, spawner)];
    }
  });
}

/** A call of the plan ended otherwise than with 0; what it said is on stderr. */
export class CallFailedError extends Error {
  override name = 'CallFailedError' as const;
  constructor(command: Command, failure: string) {
    super(`${command.argv.join(' ')} ${failure}`);
  }
}

function timeCalls(calls: readonly Command[], inFlight: number, restMs: number, spawner: Spawner): Timed {
  const durationsMs: number[] = [];
  const running = new Map<number, { readonly index: number; readonly startMs: number }>();
  let started = 0;
  const beginMs = performance.now();
  while (started < calls.length || running.size > 0) {
    const command = running.size < inFlight ? calls[started] : undefined;
    if (command !== undefined) {
      if (restMs > 0) rest(restMs);
      const startMs = performance.now();
      running.set(spawner.start(command), { index: started++, startMs });
      continue;
    }
    const { pid, failure } = spawner.next();
    const endMs = performance.now();
    const call = running.get(pid);
    if (call === undefined) continue;
    running.delete(pid);
    durationsMs[call.index] = endMs - call.startMs;
    const ended = calls[call.index];
    if (failure !== undefined && ended !== undefined) {
      // What still runs must not be left behind for whoever cleans up.
      while (running.size > 0) running.delete(spawner.next().pid);
      throw new CallFailedError(ended, failure);
    }
  }
  return { durationsMs, ms: performance.now() - beginMs };
}

/** Sleeps without an event loop, as everything here. */
function rest(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
