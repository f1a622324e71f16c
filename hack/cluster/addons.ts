import { COREDNS_IMAGE } from './images.ts';
import type { Plan } from './plan.ts';

/**
 * CoreDNS as every cluster has it: the Service kube-dns in kube-system and a Deployment behind it, which stays
 * Pending until something gives pods a network. Names outside the cluster are refused: there is nobody to ask.
 */
export function dnsAddon(plan: Plan): object {
  const labels = { 'k8s-app': 'kube-dns' };
  const metadata = (name: string) => ({ name, namespace: 'kube-system', labels });
  const corefile = `.:53 {
    errors
    health :8081
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
      pods insecure
      ttl 5
    }
    cache 5
}
`;
  const items = [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: metadata('coredns') },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: metadata('coredns'), data: { Corefile: corefile } },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'system:coredns' },
      rules: [
        {
          apiGroups: ['', 'discovery.k8s.io'],
          resources: ['endpoints', 'services', 'pods', 'namespaces', 'endpointslices'],
          verbs: ['list', 'watch'],
        },
      ],
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'system:coredns' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'system:coredns' },
      subjects: [{ kind: 'ServiceAccount', name: 'coredns', namespace: 'kube-system' }],
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: metadata('kube-dns'),
      spec: {
        selector: labels,
        ipFamilyPolicy: 'RequireDualStack',
        clusterIP: plan.dnsService.ipv4,
        clusterIPs: [plan.dnsService.ipv4, plan.dnsService.ipv6],
        ports: [
          { name: 'dns', port: 53, protocol: 'UDP' },
          { name: 'dns-tcp', port: 53, protocol: 'TCP' },
        ],
      },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: metadata('coredns'),
      spec: {
        replicas: 1,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: 'coredns',
            priorityClassName: 'system-cluster-critical',
            dnsPolicy: 'Default',
            containers: [
              {
                name: 'coredns',
                image: COREDNS_IMAGE,
                imagePullPolicy: 'Never',
                args: ['-conf', '/etc/coredns/Corefile'],
                ports: [
                  { name: 'dns', containerPort: 53, protocol: 'UDP' },
                  { name: 'dns-tcp', containerPort: 53, protocol: 'TCP' },
                ],
                readinessProbe: { httpGet: { path: '/ready', port: 8181 }, periodSeconds: 2 },
                volumeMounts: [{ name: 'config', mountPath: '/etc/coredns' }],
              },
            ],
            volumes: [{ name: 'config', configMap: { name: 'coredns' } }],
          },
        },
      },
    },
  ];
  return { apiVersion: 'v1', kind: 'List', items };
}
