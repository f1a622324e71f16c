import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { lookup } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  getLink,
  InvalidNamespaceError,
  listLinks,
  namespaceIdentity,
  openNamespaceSocket,
  sameNamespace,
} from '../../src/kernel/index.ts';
import { useThrowaways } from './throwaway.ts';

const { own, make } = useThrowaways();
const pod = make('pod');
const other = make('other');

const folder = mkdtempSync(join(tmpdir(), 'weft-namespaces-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

describe('a namespace socket', () => {
  test('works in the namespace of its path and nowhere else', () => {
    pod.addLink('only-here');
    expect(getLink(pod.namespace.socket, { name: 'only-here' })?.kind).toBe('veth');
    expect(listLinks(other.namespace.socket).map((link) => link.name)).toEqual(['lo']);
  });

  test('a path is identified by its namespace, not by its name', () => {
    const inode = BigInt(/\[(\d+)\]/.exec(pod.sh('readlink /proc/self/ns/net'))?.[1] ?? '0');
    expect(namespaceIdentity(pod.path).inode).toBe(inode);
    expect(sameNamespace(namespaceIdentity(pod.path), pod.namespace.identity)).toBe(true);
    expect(sameNamespace(namespaceIdentity(other.path), pod.namespace.identity)).toBe(false);
  });
});

describe('what is not a network namespace of a pod is refused', () => {
  const fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const file = join(folder, 'file');
  writeFileSync(file, 'x');
  // A writer makes a blocking open of the FIFO return; without one it would hang for ever.
  test.each([
    ['a FIFO', fifo, 'notNamespace'],
    ['a regular file', file, 'notNamespace'],
    ['a directory', folder, 'notNamespace'],
    ['a path with nothing at it', join(folder, 'nothing'), 'missing'],
    ['a path through a file', join(file, 'x'), 'missing'],
    ['a namespace of another kind', '/proc/self/ns/mnt', 'notNamespace'],
    ["the host's own", '/proc/self/ns/net', 'hostNamespace'],
    ["the host's own by another path", `/proc/${process.pid}/task/${process.pid}/ns/net`, 'hostNamespace'],
  ] as const)('%s', (_, path, reason) => {
    const error = refusalOf(() => openNamespaceSocket(own, path));
    expect(error.reason).toBe(reason);
    expect(error.message).toContain(path);
    if (reason === 'notNamespace' && !path.endsWith('/mnt')) {
      expect(refusalOf(() => namespaceIdentity(path)).message).toContain('not a namespace (nsfs) file');
    }
  });

  test('a process that is not seen: the way out is named', () => {
    expect(() => openNamespaceSocket(own, '/proc/4194305/ns/net')).toThrow('config/proc-netns');
  });

  test('a namespace that the caller forbids', () => {
    const error = refusalOf(() => openNamespaceSocket(own, other.path, [other.namespace.identity]));
    expect(error.reason).toBe('hostNamespace');
  });

  test('a path that may not be opened', () => {
    const script = `
      import { openNamespaceSocket, openOwnNamespace } from '${process.cwd()}/src/kernel/index.ts';
      const own = openOwnNamespace();
      process.setegid(65534); process.seteuid(65534);
      try { openNamespaceSocket(own, '/proc/1/ns/net'); } catch (error) { console.log(error.name, error.reason); }
      try { openNamespaceSocket(own, '${other.path}'); } catch (error) { console.log(error.name, error.reason); }`;
    const output = execFileSync('node', ['--input-type=module-typescript', '-e', script], {
      encoding: 'utf8',
    });
    expect(output).toBe('InvalidNamespaceError notAccessible\n'.repeat(2));
  });

  test('none of them leaves a descriptor open', () => {
    const before = readdirSync('/proc/self/fd').length;
    for (let i = 0; i < 50; i++) {
      refusalOf(() => openNamespaceSocket(own, file));
      refusalOf(() => openNamespaceSocket(own, '/proc/self/ns/mnt'));
      refusalOf(() => openNamespaceSocket(own, '/proc/self/ns/net'));
      openNamespaceSocket(own, other.path).close();
    }
    expect(readdirSync('/proc/self/fd').length).toBe(before);
  });
});

test('no thread stays in a pod after thousands of windows beside asynchronous work', async () => {
  const home = readlinkSync('/proc/self/ns/net');
  const work: Promise<unknown>[] = [];
  for (let i = 0; i < 3000; i++) {
    if (i % 10 === 0) work.push(readFile('/etc/hostname'), lookup('localhost'));
    openNamespaceSocket(own, i % 2 === 0 ? pod.path : other.path).close();
    if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(work);
  const threads = readdirSync('/proc/self/task').map((task) =>
    readlinkSync(`/proc/self/task/${task}/ns/net`),
  );
  expect(threads.length).toBeGreaterThan(4);
  expect([...new Set(threads)]).toEqual([home]);
});

test('the descriptor of a namespace is not inherited by programs', () => {
  const flags = /flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${pod.namespace.fd}`, 'utf8'))?.[1];
  const closeOnExec = 0o2000000;
  expect(Number.parseInt(flags ?? '0', 8) & closeOnExec).toBe(closeOnExec);
});

function refusalOf(action: () => unknown): InvalidNamespaceError {
  try {
    action();
  } catch (error) {
    if (error instanceof InvalidNamespaceError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}
