/**
 * Every duration and limit of agent and controller, in one place, each with a flag. A flag's value is a plain
 * number in the unit that its name ends with, decimals allowed: `--grace-seconds=5`.
 */
const SETTINGS = {
  sweepMs: {
    flag: 'sweep-seconds',
    value: 30,
    unit: 1000,
    about: 'how often an agent looks for leaks and repairs',
  },
  graceMs: {
    flag: 'grace-seconds',
    value: 120,
    unit: 1000,
    about: 'how long the sweep leaves alone what looks dead',
  },
  addDeadlineMs: {
    flag: 'add-seconds',
    value: 45,
    unit: 1000,
    about: 'how long an agent may take for an ADD',
  },
  subnetWaitMs: {
    flag: 'subnet-wait-seconds',
    value: 5,
    unit: 1000,
    about: 'how long an ADD waits for a subnet',
  },
  giveBackMs: {
    flag: 'give-back-seconds',
    value: 600,
    unit: 1000,
    about: 'how long a surplus subnet is kept empty',
  },
  spareAddresses: {
    flag: 'spare-addresses',
    value: 8,
    unit: 1,
    mayBeZero: true,
    about: 'how many addresses of a pool an agent keeps free on its node, besides those its pods wait for',
  },
  quarantineMs: {
    flag: 'quarantine-seconds',
    value: 300,
    unit: 1000,
    about: 'how long a Node must be gone before what it held is freed',
  },
  stickyKeepMs: {
    flag: 'sticky-keep-seconds',
    value: 300,
    unit: 1000,
    about: 'how long a sticky address is kept after its StatefulSet has gone or become smaller',
  },
  subnetHoldMs: {
    flag: 'subnet-hold-seconds',
    value: 90,
    unit: 1000,
    about: 'how long no node subnet is claimed after etcd went back to an older state',
  },
  statusMs: {
    flag: 'status-seconds',
    value: 30,
    unit: 1000,
    about: 'how often the numbers of a status may change',
  },
  auditMs: {
    flag: 'audit-seconds',
    value: 60,
    unit: 1000,
    about:
      'how often the controller looks whether the objects contradict each other, and an agent whether its node does',
  },
  nearlyExhausted: {
    flag: 'nearly-exhausted-percent',
    value: 90,
    unit: 0.01,
    about: 'the share of a pool in use from which it counts as nearly exhausted',
  },
  poolDeletionMs: {
    flag: 'pool-deletion-seconds',
    value: 60,
    unit: 1000,
    about: 'how long a deleted pool is kept at least, for claims that had already begun',
  },
  deletesPerSecond: {
    flag: 'deletes-per-second',
    value: 50,
    unit: 1,
    about: 'how many objects of gone nodes the controller deletes in a second',
  },
  leaseMs: {
    flag: 'lease-seconds',
    value: 15,
    unit: 1000,
    about: 'how long a silent leader stays the leader',
  },
} as const satisfies Record<string, Setting>;

interface Setting {
  readonly flag: string;
  readonly value: number;
  /** What one of the flag's unit is worth in the code's unit. */
  readonly unit: number;
  readonly mayBeZero?: boolean;
  readonly about: string;
}

type SettingName = keyof typeof SETTINGS;

/** The durations in milliseconds (…Ms), the share as a number from 0 to 1, the rate per second. */
export type Settings = Readonly<Record<SettingName, number>>;

/** A flag's value cannot be used. */
export class InvalidFlagError extends Error {
  override name = 'InvalidFlagError' as const;
  readonly flag: string;

  constructor(flag: string, value: string, expected: string) {
    super(`--${flag}=${value}: expected ${expected}`);
    this.flag = flag;
  }
}

/** The flags as node:util's parseArgs wants them, to be joined with a program's own. */
export function settingFlags(): Record<string, { type: 'string'; default: string }> {
  return Object.fromEntries(
    settingNames().map((name) => [
      SETTINGS[name].flag,
      { type: 'string' as const, default: String(SETTINGS[name].value) },
    ]),
  );
}

/** One line for each flag, for `--help`. */
export function settingsHelp(): string {
  return settingNames()
    .map((name) => `  --${SETTINGS[name].flag}=${SETTINGS[name].value}\n        ${SETTINGS[name].about}\n`)
    .join('');
}

/**
 * The settings from what parseArgs answered; a flag that is absent has its default.
 * @throws InvalidFlagError if a value is no number, or 0 where that means nothing
 */
export function settingsFrom(values: Readonly<Record<string, unknown>>): Settings {
  const read = (name: SettingName) => {
    const { flag, value: fallback, unit, mayBeZero = false }: Setting = SETTINGS[name];
    const given = values[flag];
    const text = typeof given === 'string' ? given : String(fallback);
    if (!/^[0-9]+(\.[0-9]+)?$/.test(text) || (Number(text) === 0 && !mayBeZero)) {
      throw new InvalidFlagError(flag, text, mayBeZero ? 'a number' : 'a number above 0');
    }
    return Number(text) * unit;
  };
  return Object.fromEntries(settingNames().map((name) => [name, read(name)])) as Settings;
}

/** The settings without any flag. */
export const DEFAULT_SETTINGS: Settings = settingsFrom({});

function settingNames(): SettingName[] {
  return Object.keys(SETTINGS) as SettingName[];
}
