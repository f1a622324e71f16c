import { copyFile, mkdir, readFile, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openAuthority, writeKubeconfig } from '../../hack/cluster/certificates.ts';
import { coverDirectories } from './namespaces.ts';
import { eventually, pool, startNode, type TestAgent, type TestNode } from './node.ts';

/** An agent as a pod has it: by the files of a service account, which the kubelet renews under a running process. */

let node: TestNode;
let agent: TestAgent;
let authorities: string;
let token: string;
let renewals = 0;

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
  authorities = await readFile(node.plane.authority.certificateFile, 'utf8');
  await renewToken('first');
  for (const name of ['ca.crt', 'token']) await symlink(`..data/${name}`, join(ACCOUNT, name));
  const { hostname, port } = new URL(node.plane.url);
  agent = await node.startAgent({
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

test('another authority: ADDs say so until the files name it, and no agent is started for it (F32)', async () => {
  let ended = false;
  void agent.ended.then(() => (ended = true));
  await node.makeSandbox('trusted');
  await add('trusted');
  const old = authorities;
  const renewed = await replaceAuthority();
  const netns = await node.makeSandbox('untrusted');
  expect((await node.cni({ command: 'ADD', containerID: 'untrusted', netns })).answer).toMatchObject({
    code: 11,
    msg: expect.stringMatching(/certificate/) as string,
  });
  await deleteWhileAway('trusted');

  await publish({ authorities: old + renewed });
  await add('untrusted');
  await gone('trusted');

  await publish({ authorities: renewed });
  // Else the connections that there are would do.
  await node.plane.restartApiserver();
  await node.makeSandbox('renewed');
  await add('renewed');
  for (const id of ['untrusted', 'renewed']) {
    const del = { command: 'DEL', containerID: id, netns: `/run/netns/${id}` };
    expect((await node.cni(del)).exitCode).toBe(0);
    await gone(id);
  }
  expect(ended, agent.log().slice(-2_000)).toBe(false);
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

/** A token that is good for as long as a Secret of that name is there. */
async function renewToken(name: string): Promise<void> {
  await node.kubectl('-n', 'weft-system', 'create', 'secret', 'generic', name);
  const bound = ['--bound-object-kind=Secret', `--bound-object-name=${name}`];
  await publish({
    token: await node.kubectl('-n', 'weft-system', 'create', 'token', 'weft-agent', ...bound),
  });
}

/** Writes the files as a kubelet does: into a new folder, to which the old one's link is turned. */
async function publish(files: { readonly authorities?: string; readonly token?: string }): Promise<void> {
  authorities = files.authorities ?? authorities;
  token = files.token ?? token;
  const folder = `..${++renewals}`;
  await mkdir(join(ACCOUNT, folder), { recursive: true });
  await writeFile(join(ACCOUNT, folder, 'ca.crt'), authorities);
  await writeFile(join(ACCOUNT, folder, 'token'), token);
  await symlink(folder, join(ACCOUNT, '..data_tmp'));
  await rename(join(ACCOUNT, '..data_tmp'), join(ACCOUNT, '..data'));
}

/** Has the apiserver show a certificate of another authority of the same name; answers that authority's own. */
async function replaceAuthority(): Promise<string> {
  const { authority, apiserver, admin, kubeconfig, url } = node.plane;
  const other = await openAuthority(join(authority.directory, 'renewed'));
  const pair = await other.issue({
    name: 'apiserver',
    commonName: 'kube-apiserver',
    hosts: ['127.0.0.1', '::1', 'localhost'],
  });
  const renewed = await readFile(other.certificateFile, 'utf8');
  // Whoever else asks, believes both.
  await writeFile(authority.certificateFile, (await readFile(authority.certificateFile, 'utf8')) + renewed);
  await writeKubeconfig(kubeconfig, url, authority, admin);
  await copyFile(pair.certificateFile, apiserver.certificateFile);
  await copyFile(pair.keyFile, apiserver.keyFile);
  await node.plane.restartApiserver();
  return renewed;
}
