import { readFileSync } from 'node:fs';

/** Where Linux shows the id of the running boot. Nodes of a local cluster share a kernel: they give another file. */
export const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id';

/** The file does not hold a boot id. */
export class InvalidBootIdError extends Error {
  override name = 'InvalidBootIdError' as const;
  readonly path: string;

  constructor(path: string, content: string) {
    super(`${path} holds "${content.slice(0, 80)}", not a boot id: a lower-case UUID is expected`);
    this.path = path;
  }
}

/** The id of the running boot. @throws InvalidBootIdError, or what reading the file throws */
export function readBootId(path: string = BOOT_ID_FILE): string {
  const content = readFileSync(path, 'utf8').trim();
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(content)) {
    throw new InvalidBootIdError(path, content);
  }
  return content;
}
