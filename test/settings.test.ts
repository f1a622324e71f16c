import { parseArgs } from 'node:util';
import { describe, expect, it } from 'vitest';
import {
  DEFAULT_SETTINGS,
  InvalidFlagError,
  settingFlags,
  settingsFrom,
  settingsHelp,
} from '../src/settings.ts';

const parse = (args: string[]) => settingsFrom(parseArgs({ args, options: settingFlags() }).values);

describe('the settings', () => {
  it('are those of the design where no flag says otherwise', () => {
    expect(parse([])).toEqual(DEFAULT_SETTINGS);
    expect(DEFAULT_SETTINGS).toMatchObject({
      sweepMs: 30_000,
      graceMs: 120_000,
      addDeadlineMs: 45_000,
      subnetWaitMs: 5_000,
      giveBackMs: 600_000,
      quarantineMs: 300_000,
      statusMs: 30_000,
      nearlyExhausted: 0.9,
    });
  });

  it('have a flag each, in the unit of its name', () => {
    const settings = parse([
      '--grace-seconds=0.5',
      '--nearly-exhausted-percent=75',
      '--quarantine-seconds=3',
    ]);
    expect(settings).toMatchObject({
      graceMs: 500,
      nearlyExhausted: 0.75,
      quarantineMs: 3_000,
      sweepMs: 30_000,
    });
  });

  it.each(['', '0', '-1', '1e3', '5s', 'NaN'])('refuse the value "%s" by name', (value) => {
    expect(() => parse([`--grace-seconds=${value}`])).toThrow(InvalidFlagError);
    expect(() => parse([`--grace-seconds=${value}`])).toThrow(
      `--grace-seconds=${value}: expected a number above 0`,
    );
  });

  it('are told by --help', () => {
    for (const flag of Object.keys(settingFlags())) expect(settingsHelp()).toContain(`--${flag}=`);
  });
});
