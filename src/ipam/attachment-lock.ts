import { orAborted } from './deadline.ts';
import { SupersededError } from './errors.ts';

/** What identifies an attachment: the sandbox and its interface. Never a pod's name. */
export interface AttachmentKey {
  readonly containerID: string;
  readonly ifName: string;
}

export interface LockOptions {
  /** Ends what runs and what waits for this attachment, as a DEL ends an ADD in flight. Not itself aborted so. */
  readonly abortPrevious?: boolean;
  /** The caller's own reason to stop: handed on to `fn`, and ends the waiting. */
  readonly signal?: AbortSignal;
}

/** One queue per attachment: ADD, DEL, sweep and a release under way never act on one at the same time. */
export interface AttachmentLocks {
  /**
   * Runs `fn` when all that was asked for before it for this attachment has ended, and answers what it answers.
   * @throws SupersededError if a later run with `abortPrevious` came before it could start (`fn` never ran then)
   */
  run<T>(key: AttachmentKey, fn: (signal: AbortSignal) => Promise<T>, options?: LockOptions): Promise<T>;
  /** The attachments for which something runs or waits, as attachmentID gives them. */
  inFlight(): ReadonlySet<string>;
}

/** The key as text, for sets and maps. */
export function attachmentID({ containerID, ifName }: AttachmentKey): string {
  return `${containerID}/${ifName}`;
}

export function createAttachmentLocks(): AttachmentLocks {
  const queues = new Map<string, Run[]>();

  return {
    async run(key, fn, { abortPrevious = false, signal } = {}) {
      const id = attachmentID(key);
      const queue = queues.get(id) ?? [];
      queues.set(id, queue);
      if (abortPrevious) {
        for (const run of queue) if (run.abortable) run.controller.abort(new SupersededError(id));
      }
      const previous = queue.at(-1)?.ended ?? Promise.resolve(undefined);
      const ended = Promise.withResolvers<undefined>();
      const mine: Run = {
        abortable: !abortPrevious,
        controller: new AbortController(),
        ended: ended.promise,
      };
      queue.push(mine);
      const ends =
        signal === undefined ? mine.controller.signal : AbortSignal.any([mine.controller.signal, signal]);
      try {
        await orAborted(previous, ends);
        ends.throwIfAborted();
        return await fn(ends);
      } finally {
        // Who gave up waiting still holds its place until those before it have ended: its successor waits on it.
        void previous.then(() => {
          queue.splice(queue.indexOf(mine), 1);
          if (queue.length === 0) queues.delete(id);
          ended.resolve(undefined);
        });
      }
    },
    inFlight: () => new Set(queues.keys()),
  };
}

interface Run {
  readonly abortable: boolean;
  readonly controller: AbortController;
  /** Resolves when the run and all before it have ended. Never rejects. */
  readonly ended: Promise<undefined>;
}
