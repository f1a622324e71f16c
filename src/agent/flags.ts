import { parseArgs } from 'node:util';
import { parseMetricsAddress, type MetricsAddress } from '../metrics/index.ts';
import { InvalidCIDRError, parseCIDR, type CIDR } from '../net/index.ts';
import { InvalidFlagError, settingFlags, settingsFrom, settingsHelp, type Settings } from '../settings.ts';

export interface NamespacedName {
  readonly namespace: string;
  readonly name: string;
}

/** What the agent is told on its command line. */
export interface AgentFlags {
  readonly nodeName: string;
  /** Absent: the pod's service account. */
  readonly kubeconfig: string | undefined;
  readonly runDirectory: string;
  readonly confDirectory: string;
  /** Absent: where the agent's container sees it, else where a process on the host does. */
  readonly sysctlRoot: string | undefined;
  readonly bootIDPath: string;
  readonly probeSocket: string;
  /** Absent: no metrics are served. */
  readonly metricsAddress: MetricsAddress | undefined;
  /** The controller's Lease, which says when claims of subnets are held. */
  readonly controllerLease: NamespacedName;
  readonly vxlan: { readonly vni: number; readonly port: number };
  /** Destinations that are not masqueraded although they lie outside all pools. */
  readonly natExempt: readonly CIDR[];
  /** The ranges of Services, where the apiserver does not tell them. */
  readonly serviceCIDRs: readonly CIDR[];
  /** The Service of the cluster's DNS: isolated pods reach it. */
  readonly dnsService: NamespacedName;
  /** Chain the plugin bandwidth behind weft. */
  readonly bandwidth: boolean;
  readonly logLevel: string;
  readonly settings: Settings;
}

export const AGENT_USAGE = `usage: agent.mjs --node-name NAME [flags]
       agent.mjs install --cni-bin-dir DIR [--host-root DIR] [--plugin NAME]
       agent.mjs uninstall [--run-dir DIR] [--cni-conf-dir DIR] [--cni-bin-dir DIR] [--sysctl-net DIR]
                 [--probe-socket FILE]

  --node-name NAME       the Node that this agent serves (required)
  --kubeconfig FILE      default: the pod's service account
  --run-dir DIR          default /run/weft
  --cni-conf-dir DIR     default /etc/cni/net.d
  --sysctl-net DIR       default /host/proc/sys/net, else /proc/sys/net
  --boot-id FILE         default /proc/sys/kernel/random/boot_id
  --probe-socket FILE    default /run/weft-pod/probe.sock
  --metrics-address A    where /metrics is served; default 127.0.0.1:9144, nothing for nowhere
  --controller-lease L   default weft-system/weft-controller
  --vxlan-vni N          default 4097
  --vxlan-port N         default 4789
  --nat-exempt CIDR      not masqueraded; may be given several times
  --service-cidr CIDR    a range of Services, needed before Kubernetes 1.33; may be given several times
  --dns-service S        the cluster's DNS, which isolated pods reach; default kube-system/kube-dns
  --bandwidth            chain the reference plugin bandwidth, for annotations such as
                         kubernetes.io/ingress-bandwidth; it must be among the host's CNI plugins
  --log-level LEVEL      default info
${settingsHelp()}`;

/**
 * Reads the flags.
 * @throws InvalidFlagError, or what parseArgs throws for an unknown flag
 */
export function parseAgentFlags(argv: readonly string[]): AgentFlags {
  const { values } = parseArgs({
    args: [...argv],
    strict: true,
    options: {
      'node-name': { type: 'string' },
      kubeconfig: { type: 'string' },
      'run-dir': { type: 'string', default: '/run/weft' },
      'cni-conf-dir': { type: 'string', default: '/etc/cni/net.d' },
      'sysctl-net': { type: 'string' },
      'boot-id': { type: 'string', default: '/proc/sys/kernel/random/boot_id' },
      'probe-socket': { type: 'string', default: '/run/weft-pod/probe.sock' },
      'metrics-address': { type: 'string', default: '127.0.0.1:9144' },
      'controller-lease': { type: 'string', default: 'weft-system/weft-controller' },
      'vxlan-vni': { type: 'string', default: '4097' },
      'vxlan-port': { type: 'string', default: '4789' },
      'nat-exempt': { type: 'string', multiple: true, default: [] },
      'service-cidr': { type: 'string', multiple: true, default: [] },
      'dns-service': { type: 'string', default: 'kube-system/kube-dns' },
      bandwidth: { type: 'boolean', default: false },
      'log-level': { type: 'string', default: 'info' },
      ...settingFlags(),
    },
  });
  const nodeName = values['node-name'];
  if (nodeName === undefined || nodeName === '') {
    throw new InvalidFlagError('node-name', '', 'the name of the Node that this agent serves');
  }
  return {
    nodeName,
    kubeconfig: values.kubeconfig,
    runDirectory: values['run-dir'],
    confDirectory: values['cni-conf-dir'],
    sysctlRoot: values['sysctl-net'],
    bootIDPath: values['boot-id'],
    probeSocket: values['probe-socket'],
    metricsAddress: parseMetricsAddress(values['metrics-address']),
    controllerLease: namespacedName('controller-lease', values['controller-lease']),
    vxlan: {
      vni: wholeNumber('vxlan-vni', values['vxlan-vni'], 0xffffff),
      port: wholeNumber('vxlan-port', values['vxlan-port'], 0xffff),
    },
    natExempt: values['nat-exempt'].map((text) => cidrIn('nat-exempt', text)),
    serviceCIDRs: values['service-cidr'].map((text) => cidrIn('service-cidr', text)),
    dnsService: namespacedName('dns-service', values['dns-service']),
    bandwidth: values.bandwidth,
    logLevel: logLevel(values['log-level']),
    settings: settingsFrom(values),
  };
}

function wholeNumber(flag: string, text: string, most: number): number {
  const number = /^[0-9]{1,8}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > most) throw new InvalidFlagError(flag, text, `a whole number from 1 to ${most}`);
  return number;
}

function namespacedName(flag: string, text: string): NamespacedName {
  const [namespace = '', name = '', more] = text.split('/');
  if (namespace === '' || name === '' || more !== undefined) {
    throw new InvalidFlagError(flag, text, 'NAMESPACE/NAME');
  }
  return { namespace, name };
}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

function logLevel(text: string): string {
  if (!LOG_LEVELS.includes(text)) throw new InvalidFlagError('log-level', text, LOG_LEVELS.join(', '));
  return text;
}

function cidrIn(flag: string, text: string): CIDR {
  try {
    return parseCIDR(text);
  } catch (error) {
    if (error instanceof InvalidCIDRError) throw new InvalidFlagError(flag, text, 'a CIDR');
    throw error;
  }
}
