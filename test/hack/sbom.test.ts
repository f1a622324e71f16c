import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { buildAll, packageOf } from '../../hack/build.ts';
import { type BillOfMaterials, billOfMaterials } from '../../hack/sbom.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
const DIST = join(CHECKOUT, 'dist');

const parse = async <T>(schema: z.ZodType<T>, path: string) =>
  schema.parse(JSON.parse(await readFile(path, 'utf8')));

let bill: BillOfMaterials;
beforeAll(async () => {
  await buildAll();
  bill = await billOfMaterials();
}, 120_000);

describe('the bill of materials', () => {
  it('has exactly what the source maps of the built bundles name, the native part, and the runtime inside', async () => {
    const maps = (await readdir(DIST)).filter((name) => name.endsWith('.mjs.map'));
    expect(maps).toContain('agent.mjs.map');
    const sources = await Promise.all(
      maps.map((map) => parse(z.object({ sources: z.array(z.string()) }), join(DIST, map))),
    );
    const folders = sources
      .flatMap((map) => map.sources)
      .flatMap((path) => packageOf(path) ?? [])
      .map((folder) => folder.replace(/^\.\.\//, ''));
    const installed = await Promise.all(
      [...new Set([...folders, `node_modules/@koromix/koffi-linux-${process.arch}`, 'node_modules/bun'])].map(
        (folder) =>
          parse(z.object({ name: z.string(), version: z.string() }), join(CHECKOUT, folder, 'package.json')),
      ),
    );
    const names = installed.map(({ name, version }) => `${name}@${version}`);
    expect(bill.components.map(({ name, version }) => `${name}@${version}`).sort()).toEqual(names.sort());
  });

  it('has every runtime dependency of package.json, bun, and of the rest only what these need', async () => {
    const { dependencies } = await parse(
      z.object({ dependencies: z.record(z.string(), z.string()) }),
      join(CHECKOUT, 'package.json'),
    );
    const wanted = Object.entries(dependencies).map(
      ([name, version]) => `pkg:npm/${name.replace('@', '%40')}@${version}`,
    );
    const edges = new Map(bill.dependencies.map(({ ref, dependsOn }) => [ref, dependsOn]));
    const direct = edges.get('pkg:npm/weft@0.1.0') ?? [];
    expect(direct.filter((ref) => !ref.startsWith('pkg:npm/bun@')).sort()).toEqual(wanted.sort());
    const reached = new Set(direct);
    for (const ref of reached) for (const next of edges.get(ref) ?? []) reached.add(next);
    expect([...reached].sort()).toEqual(bill.components.map((component) => component['bom-ref']).sort());
  });

  it('gives each its licence and the hash of its archive', () => {
    for (const { name, licenses, hashes } of bill.components) {
      expect(licenses, name).toHaveLength(1);
      expect(hashes[0]?.content, name).toMatch(/^[0-9a-f]{128}$/);
    }
  });

  it('is the same when it is made again', { timeout: 60_000 }, async () => {
    expect(await billOfMaterials()).toEqual(bill);
  });
});
