import { readlink } from 'node:fs/promises';
import { execa } from 'execa';

/**
 * Tests of this folder and of test/kernel change routes, filters and mounts. They do so in the network and mount
 * namespaces that `npm test` made for them, never in the machine's own.
 */
export async function requirePrivateNamespaces(): Promise<void> {
  const machine = { net: process.env.WEFT_MACHINE_NET, mnt: process.env.WEFT_MACHINE_MNT };
  for (const [kind, theirs] of Object.entries(machine)) {
    if (theirs === undefined || theirs === (await readlink(`/proc/self/ns/${kind}`))) {
      throw new Error(
        `these tests want a ${kind} namespace of their own: run them by "npm test -- node", or below ` +
          '"sh hack/isolated.sh"',
      );
    }
  }
}

/** Where the test node's uplink leads and what it is called. */
export const UPLINK = {
  name: 'eth0',
  peer: 'fabric0',
  addresses: ['192.0.2.10', '2001:db8:2::10'],
  prefixes: ['192.0.2.10/24', '2001:db8:2::10/64'],
} as const;

/** Loopback, and an uplink whose other end stands in the same namespace. */
export async function makeUplink(): Promise<void> {
  await ip('link', 'set', 'lo', 'up');
  await ip('link', 'add', UPLINK.name, 'type', 'veth', 'peer', 'name', UPLINK.peer);
  for (const prefix of UPLINK.prefixes) {
    await ip('address', 'add', prefix, 'dev', UPLINK.name, ...(prefix.includes(':') ? ['nodad'] : []));
  }
  await ip('link', 'set', UPLINK.peer, 'up');
  await ip('link', 'set', UPLINK.name, 'up');
}

/** Takes out of the kernel what the node's agent has left there: the next file's node is another machine. */
export async function clearNode(): Promise<void> {
  for (const { name } of await weftLinks()) await ip('link', 'delete', name);
  const links = JSON.parse(await ip('-json', 'link', 'show')) as { ifname: string }[];
  for (const name of [UPLINK.name, 'vxlan.weft']) {
    if (links.some(({ ifname }) => ifname === name)) await ip('link', 'delete', name);
  }
  for (const family of ['-4', '-6']) {
    for (const protocol of ['84', '85']) {
      await ip(family, 'route', 'flush', 'table', 'all', 'protocol', protocol);
    }
  }
  const { stdout } = await execa('nft', ['list', 'tables']);
  if (stdout.includes('table inet weft')) await execa('nft', ['delete', 'table', 'inet', 'weft']);
}

/** What the node's parts write into. */
export const NODE_DIRECTORIES = ['/run/weft', '/run/netns', '/etc/cni', '/opt/cni'];

/** Empty directories over these: nothing of the machine's shows or changes. `run`: where that is not this process's. */
export async function coverDirectories(
  directories: readonly string[],
  run: (...command: string[]) => Promise<unknown> = (program = '', ...args) => execa(program, args),
): Promise<void> {
  for (const directory of directories) {
    await run('mkdir', '-p', directory);
    await run('mount', '-t', 'tmpfs', '-o', 'mode=0755', 'weft-test', directory);
  }
}

export async function ip(...args: string[]): Promise<string> {
  return (await execa('ip', args)).stdout;
}

/** The host's ends of pods' interfaces, the half-made and the dying among them. */
export async function weftLinks(): Promise<
  { readonly name: string; readonly index: number; readonly mtu: number }[]
> {
  const links = JSON.parse(await ip('-json', 'link', 'show', 'type', 'veth')) as {
    ifname: string;
    ifindex: number;
    mtu: number;
  }[];
  return links
    .filter(({ ifname }) => /^x?weft/.test(ifname))
    .map(({ ifname, ifindex, mtu }) => ({ name: ifname, index: ifindex, mtu }));
}
