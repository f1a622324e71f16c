import { execa } from 'execa';
import { expect, it } from 'vitest';
import { buildCLI } from '../../hack/build.ts';
import { API_VERSION, IPPool } from '../../src/api/index.ts';
import { checkExitCode } from '../../src/cli/check/exit-code.ts';
import { runCheck, type CheckResult } from '../../src/cli/check/run-check.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runController } from '../../src/controller/run.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { keepingLog, mustSucceed, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';

// What a check makes of the objects alone; with an agent it is tested in test/node, with many in test/e2e.
const apiserver = useApiserver();

it('of nothing at all is clean', async () => {
  expect(await check()).toEqual({ findings: [], unknownNodes: [] });
});

it('says which nodes have no agent, and asks none where it cannot run', async () => {
  for (const [name, os] of [
    ['bare', 'linux'],
    ['other', 'windows'],
  ]) {
    await create({ apiVersion: 'v1', kind: 'Node', metadata: { name, labels: { 'kubernetes.io/os': os } } });
  }
  const result = await check();
  expect(result).toEqual({
    findings: [],
    unknownNodes: [{ name: 'bare', reason: 'no weft-agent runs there' }],
  });
  expect(checkExitCode(result)).toBe(3);
  await mustSucceed(apiserver().kubectl(['delete', 'nodes', 'bare', 'other']));
});

it('finds an object that cannot be read, and judges the others all the same', async () => {
  await withoutRules('ipallocations.ipam.weft.dev');
  // Two spellings of one address are two locks.
  await eventually('the apiserver to take anything', async () => {
    const made = await apiserver().kubectl(['create', '-f', '-'], allocation('second-spelling', 'FD00::1'));
    return made.exitCode === 0 || String(made.all).includes('AlreadyExists');
  });
  await create(allocation('10.0.0.1', '10.0.0.1'));
  const { findings } = await check();
  expect(findings.map(({ invariant, reason, object }) => `${invariant} ${reason} ${object.name}`)).toEqual([
    '6 Unreadable second-spelling',
    '5 PoolGone 10.0.0.1',
  ]);
  expect(findings[0]?.message).toMatch(/IPAllocation second-spelling cannot be read: .*write it as fd00::1/);
  expect(findings[0]?.object.uid).toBeDefined();

  // The program says the same, but for what is too young to be judged, and ends with 1 for scripts.
  const env = { KUBECONFIG: apiserver().plane.kubeconfig };
  const program = await buildCLI();
  const table = await execa(program, ['check'], { env, reject: false });
  expect([table.exitCode, table.stdout]).toEqual([
    1,
    expect.stringMatching(/^1\. IPAllocation second-spelling cannot be read: .*\n\n1 problem$/m),
  ]);
  const json = await execa(program, ['check', '-o', 'json'], { env, reject: false });
  expect([json.exitCode, JSON.parse(json.stdout)]).toMatchObject([
    1,
    { findings: [{ reason: 'Unreadable', object: { name: 'second-spelling' } }] },
  ]);
});

it('is told of by the leader all the time, where people look', async () => {
  const stop = new AbortController();
  const running = runController(
    parseControllerFlags([
      '--identity=one',
      '--namespace=default',
      `--probe-socket=${apiserver().dir}/check.sock`,
      '--metrics-address=',
      `--kubeconfig=${apiserver().plane.kubeconfig}`,
      '--audit-seconds=0.3',
      '--grace-seconds=1',
    ]),
    { clock: createSystemClock(), random: Math.random, env: {}, log: keepingLog(), signal: stop.signal },
  );
  await create({
    apiVersion: API_VERSION,
    kind: 'IPPool',
    metadata: { name: 'pods' },
    spec: { cidrs: ['10.5.0.0/24'] },
  });
  await eventually('its condition', async () => {
    const { stdout } = await apiserver().kubectl(['get', 'ippool', 'pods', '-o', 'json']);
    const { status } = IPPool.parse(JSON.parse(String(stdout)));
    const found = status?.conditions?.find(({ type }) => type === 'Consistent');
    return found?.status === 'False' && found.message.includes('IPAllocation second-spelling cannot be read');
  });
  await eventually('its Event', async () => {
    const { stdout } = await apiserver().kubectl(['get', 'events', '-n', 'default']);
    return /Warning +Unreadable +ipallocation\/second-spelling/.test(String(stdout));
  });
  stop.abort(new Error('the test has ended'));
  await running;
});

function check(): Promise<CheckResult> {
  return runCheck({
    client: apiserver().client,
    exec: () => Promise.reject(new Error('there is no agent to ask')),
    clock: createSystemClock(),
    namespace: 'weft-system',
    graceMs: 0,
    confirmMs: 1,
    recountMs: 1,
    signal: new AbortController().signal,
  });
}

async function create(object: object): Promise<void> {
  await mustSucceed(apiserver().kubectl(['create', '-f', '-'], object));
}

function allocation(name: string, address: string): object {
  const apiVersion = 'ipam.weft.dev/v1alpha1';
  return { apiVersion, kind: 'IPAllocation', metadata: { name }, spec: { address, pool: 'p', holder: 'x' } };
}

/** As an older version's kinds, or somebody's edit, might let through what weft cannot read. */
async function withoutRules(crd: string): Promise<void> {
  const text = await mustSucceed(apiserver().kubectl(['get', 'crd', crd, '-o', 'json']));
  const bare: unknown = JSON.parse(text, (key, value: unknown) =>
    key === 'x-kubernetes-validations' ? undefined : value,
  );
  await mustSucceed(apiserver().kubectl(['replace', '-f', '-'], bare as object));
}
