import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { coverDirectories } from './namespaces.ts';
import { eventually, pool, startNode, type TestNode } from './node.ts';

/** An agent as a pod has it: by the files of a service account, which the kubelet renews under a running process. */

let node: TestNode;

const ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
const ADD_SECONDS = 6;

beforeAll(async () => {
  node = await startNode({ flags: [`--add-seconds=${ADD_SECONDS}`] });
  await node.apply(
    pool('credentials', {
      cidrs: ['10.32.0.0/24', 'fd00:32::/64'],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      reuseDelaySeconds: 1,
    }),
  );
  await node.makeNamespace('weft-system');
  await node.kubectl('-n', 'weft-system', 'create', 'serviceaccount', 'weft-agent');
  await node.kubectl(
    ...['create', 'clusterrolebinding', 'weft-agent', '--clusterrole=cluster-admin'],
    '--serviceaccount=weft-system:weft-agent',
  );
  await coverDirectories([ACCOUNT]);
  await copyFile(node.plane.authority.certificateFile, join(ACCOUNT, 'ca.crt'));
  await renewToken('first');
  const { hostname, port } = new URL(node.plane.url);
  await node.startAgent({
    kubeconfig: null,
    env: { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port },
  });
});

afterAll(() => node.stop());

test('a token that is revoked: ADDs say so, DELs succeed, and all is made up for when there is a new one (F32)', async () => {
  await node.makeSandbox('before');
  await add('before');
  // The token dies with the object that it is bound to.
  await node.kubectl('-n', 'weft-system', 'delete', 'secret', 'first');
  const netns = await node.makeSandbox('revoked');
  const refused = await eventually('the token to be refused', async () => {
    const { answer } = await node.cni({ command: 'ADD', containerID: 'revoked', netns });
    if (answer?.code !== undefined) return answer;
    await node.cni({ command: 'DEL', containerID: 'revoked', netns });
    return undefined;
  });
  expect(refused).toMatchObject({ code: 11, msg: expect.stringContaining('401 Unauthorized') as string });
  await deleteWhileAway('before');

  await renewToken('second');
  await add('revoked');
  await gone('before');
});

async function add(id: string): Promise<void> {
  const netns = `/run/netns/${id}`;
  await eventually(`an ADD of ${id} that succeeds`, async () => {
    const { answer } = await node.cni({ command: 'ADD', containerID: id, netns });
    return answer?.ips?.length === 2 ? true : undefined;
  });
}

async function deleteWhileAway(id: string): Promise<void> {
  const del = await node.cni({ command: 'DEL', containerID: id, netns: `/run/netns/${id}` });
  expect(del).toMatchObject({ exitCode: 0, stdout: '' });
  expect((await node.cni({ command: 'STATUS' })).exitCode).toBe(0);
  expect((await node.allocations(id)).map(({ released }) => released)).toEqual([false, false]);
}

async function gone(id: string): Promise<void> {
  await eventually(`no allocation of ${id}`, async () =>
    (await node.allocations(id)).length === 0 ? true : undefined,
  );
}

/** Writes a token as a kubelet does. It is good for as long as a Secret of that name is there. */
async function renewToken(name: string): Promise<void> {
  await node.kubectl('-n', 'weft-system', 'create', 'secret', 'generic', name);
  const bound = ['--bound-object-kind=Secret', `--bound-object-name=${name}`];
  const token = await node.kubectl('-n', 'weft-system', 'create', 'token', 'weft-agent', ...bound);
  await mkdir(ACCOUNT, { recursive: true });
  await writeFile(join(ACCOUNT, 'token'), token);
}
