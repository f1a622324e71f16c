import type { CallPlan, Step, Timed } from './calls.ts';
import type { Command } from './spawn.ts';

export type AttachmentOptions = {
  /** The names of the networks, in the order in which they take turns. */
  readonly networks: readonly string[];
  /** How many attachments each makes one at a time; at least as many more are made eight at once. */
  readonly rounds: number;
  /** The absolute path of cnitool. */
  readonly cnitool: string;
  readonly environment: Readonly<Record<string, string>>;
  /** A folder for files with the namespaces' names; what is in it is written by `files`. */
  readonly directory: string;
};

/** One network's measurements, in milliseconds. */
export type AttachmentSamples = {
  readonly add: number[];
  readonly del: number[];
  /** The same attachments' ADD and DEL together. */
  readonly both: number[];
  readonly addAtOnce: AtOnce;
  readonly delAtOnce: AtOnce;
};
type AtOnce = { readonly durationsMs: number[]; readonly stretches: { calls: number; ms: number }[] };

/**
 * First one at a time: ADD and DEL of the first network, of the second, of the third, and so on, each call after a
 * rest, so that what one leaves to be done in the background is not measured with the next. Then eight at once, in
 * blocks of one network that take turns too. Every attachment has a network namespace of its own, made before and
 * removed after, outside of what is timed.
 */
export function planAttachments(options: AttachmentOptions): AttachmentPlan {
  const { networks } = options;
  const files = new Map<string, string>();
  const steps: Step[] = [];
  const readers: ((samples: AttachmentSamples, timed: Timed, network: number) => void)[] = [];
  let names = 0;
  const batch = (lines: readonly string[]): Step => {
    const file = `${options.directory}/batch-${files.size}`;
    files.set(file, `${lines.join('\n')}\n`);
    return { kind: 'aside', command: { argv: ['/bin/ip', '-batch', file] } };
  };
  const namespaces = (count: number) => Array.from({ length: count }, () => `weft-bench-${names++}`);
  const call = (verb: 'add' | 'del', network: string, name: string): Command => ({
    argv: [options.cnitool, verb, network, `/run/netns/${name}`],
  });

  for (let done = 0; done < options.rounds; done += ROUNDS_A_BATCH) {
    const rounds = Math.min(ROUNDS_A_BATCH, options.rounds - done);
    const made = namespaces(rounds * networks.length);
    const calls = made.flatMap((name, index) => {
      const network = networks[index % networks.length] ?? '';
      return [call('add', network, name), call('del', network, name)];
    });
    steps.push(batch(made.map((name) => `netns add ${name}`)), { kind: 'pause', ms: SETTLE_MS });
    steps.push({ kind: 'calls', calls, inFlight: 1, restMs: REST_MS });
    steps.push(batch(made.map((name) => `netns delete ${name}`)), { kind: 'pause', ms: SETTLE_MS });
    readers.push((samples, timed, network) => {
      for (let round = 0; round < rounds; round++) {
        const at = (round * networks.length + network) * 2;
        const [add = NaN, del = NaN] = timed.durationsMs.slice(at, at + 2);
        samples.add.push(add);
        samples.del.push(del);
        samples.both.push(add + del);
      }
    });
  }

  for (let done = 0; done < options.rounds; done += BLOCK) {
    for (const [turn, network] of networks.entries()) {
      const made = namespaces(BLOCK);
      steps.push(batch(made.map((name) => `netns add ${name}`)), { kind: 'pause', ms: SETTLE_MS });
      for (const verb of ['add', 'del'] as const) {
        const calls = made.map((name) => call(verb, network, name));
        steps.push({ kind: 'calls', calls, inFlight: AT_ONCE, restMs: 0 });
        readers.push((samples, timed, of) => {
          if (of !== turn) return;
          const into = verb === 'add' ? samples.addAtOnce : samples.delAtOnce;
          into.durationsMs.push(...timed.durationsMs);
          into.stretches.push({ calls: timed.durationsMs.length, ms: timed.ms });
        });
      }
      steps.push(batch(made.map((name) => `netns delete ${name}`)), { kind: 'pause', ms: SETTLE_MS });
    }
  }

  return {
    plan: { environment: options.environment, steps },
    files,
    read: (timed) =>
      networks.map((_, network) => {
        const samples = noSamples();
        for (const [step, reader] of readers.entries()) {
          const measured = timed[step];
          if (measured === undefined) throw new AnswerTooShortError(readers.length, timed.length);
          reader(samples, measured, network);
        }
        return samples;
      }),
  };
}

export type AttachmentPlan = {
  readonly plan: CallPlan;
  /** Text by path: to be there before the plan runs. */
  readonly files: ReadonlyMap<string, string>;
  /** What the plan's answer says of each network. */
  readonly read: (timed: readonly Timed[]) => AttachmentSamples[];
};

/** The loop has answered for fewer steps than it was given. */
export class AnswerTooShortError extends Error {
  override name = 'AnswerTooShortError' as const;
  constructor(expected: number, got: number) {
    super(
      `the timing loop answered for ${got} of ${expected} measured steps; its error output says what ended it`,
    );
  }
}

export const AT_ONCE = 8;
/** More than the 20 ms that the kernel takes to remove a veth, and what weft writes after it has answered a DEL. */
export const REST_MS = 50;
/** What making and removing many namespaces leaves the kernel to do. */
const SETTLE_MS = 1_000;
const ROUNDS_A_BATCH = 20;
const BLOCK = 40;

const noSamples = (): AttachmentSamples => ({
  add: [],
  del: [],
  both: [],
  addAtOnce: { durationsMs: [], stretches: [] },
  delAtOnce: { durationsMs: [], stretches: [] },
});
