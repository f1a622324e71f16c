import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { execa, type Result } from 'execa';
import { startControlPlane, type ControlPlane } from '../../hack/cluster/control-plane.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import {
  createKubeClient,
  loadConnection,
  type InformerParts,
  type KubeClient,
  type KubeClientOptions,
  type Log,
} from '../../src/kube/index.ts';

const CRDS = new URL('../../crds/', import.meta.url).pathname;
export const SAMPLES = new URL('../../config/samples/', import.meta.url).pathname;

/** A real etcd and kube-apiserver with weft's CRDs, and a client of a cluster administrator. */
export interface TestApiserver {
  readonly plane: ControlPlane;
  /** For files of the test; removed at the end. */
  readonly dir: string;
  readonly client: KubeClient;
  /** Runs kubectl; answers also where it fails. */
  kubectl(args: readonly string[], input?: object | string): Promise<Result>;
  /** A further client, through another address (a proxy's) if given. */
  connect(options?: KubeClientOptions & { readonly server?: string }): Promise<KubeClient>;
  stop(): Promise<void>;
}

/** Starts one for the tests of a file. */
export function useApiserver(options: ApiserverOptions = {}): () => TestApiserver {
  let server: TestApiserver | undefined;
  beforeAll(async () => {
    server = await startApiserver(options);
  });
  afterAll(async () => {
    await server?.stop();
  });
  return () => {
    if (server === undefined)
      throw new Error('the apiserver is started before the first test, not before that');
    return server;
  };
}

export interface ApiserverOptions {
  readonly extraApiserverArgs?: readonly string[];
}

export async function startApiserver(options: ApiserverOptions = {}): Promise<TestApiserver> {
  const dir = await mkdtemp(join(tmpdir(), 'weft-apiserver-'));
  const plane = await startControlPlane({ dir, ...options });
  const clients = new Set<KubeClient>();
  const server: TestApiserver = {
    plane,
    dir,
    client: await connect(),
    kubectl: (args, input) =>
      execa(join(plane.binaries, 'kubectl'), ['--kubeconfig', plane.kubeconfig, ...args], {
        reject: false,
        all: true,
        ...(input === undefined ? {} : { input: typeof input === 'string' ? input : JSON.stringify(input) }),
      }) as Promise<Result>,
    connect,
    async stop() {
      for (const client of clients) await client.close();
      await plane.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
  try {
    for (const file of ['ippools.yaml', 'nodesubnets.yaml', 'ipallocations.yaml']) {
      await mustSucceed(server.kubectl(['apply', '--server-side', '-f', CRDS + file]));
    }
    await mustSucceed(
      server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']),
    );
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;

  async function connect({ server, ...options }: KubeClientOptions & { readonly server?: string } = {}) {
    const env = {};
    const connection = await loadConnection({
      kubeconfig: plane.kubeconfig,
      env,
      clock: createSystemClock(),
    });
    const client = createKubeClient(
      server === undefined ? connection : { ...connection, server: new URL(server) },
      { userAgent: 'weft-test', ...options },
    );
    clients.add(client);
    return client;
  }
}

export async function mustSucceed(running: Promise<Result>): Promise<string> {
  const result = await running;
  if (result.exitCode !== 0) throw new Error(`${result.escapedCommand}: ${String(result.all)}`);
  return String(result.stdout);
}

/** A log that keeps what was said. */
export function keepingLog(): Log & { readonly lines: { level: string; facts: object; message: string }[] } {
  const lines: { level: string; facts: object; message: string }[] = [];
  const keep = (level: string) => (facts: object, message: string) => {
    lines.push({ level, facts, message });
  };
  return { lines, info: keep('info'), warn: keep('warn'), error: keep('error') };
}

/** What informers need, without the jitter that 5,000 nodes need. */
export function informerParts(client: KubeClient, options: Partial<InformerParts> = {}): InformerParts {
  return {
    client,
    clock: createSystemClock(),
    random: Math.random,
    log: keepingLog(),
    relistJitterMs: 0,
    ...options,
  };
}
