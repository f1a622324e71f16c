/**
 * The names that a runtime chooses. All have one alphabet: letters, digits, "_", "." and "-", a letter or digit
 * first. They stand together in the alias of a host end, which holds 255 bytes in all; hence the lengths.
 */
const MAX_NETWORK_NAME = 40;
const MAX_CONTAINER_ID = 128;
/** The kernel's IFNAMSIZ, less the zero byte. */
const MAX_INTERFACE_NAME = 15;

/** Whether a network configuration may have this name (specification, section 1; the length is ours). */
export function isNetworkName(name: unknown): name is string {
  return typeof name === 'string' && isWord(name, MAX_NETWORK_NAME);
}

export function isContainerID(text: string): boolean {
  return isWord(text, MAX_CONTAINER_ID);
}

/** Stricter than the kernel and than other plugins, which take "-x" and "a;b$c". */
export function isInterfaceName(text: string): boolean {
  return isWord(text, MAX_INTERFACE_NAME);
}

/**
 * The path of a network namespace as the agent sees it: its container has /run/netns and no /var/run, which on
 * hosts leads to /run.
 */
export function namespacePath(path: string): string {
  const alias = '/var/run/';
  return path.startsWith(alias) ? `/run/${path.slice(alias.length)}` : path;
}

/** By hand: the first regular expression costs the executable a tenth of its whole run. */
function isWord(text: string, maxLength: number): boolean {
  if (text.length === 0 || text.length > maxLength) return false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    const isAlphanumeric =
      (code >= 0x30 && code <= 0x39) || (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a);
    const isPunctuation = code === 0x5f || code === 0x2e || code === 0x2d;
    if (!isAlphanumeric && (i === 0 || !isPunctuation)) return false;
  }
  return true;
}
