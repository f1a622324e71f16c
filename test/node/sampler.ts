import { readdirSync, renameSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Loaded into an agent ahead of its own code (`--import`): on SIGUSR2 it collects what is garbage and writes into
 * WEFT_TEST_SAMPLE what the process still holds.
 */

/** What a process holds at one moment. */
export interface Sample {
  /** Of the JavaScript heap, after a collection; in bytes. */
  readonly heapBytes: number;
  /** Buffers outside of the heap; in bytes. */
  readonly bufferBytes: number;
  readonly residentBytes: number;
  readonly openFiles: number;
  /** Timers, sockets and whatever else keeps the event loop going, by kind. */
  readonly resources: Readonly<Record<string, number>>;
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

process.on('SIGUSR2', () => {
  const file = process.env.WEFT_TEST_SAMPLE;
  if (file === undefined) return;
  // What the first one finds dead may have finalizers, whose garbage the second one takes.
  collect();
  setImmediate(() => {
    collect();
    const { heapUsed, external, rss } = process.memoryUsage();
    const resources: Record<string, number> = {};
    for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1;
    const sample: Sample = {
      heapBytes: heapUsed,
      bufferBytes: external,
      residentBytes: rss,
      // One of them is the reading itself.
      openFiles: readdirSync('/proc/self/fd').length - 1,
      resources,
    };
    writeFileSync(`${file}.draft`, JSON.stringify(sample));
    renameSync(`${file}.draft`, file);
  });
});
