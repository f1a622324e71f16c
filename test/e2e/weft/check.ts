import { dirname } from 'node:path';
import { execa } from 'execa';
import { expect, it } from 'vitest';
import { buildCLI } from '../../../hack/build.ts';
import { checkExitCode } from '../../../src/cli/check/exit-code.ts';
import { kubectlExec } from '../../../src/cli/check/kubectl.ts';
import { CHECK_TIMES, runCheck, type CheckResult } from '../../../src/cli/check/run-check.ts';
import { createSystemClock } from '../../../src/system-clock.ts';
import type { Stage } from './stage.ts';

/** The audit of the whole cluster as people run it: the objects, and every node by `kubectl exec`. */
export function checkTests(stage: () => Stage): void {
  it('finds nothing wrong with a cluster whose pods have come and gone', async () => {
    await stage().eventually('a clean check', async () => {
      const result = await checkCluster(stage());
      expect(result).toEqual({ findings: [], unknownNodes: [] });
      expect(checkExitCode(result)).toBe(0);
    });
  });

  it('is a command of kubectl that asks every node, and ends with what it found', async () => {
    const program = await buildCLI();
    const { kubeconfig, env } = optionsFor(stage());
    // Under its name in the path of kubectl, as a plugin is.
    const PATH = `${dirname(program)}:${env.PATH}`;
    const options = { env: { ...env, PATH, KUBECONFIG: kubeconfig }, reject: false } as const;
    const said = await execa('kubectl', ['weft', 'check'], options);
    expect([said.exitCode, said.stdout, said.stderr]).toEqual([
      0,
      'clean: the book, the nodes and their kernels agree',
      '',
    ]);
    const json = await execa('kubectl', ['weft', 'check', '-o', 'json'], options);
    expect([json.exitCode, JSON.parse(json.stdout)]).toEqual([0, { findings: [], unknownNodes: [] }]);
  });

  it('finds an address that no sandbox has, until the sweep has freed it', async () => {
    const { cluster, allocations, eventually } = stage();
    const [some] = await allocations();
    if (some === undefined) throw new Error('no pod has an address');
    const address = '10.255.255.1';
    const spec = {
      address,
      pool: some.spec.pool,
      nodeName: some.spec.nodeName,
      attachment: { network: 'weft', containerID: 'never-was', ifName: 'eth0', kind: 'Interface' },
    };
    const object = {
      apiVersion: 'ipam.weft.dev/v1alpha1',
      kind: 'IPAllocation',
      metadata: { name: address },
      spec,
    };
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(object));
    const { findings } = await checkCluster(stage());
    // What is wrong with it first, and once: that it also lies outside of all subnets follows.
    expect(findings.map(({ reason, object: { name } }) => `${reason} ${name}`)).toEqual([
      `NoSandbox ${address}`,
    ]);
    await eventually(
      'a clean check',
      async () => expect((await checkCluster(stage())).findings).toEqual([]),
      120,
    );
  });

  it('says of a node that cannot be asked why', async () => {
    const { cluster } = stage();
    const exec = kubectlExec({ ...optionsFor(stage()), namespace: 'nowhere' });
    const result = await checkCluster(stage(), exec);
    expect(result.unknownNodes.map(({ name }) => name)).toEqual([...cluster.nodes].sort());
    for (const { reason } of result.unknownNodes) expect(reason).toMatch(/kubectl exec: .*not found/);
    expect(result.findings).toEqual([]);
    expect(checkExitCode(result)).toBe(3);
  });
}

/** As `kubectl weft check` looks, but that nothing is too young to be judged. */
export function checkCluster(stage: Stage, exec = kubectlExec(optionsFor(stage))): Promise<CheckResult> {
  return runCheck({
    ...CHECK_TIMES,
    client: stage.client,
    exec,
    clock: createSystemClock(),
    namespace: 'weft-system',
    // What a test has just made by hand is to be found.
    graceMs: 0,
    signal: new AbortController().signal,
  });
}

function optionsFor({ cluster }: Stage) {
  return {
    kubeconfig: cluster.kubeconfig,
    namespace: 'weft-system',
    env: { ...process.env, PATH: `${cluster.programs}:${process.env.PATH ?? ''}` },
    timeoutMs: 30_000,
  };
}
