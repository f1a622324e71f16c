import { readFile } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import type { Clock } from '../ipam/clock.ts';

/** Where the apiserver is, and who we are to it. */
export interface KubeConnection {
  /** https://host:port, a path prefix allowed. */
  readonly server: URL;
  readonly tls: TLSFacts;
  /** The same, as its files say now. Asked for after a connection could not be made: authorities are replaced, too. */
  freshTLS(): Promise<TLSFacts>;
  /**
   * The bearer token to send, if there is one. `fresh` is asked for after a 401: the one known is no longer good.
   */
  token(ask: { readonly fresh: boolean }): Promise<string | undefined>;
}

/** Whom to trust, and what to show. */
export interface TLSFacts {
  readonly ca?: string | Buffer;
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  readonly servername?: string;
}

export interface ConnectionOptions {
  /** A kubeconfig file. Without, what kubectl would use: $KUBECONFIG, a pod's service account, ~/.kube/config. */
  readonly kubeconfig?: string;
  /** A context of the kubeconfig. Without, its current one. */
  readonly context?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
}

/**
 * Finds the apiserver like kubectl does.
 * @throws KubeConfigError
 */
export async function loadConnection(options: ConnectionOptions): Promise<KubeConnection> {
  const { kubeconfig, context, env } = options;
  const asked = kubeconfig ?? context ?? env.KUBECONFIG;
  if (asked === undefined && env.KUBERNETES_SERVICE_HOST !== undefined) return inClusterConnection(options);
  // Only who needs a kubeconfig pays for its reader: 38 MB of memory.
  const { kubeconfigConnection } = await import('./kubeconfig.ts');
  return kubeconfigConnection(kubeconfig, context);
}

/** The configuration does not lead to an apiserver that may be trusted. */
export class KubeConfigError extends Error {
  override name = 'KubeConfigError' as const;
}

/**
 * Checks the address of an apiserver.
 * @throws KubeConfigError unless it is an https URL: weft never speaks to one that it cannot verify
 */
export function serverURL(server: string, source: string): URL {
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (url?.protocol === 'https:') return url;
  throw new KubeConfigError(
    `the apiserver's address in ${source} is "${server}": it must be an https URL, since weft only speaks to an ` +
      'apiserver whose certificate it can verify',
  );
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/** The kubelet renews a pod's token long before it ends; the file is read again when it may have. */
const TOKEN_READ_AGAIN_MS = 60_000;

export async function inClusterConnection(
  { env, clock }: Pick<ConnectionOptions, 'env' | 'clock'>,
  folder = SERVICE_ACCOUNT,
): Promise<KubeConnection> {
  const host = env.KUBERNETES_SERVICE_HOST ?? '';
  const port = env.KUBERNETES_SERVICE_PORT ?? '443';
  const server = serverURL(`https://${isIPv6(host) ? `[${host}]` : host}:${port}`, 'KUBERNETES_SERVICE_HOST');
  const readToken = async () => (await readAccountFile(join(folder, 'token'))).trim();
  const readTLS = async () => ({ ca: await readAccountFile(join(folder, 'ca.crt')) });
  let known = { token: await readToken(), readAtMs: clock.nowMs() };
  return {
    server,
    tls: await readTLS(),
    freshTLS: readTLS,
    async token({ fresh }) {
      if (fresh || clock.nowMs() - known.readAtMs > TOKEN_READ_AGAIN_MS) {
        known = { token: await readToken(), readAtMs: clock.nowMs() };
      }
      return known.token;
    },
  };
}

async function readAccountFile(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new KubeConfigError(
      `cannot read ${file}: the pod needs a service account with automountServiceAccountToken`,
      { cause: error },
    );
  }
}
