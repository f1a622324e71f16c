import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildExecutable } from '../../../hack/build.ts';
import { ensureBinaries } from '../../../hack/cluster/binaries.ts';
import {
  SUPPORTED_VERSIONS,
  type AddRequest,
  type AddResult,
  type CheckRequest,
  type CniVersion,
  type DelRequest,
  type GcRequest,
} from '../../../src/cni/index.ts';
import { parseAddress, parseCIDR } from '../../../src/net/index.ts';
import { CONFIGURATION, environment, startMachine, type Machine } from './machine.ts';

const RESULT: AddResult = {
  interfaces: [
    { name: 'weft0a1b2c3d', mac: 'ee:ee:ee:ee:ee:ee', mtu: 1450 },
    { name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1450, sandbox: '/run/netns/pod' },
  ],
  ips: [
    {
      address: parseAddress('10.244.1.2'),
      prefixLength: 32,
      gateway: parseAddress('169.254.1.1'),
      interface: 1,
    },
    { address: parseAddress('fd00:1::2'), prefixLength: 128, gateway: parseAddress('fe80::1'), interface: 1 },
  ],
  routes: [
    { destination: parseCIDR('0.0.0.0/0'), gateway: parseAddress('169.254.1.1') },
    { destination: parseCIDR('::/0'), gateway: parseAddress('fe80::1') },
  ],
  dns: { nameservers: ['10.96.0.10'], search: [] },
};

const DNS = { nameservers: ['10.96.0.10'] };
const PER_FAMILY = {
  ip4: {
    ip: '10.244.1.2/32',
    gateway: '169.254.1.1',
    routes: [{ dst: '0.0.0.0/0', gw: '169.254.1.1' }],
  },
  ip6: { ip: 'fd00:1::2/128', gateway: 'fe80::1', routes: [{ dst: '::/0', gw: 'fe80::1' }] },
  dns: DNS,
};
const ROUTES = [
  { dst: '0.0.0.0/0', gw: '169.254.1.1' },
  { dst: '::/0', gw: 'fe80::1' },
];
const INTERFACES = [
  { name: 'weft0a1b2c3d', mac: 'ee:ee:ee:ee:ee:ee' },
  { name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/run/netns/pod' },
];
const IPS = [
  { interface: 1, address: '10.244.1.2/32', gateway: '169.254.1.1' },
  { interface: 1, address: 'fd00:1::2/128', gateway: 'fe80::1' },
];
const WITH_IP_VERSION = {
  interfaces: INTERFACES,
  ips: IPS.map((ip, index) => ({ version: index === 0 ? '4' : '6', ...ip })),
  routes: ROUTES,
  dns: DNS,
};

/** Each version's result in full, by hand. */
const FIXTURES: Readonly<Record<CniVersion, object>> = {
  '0.1.0': { cniVersion: '0.1.0', ...PER_FAMILY },
  '0.2.0': { cniVersion: '0.2.0', ...PER_FAMILY },
  '0.3.0': { cniVersion: '0.3.0', ...WITH_IP_VERSION },
  '0.3.1': { cniVersion: '0.3.1', ...WITH_IP_VERSION },
  '0.4.0': { cniVersion: '0.4.0', ...WITH_IP_VERSION },
  '1.0.0': { cniVersion: '1.0.0', interfaces: INTERFACES, ips: IPS, routes: ROUTES, dns: DNS },
  '1.1.0': {
    cniVersion: '1.1.0',
    interfaces: INTERFACES.map((each) => ({ ...each, mtu: 1450 })),
    ips: IPS,
    routes: ROUTES,
    dns: DNS,
  },
};

const KUBERNETES_ARGS =
  'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=a-b-c';

describe('what the executable answers', () => {
  let machine: Machine;
  let binaries: string;
  const seen: { add?: AddRequest; check?: CheckRequest; del?: DelRequest; gc?: GcRequest } = {};

  beforeAll(async () => {
    machine = await startMachine();
    binaries = await ensureBinaries(['cnitool']);
    await machine.serve({
      add: async (request) => {
        seen.add = request;
        return RESULT;
      },
      check: async (request) => void (seen.check = request),
      del: async (request) => void (seen.del = request),
      gc: async (request) => void (seen.gc = request),
      status: async () => undefined,
    });
  }, 600_000);
  afterAll(() => machine[Symbol.asyncDispose]());

  it.each(SUPPORTED_VERSIONS)('is a result as version %s wants it', async (cniVersion) => {
    const result = await machine.call({ stdin: { ...CONFIGURATION, cniVersion } });
    expect(JSON.parse(result.stdout)).toEqual(FIXTURES[cniVersion]);
    expect(result).toMatchObject({ exitCode: 0, stderr: '' });
  });

  it.each(SUPPORTED_VERSIONS)(
    'is a result of version %s that the reference library takes',
    async (cniVersion) => {
      expect(JSON.parse(await cnitool('add', { cniVersion }))).toEqual(FIXTURES[cniVersion]);
    },
  );

  it.each(['0.4.0', '1.0.0', '1.1.0'] as const)(
    'is checked again by what it answered, in %s',
    async (cniVersion) => {
      await cnitool('add', { cniVersion }, 'check');
      const mtu = cniVersion === '1.1.0';
      const interfaces = RESULT.interfaces.map(({ mtu: bytes, ...rest }) =>
        mtu ? { ...rest, mtu: bytes } : rest,
      );
      expect(seen.check?.previous).toEqual({ ...RESULT, interfaces, dns: DNS });
      expect(seen.check?.attachment.ifName).toBe('eth0');
    },
  );

  it('takes DEL and STATUS from the reference library too', async () => {
    await cnitool('add', {}, 'del', 'status');
    expect(seen.del).toMatchObject({ verb: 'DEL', netns: '/run/netns/pod' });
    expect(seen.del?.attachment).toEqual(seen.add?.attachment);
  });

  it("hands on what the runtime says about the pod, and the configuration's own fields", async () => {
    await machine.call({
      env: environment('ADD', { CNI_ARGS: KUBERNETES_ARGS, CNI_NETNS: '/var/run/netns/pod' }),
      stdin: {
        ...CONFIGURATION,
        mtu: 1400,
        pool: 'storage',
        dns: { domain: 'example.org' },
        capabilities: { portMappings: true },
        runtimeConfig: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
        'cni.dev/new': 1,
      },
    });
    expect(seen.add).toEqual({
      verb: 'ADD',
      asks: 'Interface',
      cniVersion: '1.1.0',
      attachment: { network: 'weft', containerID: 'c0ffee', ifName: 'eth0' },
      netns: '/run/netns/pod',
      pod: { namespace: 'default', name: 'web-0', uid: 'a-b-c' },
      configuration: {
        mtu: 1400,
        pool: 'storage',
        dns: { domain: 'example.org' },
        portMappings: [{ protocol: 'tcp', hostPort: 8080, containerPort: 80, hostAddress: undefined }],
      },
    });
  });

  it('serves an ADD that no Kubernetes made', async () => {
    await machine.call({ env: environment('ADD', { CNI_ARGS: 'IgnoreUnknown=true;FOO=bar' }) });
    expect(seen.add?.pod).toBeUndefined();
  });

  it('does not fail a DEL for what only an ADD needs', async () => {
    const result = await machine.call({
      env: environment('DEL', { CNI_NETNS: '', CNI_ARGS: 'FOO' }),
      stdin: { ...CONFIGURATION, unknown: true, mtu: 'x', prevResult: 'x' },
    });
    expect(result).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
    expect(seen.del?.netns).toBeUndefined();
  });

  it('prefers the list of attachments that the specification means', async () => {
    await machine.call({
      env: environment('GC'),
      stdin: {
        ...CONFIGURATION,
        'cni.dev/attachments': [],
        'cni.dev/valid-attachments': [{ containerID: 'a', ifname: 'eth0' }],
      },
    });
    expect(seen.gc?.network).toBe('weft');
    expect(seen.gc?.valid).toEqual([{ containerID: 'a', ifName: 'eth0' }]);
  });

  /** Runs cnitool's verbs one after the other, and answers what the first printed. */
  async function cnitool(
    verb: string,
    changes: { cniVersion?: CniVersion },
    ...further: string[]
  ): Promise<string> {
    const conflist = { cniVersion: '1.1.0', ...changes, name: 'weft', plugins: [{ type: 'weft' }] };
    const configurations = join(machine.run, 'net.d');
    await mkdir(configurations, { recursive: true });
    await writeFile(join(configurations, '10-weft.conflist'), JSON.stringify(conflist));
    const commands = [verb, ...further].map((each) => `"$2" ${each} weft /run/netns/pod`);
    const script = [
      'mount -t tmpfs tmpfs /run && mkdir -m 700 /run/weft && mount --bind "$1" /run/weft',
      'mount -t tmpfs tmpfs /var/lib',
      ...commands,
    ].join(' && ');
    const executable = await buildExecutable();
    const { stdout } = await execa(
      'unshare',
      ['--mount', 'sh', '-c', script, 'sh', machine.run, join(binaries, 'cnitool')],
      {
        env: {
          PATH: process.env.PATH ?? '',
          NETCONFPATH: configurations,
          CNI_PATH: join(executable, '..'),
        },
        extendEnv: false,
      },
    );
    return stdout;
  }
});
