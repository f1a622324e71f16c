import { formatAddress, tryParseAddress, type IPAddress } from '../net/index.ts';
import { InvalidFlagError } from '../settings.ts';

/** Where metrics are served. */
export interface MetricsAddress {
  readonly host: IPAddress;
  readonly port: number;
}

/**
 * Reads the value of `--metrics-address`; undefined where it is empty: no metrics are served. Brackets may stand
 * around either family, so that a manifest need not know which its node has.
 * @throws InvalidFlagError
 */
export function parseMetricsAddress(text: string): MetricsAddress | undefined {
  if (text === '') return undefined;
  const {
    bracketed,
    plain,
    port = '',
  } = /^(?:\[(?<bracketed>[^\]]*)\]|(?<plain>[^:]*)):(?<port>[0-9]{1,5})$/.exec(text)?.groups ?? {};
  const host = tryParseAddress(bracketed ?? plain ?? '');
  if (host === undefined || Number(port) < 1 || Number(port) > 0xffff) {
    throw new InvalidFlagError(
      'metrics-address',
      text,
      'an IP address of this machine and a port, such as 127.0.0.1:9144 or [::1]:9144, or nothing for no metrics',
    );
  }
  return { host, port: Number(port) };
}

export function formatMetricsAddress({ host, port }: MetricsAddress): string {
  const text = formatAddress(host);
  return host.family === 'ipv6' ? `[${text}]:${port}` : `${text}:${port}`;
}
