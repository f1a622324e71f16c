import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile } from '../../../hack/build.ts';
import { environment, expectError, isThere, startMachine } from './machine.ts';

const MAIN = join(import.meta.dirname, '../../../src/cni/main.ts');

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-crash-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** The executable itself, with a fault beside it that nothing of it catches. */
describe('a fault in the executable', () => {
  it.each([
    ['thrown', "setTimeout(() => { throw new Error('a fault'); });"],
    ['rejected', "void Promise.reject(new Error('a fault'));"],
  ])(
    'that is %s is one CNI error object',
    async (name, fault) => {
      const source = join(directory, `${name.length}.ts`);
      const faulty = join(directory, `${name.length}`);
      await writeFile(source, `import ${JSON.stringify(MAIN)};\n${fault}\n`);
      await compile(source, faulty);
      await using machine = await startMachine(faulty);
      await machine.serveSilently();
      expectError(await machine.call({}), 999, /^a fault$/);
    },
    60_000,
  );
});

it('obeys no file in the directory where the runtime stands', async () => {
  const standing = join(directory, 'standing');
  const mark = join(standing, 'obeyed');
  await mkdir(standing);
  await writeFile(join(standing, '.env'), 'CNI_COMMAND=VERSION\n');
  await writeFile(join(standing, 'bunfig.toml'), 'preload = ["./preload.ts"]\n');
  await writeFile(join(standing, 'preload.ts'), `require('fs').writeFileSync(${JSON.stringify(mark)}, '');`);
  await using machine = await startMachine();
  expectError(await machine.call({ env: {}, cwd: standing }), 4, /CNI_COMMAND/);
  expect((await machine.call({ env: environment('VERSION'), cwd: standing })).exitCode).toBe(0);
  expect(await isThere(mark)).toBe(false);
}, 60_000);
