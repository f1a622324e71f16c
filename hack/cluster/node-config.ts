import type { NodePlan, Plan } from './plan.ts';

/** Where a node finds what is its own: its folder in the cluster's state, and the cluster's binaries. */
export const NODE_DIRECTORY = '/run/local-cluster/node';
export const NODE_BINARIES = '/run/local-cluster/bin';

/** Where a node's kubelet looks for pods that no apiserver knows: a folder of the node's own. */
export const STATIC_PODS = `${NODE_DIRECTORY}/static-pods`;

/** The image of the pod sandbox, and the one that tests start pods from. */
export const PAUSE_IMAGE = 'localhost/weft-pause:1';
export const TEST_IMAGE = 'localhost/weft-test:1';

/** containerd with its own folders, and without what needs a capability or kernel that test machines lack. */
export function containerdConfig(snapshotter: string): string {
  return `version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "${snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "${PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
# Without CAP_SYS_RESOURCE a container cannot be given a lower score than containerd has.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
`;
}

/** KubeletConfiguration. */
export function kubeletConfig(plan: Plan): object {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: `${NODE_DIRECTORY}/config/ca.crt` },
    },
    authorization: { mode: 'Webhook' },
    containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
    clusterDNS: [plan.dnsService.ipv4],
    clusterDomain: 'cluster.local',
    resolvConf: '/etc/resolv.conf',
    staticPodPath: STATIC_PODS,
    // All nodes share the machine's cgroups and disks: nothing here may judge or divide them.
    failCgroupV1: false,
    cgroupDriver: 'cgroupfs',
    cgroupsPerQOS: false,
    enforceNodeAllocatable: [],
    localStorageCapacityIsolation: false,
    evictionHard: { 'memory.available': '1Mi', 'nodefs.available': '1%', 'nodefs.inodesFree': '1%' },
    imageGCHighThresholdPercent: 100,
    imageGCLowThresholdPercent: 99,
    failSwapOn: false,
    oomScoreAdj: 0,
  };
}

/** KubeProxyConfiguration, in the node's own mode. */
export function kubeProxyConfig(plan: Plan, { name, proxyMode }: NodePlan): object {
  return {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode: proxyMode,
    hostnameOverride: name,
    clientConnection: { kubeconfig: `${NODE_DIRECTORY}/config/kube-proxy.kubeconfig` },
    clusterCIDR: plan.poolCidrs.join(','),
    // conntrack's size is the machine's, not a namespace's.
    conntrack: { maxPerCore: 0, min: 0 },
    oomScoreAdj: 0,
  };
}
