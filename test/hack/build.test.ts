import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { buildAll, compile } from '../../hack/build.ts';

const DIST = join(import.meta.dirname, '../../dist');

let elsewhere: string;
beforeEach(async () => {
  elsewhere = await mkdtemp(join(tmpdir(), 'weft-dist-'));
});
afterEach(() => rm(elsewhere, { recursive: true, force: true }));

it('leaves alone what has not changed', { timeout: 120_000 }, async () => {
  await buildAll();
  const again = await buildAll();
  expect(again.length).toBeGreaterThan(3);
  expect(again.filter(({ fresh }) => fresh)).toEqual([]);
});

it('compiles the same sources to the same bytes, wherever they are', { timeout: 120_000 }, async () => {
  const compiled = [];
  for (const folder of ['one', 'another']) {
    await mkdir(join(elsewhere, folder));
    const made = join(elsewhere, folder, 'hello');
    const source = `${made}.ts`;
    await writeFile(source, "console.log('hello');\n");
    await compile(source, made);
    expect(await readdir(join(elsewhere, folder))).toEqual(['hello', 'hello.ts']);
    compiled.push(await readFile(made));
  }
  expect(compiled[0]?.equals(compiled[1] ?? Buffer.alloc(0))).toBe(true);
});

it.each(['agent', 'controller'])(
  'makes an %s that starts where there is nothing else',
  { timeout: 120_000 },
  async (name) => {
    await buildAll();
    // As in the image: the bundles and the native part, no node_modules.
    for (const part of [`${name}.mjs`, 'koffi']) {
      await cp(join(DIST, part), join(elsewhere, part), { recursive: true });
    }
    const { stdout } = await execa('node', [join(elsewhere, `${name}.mjs`), '--help'], { cwd: elsewhere });
    expect(stdout).toMatch(/usage/i);
  },
);

it(
  'makes a kubectl-weft that runs where there is nothing else, not even Node',
  { timeout: 120_000 },
  async () => {
    await buildAll();
    await cp(join(DIST, 'kubectl-weft'), join(elsewhere, 'kubectl-weft'));
    const run = (args: readonly string[]) =>
      execa(join(elsewhere, 'kubectl-weft'), args, { cwd: elsewhere, env: { PATH: '' }, reject: false });
    expect((await run(['--version'])).stdout).toMatch(/^kubectl-weft \d/);
    const { exitCode, stderr } = await run(['pool', 'show', '--kubeconfig', '/nowhere']);
    expect([exitCode, stderr]).toEqual([3, expect.stringContaining('cannot read the kubeconfig /nowhere')]);
  },
);

it('reads a kubeconfig with a bundle of its own', { timeout: 120_000 }, async () => {
  await buildAll();
  for (const part of ['agent.mjs', 'kubeconfig.mjs', 'koffi']) {
    await cp(join(DIST, part), join(elsewhere, part), { recursive: true });
  }
  const { exitCode, all } = await execa(
    'node',
    [join(elsewhere, 'agent.mjs'), '--node-name=n', '--kubeconfig=/nowhere'],
    { cwd: elsewhere, reject: false, all: true },
  );
  expect(exitCode).not.toBe(0);
  expect(all).toContain('cannot read the kubeconfig /nowhere');
});
