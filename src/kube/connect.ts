import buildConnector from 'undici/lib/core/connect.js';
import type { buildConnector as Undici } from 'undici';
import type { KubeConnection, TLSFacts } from './connection.ts';

/**
 * Opens connections that are verified by what the connection's files said when it was made, and, where that fails, by
 * what they say now: a cluster's authority may be replaced while a process runs for months, and it would never find back
 * to an apiserver that shows a certificate of the new one. Why a connection failed is not asked: the files are small, and
 * whoever is refused waits longer before it tries again than they take to be read.
 */
export function createConnect(connection: Pick<KubeConnection, 'tls' | 'freshTLS'>): Undici.connector {
  let known = { tls: connection.tls, connect: connectorOf(connection.tls) };

  return (options, callback) => {
    const { connect } = known;
    connect(options, (...outcome) => {
      const [error] = outcome;
      if (error === null) return callback(...outcome);
      readAgain().then(
        () => {
          // Another connection may have failed and read them just before.
          if (known.connect === connect) callback(error, null);
          else known.connect(options, callback);
        },
        (cause: unknown) => callback(withCause(error, cause), null),
      );
    });
  };

  async function readAgain(): Promise<void> {
    const tls = await connection.freshTLS();
    if (!isSame(tls, known.tls)) known = { tls, connect: connectorOf(tls) };
  }
}

function connectorOf(tls: TLSFacts): Undici.connector {
  return buildConnector({ ...tls, rejectUnauthorized: true, timeout: 10_000, allowH2: false });
}

function isSame(a: TLSFacts, b: TLSFacts): boolean {
  const text = (value: string | Buffer | undefined) => value?.toString();
  return (['ca', 'cert', 'key', 'servername'] as const).every((name) => text(a[name]) === text(b[name]));
}

/** Both are worth knowing: that no connection came about, and that its files cannot be read. */
function withCause(error: Error, cause: unknown): Error {
  const why = cause instanceof Error ? cause.message : String(cause);
  return Object.assign(error, { message: `${error.message} (and ${why})` });
}
