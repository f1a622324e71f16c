import { TEST_IMAGE } from '../../../hack/cluster/node-config.ts';

export const POOL_NAME = 'pods';
/** The Deployment and Service that most tests measure with. */
export const WEB = 'web';
/** Two on each of three nodes. */
export const WEB_PODS = 6;

/**
 * A pool as a user would write one, but with small pieces, so that what leaks is soon missed, and with a short
 * rest of released addresses. Its ranges are among those that the cluster's router drops.
 */
export function pool(name: string, cidrs: readonly string[]): object {
  return {
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'IPPool',
    metadata: { name },
    spec: {
      cidrs,
      nodeSubnetPrefixLength: { ipv4: 27, ipv6: 123 },
      reuseDelaySeconds: REUSE_DELAY_SECONDS,
    },
  };
}

export const REUSE_DELAY_SECONDS = 5;

/** A Deployment of the test image, spread over the nodes, or bound to one. */
export function deployment(name: string, replicas: number, nodeName?: string): object {
  const labels = { app: name };
  const spread = {
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: 'kubernetes.io/hostname',
        whenUnsatisfiable: 'DoNotSchedule',
        labelSelector: { matchLabels: labels },
      },
    ],
  };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace: 'default' },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          terminationGracePeriodSeconds: 1,
          ...(nodeName === undefined ? spread : { nodeSelector: { 'kubernetes.io/hostname': nodeName } }),
          containers: [container()],
        },
      },
    },
  };
}

/** Where the ends of flows listen, in pods and behind Services (flows.ts). */
export const FLOW_PORT = 7777;

/**
 * A Service of both families in front of the pods with that label: port 80 to their 8080, and what flows go to. Each
 * of its ports is one of every node, too.
 */
export function service(name: string, namespace = 'default'): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace },
    spec: {
      type: 'NodePort',
      selector: { app: name },
      ipFamilyPolicy: 'RequireDualStack',
      ports: [
        { name: 'http', port: 80, targetPort: 8080 },
        { name: 'flow', port: FLOW_PORT, protocol: 'TCP' },
        { name: 'flow-udp', port: FLOW_PORT, protocol: 'UDP' },
      ],
    },
  };
}

/** One pod of the test image. */
export function pod(name: string, namespace: string, labels: Readonly<Record<string, string>> = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels },
    spec: { terminationGracePeriodSeconds: 1, containers: [container()] },
  };
}

const container = () => ({ name: 'server', image: TEST_IMAGE, imagePullPolicy: 'IfNotPresent' });
