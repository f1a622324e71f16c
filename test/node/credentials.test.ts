import { appendFile, copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openAuthority } from '../../hack/cluster/certificates.ts';
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

test("an apiserver with a new authority's certificate: the same, until the account's file names that one (F32)", async () => {
  await node.makeSandbox('rotated-before');
  await add('rotated-before');
  const authority = await openAuthority(join(dirname(node.plane.authority.directory), 'new-pki'));
  const serving = await authority.issue({
    name: 'apiserver',
    commonName: 'kube-apiserver',
    hosts: ['127.0.0.1', 'localhost'],
  });
  // Who starts the apiserver trusts both, as a cluster does in the middle of a rotation.
  const old = await readFile(node.plane.authority.certificateFile, 'utf8');
  await appendFile(node.plane.authority.certificateFile, await readFile(authority.certificateFile, 'utf8'));
  await copyFile(serving.certificateFile, node.plane.apiserver.certificateFile);
  await copyFile(serving.keyFile, node.plane.apiserver.keyFile);
  const both = `--certificate-authority=${node.plane.authority.certificateFile}`;
  await node.kubectl('config', 'set-cluster', 'weft', both, '--embed-certs=true');
  await node.plane.restartApiserver();
  expect(await readFile(join(ACCOUNT, 'ca.crt'), 'utf8')).toBe(old);

  const netns = await node.makeSandbox('rotated');
  const { answer } = await node.cni({ command: 'ADD', containerID: 'rotated', netns });
  expect(answer).toMatchObject({ code: 11, msg: expect.stringContaining('certificate') as string });
  await deleteWhileAway('rotated-before');

  await copyFile(authority.certificateFile, join(ACCOUNT, 'ca.crt'));
  await add('rotated');
  await gone('rotated-before');
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
