import { describe, expect, test } from 'vitest';
import { AGENT_USAGE, parseAgentFlags } from '../../src/agent/flags.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import { DEFAULT_SETTINGS, InvalidFlagError } from '../../src/settings.ts';

const NODE = '--node-name=n1';

test('without flags it is what the manifests run: only the node has to be named', () => {
  expect(parseAgentFlags([NODE])).toEqual({
    nodeName: 'n1',
    kubeconfig: undefined,
    runDirectory: '/run/weft',
    confDirectory: '/etc/cni/net.d',
    controllerLease: { namespace: 'weft-system', name: 'weft-controller' },
    sysctlRoot: undefined,
    bootIDPath: '/proc/sys/kernel/random/boot_id',
    probeSocket: '/run/weft-pod/probe.sock',
    metricsAddress: { host: parseAddress('127.0.0.1'), port: 9144 },
    vxlan: { vni: 4097, port: 4789 },
    natExempt: [],
    serviceCIDRs: [],
    dnsService: { namespace: 'kube-system', name: 'kube-dns' },
    bandwidth: false,
    logLevel: 'info',
    settings: DEFAULT_SETTINGS,
  });
});

test('metrics can be switched off', () => {
  expect(parseAgentFlags([NODE, '--metrics-address=']).metricsAddress).toBeUndefined();
});

test('every flag is obeyed', () => {
  const flags = parseAgentFlags([
    NODE,
    '--kubeconfig=/k',
    '--run-dir=/r',
    '--cni-conf-dir=/c',
    '--sysctl-net=/s',
    '--boot-id=/b',
    '--probe-socket=/p',
    '--metrics-address=[::]:9999',
    '--vxlan-vni=16777215',
    '--vxlan-port=8472',
    '--nat-exempt=192.0.2.0/24',
    '--nat-exempt=2001:db8::/32',
    '--service-cidr=10.96.0.0/12',
    '--service-cidr=fd96::/108',
    '--dns-service=openshift-dns/dns-default',
    '--bandwidth',
    '--log-level=debug',
    '--grace-seconds=0.5',
  ]);
  expect(flags).toMatchObject({
    serviceCIDRs: [parseCIDR('10.96.0.0/12'), parseCIDR('fd96::/108')],
    dnsService: { namespace: 'openshift-dns', name: 'dns-default' },
    kubeconfig: '/k',
    runDirectory: '/r',
    confDirectory: '/c',
    sysctlRoot: '/s',
    bootIDPath: '/b',
    probeSocket: '/p',
    metricsAddress: { host: parseAddress('::'), port: 9999 },
    vxlan: { vni: 16777215, port: 8472 },
    natExempt: [parseCIDR('192.0.2.0/24'), parseCIDR('2001:db8::/32')],
    bandwidth: true,
    logLevel: 'debug',
  });
  expect(flags.settings).toEqual({ ...DEFAULT_SETTINGS, graceMs: 500 });
});

describe('refused', () => {
  test.each([
    [[], '--node-name=: expected the name of the Node'],
    [['--node-name='], '--node-name=: expected the name of the Node'],
    [[NODE, '--vxlan-vni=0'], '--vxlan-vni=0: expected a whole number from 1 to 16777215'],
    [[NODE, '--vxlan-vni=16777216'], '--vxlan-vni=16777216'],
    [[NODE, '--vxlan-port=65536'], '--vxlan-port=65536: expected a whole number from 1 to 65535'],
    [[NODE, '--vxlan-port=4e3'], '--vxlan-port=4e3'],
    [[NODE, '--service-cidr=all'], '--service-cidr=all: expected a CIDR'],
    [[NODE, '--nat-exempt=10.0.0.1/24'], '--nat-exempt=10.0.0.1/24: expected a CIDR'],
    [[NODE, '--grace-seconds=-1'], '--grace-seconds'],
    [[NODE, '--grace-seconds=0'], '--grace-seconds=0: expected a number above 0'],
    [[NODE, '--sweep-seconds=1s'], '--sweep-seconds=1s'],
    [[NODE, '--log-level=loud'], '--log-level=loud'],
    [[NODE, '--metrics-address=9144'], '--metrics-address=9144: expected an IP address'],
    [[NODE, '--controller-lease=weft'], '--controller-lease=weft: expected NAMESPACE/NAME'],
    [[NODE, '--dns-service=kube-dns'], '--dns-service=kube-dns: expected NAMESPACE/NAME'],
    [[NODE, '--controller-lease=a/b/c'], '--controller-lease=a/b/c: expected NAMESPACE/NAME'],
  ])('%j', (argv, message) => {
    let error: unknown;
    try {
      parseAgentFlags(argv);
    } catch (caught) {
      error = caught;
    }
    expect(error instanceof Error ? error.message : 'nothing was refused').toContain(message);
  });

  test('an unknown flag, by its name', () => {
    expect(() => parseAgentFlags([NODE, '--sweep=1'])).toThrow(/--sweep/);
    expect(() => parseAgentFlags([NODE, 'serve'])).toThrow(/serve/);
  });

  test('as an error of its own kind', () => {
    expect(() => parseAgentFlags([NODE, '--vxlan-port=no'])).toThrow(InvalidFlagError);
  });
});

test('the usage names every flag that is parsed', () => {
  for (const flag of ['node-name', 'kubeconfig', 'run-dir', 'cni-conf-dir', 'sysctl-net', 'boot-id']) {
    expect(AGENT_USAGE).toContain(`--${flag}`);
  }
  for (const flag of [
    'probe-socket',
    'metrics-address',
    'controller-lease',
    'vxlan-vni',
    'vxlan-port',
    'nat-exempt',
    'service-cidr',
    'dns-service',
    'log-level',
    'grace-seconds',
  ]) {
    expect(AGENT_USAGE).toContain(`--${flag}`);
  }
});
