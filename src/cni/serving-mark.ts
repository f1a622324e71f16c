/**
 * The text of the serving mark: when the agent last touched it, in milliseconds since the machine booted. The time of
 * day may be set while a node runs, by an hour as well as by a second, and neither must make a living agent look dead
 * nor a dead one alive. Always of one length, so that it is written in place: on a full disk, too, once it is there.
 */
export function renderServingMark(uptimeMs: number): string {
  return `${String(Math.round(uptimeMs)).padStart(LENGTH, '0')}\n`;
}

const LENGTH = 15;

/** Undefined for a mark without: an earlier version's, or one that was made on a full disk. */
export function parseServingMark(text: string): number | undefined {
  return /^[0-9]{15}\n$/.test(text) ? Number(text) : undefined;
}
