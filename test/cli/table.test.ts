import { expect, it } from 'vitest';
import { renderTable } from '../../src/cli/table.ts';

it('aligns columns by their text, numbers to the right, without spaces at the end', () => {
  const red = (text: string) => `<red>${text}</red>`;
  const rows = [
    ['NAME', 'USED', 'ABOUT'],
    ['a', { text: '7', paint: red }, ''],
    [],
    [{ text: 'longer', paint: red }, '12345', 'x'],
  ];
  expect(renderTable(rows, { right: new Set([1]), indent: '  ' })).toBe(
    ['  NAME     USED  ABOUT', '  a           <red>7</red>', '', '  <red>longer</red>  12345  x', ''].join(
      '\n',
    ),
  );
});

it('cuts its last column to fit, and leaves it out where next to nothing would stay', () => {
  const rows = [
    ['NAME', 'SUBNETS'],
    ['n1', '10.0.0.0/26, 10.0.0.64/26'],
    ['n2', '10.0.1.0/26'],
  ];
  const linesFor = (fit: number) => renderTable(rows, { fit }).split('\n').slice(0, -1);
  expect(linesFor(31)).toEqual(['NAME  SUBNETS', 'n1    10.0.0.0/26, 10.0.0.64/26', 'n2    10.0.1.0/26']);
  expect(linesFor(20)).toEqual(['NAME  SUBNETS', 'n1    10.0.0.0/26, …', 'n2    10.0.1.0/26']);
  expect(linesFor(17)).toEqual(['NAME', 'n1', 'n2']);
});

it('is nothing without rows', () => {
  expect(renderTable([])).toBe('');
});
