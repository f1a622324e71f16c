import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { z } from 'zod';
import { parseAddress, sameAddress } from '../../../src/net/index.ts';
import { addressesOf } from './paths.ts';
import type { Pod, Stage } from './stage.ts';

const Flow = z.object({
  flow: z.string(),
  sent: z.number(),
  lost: z.array(z.number()),
  errors: z.array(z.string()),
});
export type Flow = z.output<typeof Flow>;

/** Flows between two pods that are under way. */
export interface RunningFlows {
  /** Ends them and answers, for each, what was sent and which numbers did not come back. */
  end(): Promise<Flow[]>;
}

const PROGRAM = join(import.meta.dirname, 'flow-program.ts');
const PORT = '7007';

/** Opens a UDP flow and a TCP flow of each family from one pod to another, fifty numbers a second. */
export async function startFlows(stage: Stage, from: Pod, to: Pod): Promise<RunningFlows> {
  const echo = await startIn(stage, to, ['echo', PORT]);
  await once(echo.stdout, 'data');
  const sender = await startIn(stage, from, ['send', PORT, ...addressesOf(to)]);
  return {
    async end() {
      sender.stdin.end();
      const said = await text(sender.stdout);
      echo.stdin.end();
      return z.array(Flow).parse(JSON.parse(said));
    },
  };
}

/** The test image has no program for this: the machine's Node is run in the pod's network. */
async function startIn(stage: Stage, pod: Pod, args: readonly string[]) {
  const node = pod.spec.nodeName ?? '';
  const [address = ''] = addressesOf(pod);
  const own = (await stage.allocations()).find(({ spec }) =>
    sameAddress(spec.address, parseAddress(address)),
  );
  const path = own?.spec.attachment?.netns?.path;
  if (path === undefined) throw new Error(`no allocation says where the namespace of ${address} is`);
  const inside = ['nsenter', `--net=${path}`, process.execPath, PROGRAM, ...args];
  const [command, ...rest] = await stage.cluster.commandOn(node, inside);
  return spawn(command, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
}
