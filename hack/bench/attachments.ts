import type { Cluster } from '../cluster/open.ts';
import { step, type Progress } from '../cluster/progress.ts';
import { attachmentFigures } from './attachment-figures.ts';
import { planAttachments } from './attachment-plan.ts';
import { contenders } from './contenders.ts';
import type { Figure } from './figures.ts';
import { clearNode, CNITOOL, CNITOOL_ENVIRONMENT, NODE_FOLDER, runOnNode, writeOnNode } from './on-node.ts';

/** ADD and DEL through cnitool in a node: weft beside ptp and bridge with host-local, in turns. */
export async function measureAttachments(
  cluster: Cluster,
  node: string,
  options: { readonly rounds: number; readonly dual: boolean },
  progress: Progress,
): Promise<Figure[]> {
  const competing = contenders(options);
  const { plan, files, read } = planAttachments({
    networks: competing.map(({ network }) => network),
    rounds: options.rounds,
    cnitool: CNITOOL,
    environment: CNITOOL_ENVIRONMENT,
    directory: `${NODE_FOLDER}/batches`,
  });
  await clearNode(cluster, node);
  try {
    await writeOnNode(cluster, node, competing, files);
    const timed = await step(progress, `ADD and DEL by ${competing.map(({ who }) => who).join(', ')}`, () =>
      runOnNode(cluster, node, plan),
    );
    const samples = read(timed);
    return attachmentFigures(
      new Map(
        competing.flatMap(({ who }, index) => {
          const of = samples[index];
          return of === undefined ? [] : [[who, of] as const];
        }),
      ),
    );
  } finally {
    await clearNode(cluster, node);
  }
}
