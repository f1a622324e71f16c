import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { renderCRDs } from '../../hack/generate-crds.ts';
import { customResourceDefinitions } from '../../src/api/crd.ts';

const folder = join(import.meta.dirname, '..', '..', 'crds');

describe('crds/', () => {
  it('is, but for its kustomization, what `npm run generate` writes from the schemas, and nothing else', async () => {
    const rendered = renderCRDs();
    const files = (await readdir(folder)).filter((file) => file !== 'kustomization.yaml');
    expect(files.sort()).toEqual(rendered.map(({ file }) => file).sort());
    for (const { file, text } of rendered) {
      expect(await readFile(join(folder, file), 'utf8'), `${file} is stale: npm run generate`).toBe(text);
    }
  });

  it.each(['1.1', '1.2'] as const)('means the same to a reader of YAML %s', (version) => {
    const read = renderCRDs().map(({ text }) => parse(text, { version }) as unknown);
    expect(read).toEqual(JSON.parse(JSON.stringify(customResourceDefinitions())));
  });
});
