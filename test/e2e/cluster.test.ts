import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cgroupExists, processesIn } from '../../hack/cluster/cgroups.ts';
import { rebootNode, upCluster } from '../../hack/cluster/cluster.ts';
import { downCluster } from '../../hack/cluster/down.ts';
import type { Cluster } from '../../hack/cluster/open.ts';
import { stateDirectory } from '../../hack/cluster/state.ts';

const quiet = () => undefined;
const main = join(import.meta.dirname, '../../hack/cluster/main.ts');

describe('a cluster', () => {
  const name = 'e2e-up';
  let cluster: Cluster;
  beforeAll(async () => {
    await downCluster(name, quiet);
    cluster = await upCluster({ name }, quiet);
  });
  afterAll(() => downCluster(name, quiet));

  it('has all its nodes registered, with addresses of both families and a boot ID each', async () => {
    const { items } = JSON.parse(await cluster.kubectl(['get', 'nodes', '-o', 'json'])) as NodeList;
    const facts = items.map(({ metadata, status }) => ({
      name: metadata.name,
      addresses: status.addresses.filter(({ type }) => type === 'InternalIP').map(({ address }) => address),
    }));
    expect(facts).toEqual(
      cluster.plan.nodes.map((node) => ({ name: node.name, addresses: [node.ipv4, node.ipv6] })),
    );
    const boots = await Promise.all(cluster.nodes.map((node) => bootOf(cluster, node)));
    expect(items.map(({ status }) => status.nodeInfo.bootID)).toEqual(boots);
    expect(new Set(boots).size).toBe(3);
  });

  it('is as unkind as real machines are', async () => {
    const on = (node: string, ...command: string[]) => cluster.execOnNode(node, command);
    expect(await on('node-1', 'ip', '-4', 'address', 'show', 'docker0')).toContain('172.17.0.1/16');
    expect(await on('node-1', 'ip', '-6', 'route', 'show', 'default')).toContain('proto ra');
    expect(await on('node-2', 'cat', '/proc/sys/net/ipv4/conf/eth0/rp_filter')).toBe('1');
    expect(await on('node-3', 'iptables', '-S', 'FORWARD')).toBe('-P FORWARD DROP');
    expect(await on('node-3', 'cat', '/proc/sys/net/ipv4/ip_forward')).toBe('0');
  });

  it.each([
    { node: 'node-1', mode: 'nftables' },
    { node: 'node-2', mode: 'iptables' },
    { node: 'node-3', mode: 'nftables' },
  ])('has kube-proxy in $mode mode on $node, for both families', async ({ node, mode }) => {
    const read = (...command: string[]) => cluster.execOnNode(node, command);
    const look = async () => {
      const tables = (await read('nft', 'list', 'tables')).split('\n');
      const chains = [await read('iptables-save', '-t', 'nat'), await read('ip6tables-save', '-t', 'nat')];
      return {
        iptables: chains.map((text) => text.includes(':KUBE-SERVICES ')),
        nftables: ['ip', 'ip6'].map((family) => tables.includes(`table ${family} kube-proxy`)),
      };
    };
    const [both, none] = [
      [true, true],
      [false, false],
    ];
    await expect
      .poll(look, { timeout: 30_000 })
      .toEqual(mode === 'iptables' ? { iptables: both, nftables: none } : { iptables: none, nftables: both });
  });

  it.each(['10.244.9.9', 'fd00:10:244::9'])(
    'has a router that drops %s, and a way outside for nodes',
    async (pod) => {
      const outside = pod.includes(':') ? cluster.plan.outside.ipv6 : cluster.plan.outside.ipv4;
      const url = `http://${pod.includes(':') ? `[${outside}]` : outside}:8080/cgi-bin/source`;
      const node = cluster.plan.nodes[2];
      expect(await cluster.execOnNode('node-3', ['curl', '-s', '--max-time', '5', url])).toBe(
        pod.includes(':') ? node?.ipv6 : node?.ipv4,
      );
      await cluster.execOnNode('node-3', ['ip', 'address', 'add', pod, 'dev', 'lo']);
      const asPod = cluster.execOnNode('node-3', ['curl', '-s', '--max-time', '1', '--interface', pod, url]);
      await expect(asPod).rejects.toThrow('exit code 28');
      await cluster.execOnNode('node-3', ['ip', 'address', 'delete', pod, 'dev', 'lo']);
    },
  );

  it('is reused by a second up, which starts what has died', async () => {
    const pids = () => recordedPids(name);
    const before = await pids();
    const kubelet = before.get('node-2.kubelet') ?? 0;
    process.kill(kubelet, 'SIGKILL');
    await upCluster({ name }, quiet);
    const after = await pids();
    expect(after.get('node-2.kubelet')).not.toBe(kubelet);
    before.delete('node-2.kubelet');
    after.delete('node-2.kubelet');
    expect(after).toEqual(before);
  });

  it('refuses another shape under the same name', async () => {
    await expect(upCluster({ name, nodes: 2 }, quiet)).rejects.toThrow('has nodes 3, not 2');
  });

  it('prints nothing but shell exports for env', async () => {
    const { stdout } = await execa(process.execPath, [main, 'env', '--name', name]);
    const shown = await execa('sh', ['-euc', `${stdout}\nkubectl get nodes -o name; command -v cnitool ctr`]);
    expect(stdout).toMatch(/^export KUBECONFIG=\S+\nexport PATH=\S+$/);
    expect(shown.stdout).toContain('node/node-3');
  });

  it('gives a rebooted node an empty /run and another boot ID, and keeps its disk', async () => {
    await cluster.execOnNode('node-3', ['touch', '/run/gone', '/etc/cni/net.d/kept', '/var/lib/kept']);
    const before = await bootOf(cluster, 'node-3');
    await rebootNode(name, 'node-3');
    expect(await bootOf(cluster, 'node-3')).not.toBe(before);
    await cluster.execOnNode('node-3', ['test', '-e', '/etc/cni/net.d/kept', '-a', '-e', '/var/lib/kept']);
    await cluster.execOnNode('node-3', ['test', '!', '-e', '/run/gone']);
  });
});

describe('down', () => {
  const name = 'e2e-kill';
  const foreign = 'weft-e2e-kill-foreign';
  let sleeper: ChildProcess;
  beforeAll(async () => {
    await downCluster(name, quiet);
    await execa('ip', ['netns', 'add', foreign]);
    await execa('ip', ['link', 'add', `${name}-x`, 'type', 'veth', 'peer', 'name', `${name}-y`]);
    sleeper = spawn('sleep', ['infinity']);
    await once(sleeper, 'spawn');
  });
  afterAll(async () => {
    sleeper.kill('SIGKILL');
    await execa('ip', ['link', 'delete', `${name}-x`]);
    await execa('ip', ['netns', 'delete', foreign]);
    await downCluster(name, quiet);
  });

  // Before the first link, while the nodes boot, while containerd starts, with kubelets running.
  it.each([5, 150, 400, 1_000, 3_000, 8_000])(
    'leaves nothing of an up that was killed after %i ms',
    async (afterMs) => {
      const up = spawn(process.execPath, [main, 'up', '--name', name], { stdio: 'ignore' });
      const ended = once(up, 'exit');
      while (!(await exists(join(stateDirectory(name), 'cluster.json')))) await sleep(1);
      await sleep(afterMs);
      up.kill('SIGKILL');
      await ended;
      const members = await processesIn(`weft-cluster-${name}`);
      const namespaces = await namespacesOf(members);
      if (afterMs >= 3_000) expect(namespaces.size).toBeGreaterThan(3);

      expect(await downCluster(name, quiet)).toBe(true);

      expect(await cgroupExists(`weft-cluster-${name}`)).toBe(false);
      expect(await exists(stateDirectory(name))).toBe(false);
      expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(stateDirectory(name));
      expect((await execa('ip', ['link', 'show', `${name}-api`], { reject: false })).exitCode).toBe(1);
      const alive = (await readdir('/proc')).filter((entry) => /^[0-9]+$/.test(entry)).map(Number);
      expect([...(await namespacesOf(alive))].filter((namespace) => namespaces.has(namespace))).toEqual([]);

      expect(sleeper.exitCode ?? sleeper.signalCode).toBeNull();
      await expect(execa('ip', ['netns', 'exec', foreign, 'true'])).resolves.toBeDefined();
      await expect(execa('ip', ['link', 'show', `${name}-x`])).resolves.toBeDefined();
    },
  );

  it('ends the containers of a cluster that is up', async () => {
    const cluster = await upCluster({ name, nodes: 1, segments: 1 }, quiet);
    const container = ['--detach', 'localhost/weft-test:1', 'stray', 'sleep', '4711'];
    await cluster.execOnNode('node-1', ['ctr', '--namespace', 'k8s.io', 'run', ...container]);
    const namespaces = await namespacesOf(await processesIn(`weft-cluster-${name}`));
    await downCluster(name, quiet);
    expect(
      [...(await namespacesOf(await allPids()))].filter((namespace) => namespaces.has(namespace)),
    ).toEqual([]);
  });

  it('says that there is no cluster where there is none', async () => {
    expect(await downCluster(name, quiet)).toBe(false);
  });

  it('takes no link of somebody else, and up says whose place it would need', async () => {
    await execa('ip', ['link', 'add', `${name}-api`, 'type', 'veth', 'peer', 'name', `${name}-z`]);
    await expect(upCluster({ name }, quiet)).rejects.toThrow(`link ${name}-api is there already`);
    expect(await downCluster(name, quiet)).toBe(false);
    await expect(execa('ip', ['link', 'delete', `${name}-api`])).resolves.toBeDefined();
  });
});

type NodeList = {
  readonly items: readonly {
    readonly metadata: { readonly name: string };
    readonly status: {
      readonly addresses: readonly { readonly type: string; readonly address: string }[];
      readonly nodeInfo: { readonly bootID: string };
    };
  }[];
};

const bootOf = (cluster: Cluster, node: string) =>
  cluster.execOnNode(node, ['cat', '/proc/sys/kernel/random/boot_id']);

async function recordedPids(name: string): Promise<Map<string, number>> {
  const directory = join(stateDirectory(name), 'processes');
  const files = (await readdir(directory)).filter((file) => !file.endsWith('.set-up'));
  const texts = await Promise.all(files.map((file) => readFile(join(directory, file), 'utf8')));
  return new Map(files.map((file, index) => [file, parseInt(texts[index] ?? '', 10)]));
}

async function allPids(): Promise<number[]> {
  return (await readdir('/proc')).filter((entry) => /^[0-9]+$/.test(entry)).map(Number);
}

/** Network and mount namespaces that are not ours. A process may end while we look. */
async function namespacesOf(pids: readonly number[]): Promise<Set<string>> {
  const read = (pid: number | 'self', kind: string) => readlink(`/proc/${pid}/ns/${kind}`).catch(() => '');
  const all = await Promise.all(pids.flatMap((pid) => [read(pid, 'net'), read(pid, 'mnt')]));
  const own = [await read('self', 'net'), await read('self', 'mnt'), ''];
  return new Set(all.filter((namespace) => !own.includes(namespace)));
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
