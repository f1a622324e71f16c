import { expect, test } from 'vitest';
import { createUndoStack } from '../../src/agent/undo.ts';

test('takes back in reverse order, waiting for each', async () => {
  const done: string[] = [];
  const undo = createUndoStack(() => undefined);
  undo.push('the first', () => {
    done.push('first');
  });
  undo.push('the second', async () => {
    await new Promise(setImmediate);
    done.push('second');
  });
  await undo.unwind();
  expect(done).toEqual(['second', 'first']);
});

test('a step that fails is told, and the others still run', async () => {
  const done: string[] = [];
  const failures: unknown[] = [];
  const undo = createUndoStack((what, error) => failures.push(what, error));
  const broken = new Error('broken');
  undo.push('the first', () => {
    done.push('first');
  });
  undo.push('a throwing one', () => {
    throw broken;
  });
  undo.push('a rejecting one', () => Promise.reject(broken));
  await undo.unwind();
  expect(done).toEqual(['first']);
  expect(failures).toEqual(['a rejecting one', broken, 'a throwing one', broken]);
});

test('what was dropped is not taken back, nor is anything taken back twice', async () => {
  let count = 0;
  const undo = createUndoStack(() => undefined);
  const step = () => {
    count++;
  };
  undo.push('it', step);
  undo.drop();
  await undo.unwind();
  expect(count).toBe(0);
  undo.push('it', step);
  await undo.unwind();
  await undo.unwind();
  expect(count).toBe(1);
});
