import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { step, type Progress } from '../cluster/progress.ts';
import type { Figure, Target } from './figures.ts';
import type { NetworkSamples, PathSamples, ProgrammingSamples } from './network/run.ts';
import { percentile, summarize } from './statistics.ts';

const ROUNDS = 7;
const SECONDS = 2;
const HERE = import.meta.dirname;

/**
 * What pods' packets cost, beside bare links on the same machine, and how fast a node learns of others. Needs no
 * cluster: nodes are network namespaces with the real routes and filters, each by the agent's own code.
 */
export async function measureNetwork(progress: Progress): Promise<Figure[]> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-network-'));
  try {
    const load = join(directory, 'load');
    await step(progress, 'the program that loads the paths', () =>
      execa('go', ['build', '-o', load, '.'], {
        cwd: join(HERE, 'network/load'),
        env: { CGO_ENABLED: '0', GOTOOLCHAIN: 'local' },
      }),
    );
    const samples = await step(
      progress,
      'throughput, round trips, and nodes among many',
      async () => JSON.parse(await runIsolated([load, String(ROUNDS), String(SECONDS)])) as NetworkSamples,
    );
    return networkFigures(samples);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The first of each path is weft, and the second what it is to be compared with. */
export function networkFigures({ paths, programming }: NetworkSamples): Figure[] {
  return [
    ...paths.flatMap(throughputFigures),
    ...paths.flatMap(requestFigures),
    ...programming.flatMap(programmingFigures),
  ];
}

async function runIsolated(words: readonly string[]): Promise<string> {
  const script = join(HERE, '../isolated.sh');
  const program = join(HERE, 'network/run.ts');
  const options = { stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1_000_000_000 } as const;
  return (await execa('sh', [script, process.execPath, program, ...words], options)).stdout;
}

const OF_BARE: Target = { value: 'ratio', bound: 'at least', limit: 0.97 };

function throughputFigures({ path, contenders }: PathSamples): Figure[] {
  const rates = contenders.map(({ bytesPerSecond }) => percentile(bytesPerSecond, 50));
  return contenders.map(({ who, bytesPerSecond }, i) => ({
    ...{ part: 'network', what: `TCP, ${path}`, who, count: bytesPerSecond.length },
    bytesPerSecond: percentile(bytesPerSecond, 50),
    ...comparedWith(i, rates),
  }));
}

/** How many requests a second one caller gets answered, one after the other: by the median round trip. */
function requestFigures({ path, contenders }: PathSamples): Figure[] {
  const medians = contenders.map(({ roundTripsUs }) => percentile(roundTripsUs, 50));
  return contenders.map(({ who, roundTripsUs }, i) => ({
    ...{ part: 'network', what: `request, ${path}`, who, count: roundTripsUs.length },
    p50Ms: percentile(roundTripsUs, 50) / 1000,
    p99Ms: percentile(roundTripsUs, 99) / 1000,
    perSecond: 1e6 / percentile(roundTripsUs, 50),
    ...comparedWith(
      i,
      medians.map((median) => 1e6 / median),
    ),
  }));
}

function comparedWith(index: number, rates: readonly number[]): Partial<Figure> {
  const [weft = NaN, bare = NaN] = rates;
  return index === 0 ? { ratio: weft / bare, ratioOf: 'rate', target: OF_BARE } : {};
}

function programmingFigures({ nodes, startMs, changeMs }: ProgrammingSamples): Figure[] {
  const figure = (what: string, samples: readonly number[], limit: number | undefined): Figure => {
    const { count, p50Ms, p99Ms } = summarize(samples);
    const target: Target | undefined =
      limit === undefined ? undefined : { value: 'p50Ms', bound: 'at most', limit };
    return {
      ...{ part: 'network', what, who: `among ${nodes} nodes`, count, p50Ms, p99Ms },
      ...(target === undefined ? {} : { target }),
    };
  };
  return [
    figure('routes and filters, full start', startMs, nodes === 5_000 ? 1_000 : undefined),
    figure('routes and filters, one node more or less', changeMs, nodes === 5_000 ? 20 : undefined),
  ];
}
