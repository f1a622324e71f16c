import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { loadConnection } from '../../src/kube/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-kubeconfig-'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(dir, { recursive: true, force: true });
});

const connect = (options: { kubeconfig?: string; context?: string } = {}) =>
  loadConnection({ env: process.env, clock: createSystemClock(), ...options });

describe('loadConnection from a kubeconfig', () => {
  it('takes the current context, or the one that was asked for', async () => {
    const kubeconfig = await write('config', ['one', 'two']);
    expect((await connect({ kubeconfig })).server.host).toBe('one.example:6443');
    const { server, token } = await connect({ kubeconfig, context: 'two' });
    expect(server.host).toBe('two.example:6443');
    expect(await token({ fresh: false })).toBe('token-of-two');
  });

  it('says which contexts there are', async () => {
    const kubeconfig = await write('config', ['one', 'two']);
    await expect(connect({ kubeconfig, context: 'three' })).rejects.toThrow(
      `the kubeconfig ${kubeconfig} has no context "three": it has one, two`,
    );
  });

  it('joins the files that KUBECONFIG names: the first that says something is believed', async () => {
    const files = [
      join(dir, 'missing'),
      await write('a', ['one']),
      await write('b', ['two', 'one'], 'other'),
    ];
    vi.stubEnv('KUBECONFIG', files.join(':'));
    expect((await connect()).server.host).toBe('one.example:6443');
    expect((await connect({ context: 'two' })).server.host).toBe('two.other:6443');
    expect((await connect({ context: 'one' })).server.host).toBe('one.example:6443');
  });

  it('says which file it cannot read where none of them is there', async () => {
    vi.stubEnv('KUBECONFIG', '/nowhere/a:/nowhere/b');
    await expect(connect()).rejects.toThrow('cannot read the kubeconfig /nowhere/a:/nowhere/b');
  });

  it('prefers KUBECONFIG to the service account of the pod that it runs in', async () => {
    vi.stubEnv('KUBERNETES_SERVICE_HOST', '10.96.0.1');
    vi.stubEnv('KUBECONFIG', await write('a', ['one']));
    expect((await connect()).server.host).toBe('one.example:6443');
  });

  it('says so where there is none', async () => {
    vi.stubEnv('KUBECONFIG', undefined);
    vi.stubEnv('HOME', dir);
    await expect(connect()).rejects.toThrow(
      'there is no kubeconfig: name one with --kubeconfig or KUBECONFIG, or put it into ~/.kube/config',
    );
  });
});

async function write(name: string, contexts: readonly string[], domain = 'example'): Promise<string> {
  const file = join(dir, name);
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': contexts[0],
    clusters: contexts.map((one) => ({ name: one, cluster: { server: `https://${one}.${domain}:6443` } })),
    users: contexts.map((one) => ({ name: one, user: { token: `token-of-${one}` } })),
    contexts: contexts.map((one) => ({ name: one, context: { cluster: one, user: one } })),
  };
  await writeFile(file, JSON.stringify(config));
  return file;
}
