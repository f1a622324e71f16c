import { describe, expect, it } from 'vitest';
import { CallFailedError, runPlan, type Step } from '../../../hack/bench/calls.ts';
import { openSpawner, SpawnError, type Command, type Spawner } from '../../../hack/bench/spawn.ts';

const call = (name: string): Command => ({ argv: [name] });
const plan = (...steps: Step[]) => ({ environment: {}, steps });
const measured = (inFlight: number, ...names: string[]): Step => ({
  kind: 'calls',
  calls: names.map(call),
  inFlight,
  restMs: 0,
});

/** Processes end in the order given by their names' numbers; remembers what was running at once. */
function fakeSpawner(failing?: string): Spawner & { readonly log: string[]; most: number } {
  const running = new Map<number, string>();
  let pid = 100;
  return {
    log: [],
    most: 0,
    start({ argv }) {
      running.set(++pid, argv[0]);
      this.log.push(argv[0]);
      this.most = Math.max(this.most, running.size);
      return pid;
    },
    next() {
      const [ended] = [...running].sort(([, a], [, b]) => a.localeCompare(b));
      if (ended === undefined) throw new Error('nothing runs');
      running.delete(ended[0]);
      return { pid: ended[0], failure: ended[1] === failing ? 'ended with 1' : undefined };
    },
  };
}

describe('runPlan', () => {
  it('keeps so many calls in flight, and answers durations in the order of the calls', () => {
    const spawner = fakeSpawner();
    const [timed] = runPlan(plan(measured(2, 'c', 'b', 'a')), spawner);
    expect(spawner.most).toBe(2);
    expect(timed?.durationsMs).toHaveLength(3);
    expect(timed?.durationsMs.every((ms) => ms >= 0)).toBe(true);
  });

  it('runs one after the other, what is aside between what is measured', () => {
    const spawner = fakeSpawner();
    const timed = runPlan(
      plan(
        { kind: 'aside', command: call('z') },
        measured(1, 'c', 'b'),
        { kind: 'pause', ms: 1 },
        measured(1, 'a'),
      ),
      spawner,
    );
    expect(spawner.log).toEqual(['z', 'c', 'b', 'a']);
    expect(spawner.most).toBe(1);
    expect(timed.map(({ durationsMs }) => durationsMs.length)).toEqual([2, 1]);
  });

  it('ends at the first call that fails, when all have ended', () => {
    const spawner = fakeSpawner('a');
    expect(() => runPlan(plan(measured(2, 'b', 'a', 'c')), spawner)).toThrow(CallFailedError);
    expect(() => spawner.next()).toThrow('nothing runs');
  });

  it('does not measure the rest before a call', () => {
    const [timed] = runPlan(
      plan({ kind: 'calls', calls: [call('a')], inFlight: 1, restMs: 60 }),
      fakeSpawner(),
    );
    expect(timed?.durationsMs[0]).toBeLessThan(40);
    expect(timed?.ms).toBeGreaterThan(50);
  });
});

describe('openSpawner', () => {
  const shell = (script: string, more: Partial<Command> = {}): Command => ({
    argv: ['/bin/sh', '-c', script],
    ...more,
  });

  it('starts with the given environment and stdin, and says how a process ended', () => {
    const spawner = openSpawner({ NAME: 'value' });
    const outcome = (command: Command) => {
      const pid = spawner.start(command);
      const ended = spawner.next();
      expect(ended.pid).toBe(pid);
      return ended.failure;
    };
    expect(outcome(shell('test "$NAME" = value && test -z "$HOME"'))).toBeUndefined();
    expect(
      outcome(shell('test "$NAME $OTHER" = "value 2"', { environment: { OTHER: '2' } })),
    ).toBeUndefined();
    expect(
      outcome(shell('read -r word rest && test "$word" = import', { stdin: import.meta.filename })),
    ).toBeUndefined();
    expect(outcome(shell('exit 3'))).toBe('ended with 3');
    expect(outcome(shell('kill -9 $$'))).toBe('was ended by signal 9');
    // Node ignores SIGPIPE; what it starts here does not.
    expect(outcome(shell('kill -PIPE $$; exit 0'))).toBe('was ended by signal 13');
  });

  it('throws for a program that is not there', () => {
    expect(() => openSpawner({}).start({ argv: ['/nonexistent'] })).toThrow(SpawnError);
  });
});
