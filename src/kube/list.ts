import * as z from 'zod';
import { PARTIAL_METADATA_LIST, type KubeClient } from './client.ts';
import { GoneError } from './errors.ts';

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

export interface Listed<T> {
  readonly items: T[];
  /** From where to watch. */
  readonly resourceVersion: string;
}

/** Lists all objects, page by page; all pages are of one revision. */
export async function listAll(client: KubeClient, request: ListRequest): Promise<Listed<unknown>> {
  return listEach(client, request, (item) => item);
}

/**
 * The same, each object kept as what is read of it, as soon as it has arrived: neither the objects of a large cluster nor
 * the texts of a page would fit into memory all at once. Where the apiserver has forgotten the revision of the first
 * page meanwhile (410), the list starts anew, a few times: half of a list is none.
 */
export async function listEach<T>(
  client: KubeClient,
  request: ListRequest,
  read: (item: unknown) => T,
): Promise<Listed<T>> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await listOnce(client, request, read);
    } catch (error) {
      if (!(error instanceof GoneError) || attempt === MOST_ATTEMPTS) throw error;
    }
  }
}

/** A revision lives for minutes. Who cannot read all pages within that time is not helped by trying on and on. */
const MOST_ATTEMPTS = 3;

async function listOnce<T>(
  client: KubeClient,
  request: ListRequest,
  read: (item: unknown) => T,
): Promise<Listed<T>> {
  const items: T[] = [];
  const keep = (item: unknown) => void items.push(read(item));
  for (let next: string | undefined; ;) {
    const page = await listPage(client, request, next, keep);
    // A client may give all of them at once.
    page.items.forEach(keep);
    const { continue: following, resourceVersion } = page.metadata;
    if (following === undefined || following === '') return { items, resourceVersion };
    next = following;
  }
}

async function listPage(
  client: KubeClient,
  request: ListRequest,
  next: string | undefined,
  keep: (item: unknown) => void,
): Promise<z.output<typeof Page>> {
  return Page.parse(
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
      onItem: (text) => keep(JSON.parse(text)),
    }),
  );
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
