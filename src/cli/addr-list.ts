import { allocationName, type IPAllocation } from '../api/index.ts';
import { isResting } from '../ipam/index.ts';
import { compareAddresses, formatAddress, type IPAddress } from '../net/index.ts';
import { addressFrom, nobodyText, ownerText } from './address.ts';
import { withCluster, type Cluster } from './cluster.ts';
import type { Call, Command, World } from './command.ts';
import { EXIT, RefusedError, type ExitCode } from './errors.ts';
import { durationText } from './figures.ts';
import { answer, formatOf, OUTPUT_FLAG } from './output.ts';
import { styleFor, type Style } from './style.ts';
import { renderTable, type Cell } from './table.ts';
import type { Plain } from './yaml.ts';

export const ADDR_LIST: Command = {
  words: ['addr', 'list'],
  summary: 'who has which address',
  about: [
    'STATE is used (a sandbox has it), held (somebody without a pod has it) or resting',
    '(released, and not handed out again yet); FOR is for how long. With IP: that one',
    'alone, and exit code 1 if nobody has it. IPv6 may be written in any spelling.',
  ].join('\n'),
  operands: [{ name: 'IP', isOptional: true }],
  flags: [
    { name: 'pool', value: 'POOL', about: 'of this IPPool', values: 'pools' },
    { name: 'node', value: 'NODE', about: 'of this node', values: 'nodes' },
    {
      name: 'namespace',
      short: 'n',
      value: 'NAME',
      about: 'of pods in this namespace',
      values: 'namespaces',
    },
    { name: 'pod', value: 'NAME', about: 'of pods of this name' },
    { name: 'holder', about: 'only what is held without a pod' },
    OUTPUT_FLAG,
  ],
  run: listAddresses,
};

async function listAddresses(call: Call, world: World): Promise<ExitCode> {
  const format = formatOf(call);
  const [text] = call.operands;
  const address = text === undefined ? undefined : addressFrom(text);
  const found = await withCluster(call, world, (cluster) =>
    address === undefined ? list(cluster, call, world.signal) : getOne(cluster, call, address, world.signal),
  );
  found.sort((a, b) => compareAddresses(a.spec.address, b.spec.address));
  const now = world.clock.wallTime();
  await answer(world, format, {
    data: found.map(dataOf),
    text: () => (found.length === 0 ? '' : tableOf(found, now, styleFor(world.stdout, world.env))),
  });
  // Like kubectl: the answer is empty, and only a person is told so.
  if (found.length === 0 && format === 'table') await world.stderr.write('no addresses found\n');
  return EXIT.done;
}

async function list({ allocations }: Cluster, call: Call, signal: AbortSignal): Promise<IPAllocation[]> {
  const filter = {
    pool: call.text('pool'),
    nodeName: call.text('node'),
    namespace: call.text('namespace'),
    podName: call.text('pod'),
  };
  const found = await allocations.listMatching(filter, signal);
  return found.filter((allocation) => isAsked(allocation, call));
}

async function getOne(
  { allocations, pools, subnets }: Cluster,
  call: Call,
  address: IPAddress,
  signal: AbortSignal,
): Promise<IPAllocation[]> {
  const found = await allocations.get(allocationName(address), signal);
  if (found === undefined) {
    throw new RefusedError(nobodyText(address, await pools.listAll(signal), await subnets.listAll(signal)));
  }
  return isAsked(found, call) ? [found] : [];
}

/** Whether the flags let it through. Most of them the apiserver has looked at, unless one address was asked for. */
function isAsked({ spec }: IPAllocation, call: Call): boolean {
  const wanted = [
    [call.text('pool'), spec.pool],
    [call.text('node'), spec.nodeName],
    [call.text('namespace'), spec.pod?.namespace],
    [call.text('pod'), spec.pod?.name],
  ] as const;
  if (call.isSet('holder') && spec.holder === undefined) return false;
  return wanted.every(([asked, its]) => asked === undefined || asked === its);
}

type State = 'used' | 'held' | 'resting';

function stateOf(allocation: IPAllocation): State {
  if (isResting(allocation)) return 'resting';
  return allocation.spec.holder === undefined ? 'used' : 'held';
}

function dataOf(allocation: IPAllocation): Plain {
  const { spec, metadata, status } = allocation;
  const { attachment, pod } = spec;
  return {
    address: formatAddress(spec.address),
    state: stateOf(allocation),
    pool: spec.pool,
    ...(spec.nodeName === undefined ? {} : { node: spec.nodeName }),
    ...(pod === undefined ? {} : { namespace: pod.namespace, pod: pod.name }),
    ...(spec.holder === undefined ? {} : { holder: spec.holder }),
    ...(attachment === undefined ? {} : { container: attachment.containerID, interface: attachment.ifName }),
    createdAt: metadata.creationTimestamp,
    ...(status?.releasedAt === undefined ? {} : { releasedAt: status.releasedAt }),
  };
}

const HEADINGS = ['ADDRESS', 'POOL', 'NODE', 'OWNER', 'STATE', 'FOR'];

function tableOf(found: readonly IPAllocation[], now: Date, style: Style): string {
  const headings = HEADINGS.map((text): Cell => ({ text, paint: style.bold }));
  const paints = { used: style.green, held: style.yellow, resting: style.dim };
  const rows = found.map((allocation): Cell[] => {
    const { spec, status, metadata } = allocation;
    const state = stateOf(allocation);
    const since = Date.parse(status?.releasedAt ?? metadata.creationTimestamp);
    return [
      { text: formatAddress(spec.address), paint: style.cyan },
      spec.pool,
      spec.nodeName ?? '-',
      ownerText(allocation),
      { text: state, paint: paints[state] },
      durationText(now.getTime() - since),
    ];
  });
  return renderTable([headings, ...rows]);
}
