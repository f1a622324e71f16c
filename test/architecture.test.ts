import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, expect, test } from 'vitest';

/** Imports point one way (design, section 11): this reads the import lines of every source and says who does not. */

const SRC = join(import.meta.dirname, '../src');

/** What a folder may import of the project; its own files are always allowed. '.' are the files beside the folders. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  net: [],
  api: ['net'],
  ipam: ['api', 'net'],
  dataplane: ['api', 'net'],
  cni: ['api', 'ipam', 'dataplane', 'net'],
  kernel: ['api', 'ipam', 'dataplane', 'net'],
  kube: ['api', 'ipam', 'dataplane', 'net'],
  metrics: ['kube', 'ipam', 'net', '.'],
  agent: ['metrics', 'kube', 'kernel', 'cni', 'api', 'ipam', 'dataplane', 'net', '.'],
  controller: ['metrics', 'kube', 'cni', 'api', 'ipam', 'dataplane', 'net', '.'],
  cli: ['agent', 'controller', 'kube', 'kernel', 'cni', 'api', 'ipam', 'dataplane', 'net', '.'],
  '.': ['ipam', 'net'],
};

/** Folders that decide and never act. */
const PURE = ['net', 'api', 'ipam', 'dataplane'];

/** Modules that compute and reach nothing outside of the process. */
const HARMLESS = new Set(['node:crypto', 'node:util', 'zod', 'ipaddr.js']);

/** The only files that may name these modules: one door to each outside world. */
const DOORS: Readonly<Record<string, readonly string[]>> = {
  'node:child_process': [],
  // The user's kubectl is another world than the kernel, whose folder loads what only a node has.
  execa: ['kernel/command.ts', 'cli/check/kubectl.ts'],
  koffi: ['kernel/libc.ts'],
  undici: ['kube/client.ts', 'kube/connect.ts', 'kube/http.ts'],
  'prom-client': ['metrics/registry.ts'],
  '@kubernetes/client-node': ['kube/connection.ts', 'kube/kubeconfig.ts'],
};

interface Import {
  readonly file: string;
  /** The module's name, or the path below src of the file. */
  readonly target: string;
  readonly isLocal: boolean;
  /** Types are gone when the code runs; `lazy` is loaded by the code itself when it wants to. */
  readonly when: 'start' | 'lazy' | 'never';
}

const files = globSync('**/*.ts', { cwd: SRC }).sort();
const imports = files.flatMap(importsOf);

test('the sources are found, and so are their imports', () => {
  expect(files.length).toBeGreaterThan(100);
  expect(imports.length).toBeGreaterThan(files.length);
  for (const { file, target, isLocal } of imports) {
    if (isLocal) expect(existsSync(join(SRC, target)), `${file} imports ${target}`).toBe(true);
  }
});

test('each folder has its rule', () => {
  expect([...new Set(files.map(folderOf))].filter((folder) => MAY_IMPORT[folder] === undefined)).toEqual([]);
});

test('imports point one way', () => {
  const wrong = imports.filter(({ file, target, isLocal }) => {
    const [from, to] = [folderOf(file), folderOf(target)];
    return isLocal && from !== to && MAY_IMPORT[from]?.includes(to) !== true;
  });
  expect(wrong.map(lineOf)).toEqual([]);
});

test('kube and kernel never import each other, and the controller never the kernel, through whatever file', () => {
  const pairs = [
    ['kube', 'kernel'],
    ['kernel', 'kube'],
    ['controller', 'kernel'],
    ['controller', 'agent'],
  ] as const;
  for (const [from, to] of pairs) {
    const reached = files
      .filter((file) => folderOf(file) === from)
      .flatMap((file) => [...reachable(file)].map((target) => ({ file, target })));
    expect(reached.filter(({ target }) => folderOf(target) === to)).toEqual([]);
  }
});

test('nobody imports a main file', () => {
  const mains = imports.filter(({ target, isLocal }) => isLocal && /(^|\/)main\.ts$/.test(target));
  expect(mains.map(lineOf)).toEqual([]);
});

test.each(PURE)('%s does no I/O', (folder) => {
  const outside = imports.filter(
    ({ file, target, isLocal }) => folderOf(file) === folder && !isLocal && !HARMLESS.has(target),
  );
  expect(outside.map(lineOf)).toEqual([]);
  const own = files.filter((file) => folderOf(file) === folder);
  const globals = own.filter((file) =>
    /\bfetch\(|\bprocess\.|\bsetTimeout\(|\bDate\.now\(|\bMath\.random\(|\bconsole\./.test(codeOf(file)),
  );
  expect(globals).toEqual([]);
});

test('the time of day is asked for where it is written down for people, and nothing is measured by it (F31)', () => {
  const places = files.filter((file) => /\bDate\.now\(|\bnew Date\(\)/.test(codeOf(file)));
  expect(places).toEqual([
    // The age of a mark that an earlier version has left.
    'cni/away.ts',
    // When a deletion was noted.
    'cni/main.ts',
    // The one clock; what it calls wallTime is the following files'.
    'system-clock.ts',
  ]);
  const users = files.filter((file) => /\bwallTime\(\)/.test(codeOf(file)) && !file.startsWith('cli/'));
  expect(users).toEqual([
    'agent/run.ts',
    'agent/serving.ts',
    'agent/snapshot.ts',
    'controller/pools.ts',
    'controller/subnet-hold.ts',
    'ipam/clock.ts',
    'ipam/release.ts',
    'kube/events.ts',
    'kube/lease.ts',
  ]);
});

describe('one door to each outside world', () => {
  test.each(Object.entries(DOORS))('%s', (module, allowed) => {
    const users = imports.filter(
      ({ target, isLocal, when }) =>
        !isLocal && when !== 'never' && (target === module || target.startsWith(`${module}/`)),
    );
    expect(users.filter(({ file }) => !allowed.includes(file)).map(lineOf)).toEqual([]);
  });

  test('no program is started otherwise', () => {
    const starting = files.filter(
      (file) =>
        file !== 'kernel/command.ts' && /\b(shell: true|Bun\.spawn|execFile|spawnSync?)\b/.test(codeOf(file)),
    );
    expect(starting).toEqual([]);
  });
});

describe('the executable, whose imports every pod pays for', () => {
  const needed = ['cni/main.ts', ...reachable('cni/main.ts')];

  test('imports no module: what it needs when the agent is away it loads then', () => {
    const libraries = imports.filter(
      ({ file, isLocal, when }) => needed.includes(file) && !isLocal && when === 'start',
    );
    expect(libraries.map(lineOf)).toEqual([]);
  });

  test('stays inside its folder', () => {
    expect(needed.filter((file) => folderOf(file) !== 'cni')).toEqual([]);
  });
});

/** Every import and re-export of a file. A line of `import type` is gone when the code runs. */
function importsOf(file: string): Import[] {
  const text = codeOf(file);
  const statements = text.matchAll(
    /^(?:import|export)\s(type\s)?[^;'"]*?from\s+'([^']+)'|^import\s+'([^']+)'|\b(?:import|require|getBuiltinModule)\('([^']+)'\)/gm,
  );
  return [...statements].map(([, type, from, bare, lazy]) => {
    const name = from ?? bare ?? lazy ?? '';
    const isLocal = name.startsWith('.');
    return {
      file,
      target: isLocal ? relative(SRC, join(SRC, dirname(file), name)) : name,
      isLocal,
      when: lazy !== undefined ? 'lazy' : type === undefined ? 'start' : 'never',
    };
  });
}

/** The files that are loaded with this one. */
function reachable(file: string, seen = new Set<string>()): Set<string> {
  for (const { file: from, target, isLocal, when } of imports) {
    if (from !== file || !isLocal || when === 'never' || seen.has(target)) continue;
    seen.add(target);
    reachable(target, seen);
  }
  return seen;
}

function codeOf(file: string): string {
  return readFileSync(join(SRC, file), 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
}

function folderOf(file: string): string {
  return file.includes('/') ? file.slice(0, file.indexOf('/')) : '.';
}

function lineOf({ file, target }: Import): string {
  return `${file} imports ${target}`;
}
