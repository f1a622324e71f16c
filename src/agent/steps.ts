/**
 * The moments of an attachment's life at which a crash leaves the most behind. In production nobody listens; a
 * test ends the process at each.
 */
export const ADD_STEPS = [
  'add:accepted',
  'add:claim-sent',
  'add:link-made',
  'add:claimed',
  'add:wired',
] as const;

export const DEL_STEPS = ['del:accepted', 'del:link-down', 'del:release-queued'] as const;

export type Step = (typeof ADD_STEPS)[number] | (typeof DEL_STEPS)[number];

export type StepObserver = (step: Step) => void;
