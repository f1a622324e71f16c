import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { VERSION } from '../src/version.ts';

test('what the parts say of themselves is what the package says', async () => {
  const text = await readFile(join(import.meta.dirname, '..', 'package.json'), 'utf8');
  expect(JSON.parse(text)).toMatchObject({ version: VERSION });
});
