import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { readSysctl, writeSysctl } from '../kernel/index.ts';

/** A setting of the kernel below /proc/sys/net, and its value before weft first changed it in this boot. */
export interface EarlierSetting {
  readonly path: readonly string[];
  readonly value: string;
}

/** In the run directory, which a boot empties, as it does the settings. */
export const EARLIER_SETTINGS_FILE = 'earlier-settings.json';

/**
 * Writes down what settings were, before they are changed: by this alone a node can be left as it was. What was written
 * down before stays: it is older.
 */
export function rememberSettings(runDirectory: string, settings: readonly EarlierSetting[]): void {
  const known = readEarlierSettings(runDirectory);
  const names = new Set(known.map(nameOf));
  const added = settings.filter((setting) => !names.has(nameOf(setting)));
  if (added.length === 0) return;
  const file = join(runDirectory, EARLIER_SETTINGS_FILE);
  const draft = `${file}.draft`;
  writeFileSync(draft, JSON.stringify([...known, ...added]), { mode: 0o600 });
  renameSync(draft, file);
}

/** What was written down, in that order; nothing where there is no such file, or none that can be read. */
export function readEarlierSettings(runDirectory: string): EarlierSetting[] {
  try {
    return Settings.parse(JSON.parse(readFileSync(join(runDirectory, EARLIER_SETTINGS_FILE), 'utf8')));
  } catch {
    return [];
  }
}

/**
 * Gives the kernel its earlier settings back, the switches before what follows them; links that have gone have none.
 * Returns what it changed, as `net.ipv4.ip_forward=0`.
 * @throws SysctlError
 */
export function restoreSettings(runDirectory: string, sysctlRoot: string): string[] {
  return readEarlierSettings(runDirectory).flatMap((setting) => {
    if (readSysctl(sysctlRoot, setting.path) === undefined) return [];
    return writeSysctl(sysctlRoot, setting.path, setting.value)
      ? [`${nameOf(setting)}=${setting.value}`]
      : [];
  });
}

const Settings = z.array(
  z.object({ path: z.array(z.string().regex(/^(?!\.{1,2}$)[^/\0]+$/)).min(2), value: z.string() }),
);

function nameOf({ path }: EarlierSetting): string {
  return `net.${path.join('.')}`;
}
