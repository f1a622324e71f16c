import * as z from 'zod';
import { PARTIAL_METADATA_LIST, type KubeClient } from './client.ts';

export interface ListRequest {
  readonly path: string;
  readonly fieldSelector?: string;
  readonly labelSelector?: string;
  /** Metadata instead of whole objects. */
  readonly metadataOnly?: boolean;
  /**
   * The answer may come from the apiserver's cache if that is at least as new. Absent: a consistent list. Never 0:
   * a replica that lags would turn time back.
   */
  readonly notOlderThan?: string;
  readonly pageSize?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface Listed {
  readonly items: unknown[];
  /** From where to watch. */
  readonly resourceVersion: string;
}

/** Lists all objects, page by page; all pages are of one revision. */
export async function listAll(client: KubeClient, request: ListRequest): Promise<Listed> {
  const items: unknown[] = [];
  let next: string | undefined;
  for (;;) {
    const page = Page.parse(
      await client.request({
        method: 'GET',
        path: request.path,
        query: {
          fieldSelector: request.fieldSelector,
          labelSelector: request.labelSelector,
          limit: request.pageSize ?? 500,
          // A further page is of the first one's revision: asking for another is refused.
          ...(next === undefined ? freshness(request) : { continue: next }),
        },
        timeoutMs: 60_000,
        ...(request.metadataOnly === true ? { accept: PARTIAL_METADATA_LIST } : {}),
        signal: request.signal,
      }),
    );
    for (const item of page.items) items.push(item);
    next = page.metadata.continue;
    if (next === undefined || next === '') return { items, resourceVersion: page.metadata.resourceVersion };
  }
}

/** The names of all objects there, without the objects. */
export async function listNames(client: KubeClient, path: string, signal?: AbortSignal): Promise<string[]> {
  const { items } = await listAll(client, { path, metadataOnly: true, signal });
  return items.map((item) => Named.parse(item).metadata.name);
}

const Named = z.object({ metadata: z.object({ name: z.string() }) });

const Page = z.object({
  metadata: z.object({ resourceVersion: z.string(), continue: z.string().optional() }),
  items: z
    .array(z.unknown())
    .nullish()
    .transform((items) => items ?? []),
});

function freshness({ notOlderThan }: ListRequest): Record<string, string> {
  return notOlderThan === undefined
    ? {}
    : { resourceVersion: notOlderThan, resourceVersionMatch: 'NotOlderThan' };
}
