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
 * The same, each object kept as what is read of it: the whole objects of a large cluster would not fit into memory all
 * at once. While a page is read the next one is on its way. Where the apiserver has forgotten the revision of the first
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
  let page = await listPage(client, request, undefined);
  for (;;) {
    const { continue: next, resourceVersion } = page.metadata;
    const following = next === undefined || next === '' ? undefined : listPage(client, request, next);
    // What it fails with is told when it is waited for.
    following?.catch(() => undefined);
    for (const text of page.texts) items.push(read(JSON.parse(text)));
    // A client may give all of them at once.
    for (const item of page.items) items.push(read(item));
    if (following === undefined) return { items, resourceVersion };
    page = await following;
  }
}

async function listPage(
  client: KubeClient,
  request: ListRequest,
  next: string | undefined,
): Promise<z.output<typeof Page> & { readonly texts: readonly string[] }> {
  const texts: string[] = [];
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
      onItem: (text) => texts.push(text),
    }),
  );
  return { ...page, texts };
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
