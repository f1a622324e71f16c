import { ADDR_LIST } from './addr-list.ts';
import { ADDR_RELEASE } from './addr-release.ts';
import { ADDR_REQUEST } from './addr-request.ts';
import { CHECK } from './check.ts';
import type { Command } from './command.ts';
import { COMPLETION } from './completion.ts';
import { POOL_SHOW } from './pool-show.ts';

/** All commands, in the order of the help. */
export const COMMANDS: readonly Command[] = [
  ADDR_LIST,
  ADDR_REQUEST,
  ADDR_RELEASE,
  POOL_SHOW,
  CHECK,
  COMPLETION,
];
