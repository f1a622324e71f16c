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
    [
      '  NAME      USED   ABOUT',
      '  a            <red>7</red>',
      '',
      '  <red>longer</red>   12345   x',
      '',
    ].join('\n'),
  );
});

it('is nothing without rows', () => {
  expect(renderTable([])).toBe('');
});
