import { parseArgs } from 'node:util';
import { parseMetricsAddress, type MetricsAddress } from '../metrics/index.ts';
import { InvalidCIDRError, parseCIDR, type CIDR } from '../net/index.ts';
import { InvalidFlagError, settingFlags, settingsFrom, settingsHelp, type Settings } from '../settings.ts';

/** What the controller is told on its command line. */
export interface ControllerFlags {
  /** Different for each replica: the name under which it holds the Lease. */
  readonly identity: string;
  readonly namespace: string;
  readonly leaseName: string;
  /** Absent: the pod's service account. */
  readonly kubeconfig: string | undefined;
  readonly probeSocket: string;
  /** Absent: no metrics are served. */
  readonly metricsAddress: MetricsAddress | undefined;
  /** The ranges of Services, where the apiserver does not tell them. */
  readonly serviceCIDRs: readonly CIDR[];
  readonly logLevel: string;
  readonly settings: Settings;
}

export const CONTROLLER_USAGE = `usage: controller.mjs --identity NAME [flags]

  --identity NAME        this replica's own name, such as its pod's (required)
  --namespace NAME       where the Lease is; default weft-system
  --lease-name NAME      default weft-controller
  --kubeconfig FILE      default: the pod's service account
  --probe-socket FILE    default /run/weft-pod/probe.sock
  --metrics-address A    where /metrics is served; default 127.0.0.1:9145, nothing for nowhere
  --service-cidr CIDR    a range of Services, needed before Kubernetes 1.33; may be given several times
  --log-level LEVEL      default info
${settingsHelp()}`;

/**
 * Reads the flags.
 * @throws InvalidFlagError, or what parseArgs throws for an unknown flag
 */
export function parseControllerFlags(argv: readonly string[]): ControllerFlags {
  const { values } = parseArgs({
    args: [...argv],
    strict: true,
    options: {
      identity: { type: 'string', default: '' },
      namespace: { type: 'string', default: 'weft-system' },
      'lease-name': { type: 'string', default: 'weft-controller' },
      kubeconfig: { type: 'string' },
      'probe-socket': { type: 'string', default: '/run/weft-pod/probe.sock' },
      'metrics-address': { type: 'string', default: '127.0.0.1:9145' },
      'service-cidr': { type: 'string', multiple: true, default: [] },
      'log-level': { type: 'string', default: 'info' },
      ...settingFlags(),
    },
  });
  if (values.identity === '') throw new InvalidFlagError('identity', '', "this replica's own name");
  return {
    identity: values.identity,
    namespace: values.namespace,
    leaseName: values['lease-name'],
    kubeconfig: values.kubeconfig,
    probeSocket: values['probe-socket'],
    metricsAddress: parseMetricsAddress(values['metrics-address']),
    serviceCIDRs: values['service-cidr'].map(serviceCIDR),
    logLevel: values['log-level'],
    settings: settingsFrom(values),
  };
}

function serviceCIDR(text: string): CIDR {
  try {
    return parseCIDR(text);
  } catch (error) {
    if (error instanceof InvalidCIDRError) throw new InvalidFlagError('service-cidr', text, 'a CIDR');
    throw error;
  }
}
