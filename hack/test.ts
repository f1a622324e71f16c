import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { execa } from 'execa';
import { z } from 'zod';
import { ensureBinaries } from './cluster/binaries.ts';

/**
 * The whole test run: format, lint and types, the build, then each layer of tests, from pure code to the whole
 * cluster. `npm test -- unit kernel` runs only the named layers. Ends with one line that counts all tests.
 */

interface Layer {
  readonly name: string;
  readonly about: string;
  /** Run inside network and mount namespaces of its own, so that nothing of the machine can be touched. */
  readonly isolated: boolean;
  /**
   * Files run one by one, each in a process (and, if isolated, in namespaces) of its own, so many of them at once: they
   * wait for the kernel or for a delay most of the time. Absent: the runner sees to all files itself.
   */
  readonly lanes?: number;
}

const LAYERS: readonly Layer[] = [
  { name: 'unit', about: 'pure code, and the executable against a socket', isolated: false },
  { name: 'apiserver', about: 'a real kube-apiserver, in namespaces', isolated: true, lanes: 2 },
  { name: 'kernel', about: 'a real kernel, in namespaces', isolated: true, lanes: 2 },
  { name: 'node', about: 'agent, executable, apiserver and kernel of one node', isolated: true, lanes: 2 },
  { name: 'e2e', about: 'a whole cluster', isolated: false },
];

const Report = z.object({
  numPassedTests: z.number(),
  numFailedTests: z.number(),
  numPendingTests: z.number(),
  numFailedTestSuites: z.number(),
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      message: z.string(),
      assertionResults: z.array(
        z.object({ fullName: z.string(), status: z.string(), failureMessages: z.array(z.string()) }),
      ),
    }),
  ),
});

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !LAYERS.some((layer) => layer.name === name));
if (unknown.length > 0) {
  console.error(`unknown layer ${unknown.join(', ')}; there are ${LAYERS.map((l) => l.name).join(', ')}`);
  process.exit(2);
}

const started = Date.now();
let passed = 0;
let failed = 0;
let skipped = 0;
/** Said again at the end: a layer's own report is far above by then. */
const failures: string[] = [];

announce('check: format, lint, types');
await countAsOne('check');
announce('build: executable and bundles');
await countAsOne('build');

const layers = LAYERS.filter(({ name }) => chosen.length === 0 || chosen.includes(name));
if (layers.some(({ isolated }) => isolated)) {
  announce('binaries: Kubernetes, etcd and containerd, which no namespace without a way out can build');
  await ensureBinaries();
}
for (const layer of layers) {
  announce(`${layer.name}: ${layer.about}`);
  await runLayer(layer);
}

announce('done');
for (const failure of failures) console.log(`failed: ${failure}`);
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exit(failed > 0 ? 1 : 0);

/** Counts as one test: a run whose check or build has failed never closes with "0 failed". */
async function countAsOne(script: string): Promise<void> {
  if (await succeeds('npm', ['run', '--silent', script])) {
    passed++;
    return;
  }
  failed++;
  failures.push(`npm run ${script}`);
}

async function runLayer(layer: Layer): Promise<void> {
  if (layer.lanes === undefined) return runTests(layer, []);
  const waiting = await filesOf(layer);
  const lane = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift())
      await runTests(layer, [file]);
  };
  await Promise.all(Array.from({ length: layer.lanes }, lane));
}

/** The longest first, so that none is left over at the end: a file's length is a guess at its time. */
async function filesOf({ name }: Layer): Promise<string[]> {
  const directory = join('test', name);
  const paths = (await readdir(directory, { recursive: true }))
    .filter((path) => path.endsWith('.test.ts'))
    .map((path) => join(directory, path));
  const sized = await Promise.all(paths.map(async (path) => ({ path, size: (await stat(path)).size })));
  return sized.sort((a, b) => b.size - a.size).map(({ path }) => path);
}

/** All tests of a layer, or those of some files. */
async function runTests(layer: Layer, files: readonly string[]): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-test-'));
  const reportPath = join(directory, 'report.json');
  const vitest = [
    'vitest',
    'run',
    '--project',
    layer.name,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${reportPath}`,
    ...files,
  ];
  const [program = '', ...args] = layer.isolated ? ['sh', 'hack/isolated.sh', ...vitest] : vitest;
  const ok = await succeeds(program, args, files.length > 0 ? 'when done' : 'at once');
  const report = await readReport(reportPath);
  await rm(directory, { recursive: true, force: true });
  if (report === undefined) {
    failed++;
    failures.push(`${[layer.name, ...files].join(' ')}: the test runner left no report`);
    return;
  }
  passed += report.numPassedTests;
  // A suite that fails before its first test counts no failed test: the layer has failed all the same.
  failed +=
    report.numFailedTests === 0 && !ok ? Math.max(1, report.numFailedTestSuites) : report.numFailedTests;
  skipped += report.numPendingTests;
  failures.push(...failuresOf(report).map((failure) => `${layer.name}: ${failure}`));
}

/** A file that fails before its first test has no failed test to name. */
function failuresOf({ testResults }: z.output<typeof Report>): string[] {
  return testResults
    .filter(({ status }) => status === 'failed')
    .flatMap(({ name, message, assertionResults }) => {
      const file = relative(process.cwd(), name);
      const tests = assertionResults.filter(({ status }) => status === 'failed');
      if (tests.length === 0) return [`${file}\n${briefly(message)}`];
      return tests.map(
        ({ fullName, failureMessages }) => `${file}: ${fullName}\n${briefly(failureMessages.join('\n'))}`,
      );
    });
}

/** The first lines of what failed, without the way through the code that led there. */
function briefly(message: string): string {
  const lines = stripVTControlCharacters(message)
    .split('\n')
    .filter((line) => line.trim() !== '' && !/^\s+at /.test(line));
  return lines
    .slice(0, 12)
    .map((line) => `    ${line.slice(0, 300)}`)
    .join('\n');
}

async function readReport(path: string): Promise<z.output<typeof Report> | undefined> {
  try {
    return Report.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch (error) {
    console.error(String(error));
    return undefined;
  }
}

/** `show`: runs side by side say what they have to say when they are done, one after the other. */
async function succeeds(
  program: string,
  args: readonly string[],
  show: 'at once' | 'when done' = 'at once',
): Promise<boolean> {
  const output =
    show === 'at once' ? ({ stdio: 'inherit' } as const) : ({ stdin: 'ignore', all: true } as const);
  const result = await execa(program, args, { ...output, reject: false });
  if (typeof result.all === 'string') console.log(result.all);
  if (result.failed) console.error(`${program} ${args.join(' ')}: ${result.shortMessage}`);
  return !result.failed;
}

function announce(what: string): void {
  console.log(`\n=== ${what} (${Math.round((Date.now() - started) / 1000)} s)`);
}
