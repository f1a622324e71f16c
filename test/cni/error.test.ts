import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cniErrorObject } from '../../src/cni/index.ts';
import * as ipam from '../../src/ipam/errors.ts';
import { InvalidNamespaceError, LinkExistsError } from '../../src/kernel/index.ts';

const SOURCES = join(import.meta.dirname, '../../src');

describe('cniErrorObject', () => {
  it.each([
    [new InvalidNamespaceError('/x', 'missing', 'there is no such file'), 4],
    [new InvalidNamespaceError('/x', 'notAccessible', 'opening it failed: EMFILE'), 104],
    [new InvalidNamespaceError('/x', 'hostNamespace', "it is the host's own"), 8],
    [new LinkExistsError('eth0', 'pod', undefined), 106],
    [new ipam.NoPoolError([], { nodeName: 'n1' }), 11],
    [new ipam.InvalidAnnotationError('Pod a/b', 'x/y', 'z', 'it is no name'), 105],
    [new ipam.FixedAddressError({ family: 'ipv4', value: 1n }, 'it is reserved'), 105],
    [new ipam.AddressTakenError({ family: 'ipv4', value: 1n }, "is another's"), 11],
    [new ipam.ClaimDeadlineError('default', 1, undefined), 11],
    [new ipam.SubnetUnavailableError('default', 'ipv4', 'it is full'), 11],
    [
      new ipam.IsolatedPoolFullError('blue', new ipam.SubnetUnavailableError('blue', 'ipv4', 'none is free')),
      11,
    ],
    [new TypeError('x'), 999],
    ['no error at all', 999],
  ])('gives %s its code', (error, code) => {
    expect(cniErrorObject(error, '1.0.0').code).toBe(code);
  });

  it('tells the causes as details', () => {
    const error = new Error('a', { cause: new Error('b', { cause: new Error('c') }) });
    expect(cniErrorObject(error, '1.0.0')).toEqual({
      cniVersion: '1.0.0',
      code: 999,
      msg: 'a',
      details: 'b: c',
    });
  });

  it('does not look up codes among what every object has', () => {
    const error = new Error('x');
    error.name = 'constructor';
    expect(cniErrorObject(error, '1.0.0').code).toBe(999);
  });

  it('has no code for a class that is nowhere, and none that is 3', async () => {
    const table = /const CODES[^{]*\{(.*?)\n\};/s.exec(
      await readFile(join(SOURCES, 'cni/error.ts'), 'utf8'),
    )?.[1];
    const rows = [...(table ?? '').matchAll(/^ {2}(\w+): (\d+),$/gm)].map(([, name, code]) => ({
      name,
      code,
    }));
    expect(rows.length).toBeGreaterThan(15);
    const declared = await declaredClasses();
    expect(rows.filter(({ name }) => name === undefined || !declared.has(name))).toEqual([]);
    expect(rows.filter(({ code }) => code === '3')).toEqual([]);
  });
});

async function declaredClasses(): Promise<Set<string>> {
  const names = new Set<string>();
  for (const file of await readdir(SOURCES, { recursive: true })) {
    if (!file.endsWith('.ts')) continue;
    const text = await readFile(join(SOURCES, file), 'utf8');
    for (const [, name] of text.matchAll(/^export class (\w+)/gm)) if (name !== undefined) names.add(name);
  }
  return names;
}
