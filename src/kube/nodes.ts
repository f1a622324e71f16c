import * as z from 'zod';
import type { Labels } from '../api/index.ts';
import { tryParseAddress, type IPAddress } from '../net/index.ts';
import { STRATEGIC_MERGE_PATCH, type KubeClient } from './client.ts';
import { ForbiddenError, NotFoundError } from './errors.ts';
import { startInformer, type Informer, type InformerParts } from './informer.ts';
import { listAll } from './list.ts';
import { NODES } from './paths.ts';

/** What weft reads of a Node. */
export interface Node {
  readonly name: string;
  readonly uid: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Its InternalIPs in the order of the object, of both families. */
  readonly addresses: readonly IPAddress[];
  readonly isReady: boolean;
  /** Whether the Node says that its network does not work yet; undefined: it says nothing. */
  readonly networkUnavailable: boolean | undefined;
  /** What the condition WeftConsistent says, which its agent writes; undefined: there is none. */
  readonly consistent: ConditionState | undefined;
}

/** A condition of a Node, without its times. */
export interface ConditionState {
  readonly status: 'True' | 'False';
  readonly reason: string;
  readonly message: string;
}

/** @throws ZodError */
export function parseNode(object: unknown): Node {
  const { metadata, status } = NodeObject.parse(object);
  const condition = (type: string) => status.conditions.find((one) => one.type === type);
  const unavailable = condition('NetworkUnavailable')?.status;
  const consistent = condition(CONSISTENT);
  return {
    name: metadata.name,
    uid: metadata.uid,
    labels: metadata.labels,
    addresses: status.addresses
      .filter(({ type }) => type === 'InternalIP')
      .flatMap(({ address }) => tryParseAddress(address) ?? []),
    isReady: condition('Ready')?.status === 'True',
    networkUnavailable: unavailable === undefined ? undefined : unavailable !== 'False',
    consistent: consistent && {
      status: consistent.status === 'True' ? 'True' : 'False',
      reason: consistent.reason,
      message: consistent.message,
    },
  };
}

/** Watches one Node; the informer's key is its name. */
export function watchNode(parts: InformerParts, nodeName: string): Informer<Node> {
  return startInformer(parts, {
    path: NODES,
    fieldSelector: `metadata.name=${nodeName}`,
    parse: parseNode,
  });
}

/** Watches all Nodes. */
export function watchNodes(parts: InformerParts): Informer<Node> {
  return startInformer(parts, { path: NODES, parse: parseNode });
}

/** The labels of all Nodes, by name, without the rest of them. Undefined where this user may not see Nodes. */
export async function listNodeLabels(
  client: KubeClient,
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, Labels> | undefined> {
  try {
    const { items } = await listAll(client, { path: NODES, metadataOnly: true, signal });
    return new Map(
      items.map((item) => {
        const { name, labels } = NodeMetadata.parse(item).metadata;
        return [name, labels];
      }),
    );
  } catch (error) {
    if (error instanceof ForbiddenError) return undefined;
    throw error;
  }
}

/** A quorum read. Undefined: there is no Node of that name. */
export async function getNode(
  client: KubeClient,
  nodeName: string,
  signal?: AbortSignal,
): Promise<Node | undefined> {
  try {
    const path = `${NODES}/${nodeName}`;
    return parseNode(await client.request({ method: 'GET', path, signal }));
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
}

/** Tells the scheduler that the node's network works: condition NetworkUnavailable=False. */
export async function patchNodeNetworkAvailable(
  client: KubeClient,
  nodeName: string,
  now: Date,
  signal?: AbortSignal,
): Promise<void> {
  await patchCondition(
    client,
    nodeName,
    {
      type: 'NetworkUnavailable',
      status: 'False',
      reason: 'WeftIsUp',
      message: 'weft serves the pods of this node',
      lastTransitionTime: seconds(now),
    },
    { now, signal },
  );
}

/**
 * Writes the condition WeftConsistent of the Node, unless `seen`, the Node as it was last seen, says the same already:
 * whoever watches Nodes is told of each write. A Node that is gone is told nothing.
 */
export async function patchNodeConsistent(
  client: KubeClient,
  seen: Pick<Node, 'name' | 'consistent'>,
  condition: ConditionState,
  { now, signal }: { readonly now: Date; readonly signal?: AbortSignal | undefined },
): Promise<void> {
  const before = seen.consistent;
  const { status, reason, message } = condition;
  if (before?.status === status && before.reason === reason && before.message === message) return;
  // Absent from a patch: it stays as it is.
  const turn = before?.status === status ? {} : { lastTransitionTime: seconds(now) };
  const patched = { type: CONSISTENT, status, reason, message, ...turn };
  try {
    await patchCondition(client, seen.name, patched, { now, signal });
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error;
  }
}

/** Whether what the kernel of a node shows and what the objects say agree. */
const CONSISTENT = 'WeftConsistent';

async function patchCondition(
  client: KubeClient,
  nodeName: string,
  condition: ConditionState & { readonly type: string; readonly lastTransitionTime?: string },
  { now, signal }: { readonly now: Date; readonly signal: AbortSignal | undefined },
): Promise<void> {
  await client.request({
    method: 'PATCH',
    path: `${NODES}/${nodeName}/status`,
    contentType: STRATEGIC_MERGE_PATCH,
    body: { status: { conditions: [{ ...condition, lastHeartbeatTime: seconds(now) }] } },
    signal,
  });
}

function seconds(time: Date): string {
  return `${time.toISOString().slice(0, 19)}Z`;
}

const NodeMetadata = z.object({
  metadata: z.object({ name: z.string(), labels: z.record(z.string(), z.string()).default({}) }),
});

const NodeObject = z.object({
  metadata: z.object({
    name: z.string(),
    uid: z.string(),
    labels: z.record(z.string(), z.string()).default({}),
  }),
  status: z
    .object({
      addresses: z.array(z.object({ type: z.string(), address: z.string() })).default([]),
      conditions: z
        .array(
          z.object({
            type: z.string(),
            status: z.string(),
            reason: z.string().default(''),
            message: z.string().default(''),
          }),
        )
        .default([]),
    })
    .prefault({}),
});
