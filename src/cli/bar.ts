import type { Cell } from './table.ts';
import type { Style } from './style.ts';

/** How many addresses can be had, and who has them. */
export interface Shares {
  readonly allocated: bigint;
  readonly resting: bigint;
  readonly free: bigint;
}

/**
 * A bar of use, `width` characters long, three at the least: allocated, resting and free, each with a sign of its own,
 * so that it can be read without colours too. Whatever there is of a kind shows: a bar is empty only where nothing is
 * in use, and full only where nothing is free.
 */
export function bar(shares: Shares, width: number, style: Style): Cell {
  const { allocated, resting, free } = shares;
  const whole = allocated + resting + free;
  if (whole === 0n) return { text: EMPTY.repeat(width), paint: style.dim };
  const kept = (count: bigint) => (count > 0n ? 1 : 0);
  const most = width - kept(allocated) - kept(free);
  const faint = RESTING.repeat(Math.min(most, Math.max(kept(resting), scaled(resting, whole, width))));
  const room = width - faint.length - kept(free);
  const eighths = Math.max(kept(allocated), scaled(allocated, whole, width * 8));
  const solid = free === 0n ? FULL.repeat(room) : solidText(Math.min(eighths, room * 8));
  const rest = EMPTY.repeat(width - solid.length - faint.length);
  return {
    text: solid + faint + rest,
    paint: () => `${paintOf(shares, style)(solid)}${style.yellow(faint)}${style.dim(rest)}`,
  };
}

/** What share of the addresses that can be had is in use or rests: "0%", "<1%", … ">99%", "100%". */
export function shareText({ allocated, resting, free }: Shares): string {
  const used = allocated + resting;
  const whole = used + free;
  if (whole === 0n || used === 0n) return '0%';
  if (free === 0n) return '100%';
  const percent = scaled(used, whole, 100);
  return percent < 1 ? '<1%' : percent > 99 ? '>99%' : `${percent}%`;
}

/** What the signs mean. */
export function barLegend(style: Style): string {
  return `${style.green(FULL)} allocated  ${style.yellow(RESTING)} resting  ${style.dim(EMPTY)} free`;
}

const FULL = '█';
const PARTS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const RESTING = '▒';
const EMPTY = '·';

/** From this share on there is reason to look, and to act. */
const [WARNING, ALARM] = [75, 90];

function paintOf({ allocated, resting, free }: Shares, style: Style) {
  const percent = scaled(allocated + resting, allocated + resting + free, 100);
  return percent >= ALARM ? style.red : percent >= WARNING ? style.yellow : style.green;
}

/** `part` of `whole` on a scale, rounded down: the counts may pass 2^64. */
function scaled(part: bigint, whole: bigint, scale: number): number {
  return Number((part * BigInt(scale)) / whole);
}

function solidText(eighths: number): string {
  return `${FULL.repeat(Math.floor(eighths / 8))}${PARTS[eighths % 8] ?? ''}`;
}
