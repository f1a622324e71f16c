import * as libc from './libc.ts';

const CLOCK_BOOTTIME = 7;

/**
 * Milliseconds since the machine booted, sleep included: the clock that every process of the machine reads alike.
 * Asked of the kernel, since /proc/uptime is a container's own on some machines.
 * @throws SystemCallError
 */
export function uptimeMs(): number {
  const time = Buffer.alloc(16);
  if (libc.clockGettime(CLOCK_BOOTTIME, time) !== 0) {
    throw new libc.SystemCallError('clock_gettime(CLOCK_BOOTTIME)', libc.lastErrno());
  }
  return Number(time.readBigInt64LE(0)) * 1000 + Number(time.readBigInt64LE(8)) / 1e6;
}
