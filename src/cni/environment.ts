import { excerpt, InvalidEnvironmentError } from './error.ts';
import { isContainerID, isInterfaceName } from './names.ts';

export const VERBS = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'] as const;

export type Verb = (typeof VERBS)[number];

/** What the runtime says in the environment, checked. `netns` is empty where a DEL comes without one. */
export type CniEnvironment =
  | {
      readonly verb: 'ADD' | 'CHECK' | 'DEL';
      readonly containerID: string;
      readonly ifName: string;
      readonly netns: string;
      readonly args: string;
    }
  | { readonly verb: 'GC' | 'STATUS' | 'VERSION' };

/** The variables that weft reads; nothing else of the environment leaves the executable. */
export const CNI_VARIABLES = [
  'CNI_COMMAND',
  'CNI_CONTAINERID',
  'CNI_IFNAME',
  'CNI_NETNS',
  'CNI_ARGS',
] as const;

type Variable = (typeof CNI_VARIABLES)[number];

/**
 * Checks the environment of a call (specification, section 2, "Parameters").
 * @throws InvalidEnvironmentError naming every variable that is missing, or the first that is malformed
 */
export function parseEnvironment(env: Readonly<Record<string, string | undefined>>): CniEnvironment {
  const command = env.CNI_COMMAND ?? '';
  const verb = VERBS.find((known) => known === command);
  if (command !== '' && verb === undefined) {
    throw new InvalidEnvironmentError(
      `unknown CNI_COMMAND: ${excerpt(command)}; weft knows ${VERBS.join(', ')}`,
    );
  }
  // Who calls without a command is told what an ADD needs, all at once.
  const rules = RULES.filter((rule) => rule.requiredFor.includes(verb ?? 'ADD'));
  const missing = rules.filter((rule) => (env[rule.variable] ?? '') === '').map((rule) => rule.variable);
  if (verb === undefined || missing.length > 0) {
    throw new InvalidEnvironmentError(`required env variables [${missing.join(',')}] missing`);
  }
  if (verb === 'GC' || verb === 'STATUS' || verb === 'VERSION') return { verb };
  for (const rule of RULES) {
    const value = env[rule.variable] ?? '';
    if (value !== '' && !rule.isValid(value)) {
      throw new InvalidEnvironmentError(`invalid ${rule.variable} "${excerpt(value)}": ${rule.mustBe}`);
    }
  }
  return {
    verb,
    containerID: env.CNI_CONTAINERID ?? '',
    ifName: env.CNI_IFNAME ?? '',
    netns: env.CNI_NETNS ?? '',
    args: env.CNI_ARGS ?? '',
  };
}

interface Rule {
  readonly variable: Variable;
  readonly requiredFor: readonly Verb[];
  readonly isValid: (value: string) => boolean;
  readonly mustBe: string;
}

const RULES: readonly Rule[] = [
  { variable: 'CNI_COMMAND', requiredFor: VERBS, isValid: () => true, mustBe: '' },
  {
    variable: 'CNI_CONTAINERID',
    requiredFor: ['ADD', 'DEL', 'CHECK'],
    isValid: isContainerID,
    mustBe: 'it must be 1 to 128 letters, digits, "_", "." or "-", a letter or digit first',
  },
  {
    variable: 'CNI_IFNAME',
    requiredFor: ['ADD', 'DEL', 'CHECK'],
    isValid: isInterfaceName,
    mustBe: 'it must be 1 to 15 letters, digits, "_", "." or "-", a letter or digit first',
  },
  {
    variable: 'CNI_NETNS',
    requiredFor: ['ADD', 'CHECK'],
    isValid: (value) => value.startsWith('/') && value.length < 4096,
    mustBe: 'it must be an absolute path',
  },
];
