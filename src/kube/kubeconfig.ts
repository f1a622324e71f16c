import type { RequestOptions } from 'node:https';
import { KubeConfig } from '@kubernetes/client-node/dist/config.js';
import { KubeConfigError, serverURL, type KubeConnection } from './connection.ts';

/**
 * Reads a kubeconfig: certificates, tokens, and programs that fetch a credential. Without `file`, what kubectl
 * would use: $KUBECONFIG or ~/.kube/config. Without `context`, its current one.
 * @throws KubeConfigError
 */
export async function kubeconfigConnection(file?: string, context?: string): Promise<KubeConnection> {
  const source = file ?? process.env.KUBECONFIG ?? '~/.kube/config';
  const config = new KubeConfig();
  try {
    if (file === undefined) config.loadFromDefault();
    else config.loadFromFile(file);
  } catch (error) {
    throw new KubeConfigError(`cannot read the kubeconfig ${source}`, { cause: error });
  }
  if (file === undefined && config.getCurrentCluster()?.server === NO_CONFIG) {
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
  const { ca, cert, key, headers } = await credentials(config, source);
  let token = bearerOf(headers);
  return {
    server,
    tls: {
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(cluster.tlsServerName === undefined ? {} : { servername: cluster.tlsServerName }),
    },
    async token({ fresh }) {
      if (fresh) token = bearerOf((await credentials(config, source)).headers);
      return token;
    },
  };
}

/** What the library makes up where it finds no kubeconfig. */
const NO_CONFIG = 'http://localhost:8080';

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
