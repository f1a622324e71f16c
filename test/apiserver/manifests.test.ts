import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa, type Result } from 'execa';
import { beforeAll, describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import * as z from 'zod';
import { IMAGE } from '../../hack/image.ts';
import { parseAgentFlags } from '../../src/agent/flags.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { parseAddress } from '../../src/net/index.ts';
import { mustSucceed, SAMPLES, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';

const CONFIG = join(import.meta.dirname, '..', '..', 'config');
const AGENT = 'system:serviceaccount:weft-system:weft-agent';
const CONTROLLER = 'system:serviceaccount:weft-system:weft-controller';

const apiserver = useApiserver();

const SecurityContext = z.looseObject({
  privileged: z.boolean().optional(),
  allowPrivilegeEscalation: z.boolean(),
  readOnlyRootFilesystem: z.boolean(),
  runAsNonRoot: z.boolean().optional(),
  capabilities: z.object({ add: z.array(z.string()).default([]), drop: z.array(z.string()) }),
});
const Container = z.looseObject({
  name: z.string(),
  image: z.string(),
  command: z.array(z.string()),
  args: z.array(z.string()),
  env: z.array(z.unknown()).default([]),
  ports: z.array(z.unknown()).optional(),
  securityContext: SecurityContext,
  volumeMounts: z.array(
    z.looseObject({ name: z.string(), mountPath: z.string(), readOnly: z.boolean().optional() }),
  ),
});
const PodSpec = z.looseObject({
  hostNetwork: z.boolean(),
  hostPID: z.boolean().optional(),
  priorityClassName: z.string(),
  securityContext: z.looseObject({
    runAsNonRoot: z.boolean().optional(),
    seccompProfile: z.object({ type: z.string() }),
  }),
  initContainers: z.array(Container).default([]),
  containers: z.array(Container).length(1),
  volumes: z.array(z.looseObject({ name: z.string(), hostPath: z.object({ path: z.string() }).optional() })),
});
const Workload = z.looseObject({
  metadata: z.looseObject({ name: z.string() }),
  spec: z.looseObject({
    updateStrategy: z.unknown().optional(),
    template: z.looseObject({ metadata: z.looseObject({}), spec: PodSpec }),
  }),
});
type Workload = z.output<typeof Workload>;

async function workload(kustomization: string, name: string): Promise<Workload> {
  const text = await mustSucceed(apiserver().kubectl(['kustomize', join(CONFIG, kustomization)]));
  const objects = parseAllDocuments(text).map((document) => Named.parse(document.toJS()));
  const found = objects.find(({ kind, metadata }) => WORKLOADS.includes(kind) && metadata.name === name);
  return Workload.parse(found);
}

const Named = z.looseObject({ kind: z.string(), metadata: z.looseObject({ name: z.string() }) });
const WORKLOADS = ['DaemonSet', 'Deployment'];

let agent: Workload;
let controller: Workload;

beforeAll(async () => {
  await mustSucceed(apiserver().kubectl(['apply', '-k', join(CONFIG, 'default')]));
  agent = await workload('default', 'weft-agent');
  controller = await workload('default', 'weft-controller');
});

describe('config/default', () => {
  it('is applied whole by one command, and again without a change', async () => {
    const again = await mustSucceed(apiserver().kubectl(['apply', '-k', join(CONFIG, 'default')]));
    const lines = again.split('\n').filter(Boolean);
    expect(lines.length).toBeGreaterThan(15);
    expect(lines.filter((line) => !line.endsWith('unchanged') && !line.includes('flowschema'))).toEqual([]);
  });

  it('has no field that the apiserver does not know, nor has an overlay: it would be lost without a word (B26)', async () => {
    const strictly = ['apply', '--server-side', '--force-conflicts', '--dry-run=server', '--validate=strict'];
    for (const kustomization of ['default', 'bandwidth', 'metrics', 'proc-netns']) {
      await mustSucceed(apiserver().kubectl([...strictly, '-k', join(CONFIG, kustomization)]));
    }
    const misspelt = { ...agent, spec: { ...agent.spec, upgradeStrategy: agent.spec.updateStrategy } };
    const refused = await apiserver().kubectl([...strictly, '-f', '-'], misspelt);
    expect(refused.exitCode).not.toBe(0);
    expect(String(refused.all)).toContain('upgradeStrategy');
  });

  it('makes pods that the apiserver admits into the namespace', async () => {
    for (const { metadata, spec } of [agent, controller]) {
      const pod = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { ...spec.template.metadata, name: metadata.name, namespace: 'weft-system' },
        spec: spec.template.spec,
      };
      await mustSucceed(
        apiserver().kubectl(['create', '--dry-run=server', '--validate=strict', '-f', '-'], pod),
      );
    }
  });

  it('names the image that the local cluster builds, everywhere', () => {
    const specs = [agent, controller].map(({ spec }) => spec.template.spec);
    const images = specs.flatMap(({ initContainers, containers }) =>
      [...initContainers, ...containers].map(({ image }) => image),
    );
    expect(new Set(images)).toEqual(new Set([IMAGE]));
  });

  it('gives flags that agent and controller know', () => {
    const args = ({ spec }: Workload) => spec.template.spec.containers[0]?.args ?? [];
    expect(parseAgentFlags(args(agent)).nodeName).toBe('$(NODE_NAME)');
    expect(parseControllerFlags(args(controller)).identity).toBe('$(POD_NAME)');
  });

  it('can be taken away without the kinds and what is stored of them', async () => {
    const text = await mustSucceed(apiserver().kubectl(['kustomize', join(CONFIG, 'weft')]));
    expect(text).toContain('kind: DaemonSet');
    expect(text).not.toContain('kind: CustomResourceDefinition');
  });
});

describe("the agent's container", () => {
  it('has two capabilities and nothing else, on a read-only root, not privileged', () => {
    const { containers, securityContext, hostPID, hostNetwork } = agent.spec.template.spec;
    expect(containers[0]?.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW', 'SYS_ADMIN'] },
    });
    expect(securityContext.seccompProfile.type).toBe('RuntimeDefault');
    expect(hostNetwork).toBe(true);
    expect(hostPID).toBeUndefined();
  });

  it("leaves the folder of the host's executables to the init container", () => {
    const { containers, initContainers } = agent.spec.template.spec;
    const mounts = (container: z.output<typeof Container> | undefined) =>
      (container?.volumeMounts ?? []).map(({ name }) => name).sort();
    expect(mounts(initContainers[0])).toEqual(['cni-bin', 'lib', 'lib64']);
    expect(mounts(containers[0])).toEqual([
      'cni-conf',
      'pod',
      'proc-sys-net',
      'run-netns',
      'run-weft',
      'xtables-lock',
    ]);
    expect(initContainers[0]?.securityContext.capabilities).toEqual({ drop: ['ALL'], add: ['DAC_OVERRIDE'] });
    const libraries = initContainers[0]?.volumeMounts.filter(({ name }) => name.startsWith('lib'));
    expect(libraries?.every(({ readOnly }) => readOnly === true)).toBe(true);
  });

  it('is rolled out with a second one beside it, which no port may forbid', () => {
    expect(agent.spec.updateStrategy).toEqual({
      type: 'RollingUpdate',
      rollingUpdate: { maxSurge: 1, maxUnavailable: 0 },
    });
    expect(agent.spec.template.spec.containers[0]?.ports).toBeUndefined();
    expect(agent.spec.template.spec.priorityClassName).toBe('system-node-critical');
  });

  it('chains the plugin bandwidth in config/bandwidth alone, and sees to it that the plugin is there', async () => {
    const { template } = (await workload('bandwidth', 'weft-agent')).spec;
    expect(template.spec.initContainers[0]?.args).toContain('--plugin=bandwidth');
    const args = template.spec.containers[0]?.args ?? [];
    expect(parseAgentFlags(args).bandwidth).toBe(true);
    expect(agent.spec.template.spec.containers[0]?.args).not.toContain('--bandwidth');
  });

  it('may see the processes of the host in config/proc-netns alone', async () => {
    const { template } = (await workload('proc-netns', 'weft-agent')).spec;
    expect(template.spec.hostPID).toBe(true);
    expect(template.spec.containers[0]?.securityContext.capabilities.add).toEqual([
      'NET_ADMIN',
      'NET_RAW',
      'SYS_ADMIN',
      'SYS_PTRACE',
    ]);
  });
});

describe("the controller's container", () => {
  it('is nobody, without capabilities, on a read-only root', () => {
    const { containers, securityContext, volumes } = controller.spec.template.spec;
    expect(containers[0]?.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'], add: [] },
    });
    expect(securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } });
    expect(volumes.filter(({ hostPath }) => hostPath !== undefined)).toEqual([]);
  });
});

describe('config/uninstall', () => {
  let uninstaller: Workload;

  beforeAll(async () => {
    uninstaller = await workload('uninstall', 'weft-uninstall');
  });

  it('is taken by the apiserver as it is, in a namespace of its own, and taken away by one command', async () => {
    const kustomization = join(CONFIG, 'uninstall');
    await mustSucceed(
      apiserver().kubectl(['apply', '--server-side', '--validate=strict', '-k', kustomization]),
    );
    const text = await mustSucceed(apiserver().kubectl(['kustomize', kustomization]));
    const objects = parseAllDocuments(text).map((document) => Named.parse(document.toJS()));
    expect(objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual([
      'Namespace weft-uninstall',
      'DaemonSet weft-uninstall',
    ]);
    await mustSucceed(apiserver().kubectl(['delete', '--wait=false', '-k', kustomization]));
    // Whoever installs weft again before that keeps it.
    await mustSucceed(apiserver().kubectl(['get', 'namespace', 'weft-system']));
  });

  it('makes a pod on every node that has no token, three capabilities, a read-only root and is not privileged', () => {
    const { containers, initContainers, volumes, securityContext, hostPID, ...spec } =
      uninstaller.spec.template.spec;
    expect(initContainers).toEqual([]);
    expect(containers[0]?.image).toBe(IMAGE);
    expect(containers[0]?.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW', 'DAC_OVERRIDE'] },
    });
    expect(spec).toMatchObject({
      automountServiceAccountToken: false,
      hostNetwork: true,
      tolerations: [{ operator: 'Exists' }],
    });
    expect(securityContext.seccompProfile.type).toBe('RuntimeDefault');
    expect(hostPID).toBeUndefined();
    expect(containers[0]?.ports).toBeUndefined();
    expect(volumes.flatMap(({ hostPath }) => hostPath?.path ?? []).sort()).toEqual([
      '/etc/cni/net.d',
      '/opt/cni/bin',
      '/proc/sys/net',
      '/run',
      '/run/xtables.lock',
    ]);
  });

  it('looks where agent and install command of config/default put things, and starts without a shell', () => {
    const [container] = uninstaller.spec.template.spec.containers;
    expect(container?.command.slice(-2)).toEqual(['/weft/agent.mjs', 'uninstall']);
    const placeOf = (flag: string) => {
      const path = container?.args.find((one) => one.startsWith(`--${flag}=`))?.slice(flag.length + 3) ?? '';
      const mount = container?.volumeMounts.find(({ mountPath }) => `${path}/`.startsWith(`${mountPath}/`));
      const volume = uninstaller.spec.template.spec.volumes.find(({ name }) => name === mount?.name);
      return path.replace(mount?.mountPath ?? '', volume?.hostPath?.path ?? '');
    };
    const hostPathOf = (name: string) =>
      agent.spec.template.spec.volumes.find((volume) => volume.name === name)?.hostPath?.path;
    expect(placeOf('run-dir')).toBe(hostPathOf('run-weft'));
    expect(placeOf('cni-conf-dir')).toBe(hostPathOf('cni-conf'));
    expect(placeOf('cni-bin-dir')).toBe(hostPathOf('cni-bin'));
    expect(placeOf('sysctl-net')).toBe(hostPathOf('proc-sys-net'));
  });
});

describe('config/metrics', () => {
  const parsers = { 'weft-agent': parseAgentFlags, 'weft-controller': parseControllerFlags };

  it.each([
    ['weft-agent', 9144],
    ['weft-controller', 9145],
  ] as const)(
    'has %s serve its metrics on the address of its node, of either family, without a port of the pod',
    async (name, port) => {
      const { template } = (await workload('metrics', name)).spec;
      const [container] = template.spec.containers;
      expect(template.metadata).toMatchObject({
        annotations: { 'prometheus.io/scrape': 'true', 'prometheus.io/port': String(port) },
      });
      expect(container?.ports).toBeUndefined();
      expect(container?.env).toContainEqual({
        name: 'HOST_IP',
        valueFrom: { fieldRef: { fieldPath: 'status.hostIP' } },
      });
      for (const address of ['192.0.2.7', '2001:db8::7']) {
        const args = container?.args.map((argument) => argument.replace('$(HOST_IP)', address)) ?? [];
        expect(parsers[name](args).metricsAddress).toEqual({ host: parseAddress(address), port });
      }
    },
  );
});

describe('what the accounts may do', () => {
  const canI = async (user: string, verb: string, resource: string, namespace = 'kube-system') => {
    const [kind = '', subresource] = resource.split(' ');
    const asked = ['auth', 'can-i', verb, kind, `--as=${user}`, `--namespace=${namespace}`];
    if (subresource !== undefined) asked.push(`--subresource=${subresource}`);
    return String((await apiserver().kubectl(asked)).stdout) === 'yes';
  };
  const allow = [
    [AGENT, 'create', 'ipallocations.ipam.weft.dev'],
    [AGENT, 'patch', 'ipallocations.ipam.weft.dev status'],
    [AGENT, 'delete', 'nodesubnets.ipam.weft.dev'],
    [AGENT, 'patch', 'nodes status'],
    [AGENT, 'create', 'events'],
    [AGENT, 'list', 'endpointslices.discovery.k8s.io'],
    [AGENT, 'watch', 'endpointslices.discovery.k8s.io'],
    [CONTROLLER, 'patch', 'ippools.ipam.weft.dev status'],
    [CONTROLLER, 'delete', 'ipallocations.ipam.weft.dev'],
    [CONTROLLER, 'delete', 'nodesubnets.ipam.weft.dev'],
    [CONTROLLER, 'patch', 'ipallocations.ipam.weft.dev'],
    [CONTROLLER, 'get', 'statefulsets.apps'],
    [CONTROLLER, 'get', 'customresourcedefinitions.apiextensions.k8s.io/ippools.ipam.weft.dev'],
  ] as const;
  const refuse = [
    ...[AGENT, CONTROLLER].flatMap((user) =>
      (
        [
          ['get', 'secrets'],
          ['list', 'configmaps'],
          ['create', 'pods'],
          ['create', 'pods exec'],
          ['delete', 'pods'],
          ['create', 'serviceaccounts token'],
          ['patch', 'nodes'],
          ['create', 'ippools.ipam.weft.dev'],
          ['delete', 'ippools.ipam.weft.dev'],
          ['deletecollection', 'ipallocations.ipam.weft.dev'],
          ['deletecollection', 'nodesubnets.ipam.weft.dev'],
          ['patch', 'customresourcedefinitions.apiextensions.k8s.io'],
          ['bind', 'clusterroles.rbac.authorization.k8s.io'],
          ['escalate', 'clusterroles.rbac.authorization.k8s.io'],
          ['impersonate', 'users'],
          ['update', 'leases.coordination.k8s.io'],
        ] as const
      ).map(([verb, resource]) => [user, verb, resource] as const),
    ),
    [AGENT, 'patch', 'ippools.ipam.weft.dev status'],
    [CONTROLLER, 'create', 'ipallocations.ipam.weft.dev'],
    [CONTROLLER, 'create', 'nodesubnets.ipam.weft.dev'],
    [CONTROLLER, 'patch', 'nodesubnets.ipam.weft.dev'],
    [CONTROLLER, 'patch', 'nodes status'],
    [CONTROLLER, 'patch', 'statefulsets.apps'],
    [CONTROLLER, 'list', 'statefulsets.apps'],
    [AGENT, 'get', 'statefulsets.apps'],
    [AGENT, 'update', 'endpointslices.discovery.k8s.io'],
    [CONTROLLER, 'list', 'endpointslices.discovery.k8s.io'],
    [CONTROLLER, 'list', 'pods'],
    [CONTROLLER, 'create', 'events'],
  ] as const;

  it.each(allow)('%s may %s %s', async (user, verb, resource) => {
    expect(await canI(user, verb, resource)).toBe(true);
  });

  it.each(refuse)('%s may not %s %s', async (user, verb, resource) => {
    expect(await canI(user, verb, resource)).toBe(false);
  });

  it('grants the controller its one Lease, Events about pools, and to see the agents', async () => {
    const lease = 'leases.coordination.k8s.io/weft-controller';
    expect(await canI(CONTROLLER, 'update', lease, 'weft-system')).toBe(true);
    expect(await canI(CONTROLLER, 'create', 'events', 'default')).toBe(true);
    expect(await canI(CONTROLLER, 'list', 'pods', 'weft-system')).toBe(true);
    expect(await canI(CONTROLLER, 'update', 'leases.coordination.k8s.io/other', 'weft-system')).toBe(false);
  });

  it("lets the agent read the controller's Lease, and no other", async () => {
    const lease = 'leases.coordination.k8s.io/weft-controller';
    expect(await canI(AGENT, 'get', lease, 'weft-system')).toBe(true);
    expect(await canI(AGENT, 'update', lease, 'weft-system')).toBe(false);
    expect(await canI(AGENT, 'get', 'leases.coordination.k8s.io/other', 'weft-system')).toBe(false);
  });
});

describe('the admission policies', () => {
  const as = (nodeName?: string) => [
    `--as=${AGENT}`,
    '--as-group=system:serviceaccounts',
    '--as-group=system:authenticated',
    ...(nodeName === undefined ? [] : [`--as-user-extra=authentication.kubernetes.io/node-name=${nodeName}`]),
  ];
  const subnet = (nodeName: string, octet: number) => ({
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'NodeSubnet',
    metadata: { name: `10.60.${octet}.0-26` },
    spec: {
      cidr: `10.60.${octet}.0/26`,
      pool: 'pods',
      poolUID: 'u',
      nodeName,
      nodeUID: 'u',
      nextHops: ['192.0.2.1'],
    },
  });

  /** A policy is in force a moment after it has been applied. */
  beforeAll(async () => {
    for (let attempt = 0; attempt < 50; attempt++) {
      const tried = await apiserver().kubectl(
        ['create', '--dry-run=server', ...as(), '-f', '-'],
        subnet('a', 9),
      );
      if (String(tried.all).includes('names no node')) return;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    throw new Error('the policy weft-agent-own-node does not come into force');
  });

  it("let an agent write its own node's objects", async () => {
    await mustSucceed(apiserver().kubectl(['create', ...as('a'), '-f', '-'], subnet('a', 1)));
    const patch = ['patch', 'nodesubnet', '10.60.1.0-26', '--type=merge', '-p', '{"spec":{"nodeUID":"v"}}'];
    await mustSucceed(apiserver().kubectl([...patch, ...as('a')]));
    await mustSucceed(apiserver().kubectl(['delete', 'nodesubnet', '10.60.1.0-26', ...as('a')]));
  });

  it("refuse another node's, by name, whatever the verb", async () => {
    await mustSucceed(apiserver().kubectl(['create', '-f', '-'], subnet('b', 2)));
    const text = 'the agent of node a may write only what belongs to its own node, not to b';
    const tries = [
      apiserver().kubectl(['create', ...as('a'), '-f', '-'], subnet('b', 3)),
      apiserver().kubectl(['delete', 'nodesubnet', '10.60.2.0-26', ...as('a')]),
      apiserver().kubectl([
        'patch',
        'nodesubnet',
        '10.60.2.0-26',
        '--type=merge',
        '-p',
        '{"spec":{"nodeUID":"v"}}',
        ...as('a'),
      ]),
    ];
    for (const tried of await Promise.all(tries)) {
      expect(tried.exitCode).not.toBe(0);
      expect(String(tried.all)).toContain(text);
    }
  });

  describe('and addresses that go from node to node', () => {
    const STICKY = 'default/db-0';
    const attachment = { network: 'weft', containerID: 'c', ifName: 'eth0', kind: 'Interface' };
    const allocation = (octet: number, spec: object) => ({
      apiVersion: 'ipam.weft.dev/v1alpha1',
      kind: 'IPAllocation',
      metadata: { name: `10.62.0.${octet}` },
      spec: { address: `10.62.0.${octet}`, pool: 'pods', ...spec },
    });
    const make = (object: object) => mustSucceed(apiserver().kubectl(['create', '-f', '-'], object));
    const patch = (octet: number, nodeName: string, spec: object) =>
      apiserver().kubectl([
        ...['patch', 'ipallocation', `10.62.0.${octet}`, '--type=merge', ...as(nodeName)],
        ...['-p', JSON.stringify({ spec })],
      ]);
    const bind = (nodeName: string) => ({ nodeName, attachment, holder: null });
    const EMPTIED = { nodeName: null, attachment: null, holder: 'sticky' };
    const refused = 'may write only what belongs to its own node';

    it('let an agent empty a sticky one of its own node, and the next agent bind it', async () => {
      await make(allocation(1, { nodeName: 'b', attachment, sticky: STICKY }));
      expect(String((await patch(1, 'a', EMPTIED)).all)).toContain(refused);
      await mustSucceed(patch(1, 'b', EMPTIED));
      expect(String((await patch(1, 'a', bind('b'))).all)).toContain(refused);
      await mustSucceed(patch(1, 'a', bind('a')));
      expect(String((await patch(1, 'b', bind('b'))).all)).toContain(refused);
    });

    it('let an agent neither hand its own to another node, nor change or delete one that waits', async () => {
      await make(allocation(2, { nodeName: 'a', attachment, sticky: STICKY }));
      expect(String((await patch(2, 'a', bind('b'))).all)).toContain(refused);
      expect(String((await patch(2, 'a', { nodeName: null })).all)).toContain(refused);
      await mustSucceed(patch(2, 'a', EMPTIED));
      expect(String((await patch(2, 'a', { pod: { namespace: 'x', name: 'y' } })).all)).toContain(refused);
      const deleting = apiserver().kubectl(['delete', 'ipallocation', '10.62.0.2', ...as('a')]);
      expect(String((await deleting).all)).toContain(refused);
    });

    it('let no agent have what a person holds, nor make what waits for a pod', async () => {
      await make(allocation(3, { holder: 'printer', sticky: STICKY }));
      expect(String((await patch(3, 'a', bind('a'))).all)).toContain(refused);
      const making = apiserver().kubectl(
        ['create', ...as('a'), '-f', '-'],
        allocation(4, { holder: 'sticky', sticky: STICKY }),
      );
      expect(String((await making).all)).toContain(refused);
    });

    it('let an agent delete the exclusive subnet that another node left, and change or make none', async () => {
      const exclusive = (octet: number) => {
        const its = subnet('b', 5);
        const cidr = `10.60.5.${octet}/32`;
        return {
          ...its,
          metadata: { name: `10.60.5.${octet}-32` },
          spec: { ...its.spec, cidr, exclusive: true },
        };
      };
      await make(exclusive(1));
      const change = ['--type=merge', '-p', '{"spec":{"nodeUID":"v"}}'];
      const changing = apiserver().kubectl(['patch', 'nodesubnet', '10.60.5.1-32', ...change, ...as('a')]);
      expect(String((await changing).all)).toContain(refused);
      const making = apiserver().kubectl(['create', ...as('a'), '-f', '-'], exclusive(2));
      expect(String((await making).all)).toContain(refused);
      await mustSucceed(apiserver().kubectl(['delete', 'nodesubnet', '10.60.5.1-32', ...as('a')]));
    });
  });

  it('refuse a token that names no node', async () => {
    const tried = await apiserver().kubectl(['create', ...as(), '-f', '-'], subnet('a', 4));
    expect(String(tried.all)).toContain("the agent's token names no node");
  });

  describe('and tokens as an apiserver makes them, not impersonated (S3, S5)', () => {
    /** By that token alone. */
    const by = (token: string, args: readonly string[], input?: object) => {
      const { plane, dir } = apiserver();
      return execa(
        join(plane.binaries, 'kubectl'),
        [
          ...['--kubeconfig=/dev/null', `--cache-dir=${join(dir, 'token-cache')}`, `--server=${plane.url}`],
          ...[`--certificate-authority=${authority}`, `--token=${token}`, ...args],
        ],
        { reject: false, all: true, ...(input === undefined ? {} : { input: JSON.stringify(input) }) },
      );
    };
    const tokenOf = async (pod?: string) => {
      const bound = pod === undefined ? [] : ['--bound-object-kind=Pod', `--bound-object-name=${pod}`];
      const made = apiserver().kubectl([
        'create',
        'token',
        'weft-agent',
        '--namespace=weft-system',
        ...bound,
      ]);
      return (await mustSucceed(made)).trim();
    };
    let authority: string;
    beforeAll(async () => {
      const config = await mustSucceed(apiserver().kubectl(['config', 'view', '--raw', '--output=json']));
      const { clusters } = z
        .object({
          clusters: z.array(z.object({ cluster: z.record(z.string(), z.unknown()) })),
        })
        .parse(JSON.parse(config));
      const cluster = clusters[0]?.cluster ?? {};
      const data = cluster['certificate-authority-data'];
      authority = join(apiserver().dir, 'authority.crt');
      await writeFile(
        authority,
        typeof data === 'string'
          ? Buffer.from(data, 'base64')
          : await readFile(String(cluster['certificate-authority'])),
      );
      await mustSucceed(
        apiserver().kubectl(['create', '-f', '-'], {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: 'agent-of-x', namespace: 'weft-system' },
          spec: {
            nodeName: 'x',
            serviceAccountName: 'weft-agent',
            containers: [{ name: 'agent', image: 'none' }],
          },
        }),
      );
    });

    it("that of an agent's pod writes its own node's objects, and no others", async () => {
      const token = await tokenOf('agent-of-x');
      await mustSucceed(by(token, ['create', '-f', '-'], subnet('x', 21)) as Promise<Result>);
      const other = await by(token, ['create', '-f', '-'], subnet('y', 22));
      expect(other.all).toContain(
        'the agent of node x may write only what belongs to its own node, not to y',
      );
      await mustSucceed(apiserver().kubectl(['create', '-f', '-'], subnet('y', 23)));
      const taken = await by(token, [
        ...['patch', 'nodesubnet', '10.60.23.0-26', '--type=merge'],
        ...['-p', '{"spec":{"nodeName":"x"}}'],
      ]);
      expect(taken.exitCode).not.toBe(0);
      expect((await by(token, ['delete', 'nodesubnet', '10.60.23.0-26'])).all).toContain('not to y');
    });

    it("takes from no other node's addresses, by neither their spec nor their status", async () => {
      const token = await tokenOf('agent-of-x');
      const theirs = {
        apiVersion: 'ipam.weft.dev/v1alpha1',
        kind: 'IPAllocation',
        metadata: { name: '10.60.23.7' },
        spec: {
          address: '10.60.23.7',
          pool: 'pods',
          nodeName: 'y',
          attachment: { network: 'weft', containerID: 'c', ifName: 'eth0', kind: 'Interface' },
        },
      };
      await mustSucceed(apiserver().kubectl(['create', '-f', '-'], theirs));
      const released = { status: { releasedAt: '2026-01-01T00:00:00Z' } };
      const tries = [
        by(token, [
          ...['patch', 'ipallocation', '10.60.23.7', '--subresource=status', '--type=merge'],
          ...['-p', JSON.stringify(released)],
        ]),
        by(token, ['delete', 'ipallocation', '10.60.23.7']),
        by(token, ['patch', 'ipallocation', '10.60.23.7', '--type=merge', '-p', '{"spec":{"nodeName":"x"}}']),
        by(token, ['delete', 'ipallocations', '--all']),
      ];
      for (const tried of await Promise.all(tries)) expect(tried.exitCode, tried.all).not.toBe(0);
      const kept = apiserver().kubectl(['get', 'ipallocation', '10.60.23.7', '--output=json']);
      expect(JSON.parse(await mustSucceed(kept))).toMatchObject({ spec: { nodeName: 'y' } });
      expect(JSON.parse(await mustSucceed(kept))).not.toHaveProperty('status.releasedAt');
    });

    it('that is bound to no pod writes nothing', async () => {
      const tried = await by(await tokenOf(), ['create', '-f', '-'], subnet('x', 24));
      expect(tried.all).toContain("the agent's token names no node");
    });

    it('makes no token of its own account, for whatever node', async () => {
      const tried = await by(await tokenOf('agent-of-x'), [
        ...['create', 'token', 'weft-agent', '--namespace=weft-system'],
        ...['--bound-object-kind=Pod', '--bound-object-name=agent-of-x'],
      ]);
      expect(tried.all).toMatch(/cannot create resource "serviceaccounts\/token"/);
    });

    it('is worth nothing when its pod has gone', async () => {
      const token = await tokenOf('agent-of-x');
      await mustSucceed(by(token, ['get', 'ippools']) as Promise<Result>);
      const forced = ['--namespace=weft-system', '--grace-period=0', '--force'];
      await mustSucceed(apiserver().kubectl(['delete', 'pod', 'agent-of-x', ...forced]));
      // The apiserver remembers for ten seconds whom it has let in.
      await eventually(
        'the token to be refused',
        async () => /Unauthorized|must be logged in/.test((await by(token, ['get', 'ippools'])).all),
        40_000,
      );
    });
  });

  it('let an agent say of its own Node alone that its network works', async () => {
    // kubectl reads before it patches, which the agent does not and may not.
    const reader = ['create', 'clusterrole', 'reader', '--verb=get', '--resource=nodes/status'];
    await mustSucceed(apiserver().kubectl(reader));
    const subject = `--serviceaccount=${AGENT.split(':').slice(2).join(':')}`;
    await mustSucceed(
      apiserver().kubectl(['create', 'clusterrolebinding', 'reader', '--clusterrole=reader', subject]),
    );
    for (const name of ['a', 'b']) {
      await mustSucceed(
        apiserver().kubectl(['create', '-f', '-'], { apiVersion: 'v1', kind: 'Node', metadata: { name } }),
      );
    }
    const condition = { type: 'NetworkUnavailable', status: 'False', reason: 'WeftIsUp' };
    const patch = (name: string) =>
      apiserver().kubectl([
        ...['patch', 'node', name, '--subresource=status', '--type=strategic', ...as('a')],
        ...['-p', JSON.stringify({ status: { conditions: [condition] } })],
      ]);
    await mustSucceed(patch('a'));
    expect(String((await patch('b')).all)).toContain('not to b');
  });

  it("let nobody of weft change a pool's spec, only its finalizers", async () => {
    const pool = {
      apiVersion: 'ipam.weft.dev/v1alpha1',
      kind: 'IPPool',
      metadata: { name: 'theirs', finalizers: ['example.com/theirs'] },
      spec: { cidrs: ['10.61.0.0/16'] },
    };
    await mustSucceed(apiserver().kubectl(['create', '-f', '-'], pool));
    for (const user of [AGENT, CONTROLLER]) {
      const patch = (change: object) =>
        apiserver().kubectl([
          ...['patch', 'ippool', 'theirs', '--type=merge', `--as=${user}`],
          ...['-p', JSON.stringify(change)],
        ]);
      await mustSucceed(
        patch({ metadata: { finalizers: ['example.com/theirs', 'ipam.weft.dev/node-subnets'] } }),
      );
      const withoutOurs = await patch({ metadata: { finalizers: ['example.com/theirs'] } });
      if (user === CONTROLLER) expect(withoutOurs.failed).toBe(false);
      else expect(String(withoutOurs.all)).toContain('by the controller alone');
      expect(String((await patch({ metadata: { finalizers: [] } })).all)).toContain('only weft');
      const added = ['example.com/theirs', 'ipam.weft.dev/node-subnets', 'example.com/for-ever'];
      const refused = 'no label or annotation';
      for (const metadata of [{ finalizers: added }, { labels: { a: 'b' } }, { annotations: { a: 'b' } }]) {
        expect(String((await patch({ metadata })).all)).toContain(refused);
      }
      const owner = { apiVersion: 'v1', kind: 'Node', name: 'gone', uid: 'gone' };
      expect(String((await patch({ metadata: { ownerReferences: [owner] } })).all)).toContain('its owners');
      expect(String((await patch({ spec: { natOutgoing: false } })).all)).toContain('never change its spec');
    }
  });
});

describe('config/samples', () => {
  it('are pools that the apiserver takes', async () => {
    const files = await readdir(SAMPLES);
    expect(files).toContain('pod-network.yaml');
    for (const file of files) {
      await mustSucceed(
        apiserver().kubectl(['create', '--dry-run=server', '--validate=strict', '-f', join(SAMPLES, file)]),
      );
    }
  });
});
