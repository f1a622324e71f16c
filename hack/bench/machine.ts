import { cpus, loadavg, release, totalmem } from 'node:os';

/** What the figures were measured on, for whoever compares them with their own. */
export type Machine = {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGB: number;
  readonly kernel: string;
  readonly node: string;
  /** Processes that ran or wanted to in the minute before the benchmark: above 0.5 it was not alone. */
  readonly loadBefore: number;
};

export function describeMachine(): Machine {
  const cores = cpus();
  return {
    processor: cores[0]?.model ?? 'unknown',
    cores: cores.length,
    memoryGB: Math.round(totalmem() / 1e9),
    kernel: release(),
    node: process.version,
    loadBefore: loadavg()[0] ?? 0,
  };
}

/** The figures of a machine that had other work to do are not to be compared with anything. */
const QUIET_LOAD = 0.5;

export function machineLines(machine: Machine): string[] {
  const { processor, cores, memoryGB, kernel, node, loadBefore } = machine;
  const load = `load before the run: ${loadBefore.toFixed(2)}`;
  return [
    `${cores} cores (${processor}), ${memoryGB} GB, Linux ${kernel}, Node ${node}`,
    loadBefore <= QUIET_LOAD
      ? load
      : `${load}: THE MACHINE WAS BUSY WITH OTHER THINGS, take no figure for weft's`,
  ];
}
