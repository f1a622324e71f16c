import { execa } from 'execa';
import { expect } from 'vitest';
import { ExecError } from '../../src/cli/check/kubectl.ts';
import { runCheck, type CheckParts, type CheckResult } from '../../src/cli/check/run-check.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { NODE_NAME, type TestNode } from './node.ts';

const SNAPSHOT = new URL('../../dist/snapshot.mjs', import.meta.url).pathname;

export const AGENT_POD = { name: 'weft-agent-0', namespace: 'weft-system' };

/** Makes the node one that a check asks: its Node is Ready, and a pod of its agent runs there by the book. */
export async function makeNodeChecked(node: TestNode): Promise<void> {
  const conditions = [{ type: 'Ready', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' }];
  const patch = JSON.stringify({ status: { conditions } });
  await node.kubectl('patch', 'node', NODE_NAME, '--subresource=status', '--type=merge', '-p', patch);
  const { name, namespace } = AGENT_POD;
  await node.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
  await node.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace } });
  await node.apply({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels: { 'app.kubernetes.io/name': 'weft-agent' } },
    spec: {
      nodeName: NODE_NAME,
      hostNetwork: true,
      automountServiceAccountToken: false,
      containers: [{ name: 'agent', image: 'none' }],
    },
  });
  await showPodStatus(node, AGENT_POD, { phase: 'Running' });
}

export async function showPodStatus(
  node: TestNode,
  { name, namespace }: { readonly name: string; readonly namespace: string },
  status: object,
): Promise<void> {
  const patch = ['--subresource=status', '--type=merge', '-p', JSON.stringify({ status })];
  await node.kubectl('patch', 'pod', name, '-n', namespace, ...patch);
}

/** A whole check, but that the snapshot command is run here and not by `kubectl exec`: there is no kubelet. */
export function checkNode(parts: Pick<CheckParts, 'client'> & Partial<CheckParts>): Promise<CheckResult> {
  return runCheck({
    exec: async (_pod, [, ...command]) => {
      expect(command).toEqual(['/weft/snapshot.mjs']);
      const { exitCode, stdout, stderr } = await execa('node', [SNAPSHOT], { reject: false });
      if (exitCode !== 0) throw new ExecError(stderr);
      return stdout;
    },
    clock: createSystemClock(),
    namespace: AGENT_POD.namespace,
    graceMs: 0,
    confirmMs: 300,
    recountMs: 5_000,
    signal: new AbortController().signal,
    ...parts,
  });
}

/** As `invariant reason object`, a line each. */
export function gist({ findings }: CheckResult): string[] {
  return findings.map(({ invariant, reason, object }) => `${invariant} ${reason} ${object.name}`);
}
