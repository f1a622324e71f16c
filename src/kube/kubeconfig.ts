import { existsSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { delimiter } from 'node:path';
import { KubeConfig } from '@kubernetes/client-node/dist/config.js';
import { KubeConfigError, serverURL, type KubeConnection, type TLSFacts } from './connection.ts';

/**
 * Reads a kubeconfig: certificates, tokens, and programs that fetch a credential. Without `file`, what kubectl
 * would use: $KUBECONFIG or ~/.kube/config. Without `context`, its current one.
 * @throws KubeConfigError
 */
export async function kubeconfigConnection(file?: string, context?: string): Promise<KubeConnection> {
  const files = file === undefined ? filesOf(process.env.KUBECONFIG) : [file];
  const source = files.length === 0 ? '~/.kube/config' : files.join(delimiter);
  const config = new KubeConfig();
  try {
    if (files.length === 0) config.loadFromDefault();
    else mergeFiles(config, files);
  } catch (error) {
    throw new KubeConfigError(`cannot read the kubeconfig ${source}`, { cause: error });
  }
  if (files.length === 0 && config.getCurrentCluster()?.server === NO_CONFIG) {
    throw new KubeConfigError(
      'there is no kubeconfig: name one with --kubeconfig or KUBECONFIG, or put it into ~/.kube/config',
    );
  }
  if (context !== undefined) useContext(config, context, source);
  const cluster = config.getCurrentCluster();
  if (cluster === null) {
    throw new KubeConfigError(`the kubeconfig ${source} has no current context, or none with a cluster`);
  }
  if (cluster.skipTLSVerify === true) {
    throw new KubeConfigError(
      `the kubeconfig ${source} sets insecure-skip-tls-verify, and weft always verifies: put in the ` +
        "cluster's certificate-authority",
    );
  }
  if (cluster.proxyUrl !== undefined) {
    throw new KubeConfigError(`the kubeconfig ${source} sets proxy-url, which weft does not support`);
  }
  const server = serverURL(cluster.server, source);
  const { tlsServerName } = cluster;
  const tlsOf = ({ ca, cert, key }: Credentials): TLSFacts => ({
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(tlsServerName === undefined ? {} : { servername: tlsServerName }),
  });
  const first = await credentials(config, source);
  let token = bearerOf(first.headers);
  return {
    server,
    tls: tlsOf(first),
    freshTLS: async () => tlsOf(await credentials(config, source)),
    async token({ fresh }) {
      if (fresh) token = bearerOf((await credentials(config, source)).headers);
      return token;
    },
  };
}

/** What the library makes up where it finds no kubeconfig. */
const NO_CONFIG = 'http://localhost:8080';

function filesOf(list: string | undefined): string[] {
  return (list ?? '').split(delimiter).filter((file) => file !== '');
}

/**
 * Of several files the first one that says something is believed, and one that is not there says nothing, as kubectl
 * has it. The library takes the last one's current context, and refuses two clusters of one name.
 */
function mergeFiles(config: KubeConfig, files: readonly string[]): void {
  const there = files.filter((file) => existsSync(file));
  for (const file of there.length === 0 ? files : there) {
    const one = new KubeConfig();
    one.loadFromFile(file);
    config.currentContext ||= one.currentContext;
    config.clusters = withNew(config.clusters, one.clusters);
    config.users = withNew(config.users, one.users);
    config.contexts = withNew(config.contexts, one.contexts);
  }
}

function withNew<T extends { readonly name: string }>(known: readonly T[], found: readonly T[]): T[] {
  return [...known, ...found.filter(({ name }) => !known.some((one) => one.name === name))];
}

function useContext(config: KubeConfig, context: string, source: string): void {
  const known = config.getContexts().map(({ name }) => name);
  if (!known.includes(context)) {
    const there = known.length === 0 ? 'it has none' : `it has ${known.join(', ')}`;
    throw new KubeConfigError(`the kubeconfig ${source} has no context "${context}": ${there}`);
  }
  config.setCurrentContext(context);
}

interface Credentials {
  readonly ca?: string | Buffer;
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  readonly headers: RequestOptions['headers'];
}

async function credentials(config: KubeConfig, source: string): Promise<Credentials> {
  const options: RequestOptions = {};
  try {
    await config.applyToHTTPSOptions(options);
  } catch (error) {
    throw new KubeConfigError(`the kubeconfig ${source} yields no credential`, { cause: error });
  }
  const one = (value: unknown) => (typeof value === 'string' || Buffer.isBuffer(value) ? value : undefined);
  const [ca, cert, key] = [one(options.ca), one(options.cert), one(options.key)];
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    headers: options.headers,
  };
}

function bearerOf(headers: RequestOptions['headers']): string | undefined {
  if (headers === undefined || Array.isArray(headers)) return undefined;
  const value: unknown = Object.entries(headers).find(
    ([name]) => name.toLowerCase() === 'authorization',
  )?.[1];
  return typeof value === 'string' && value.startsWith('Bearer ') ? value.slice('Bearer '.length) : undefined;
}
