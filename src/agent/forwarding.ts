import { FAMILIES, type Family } from '../net/index.ts';
import {
  listLinks,
  listRoutes,
  readSysctl,
  ROUTE_PROTOCOL,
  writeSysctl,
  type NetlinkSocket,
} from '../kernel/index.ts';
import type { EarlierSetting } from './earlier-settings.ts';

/** Whether the kernel forwards packets of these families: a few reads of /proc, to be asked often. */
export function isForwarding(sysctlRoot: string, families: readonly Family[]): boolean {
  return families.every((family) => readSysctl(sysctlRoot, FORWARDING[family]) === '1');
}

/** The families that this kernel speaks: hosts started with ipv6.disable=1 have no settings of it. */
export function kernelFamilies(sysctlRoot: string): Family[] {
  return FAMILIES.filter((family) => readSysctl(sysctlRoot, FORWARDING[family]) !== undefined);
}

/**
 * Switches forwarding on for these families and leaves others alone. A router ignores router advertisements unless
 * told otherwise, and switching deletes what they brought; so links whose default route came by one are told first.
 * Returns the settings it had to change, as `net.ipv4.ip_forward=1`. `remember` is told before each change what it was,
 * and what the kernel changes with it.
 * @throws SysctlError
 */
export function ensureForwarding(
  host: NetlinkSocket,
  sysctlRoot: string,
  families: readonly Family[],
  remember: (settings: readonly EarlierSetting[]) => void = () => undefined,
): string[] {
  const changed: string[] = [];
  const set = (path: readonly string[], value: string, following: readonly (readonly string[])[] = []) => {
    if (readSysctl(sysctlRoot, path) !== value) remember(settingsNow(sysctlRoot, [path, ...following]));
    if (writeSysctl(sysctlRoot, path, value)) changed.push(`net.${path.join('.')}=${value}`);
  };
  for (const family of families) {
    if (family === 'ipv6') {
      for (const link of advertisedLinks(host)) {
        const path = ['ipv6', 'conf', link, 'accept_ra'];
        // 0: someone else (networkd) handles advertisements there. 2: a router that listens already.
        if (readSysctl(sysctlRoot, path) === '1') set(path, '2');
      }
    }
    set(FORWARDING[family], '1', followingForwarding(host, family));
  }
  return changed;
}

const FORWARDING: Readonly<Record<Family, readonly string[]>> = {
  ipv4: ['ipv4', 'ip_forward'],
  ipv6: ['ipv6', 'conf', 'all', 'forwarding'],
};

/** What the kernel sets anew with that switch: each link's own, and whether redirects are believed. */
function followingForwarding(host: NetlinkSocket, family: Family): string[][] {
  const links = ['default', ...listLinks(host).map(({ name }) => name)];
  return [
    ...links.map((link) => [family, 'conf', link, 'forwarding']),
    ...(family === 'ipv4' ? [['ipv4', 'conf', 'all', 'accept_redirects']] : []),
  ];
}

function settingsNow(sysctlRoot: string, paths: readonly (readonly string[])[]): EarlierSetting[] {
  return paths.flatMap((path) => {
    const value = readSysctl(sysctlRoot, path);
    return value === undefined ? [] : [{ path, value }];
  });
}

/** The names of the links whose IPv6 default route came by router advertisement. */
function advertisedLinks(host: NetlinkSocket): string[] {
  const indices = new Set(
    listRoutes(host, { family: 'ipv6', protocol: ROUTE_PROTOCOL.routerAdvertisement })
      .filter(({ dst }) => dst.prefixLength === 0)
      .map(({ oif }) => oif),
  );
  return listLinks(host)
    .filter(({ index }) => indices.has(index))
    .map(({ name }) => name);
}
