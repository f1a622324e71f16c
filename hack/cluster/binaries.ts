import { createHash } from 'node:crypto';
import { access, mkdir, mkdtemp, readFile, rename, rm, symlink } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { withFileLock } from './lock.ts';
import { step, stderrProgress, type Progress } from './progress.ts';

/**
 * Makes sure that the named executables (all but agnhost if none are named) are there, and answers the folder
 * that holds them. What is missing is built from the Go modules under binaries/, one group after the other in
 * the order of BUILDS; a first build of all takes about six minutes on two cores. The cache lies outside the
 * checkout, keyed by the modules' versions. Where KUBEBUILDER_ASSETS is set, etcd, kube-apiserver and kubectl
 * are those. Safe to call from several processes at once.
 * Throws BinariesBuildError.
 */
export async function ensureBinaries(
  names: readonly BinaryName[] = DEFAULT_BINARIES,
  progress: Progress = stderrProgress(),
): Promise<string> {
  const directory = await binariesDirectory();
  const missing = await missingOf(directory, names);
  if (missing.length === 0) return directory;
  await mkdir(directory, { recursive: true });
  await withFileLock(
    join(directory, '.lock'),
    async () => {
      await linkAssets(directory, progress);
      const wanted = new Set(await missingOf(directory, names));
      for (const build of BUILDS) {
        const targets = build.targets.filter((target) => wanted.has(target.name));
        if (targets.length > 0) await buildTargets(build.module, targets, directory, progress);
      }
    },
    () => progress('waiting for another process that builds the same binaries'),
  );
  return directory;
}

/** `go build` failed; the message ends with the last lines of what it printed. */
export class BinariesBuildError extends Error {
  override name = 'BinariesBuildError' as const;
  readonly targets: readonly string[];
  constructor(targets: readonly string[], module: string, output: string, options: ErrorOptions) {
    const last = output.split('\n').slice(-15).join('\n');
    super(
      `cannot build ${targets.join(', ')} in ${module}. Go 1.26 or newer and a reachable Go module proxy are ` +
        `needed (go env GOPROXY); go said:\n${last}`,
      options,
    );
    this.targets = targets;
  }
}

type Target = { readonly name: string; readonly package: string };

const kubernetes = (name: string): Target => ({ name, package: `k8s.io/kubernetes/cmd/${name}` });
const containerd = (name: string): Target => ({
  name,
  package: `github.com/containerd/containerd/v2/cmd/${name}`,
});
const plugin = (kind: string) => (name: string) => ({
  name,
  package: `github.com/containernetworking/plugins/plugins/${kind}/${name}`,
});

const CONTROL_PLANE_BINARIES = ['etcd', 'kube-apiserver', 'kubectl'] as const;
const NODE_BINARIES = ['kube-controller-manager', 'kube-scheduler', 'kubelet', 'kube-proxy'] as const;
const RUNTIME_BINARIES = ['containerd', 'containerd-shim-runc-v2', 'ctr', 'cnitool'] as const;

/** The reference plugins that every node finds in /opt/cni/bin. */
export const REFERENCE_PLUGINS = [
  'host-local',
  'bridge',
  'loopback',
  'macvlan',
  'ptp',
  'bandwidth',
  'portmap',
] as const;

const DEFAULT_BINARIES = [
  ...CONTROL_PLANE_BINARIES,
  ...NODE_BINARIES,
  ...RUNTIME_BINARIES,
  ...REFERENCE_PLUGINS,
  'coredns',
  'etcdutl',
] as const;

export type BinaryName = (typeof DEFAULT_BINARIES)[number] | 'agnhost';

const MODULES = ['kubernetes', 'etcd', 'containerd', 'coredns'] as const;

/** In the order of building: what is waited for first comes first. */
const BUILDS: readonly { readonly module: (typeof MODULES)[number]; readonly targets: readonly Target[] }[] =
  [
    {
      module: 'etcd',
      targets: [
        { name: 'etcd', package: 'go.etcd.io/etcd/server/v3' },
        { name: 'etcdutl', package: 'go.etcd.io/etcd/etcdutl/v3' },
      ],
    },
    { module: 'kubernetes', targets: [kubernetes('kube-apiserver'), kubernetes('kubectl')] },
    { module: 'kubernetes', targets: NODE_BINARIES.map(kubernetes) },
    {
      module: 'containerd',
      targets: [
        ...['containerd', 'containerd-shim-runc-v2', 'ctr'].map(containerd),
        { name: 'cnitool', package: 'github.com/containernetworking/cni/cnitool' },
        ...['bridge', 'loopback', 'macvlan', 'ptp'].map(plugin('main')),
        ...['bandwidth', 'portmap'].map(plugin('meta')),
        ...['host-local'].map(plugin('ipam')),
      ],
    },
    { module: 'coredns', targets: [{ name: 'coredns', package: 'github.com/coredns/coredns' }] },
    {
      module: 'kubernetes',
      targets: [{ name: 'agnhost', package: 'k8s.io/kubernetes/test/images/agnhost' }],
    },
  ];

/** The version that Kubernetes binaries report; the modules are at the same one. */
const KUBERNETES_VERSION = 'v1.36.3';
const LINKER_FLAGS = `-s -w -X k8s.io/component-base/version.gitVersion=${KUBERNETES_VERSION}`;

async function binariesDirectory(): Promise<string> {
  const hash = createHash('sha256').update(LINKER_FLAGS).update(process.arch);
  for (const module of MODULES) {
    for (const file of ['go.mod', 'go.sum']) hash.update(await readFile(join(modulePath(module), file)));
  }
  // Assets from elsewhere may be of another version, so they get a folder of their own.
  hash.update(process.env.KUBEBUILDER_ASSETS ?? '');
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  return join(cache, 'weft', 'binaries', hash.digest('hex').slice(0, 16));
}

const modulePath = (module: string) => join(import.meta.dirname, 'binaries', module);

async function missingOf(directory: string, names: readonly string[]): Promise<string[]> {
  const found = await Promise.all(names.map((name) => exists(join(directory, name))));
  return names.filter((_, index) => found[index] !== true);
}

async function linkAssets(directory: string, progress: Progress): Promise<void> {
  const assets = process.env.KUBEBUILDER_ASSETS;
  if (assets === undefined || assets === '') return;
  for (const name of CONTROL_PLANE_BINARIES) {
    const source = join(assets, name);
    if (!(await exists(source)) || (await exists(join(directory, name)))) continue;
    progress(`using ${source} (KUBEBUILDER_ASSETS)`);
    await symlink(source, join(directory, name));
  }
}

/** Builds into a folder beside the final one and renames each executable: never half a file, also after a kill. */
async function buildTargets(
  module: string,
  targets: readonly Target[],
  directory: string,
  progress: Progress,
): Promise<void> {
  const names = targets.map((target) => target.name);
  await step(progress, `building ${names.join(', ')}`, async () => {
    const output = await mkdtemp(join(directory, '.building-'));
    try {
      const packages = targets.map((target) => target.package);
      const flags = ['-trimpath', '-buildvcs=false', '-ldflags', LINKER_FLAGS, '-o', `${output}/`];
      const built = await execa('go', ['build', ...flags, ...packages], {
        cwd: modulePath(module),
        env: { CGO_ENABLED: '0', GOWORK: 'off' },
        all: true,
        reject: false,
      });
      if (built.failed) throw new BinariesBuildError(names, modulePath(module), built.all, { cause: built });
      for (const target of targets)
        await rename(join(output, builtName(target)), join(directory, target.name));
    } finally {
      await rm(output, { recursive: true, force: true });
    }
  });
}

/** go names an executable after the last part of its import path, leaving out a major version. */
function builtName(target: Target): string {
  const parts = target.package.split('/').filter((part) => !/^v[0-9]+$/.test(part));
  return parts.at(-1) ?? target.name;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
