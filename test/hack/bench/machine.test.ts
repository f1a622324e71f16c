import { expect, it } from 'vitest';
import { machineLines } from '../../../hack/bench/machine.ts';

const machine = { processor: 'P', cores: 2, memoryGB: 25, kernel: '6.18', node: 'v24', loadBefore: 0.5 };

it('describes the machine, and warns of figures from a busy one', () => {
  expect(machineLines(machine)).toEqual([
    '2 cores (P), 25 GB, Linux 6.18, Node v24',
    'load before the run: 0.50',
  ]);
  expect(machineLines({ ...machine, loadBefore: 0.51 })[1]).toMatch(/0\.51: THE MACHINE WAS BUSY/);
});
