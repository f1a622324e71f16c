import * as z from 'zod';
import { NodeSnapshot } from '../../ipam/index.ts';
import { ExecError, type ExecInAgent } from './kubectl.ts';
import type { ApiReading } from './reading.ts';

/** A node of which nothing can be said, and why. */
export interface UnknownNode {
  readonly name: string;
  readonly reason: string;
}

export interface Snapshots {
  readonly snapshots: readonly NodeSnapshot[];
  readonly unknownNodes: readonly UnknownNode[];
}

/** What prints a snapshot, in the image that agents run. */
export const SNAPSHOT_COMMAND: readonly string[] = ['node', '/weft/snapshot.mjs'];

/** How many nodes are asked at once: each is a process here, and a stream through the apiserver. */
const AT_ONCE = 20;

/** Asks the agents of these nodes; each node either answers or is unknown. */
export async function readSnapshots(
  nodeNames: readonly string[],
  {
    agents,
    exec,
    signal,
  }: Pick<ApiReading, 'agents'> & { readonly exec: ExecInAgent; readonly signal: AbortSignal },
): Promise<Snapshots> {
  const snapshots: NodeSnapshot[] = [];
  const unknownNodes: UnknownNode[] = [];
  const waiting = [...nodeNames];
  const askNext = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const answer = await askNode(name, { agents, exec, signal });
      if (typeof answer === 'string') unknownNodes.push({ name, reason: answer });
      else snapshots.push(answer);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, askNext));
  return { snapshots, unknownNodes: unknownNodes.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

/** The node's snapshot, or why there is none. */
async function askNode(
  nodeName: string,
  {
    agents,
    exec,
    signal,
  }: Pick<ApiReading, 'agents'> & { readonly exec: ExecInAgent; readonly signal: AbortSignal },
): Promise<NodeSnapshot | string> {
  const running = agents.filter((agent) => agent.nodeName === nodeName);
  // In a rollout there are two, and either reaches the one that serves.
  const agent = running.find(({ isReady }) => isReady) ?? running[0];
  if (agent === undefined) return 'no weft-agent runs there';
  let text: string;
  try {
    text = await exec(agent.name, SNAPSHOT_COMMAND, signal);
  } catch (error) {
    if (error instanceof ExecError) return error.message;
    throw error;
  }
  return parseSnapshot(text, nodeName);
}

function parseSnapshot(text: string, nodeName: string): NodeSnapshot | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return `its agent answers no JSON: ${text.slice(0, 200)}`;
  }
  const parsed = NodeSnapshot.safeParse(value);
  if (!parsed.success) {
    return `its agent answers in another form, it may be of another version: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}`;
  }
  if (parsed.data.nodeName !== nodeName) return `its agent speaks for node ${parsed.data.nodeName}`;
  return parsed.data;
}
