import { expect, it } from 'vitest';
import { measurePaths, placedPods, reachabilityTable } from '../../../hack/reachability.ts';
import { isReady, type Pod, type Stage } from './stage.ts';
import { WEB } from './workload.ts';

/** Every way a packet takes, in both families, by real traffic. */
export function pathTests(stage: () => Stage): void {
  it('has the four classic paths for every pair of nodes', async () => {
    const { cluster } = stage();
    const paths = await measurePaths(cluster, await placedPods(cluster, `app=${WEB}`));
    const lost = paths.filter(({ milliseconds }) => milliseconds === undefined);
    expect(lost, reachabilityTable(paths)).toEqual([]);
    // Per pair of nodes and family: to the node, and to a pod on it.
    expect(paths).toHaveLength(cluster.nodes.length ** 2 * 2 * 2);
  });

  it('lets every node reach the pods of all others', async () => {
    expect(await lostFromNodes(stage())).toEqual([]);
  });

  it('shows the outside the address of a node, and a pod that of the pod', async () => {
    for (const node of stage().cluster.nodes) await expectMasquerade(stage(), node);
  });

  it('carries Services of both families from pods on every node and from nodes, to pods on every node', async () => {
    const { cluster, inPod, pods } = stage();
    const running = (await pods(`app=${WEB}`)).filter(isReady);
    const ips = await clusterIPs(stage());
    for (const node of cluster.nodes) {
      const from = podOn(running, node).metadata.name;
      for (const ip of ips) {
        const script = manyTimes(askPage(ip, 80, 'name'));
        await expectAllAnswer(`a pod on ${node} by ${ip}`, running, () => inPod(from, script));
        await expectAllAnswer(`${node} by ${ip}`, running, () =>
          cluster.execOnNode(node, ['busybox', 'sh', '-c', script]),
        );
      }
    }
  });

  it('carries what comes to a port of a node for a Service, from outside and from nodes', async () => {
    const { cluster, pods } = stage();
    const running = (await pods(`app=${WEB}`)).filter(isReady);
    const path = 'jsonpath={.spec.ports[?(@.name=="http")].nodePort}';
    const port = Number(await cluster.kubectl(['get', 'service', WEB, '-o', path]));
    for (const { name, ipv4, ipv6 } of cluster.plan.nodes) {
      for (const address of [ipv4, ipv6]) {
        const script = manyTimes(askPage(address, port, 'name'));
        for (const from of ['router', ...cluster.nodes]) {
          await expectAllAnswer(`${from} by port ${port} of ${name}, ${address}`, running, () =>
            cluster.execOnNode(from, ['busybox', 'sh', '-c', script]),
          );
        }
      }
    }
  });

  it('lets pods on every node ask DNS', async () => {
    const { cluster, inPod, pods } = stage();
    const running = (await pods(`app=${WEB}`)).filter(isReady);
    for (const node of cluster.nodes) {
      const lookUp = 'nslookup -type=a kubernetes.default.svc.cluster.local';
      const resolved = await inPod(podOn(running, node).metadata.name, lookUp);
      expect(resolved).toContain(`Address: ${cluster.plan.apiService.ipv4}`);
    }
  });
}

/** The addresses of the Service in front of the pods that tests measure with: IPv4, IPv6. */
export async function clusterIPs({ cluster }: Stage): Promise<string[]> {
  const ips = await cluster.kubectl(['get', 'service', WEB, '-o', 'jsonpath={.spec.clusterIPs[*]}']);
  return ips.split(' ');
}

/**
 * Asks until pods on all nodes have answered: who does is chance. Every answer must be that of a pod.
 */
async function expectAllAnswer(
  what: string,
  running: readonly Pod[],
  ask: () => Promise<string>,
): Promise<void> {
  const nodeOf = new Map(running.map(({ metadata, spec }) => [metadata.name, spec.nodeName ?? '']));
  const missing = new Set(nodeOf.values());
  for (let round = 1; missing.size > 0; round++) {
    for (const answer of linesOf(await ask())) {
      expect([...nodeOf.keys()], what).toContain(answer);
      missing.delete(nodeOf.get(answer) ?? '');
    }
    // With six pods that are chosen evenly one of the nodes is missed once in a million times.
    expect(round, `${what} reaches no pod on ${[...missing].join(', ')}`).toBeLessThan(5);
  }
}

const manyTimes = (script: string) => `for time in 1 2 3 4 5 6 7 8; do ${script}; done`;

/**
 * One packet from a pod on each node to a pod on each other node, both families, and from each node as well.
 * Answers what was lost; quick enough to be asked again and again.
 */
export async function lostPaths(stage: Stage): Promise<string[]> {
  const running = (await stage.pods(`app=${WEB}`)).filter(isReady);
  const fromPods = stage.cluster.nodes.map(async (node) => {
    const script = pings(`pod on ${node}`, elsewhere(running, node));
    return linesOf(await stage.inPod(podOn(running, node).metadata.name, script));
  });
  return [...(await Promise.all(fromPods)).flat(), ...(await lostFromNodes(stage))];
}

/**
 * The address that a pod of the node is seen with: outside the cluster the node's, which the router would drop
 * otherwise, and by a pod on another node its own.
 */
export async function expectMasquerade({ cluster, inPod, pods }: Stage, node: string): Promise<void> {
  const running = (await pods(`app=${WEB}`)).filter(isReady);
  const from = podOn(running, node);
  const other = running.find(({ spec }) => spec.nodeName !== node);
  const { outside } = cluster.plan;
  const targets = [outside.ipv4, outside.ipv6, ...addressesOf(other)];
  const script = targets.map((address) => askPage(address, 8080, 'source')).join('\n');
  const plan = cluster.plan.nodes.find(({ name }) => name === node);
  expect(
    linesOf(await inPod(from.metadata.name, script)),
    `seen from a pod on ${node} by ${targets.join(', ')}`,
  ).toEqual([plan?.ipv4, plan?.ipv6, ...addressesOf(from)]);
}

async function lostFromNodes({ cluster, pods }: Stage): Promise<string[]> {
  const running = (await pods(`app=${WEB}`)).filter(isReady);
  const lost = cluster.nodes.map(async (node) => {
    const script = pings(node, elsewhere(running, node));
    return linesOf(await cluster.execOnNode(node, ['sh', '-c', script]));
  });
  return (await Promise.all(lost)).flat();
}

/** A pod on each of the other nodes. */
function elsewhere(running: readonly Pod[], node: string): Pod[] {
  const nodes = new Set(running.map(({ spec }) => spec.nodeName ?? '').filter((name) => name !== node));
  return [...nodes].map((other) => podOn(running, other));
}

/** All at once; each that is lost prints a line. */
function pings(from: string, targets: readonly Pod[]): string {
  const one = (to: Pod, address: string) =>
    `ping -q -c 1 -W 2 ${address} >/dev/null 2>&1 || echo '${from} to ${address} on ${to.spec.nodeName}' &`;
  return `${targets.flatMap((to) => addressesOf(to).map((address) => one(to, address))).join('\n')}\nwait`;
}

/** The pod on that node; fails where there is none. */
export function podOn(running: readonly Pod[], node: string): Pod {
  const found = running.find(({ spec }) => spec.nodeName === node);
  if (found === undefined) throw new Error(`none of the ${running.length} pods that are ready is on ${node}`);
  return found;
}

export function addressesOf(pod: Pod | undefined): string[] {
  return pod?.status.podIPs.map(({ ip }) => ip) ?? [];
}

/** Prints the one line of the page, or that there was no answer. busybox-static's wget cannot be used: it crashes. */
export function askPage(address: string, port: number, page: string): string {
  const request = `printf 'GET /cgi-bin/${page} HTTP/1.0\\r\\n\\r\\n'`;
  return `answer=$(${request} | nc -w 5 ${address} ${port} | tail -n 1); echo "\${answer:-no answer from ${address}}"`;
}

const linesOf = (output: string) => output.split('\n').filter((line) => line !== '');
