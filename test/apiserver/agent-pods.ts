import type { KubeClient } from '../../src/kube/index.ts';

/** The same client, for which a Ready agent has a pod on each of these nodes: no kubelet is there to run one. */
export function withAgentPods(client: KubeClient, nodeNames: readonly string[]): KubeClient {
  const items = nodeNames.map((nodeName) => ({
    metadata: { name: nodeName, labels: { 'app.kubernetes.io/name': 'weft-agent' } },
    spec: { nodeName },
    status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
  }));
  return {
    ...client,
    request: (request) =>
      request.path === '/api/v1/namespaces/weft-system/pods'
        ? Promise.resolve({ metadata: { resourceVersion: '1' }, items })
        : client.request(request),
  };
}
