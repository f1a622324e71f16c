import { createServer } from 'node:net';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { ensureBinaries } from './binaries.ts';
import {
  openAuthority,
  serviceAccountKeys,
  writeKubeconfig,
  type Authority,
  type KeyPair,
} from './certificates.ts';
import { isAlive, signalProcess, startProcess, stopProcess, type ProcessRecord } from './processes.ts';

/**
 * Starts a real etcd and a real kube-apiserver on free loopback ports and answers when the apiserver is ready
 * (about 8 s): RBAC and Node authorizer, admission as in a release (ValidatingAdmissionPolicy, NodeRestriction),
 * dual-stack service CIDRs. No controllers, no scheduler: tests write what they need. All files go below `dir`,
 * which the caller owns; the processes end with `stop()`, or with the caller's process.
 * Throws ControlPlaneError if a part does not come up, and what ensureBinaries throws.
 *
 *     const plane = await startControlPlane({ dir: await mkdtemp(join(tmpdir(), 'weft-apiserver-')) });
 *     … loadFromFile(plane.kubeconfig) …
 *     await plane.stop();
 */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const binaries = options.binaries ?? (await ensureBinaries(['etcd', 'kube-apiserver', 'kubectl']));
  await mkdir(options.dir, { recursive: true });
  const [clientPort, peerPort, apiPort] = await freePorts();
  const credentials = await controlPlaneCredentials(join(options.dir, 'pki'), [
    '127.0.0.1',
    '::1',
    'localhost',
  ]);
  const layout: ControlPlaneLayout = {
    dir: options.dir,
    binaries,
    address: '127.0.0.1',
    ports: { client: clientPort, peer: peerPort, api: apiPort },
    serviceCidrs: options.serviceCidrs ?? ['10.96.0.0/16', 'fd00:10:96::/112'],
    durable: false,
    extraApiserverArgs: ['--endpoint-reconciler-type=none', ...(options.extraApiserverArgs ?? [])],
  };
  const url = `https://127.0.0.1:${apiPort}`;
  const kubeconfig = await writeKubeconfig(
    join(options.dir, 'admin.kubeconfig'),
    url,
    credentials.authority,
    credentials.admin,
  );
  const commands = { etcd: etcdCommand(layout), apiserver: apiserverCommand(layout, credentials) };
  const running = new Map<keyof typeof commands, ProcessRecord>();
  const begin = async (part: keyof typeof commands) => {
    running.set(part, await startProcess({ ...commands[part], survives: false }));
  };
  const end = async (part: keyof typeof commands, graceMs = 5_000) => {
    const record = running.get(part);
    running.delete(part);
    if (record !== undefined) await stopProcess(record, graceMs);
  };
  const ready = () => apiserverReady(url, [...running.values()], options.dir);
  const others: ProcessRecord[] = [];
  const stop = async () => {
    for (const record of others) await stopProcess(record, 0);
    for (const part of ['apiserver', 'etcd'] as const) await end(part);
  };
  try {
    for (const part of ['etcd', 'apiserver'] as const) await begin(part);
    await ready();
  } catch (error) {
    await stop();
    throw error;
  }
  const kill = async (part: keyof typeof commands) => {
    await end(part, 0);
    await begin(part);
    await ready();
  };
  const data = join(options.dir, 'etcd');
  const etcdUrl = `http://127.0.0.1:${clientPort}`;
  let backups = 0;
  return {
    url,
    kubeconfig,
    etcdUrl,
    binaries,
    ...credentials,
    stop,
    // It would wait for watches to end, for as long as it may.
    restartApiserver: () => kill('apiserver'),
    killEtcd: () => kill('etcd'),
    async pauseEtcd(ms) {
      const etcd = running.get('etcd');
      if (etcd === undefined) throw new ControlPlaneError(url, options.dir, 'there is no etcd to pause');
      signalProcess(etcd.pid, 'SIGSTOP');
      try {
        await sleep(ms);
      } finally {
        signalProcess(etcd.pid, 'SIGCONT');
      }
      await ready();
    },
    async startAnotherApiserver(etcdPort) {
      const [port] = await freePorts();
      const ports = { ...layout.ports, client: etcdPort, api: port };
      const command = apiserverCommand({ ...layout, ports }, credentials);
      const logFile = join(options.dir, `kube-apiserver-${port}.log`);
      const record = await startProcess({ ...command, logFile, survives: false });
      others.push(record);
      const itsUrl = `https://127.0.0.1:${port}`;
      await apiserverReady(itsUrl, [record], options.dir);
      const file = join(options.dir, `admin-${port}.kubeconfig`);
      return {
        url: itsUrl,
        kubeconfig: await writeKubeconfig(file, itsUrl, credentials.authority, credentials.admin),
      };
    },
    async backUpStore() {
      const snapshot = join(options.dir, `etcd-snapshot-${++backups}.db`);
      await saveSnapshot(etcdUrl, snapshot);
      return snapshot;
    },
    async restoreStore(snapshot, { restartApiserver, raiseRevisions = false }) {
      const restored = `${data}-restored`;
      const raising = raiseRevisions ? ['--bump-revision', '1000000000', '--mark-compacted'] : [];
      const command = ['snapshot', 'restore', snapshot, '--data-dir', restored, ...raising];
      await execa(join(await ensureBinaries(['etcdutl']), 'etcdutl'), command);
      if (restartApiserver) await end('apiserver', 0);
      await end('etcd', 0);
      await rm(data, { recursive: true });
      await rename(restored, data);
      await begin('etcd');
      if (restartApiserver) await begin('apiserver');
      await ready();
    },
  };
}

export type ControlPlaneOptions = {
  /** Where data, certificates and logs go (etcd.log, kube-apiserver.log). */
  readonly dir: string;
  /** The folder with etcd and kube-apiserver; ensureBinaries' if absent. */
  readonly binaries?: string;
  /** One or two; the first one's family is the default of Services. */
  readonly serviceCidrs?: readonly string[];
  readonly extraApiserverArgs?: readonly string[];
};

export type ControlPlane = ControlPlaneCredentials & {
  readonly url: string;
  /** A kubeconfig file of a member of system:masters, with everything embedded. */
  readonly kubeconfig: string;
  readonly etcdUrl: string;
  readonly binaries: string;
  /** Kills the apiserver and starts it again. */
  restartApiserver(): Promise<void>;
  /** Kills etcd and starts it again with its data. */
  killEtcd(): Promise<void>;
  /** A second apiserver of the same etcd, which it finds at that port of this machine. Ends with the rest. */
  startAnotherApiserver(etcdPort: number): Promise<{ readonly url: string; readonly kubeconfig: string }>;
  /** Holds etcd up. */
  pauseEtcd(ms: number): Promise<void>;
  /** Saves a snapshot of etcd, as `etcdctl snapshot save` does; answers its file. */
  backUpStore(): Promise<string>;
  /** Puts etcd back to such a snapshot, as a person does, with etcdutl. */
  restoreStore(snapshot: string, options: RestoreOptions): Promise<void>;
  stop(): Promise<void>;
};

export type RestoreOptions = {
  readonly restartApiserver: boolean;
  /** With the options that the README names, so that etcd has a higher revision afterwards than before. */
  readonly raiseRevisions?: boolean;
};

export type ControlPlaneCredentials = {
  /** Issues client certificates: commonName is the user, organizations are the groups. */
  readonly authority: Authority;
  readonly admin: KeyPair;
  readonly apiserver: KeyPair;
  /** What the apiserver shows to kubelets. */
  readonly kubeletClient: KeyPair;
  readonly serviceAccount: { readonly privateFile: string; readonly publicFile: string };
};

/** The control plane did not become ready. */
export class ControlPlaneError extends Error {
  override name = 'ControlPlaneError' as const;
  readonly dir: string;
  constructor(url: string, dir: string, reason: string) {
    super(
      `the control plane at ${url} is not ready: ${reason}; see etcd.log and kube-apiserver.log in ${dir}`,
    );
    this.dir = dir;
  }
}

/** Where the parts of a control plane listen and write. */
export type ControlPlaneLayout = {
  readonly dir: string;
  readonly binaries: string;
  readonly address: string;
  readonly ports: { readonly client: number; readonly peer: number; readonly api: number };
  readonly serviceCidrs: readonly string[];
  /** Whether etcd waits for the disk. Without, a crash of the machine loses writes; of the process, none. */
  readonly durable: boolean;
  readonly extraApiserverArgs: readonly string[];
};

/** Makes, or finds again in `directory`, the certificates and keys; `hosts` are what the apiserver serves under. */
export async function controlPlaneCredentials(
  directory: string,
  hosts: readonly string[],
): Promise<ControlPlaneCredentials> {
  const authority = await openAuthority(directory);
  const names = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc'];
  const [apiserver, admin, kubeletClient, serviceAccount] = await Promise.all([
    authority.issue({
      name: 'apiserver',
      commonName: 'kube-apiserver',
      hosts: [...hosts, ...names, 'kubernetes.default.svc.cluster.local'],
    }),
    authority.issue({ name: 'admin', commonName: 'weft-admin', organizations: ['system:masters'] }),
    authority.issue({
      name: 'apiserver-kubelet-client',
      commonName: 'kube-apiserver-kubelet-client',
      organizations: ['system:masters'],
    }),
    serviceAccountKeys(directory),
  ]);
  return { authority, apiserver, admin, kubeletClient, serviceAccount };
}

type Part = { readonly command: string; readonly args: readonly string[]; readonly logFile: string };

/** etcd without TLS: it listens on loopback of the control plane's namespace alone. */
export function etcdCommand(layout: ControlPlaneLayout): Part {
  const client = `http://127.0.0.1:${layout.ports.client}`;
  const peer = `http://127.0.0.1:${layout.ports.peer}`;
  return {
    command: join(layout.binaries, 'etcd'),
    args: [
      `--data-dir=${join(layout.dir, 'etcd')}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=default=${peer}`,
      ...(layout.durable ? [] : ['--unsafe-no-fsync']),
      '--log-level=warn',
    ],
    logFile: join(layout.dir, 'etcd.log'),
  };
}

export function apiserverCommand(layout: ControlPlaneLayout, credentials: ControlPlaneCredentials): Part {
  return {
    command: join(layout.binaries, 'kube-apiserver'),
    args: [
      `--etcd-servers=http://127.0.0.1:${layout.ports.client}`,
      `--advertise-address=${layout.address}`,
      `--bind-address=${layout.address === '127.0.0.1' ? '127.0.0.1' : '0.0.0.0'}`,
      `--secure-port=${layout.ports.api}`,
      `--service-cluster-ip-range=${layout.serviceCidrs.join(',')}`,
      `--client-ca-file=${credentials.authority.certificateFile}`,
      `--tls-cert-file=${credentials.apiserver.certificateFile}`,
      `--tls-private-key-file=${credentials.apiserver.keyFile}`,
      `--kubelet-client-certificate=${credentials.kubeletClient.certificateFile}`,
      `--kubelet-client-key=${credentials.kubeletClient.keyFile}`,
      // Node names do not resolve anywhere.
      '--kubelet-preferred-address-types=InternalIP',
      '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
      `--service-account-key-file=${credentials.serviceAccount.publicFile}`,
      `--service-account-signing-key-file=${credentials.serviceAccount.privateFile}`,
      '--authorization-mode=Node,RBAC',
      '--enable-admission-plugins=NodeRestriction',
      '--allow-privileged=true',
      ...layout.extraApiserverArgs,
    ],
    logFile: join(layout.dir, 'kube-apiserver.log'),
  };
}

const READY_DEADLINE_MS = 60_000;

/** Waits until /readyz says ok. `parts` are watched meanwhile: a dead one ends the wait. */
export async function apiserverReady(
  url: string,
  parts: readonly ProcessRecord[],
  dir: string,
): Promise<void> {
  const authority = await readFile(join(dir, 'pki', 'ca.crt'));
  const deadline = performance.now() + READY_DEADLINE_MS;
  for (;;) {
    if (await answersOk(`${url}/readyz`, authority)) return;
    for (const part of parts) {
      if (!(await isAlive(part))) {
        const last = await lastWords(dir);
        throw new ControlPlaneError(url, dir, `process ${part.pid} has ended (last words: ${last})`);
      }
    }
    if (performance.now() > deadline)
      throw new ControlPlaneError(url, dir, `no answer for ${READY_DEADLINE_MS} ms`);
    await sleep(100);
  }
}

/** The end of both logs: of a test's control plane nothing else is left afterwards. */
async function lastWords(dir: string): Promise<string> {
  const files = ['etcd.log', 'kube-apiserver.log'];
  const logs = await Promise.all(files.map((file) => readFile(join(dir, file), 'utf8').catch(() => '')));
  return logs
    .map((text, i) => `${files[i] ?? ''}: ${text.trim().split('\n').slice(-4).join(' | ')}`)
    .join('; ');
}

async function answersOk(url: string, authority: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(url, { ca: authority, timeout: 5_000, agent: false }, (answer) => {
      answer.resume();
      answer.on('close', () => resolve(answer.statusCode === 200));
    });
    // Refused, reset, or not answering: not ready yet, and asked again until the deadline.
    request.on('error', () => resolve(false));
    request.on('timeout', () => request.destroy());
  });
}

/** By etcd's gateway: pieces of the file, each in a line of JSON, the checksum that etcdutl asks for at the end. */
async function saveSnapshot(etcdUrl: string, file: string): Promise<void> {
  const answer = await fetch(`${etcdUrl}/v3/maintenance/snapshot`, { method: 'POST', body: '{}' });
  const lines = (await answer.text()).split('\n').filter((line) => line !== '');
  const pieces = lines.map((line) => {
    const { result } = JSON.parse(line) as { result?: { blob?: string } };
    if (result === undefined) throw new Error(`etcd gave no snapshot: ${line.slice(0, 200)}`);
    return Buffer.from(result.blob ?? '', 'base64');
  });
  await writeFile(file, Buffer.concat(pieces));
}

/**
 * Below those that the kernel gives to connections: what is killed and started again must find its port free, and not
 * taken by somebody who was told to connect to it meanwhile.
 */
async function freePorts(): Promise<[number, number, number]> {
  const range = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
  const first = Number(range.trim().split(/\s+/)[0]);
  const taken = new Set<number>();
  const port = async () => {
    for (;;) {
      const candidate = LOWEST_PORT + Math.floor(Math.random() * (first - LOWEST_PORT));
      if (taken.has(candidate) || !(await isFree(candidate))) continue;
      taken.add(candidate);
      return candidate;
    }
  };
  return [await port(), await port(), await port()];
}

const LOWEST_PORT = 10_000;

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
