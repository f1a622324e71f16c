import type { Cluster } from '../../../hack/cluster/open.ts';

/** What weft may leave on a node, a line each: links, addresses, routes, rules, tables of filters, settings, files. */
export async function nodeDump(cluster: Cluster, node: string): Promise<string[]> {
  const text = await cluster.execOnNode(node, ['sh', '-euc', SCRIPT]);
  // `ip -brief` aligns its columns by what goes.
  return text.split('\n').map((line) => line.replaceAll(BY_BOOT, '').replaceAll(/\s+/g, ' ').trim());
}

/** A node that has been rebooted has links of other numbers and MACs, from which the kernel makes link-local addresses. */
const BY_BOOT = / expires \S+|@if\d+|\bfe80::[0-9a-f]+:[0-9a-f:]*/g;

/** All nodes, by name. */
export async function nodeDumps(cluster: Cluster): Promise<ReadonlyMap<string, readonly string[]>> {
  const dumps = new Map<string, readonly string[]>();
  for (const node of cluster.nodes) dumps.set(node, await nodeDump(cluster, node));
  return dumps;
}

/** kube-proxy's tables come and go by themselves, and tables that others make anew move to the end; the bridge is the reference plugin's, which never removes its own. */
const SCRIPT = `
  ip -brief address | grep -v '^br-e2e ' | sort
  ip route show table all | sort; ip -6 route show | sort
  ip rule; ip -6 rule
  nft list tables | grep -v kube-proxy | sort
  iptables-nft-save 2>/dev/null | grep weft || true
  sysctl -a -e --pattern '^net\\.ipv[46]\\.(ip_forward|conf\\.(all|default|eth.*)\\.(forwarding|accept_redirects|accept_ra))$'
  for folder in /opt/cni/bin /etc/cni /run/weft; do
    if [ -e $folder ]; then find $folder -printf '%p %y %s %m %U\n' | sort; fi
  done`;
