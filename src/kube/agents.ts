import * as z from 'zod';
import { startInformer, type Informer, type InformerParts } from './informer.ts';

/** What weft reads of an agent's pod: on which node it is, and whether it serves there. */
export interface AgentPod {
  readonly nodeName: string | undefined;
  readonly isReady: boolean;
}

/** Watches the pods of the DaemonSet `weft-agent`, by its label; keys are `namespace/name`. */
export function watchAgents(parts: InformerParts, namespace: string): Informer<AgentPod> {
  return startInformer(parts, {
    path: `/api/v1/namespaces/${namespace}/pods`,
    labelSelector: 'app.kubernetes.io/name=weft-agent',
    parse: parseAgentPod,
  });
}

/** @throws ZodError */
export function parseAgentPod(object: unknown): AgentPod {
  const { spec, status } = AgentPodObject.parse(object);
  return {
    nodeName: spec.nodeName,
    isReady: status.conditions.some((one) => one.type === 'Ready' && one.status === 'True'),
  };
}

const AgentPodObject = z.object({
  spec: z.object({ nodeName: z.string().optional() }),
  status: z
    .object({ conditions: z.array(z.object({ type: z.string(), status: z.string() })).default([]) })
    .default({ conditions: [] }),
});
