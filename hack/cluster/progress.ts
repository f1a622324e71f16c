/** Where a line about a long step goes; stdout is kept for what scripts read. */
export type Progress = (line: string) => void;

/** Lines on stderr with the seconds since this function was called. `now` is a clock in milliseconds. */
export function stderrProgress(now: () => number = () => performance.now()): Progress {
  const start = now();
  return (line) => process.stderr.write(`[${((now() - start) / 1000).toFixed(1).padStart(6)} s] ${line}\n`);
}

/** Says that `what` starts, that it goes on (every 20 s), and how long it took in seconds. */
export async function step<T>(progress: Progress, what: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const seconds = () => ((performance.now() - start) / 1000).toFixed(1);
  progress(`${what} …`);
  const ticking = setInterval(() => progress(`${what}: still at it after ${seconds()} s`), 20_000);
  ticking.unref();
  try {
    const result = await work();
    progress(`${what}: done in ${seconds()} s`);
    return result;
  } finally {
    clearInterval(ticking);
  }
}
