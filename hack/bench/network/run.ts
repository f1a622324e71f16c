import { execa } from 'execa';
import { firstAddress, formatAddress, type CIDR } from '../../../src/net/index.ts';
import { makeFabric, type Fabric, type Machine } from './fabric.ts';
import type { NodeObjects } from './node-sync.ts';
import { nodeUID, POOL, subnetObject, subnetsOf } from './objects.ts';

/**
 * What one run of the network's benchmark has seen; hack/bench/network.ts makes figures of it. Runs inside namespaces of
 * its own: the words are the program that loads the paths, rounds, and seconds of each load.
 */
export interface NetworkSamples {
  readonly paths: readonly PathSamples[];
  readonly programming: readonly ProgrammingSamples[];
}

/** Of one path, by whom it was laid: the first is weft's, the second what it is compared with. */
export interface PathSamples {
  readonly path: string;
  readonly contenders: readonly {
    readonly who: string;
    /** One of each round. */
    readonly bytesPerSecond: readonly number[];
    /** Round trips of all rounds, in microseconds. */
    readonly roundTripsUs: readonly number[];
  }[];
}

export interface ProgrammingSamples {
  readonly nodes: number;
  readonly startMs: readonly number[];
  readonly changeMs: readonly number[];
}

/** What a pool that may encapsulate leaves of 1500. */
const POD_MTU = 1450;

const BY_HAND = 'the same hops by hand';
const STARTS = 3;
const CHANGES = 10;
const NODE_SYNC = new URL('node-sync.ts', import.meta.url).pathname;

if (import.meta.main) {
  const [load = '', rounds = '', seconds = ''] = process.argv.slice(2);
  const fabric = await makeFabric();
  try {
    const samples: NetworkSamples = {
      paths: await measurePaths(fabric, load, Number(rounds), seconds),
      programming: await measureProgramming(fabric),
    };
    process.stdout.write(JSON.stringify(samples));
  } finally {
    await fabric.close();
  }
}

interface Contender {
  readonly who: string;
  readonly from: Machine;
  readonly to: Machine;
  /** Where it is not the machine's own. */
  readonly address?: string;
}

async function measurePaths(
  fabric: Fabric,
  load: string,
  rounds: number,
  seconds: string,
): Promise<PathSamples[]> {
  const paths = await layPaths(fabric);
  const servers = new Set(paths.flatMap(({ contenders }) => contenders.map(({ to }) => to)));
  for (const server of servers) await server.start([load, 'serve']);
  const measured = paths.map(({ path, contenders }) => ({
    path,
    contenders: contenders.map((contender) => ({
      contender,
      bytesPerSecond: [] as number[],
      roundTripsUs: [] as number[],
    })),
  }));
  for (let round = 0; round < rounds; round++) {
    for (const { path, contenders } of measured) {
      process.stderr.write(`round ${round + 1} of ${rounds}: ${path}\n`);
      // In turns, and the order turns too: what the machine does beside hits all alike.
      for (const of of round % 2 === 0 ? contenders : contenders.toReversed()) {
        const { from, to, address = to.address } = of.contender;
        of.bytesPerSecond.push(Number(await from.run([load, 'stream', address, seconds])));
        const trips = await from.run([load, 'request', address, seconds]);
        for (const trip of trips.split('\n')) of.roundTripsUs.push(Number(trip));
      }
    }
  }
  return measured.map(({ path, contenders }) => ({
    path,
    contenders: contenders.map(({ contender, ...samples }) => ({ who: contender.who, ...samples })),
  }));
}

/** All paths stand at the same time. */
async function layPaths(fabric: Fabric): Promise<{ path: string; contenders: Contender[] }[]> {
  const near = await layNodes(fabric, { direct1: 1, direct2: 2 }, 24);
  const far = await layNodes(fabric, { behind1: 3, behind2: 4 }, 32);
  const [bareNear, bareFar] = [await fabric.host('bare1', 5, 24), await fabric.host('bare2', 6, 24)];
  return [
    {
      path: 'pod to pod, one node',
      contenders: [
        { who: 'weft', from: near.pods[0], to: near.pods[1] },
        await pairOfVeth(fabric),
        await handMadeHops(fabric),
      ],
    },
    {
      path: 'pod to pod, two nodes, direct',
      contenders: [
        { who: 'weft', from: near.pods[0], to: near.pods[2] },
        { who: 'a bare link', from: bareNear, to: bareFar },
        await handMadeNodes(fabric, { names: ['hand3', 'hand4'], numbers: [7, 8], tunnel: false }),
      ],
    },
    {
      path: 'pod to pod, two nodes, VXLAN',
      contenders: [
        { who: 'weft', from: far.pods[0], to: far.pods[2] },
        await bareVxlan(bareNear, bareFar),
        await handMadeNodes(fabric, { names: ['hand5', 'hand6'], numbers: [9, 10], tunnel: true }),
      ],
    },
  ];
}

/** Two nodes, by their names and numbers, with two pods on the first and one on the second. */
async function layNodes(
  fabric: Fabric,
  numbers: Readonly<Record<string, number>>,
  prefixLength: 24 | 32,
): Promise<{ pods: readonly [Machine, Machine, Machine] }> {
  const nodes: { host: Machine; cidrs: readonly CIDR[] }[] = [];
  for (const [name, number] of Object.entries(numbers)) {
    nodes.push({ host: await fabric.host(name, number, prefixLength), cidrs: subnetsOf(number) });
  }
  const [one, two] = nodes;
  if (one === undefined || two === undefined) throw new Error('two nodes are needed');
  const subnets = nodes.flatMap(({ host, cidrs }) =>
    cidrs.map((cidr) => subnetObject(cidr, host.name, host.address)),
  );
  for (const { host } of nodes) {
    const node = { name: host.name, uid: nodeUID(host.name), addresses: [host.address] };
    await fabric.sync(host, { node, pools: [POOL], subnets: [subnets] });
  }
  const pod = ({ host, cidrs }: (typeof nodes)[number], offset: bigint) =>
    fabric.pod(host, `${host.name}-pod${offset}`, addressIn(cidrs[0], offset), POD_MTU);
  return { pods: [await pod(one, 1n), await pod(one, 2n), await pod(two, 1n)] };
}

function addressIn(cidr: CIDR | undefined, offset: bigint): string {
  if (cidr === undefined) throw new Error('a node has a subnet of each family');
  const { family, value } = firstAddress(cidr);
  return formatAddress({ family, value: value + offset });
}

/** The least that two namespaces need to speak. */
async function pairOfVeth(fabric: Fabric): Promise<Contender> {
  const from = await fabric.machine('pair1');
  const to = await fabric.machine('pair2');
  await from.sh([
    `ip link add eth0 mtu ${POD_MTU} type veth peer name eth0 mtu ${POD_MTU} netns ${to.name}`,
    'ip address add 198.51.100.1/24 dev eth0',
    'ip link set eth0 up',
  ]);
  await to.sh(['ip address add 198.51.100.2/24 dev eth0', 'ip link set eth0 up']);
  return { who: 'a bare veth', from, to, address: '198.51.100.2' };
}

/** A node between two pods, as weft's is, with nothing but links and routes. */
async function handMadeHops(fabric: Fabric): Promise<Contender> {
  const node = await fabric.machine('hand');
  await node.sh(['echo 1 >/proc/sys/net/ipv4/ip_forward']);
  const from = await handMadePod(fabric, { node, name: 'hand1', place: 0 });
  const to = await handMadePod(fabric, { node, name: 'hand2', place: 1 });
  return { who: BY_HAND, from, to, address: handMadeAddress(1, 2) };
}

/** Two such nodes with a pod each, by the link between them or by a tunnel. */
async function handMadeNodes(
  fabric: Fabric,
  {
    names,
    numbers,
    tunnel,
  }: {
    readonly names: readonly [string, string];
    readonly numbers: readonly [number, number];
    readonly tunnel: boolean;
  },
): Promise<Contender> {
  const nodes = [
    await fabric.host(`${names[0]}-node`, numbers[0], 24),
    await fabric.host(`${names[1]}-node`, numbers[1], 24),
  ] as const;
  if (tunnel) await bareVxlan(...nodes);
  const pods: Machine[] = [];
  for (const [i, node] of nodes.entries()) {
    pods.push(await handMadePod(fabric, { node, name: names[i] ?? '', place: numbers[i] ?? 0 }));
    const other = 1 - i;
    const gateway = tunnel ? `198.18.0.${other + 1}` : (nodes[other]?.address ?? '');
    await node.sh([
      'echo 1 >/proc/sys/net/ipv4/ip_forward',
      `ip route add ${handMadeAddress(numbers[other] ?? 0, 0)}/30 via ${gateway}`,
    ]);
  }
  const [from, to] = pods;
  if (from === undefined || to === undefined) throw new Error('two pods are needed');
  return { who: BY_HAND, from, to, address: handMadeAddress(numbers[1], 2) };
}

/** Of the /30 with that number. */
function handMadeAddress(place: number, offset: number): string {
  return `203.0.113.${place * 4 + offset}`;
}

async function handMadePod(
  fabric: Fabric,
  { node, name, place }: { readonly node: Machine; readonly name: string; readonly place: number },
): Promise<Machine> {
  const pod = await fabric.machine(name);
  await node.sh([
    `ip link add ${name} mtu ${POD_MTU} type veth peer name eth0 mtu ${POD_MTU} netns ${pod.name}`,
    `ip address add ${handMadeAddress(place, 1)}/30 dev ${name}`,
    `ip link set ${name} up`,
  ]);
  await pod.sh([
    `ip address add ${handMadeAddress(place, 2)}/30 dev eth0`,
    'ip link set eth0 up',
    `ip route add default via ${handMadeAddress(place, 1)}`,
  ]);
  return pod;
}

/** A tunnel between two machines of the segment, from machine to machine. */
async function bareVxlan(from: Machine, to: Machine): Promise<Contender> {
  for (const [here, there, number] of [
    [from, to, 1],
    [to, from, 2],
  ] as const) {
    await here.sh([
      `ip link add tunnel mtu ${POD_MTU} type vxlan id 99 dstport 4789 local ${here.address} remote ${there.address}`,
      `ip address add 198.18.0.${number}/24 dev tunnel`,
      'ip link set tunnel up',
    ]);
  }
  return { who: 'a bare VXLAN link', from, to, address: '198.18.0.2' };
}

/**
 * A node that starts among so many others, all behind its tunnel, which is the most that a peer can need: routes of
 * both families, neighbours, forwarding entries. Then one more node and one less, in turns.
 */
async function measureProgramming(fabric: Fabric): Promise<ProgrammingSamples[]> {
  const samples: ProgrammingSamples[] = [];
  for (const nodes of [1_000, 5_000]) {
    const startMs: number[] = [];
    const changeMs: number[] = [];
    for (let run = 0; run < STARTS; run++) {
      process.stderr.write(`a node among ${nodes}: start ${run + 1} of ${STARTS}\n`);
      const machine = await fabric.host(`node-${nodes}-${run}`.slice(0, 15), 200 + run, 32);
      const [start = NaN, ...changes] = JSON.parse(
        await machine.start(
          ['env', 'UV_THREADPOOL_SIZE=8', process.execPath, NODE_SYNC],
          JSON.stringify(objectsOf(machine, nodes)),
        ),
      ) as number[];
      startMs.push(start);
      changeMs.push(...changes);
      await execa('ip', ['netns', 'exec', 'segment', 'ip', 'link', 'delete', machine.name]);
    }
    samples.push({ nodes, startMs, changeMs });
  }
  return samples;
}

function objectsOf(machine: Machine, nodes: number): NodeObjects {
  const own = subnetsOf(0).map((cidr) => subnetObject(cidr, machine.name, machine.address));
  const peer = (number: number) =>
    subnetsOf(number).map((cidr) =>
      subnetObject(cidr, `peer-${number}`, `198.51.${100 + (number >> 8)}.${number & 255}`),
    );
  const peers = Array.from({ length: nodes }, (_, i) => peer(i + 1)).flat();
  const all = [...own, ...peers];
  const oneMore = [...all, ...peer(nodes + 1)];
  return {
    node: { name: machine.name, uid: nodeUID(machine.name), addresses: [machine.address] },
    pools: [POOL],
    subnets: [all, ...Array.from({ length: CHANGES }, (_, i) => (i % 2 === 0 ? oneMore : all))],
  };
}
