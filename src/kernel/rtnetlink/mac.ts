/** 'aa:bb:cc:dd:ee:ff' as 6 bytes. */
export function macBytes(mac: string): Buffer {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(mac)) {
    throw new Error(`"${mac}" is not a MAC address: write six lower-case pairs, like 02:00:00:00:00:01`);
  }
  return Buffer.from(mac.replaceAll(':', ''), 'hex');
}

/** Six bytes as 'aa:bb:cc:dd:ee:ff'; undefined for any other length (tunnels have addresses of 4 or 16). */
export function macText(bytes: Buffer | undefined): string | undefined {
  if (bytes?.length !== 6) return undefined;
  return bytes.toString('hex').replace(/..(?!$)/g, '$&:');
}
