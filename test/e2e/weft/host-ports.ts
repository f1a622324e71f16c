import { expect, it } from 'vitest';
import { TEST_IMAGE } from '../../../hack/cluster/node-config.ts';
import { askPage, podOn } from './paths.ts';
import { isReady, type Stage } from './stage.ts';
import { WEB } from './workload.ts';

const NAME = 'host-port';
const PORT = 18080;

/** A port of a node that leads to a pod, asked for by a pod's spec and handed over by a real kubelet and runtime. */
export function hostPortTests(stage: () => Stage): void {
  // Beside kube-proxy in either mode.
  it.each(['node-1', 'node-2'])(
    'of %s lead to the pod from nodes and pods everywhere, and to nobody when it has gone',
    async (where) => {
      const { cluster, pods, inPod, eventually } = stage();
      await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(podWithPort(where)));
      await cluster.kubectl(['wait', '--for=condition=Ready', `pod/${NAME}`, '--timeout=60s']);
      const plan = cluster.plan.nodes.find(({ name }) => name === where);
      const asked = [plan?.ipv4 ?? '', plan?.ipv6 ?? ''].map((address) => askPage(address, PORT, 'name'));
      const script = asked.join('\n');
      const running = (await pods(`app=${WEB}`)).filter(isReady);
      await eventually('the server in the pod answers', async () => {
        for (const node of cluster.nodes) {
          const from = podOn(running, node).metadata.name;
          expect(await inPod(from, script), `from a pod on ${node}`).toBe(`${NAME}\n${NAME}`);
          expect(await cluster.execOnNode(node, ['busybox', 'sh', '-c', script]), `from ${node}`).toBe(
            `${NAME}\n${NAME}`,
          );
        }
        // Back to itself.
        expect(await inPod(NAME, script)).toBe(`${NAME}\n${NAME}`);
      });

      await cluster.kubectl(['delete', 'pod', NAME, '--timeout=60s']);
      const from = podOn(running, cluster.nodes.find((node) => node !== where) ?? '').metadata.name;
      expect(await inPod(from, script)).not.toContain(NAME);
      const rules = await cluster.execOnNode(where, ['nft', 'list', 'table', 'inet', 'weft']);
      expect(rules).not.toContain(String(PORT));
    },
  );
}

function podWithPort(nodeName: string): object {
  const ports = [{ containerPort: 8080, hostPort: PORT }];
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: NAME, namespace: 'default' },
    spec: {
      terminationGracePeriodSeconds: 1,
      nodeName,
      containers: [{ name: 'server', image: TEST_IMAGE, imagePullPolicy: 'IfNotPresent', ports }],
    },
  };
}
