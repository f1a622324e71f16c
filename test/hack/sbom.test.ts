import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { buildAll, packageOf } from '../../hack/build.ts';
import { type BillOfMaterials, billOfMaterials, type Component } from '../../hack/sbom.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
const DIST = join(CHECKOUT, 'dist');

const parse = async <T>(schema: z.ZodType<T>, path: string) =>
  schema.parse(JSON.parse(await readFile(path, 'utf8')));

let bill: BillOfMaterials;
beforeAll(async () => {
  await buildAll();
  bill = await billOfMaterials();
  // On a new machine Go compiles the plugin first.
}, 600_000);

const isOfGo = ({ purl }: Component) => purl.startsWith('pkg:golang/');

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
    const bundled = bill.components.filter((component) => !isOfGo(component));
    expect(bundled.map(({ name, version }) => `${name}@${version}`).sort()).toEqual(names.sort());
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
    const others = /^pkg:(npm\/bun@|golang\/)/;
    expect(direct.filter((ref) => !others.test(ref)).sort()).toEqual(wanted.sort());
    const reached = new Set(direct);
    for (const ref of reached) for (const next of edges.get(ref) ?? []) reached.add(next);
    expect([...reached].sort()).toEqual(bill.components.map((component) => component['bom-ref']).sort());
  });

  it('has the plugin bandwidth with all that is compiled into it, and the Go that did it', () => {
    const modules = bill.components.filter(isOfGo);
    const names = modules.map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining([
        'stdlib',
        'github.com/containernetworking/plugins',
        'github.com/containernetworking/cni',
        'github.com/vishvananda/netlink',
      ]),
    );
    for (const { name, version, properties } of modules) {
      expect(version, name).toMatch(name === 'stdlib' ? /^\d+\.\d+/ : /^v\d+\.\d+\.\d+/);
      expect(properties?.[0]?.value.startsWith('h1:') ?? name === 'stdlib', name).toBe(true);
    }
  });

  it('gives each package its licence and the hash of its archive', () => {
    for (const { name, licenses, hashes } of bill.components.filter((component) => !isOfGo(component))) {
      expect(licenses, name).toHaveLength(1);
      expect(hashes?.[0]?.content, name).toMatch(/^[0-9a-f]{128}$/);
    }
  });

  it('is the same when it is made again', { timeout: 60_000 }, async () => {
    expect(await billOfMaterials()).toEqual(bill);
  });
});
