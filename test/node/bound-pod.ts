import type { KubeClient } from '../../src/kube/index.ts';
import { NODE_NAME } from './node.ts';

/** Makes a pod that is bound to the node, by the client: kubectl starts a process for each. Answers its UID. */
export async function makeBoundPod(client: KubeClient, name: string): Promise<string> {
  const { metadata } = (await client.request({
    method: 'POST',
    path: '/api/v1/namespaces/default/pods',
    body: {
      metadata: { name },
      spec: {
        nodeName: NODE_NAME,
        automountServiceAccountToken: false,
        containers: [{ name: 'c', image: 'none' }],
      },
    },
  })) as { metadata: { uid: string } };
  return metadata.uid;
}
