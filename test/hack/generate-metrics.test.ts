import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { renderMetricsDocument } from '../../hack/generate-metrics.ts';

const file = join(import.meta.dirname, '..', '..', 'docs', 'metrics.md');

it('docs/metrics.md is what `npm run generate` writes from the registered metrics', async () => {
  const text = renderMetricsDocument();
  expect(text).toContain('| `weft_pool_addresses_free` | gauge | `pool`; `family` |');
  expect(text).toContain('| `weft_claim_tries_total` | counter | `result` (created, taken, retried) |');
  expect(await readFile(file, 'utf8'), 'docs/metrics.md is stale: npm run generate').toBe(text);
});
