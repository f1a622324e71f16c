import { cpus, release, totalmem } from 'node:os';

/** What the figures were measured on, for whoever compares them with their own. */
export type Machine = {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGB: number;
  readonly kernel: string;
  readonly node: string;
};

export function describeMachine(): Machine {
  const cores = cpus();
  return {
    processor: cores[0]?.model ?? 'unknown',
    cores: cores.length,
    memoryGB: Math.round(totalmem() / 1e9),
    kernel: release(),
    node: process.version,
  };
}

export function machineLine({ processor, cores, memoryGB, kernel, node }: Machine): string {
  return `${cores} cores (${processor}), ${memoryGB} GB, Linux ${kernel}, Node ${node}`;
}
