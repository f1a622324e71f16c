/**
 * The moments of an attachment's life at which a crash leaves the most behind. In production nobody listens; a
 * test ends the process at each.
 */
export const ADD_STEPS = [
  'add:accepted',
  'add:claim-sent',
  'add:link-made',
  'add:claimed',
  'add:rules-set',
  'add:wired',
] as const;

export const DEL_STEPS = ['del:accepted', 'del:link-down', 'del:release-queued'] as const;

/** Those that only an address outside the node's own subnets comes by: between the object and the way to it. */
export const LEADING_STEPS = ['claim:not-led-yet', 'claim:led', 'release:not-led-any-more'] as const;

export type Step = (typeof ADD_STEPS)[number] | (typeof DEL_STEPS)[number] | (typeof LEADING_STEPS)[number];

export type StepObserver = (step: Step) => void;
