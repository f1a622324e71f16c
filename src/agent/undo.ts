/** What must be taken back if the work does not reach its last line; filled as the work goes. */
export interface UndoStack {
  push(what: string, undo: () => void | Promise<void>): void;
  /** The work is done: nothing is taken back any more. */
  drop(): void;
  /** Takes everything back, the latest first. A step that fails is reported and the others still run. */
  unwind(): Promise<void>;
}

/** An empty stack; `onFailure` hears of each step that could not be taken back. */
export function createUndoStack(onFailure: (what: string, error: unknown) => void): UndoStack {
  let steps: { what: string; undo: () => void | Promise<void> }[] = [];
  return {
    push(what, undo) {
      steps.push({ what, undo });
    },
    drop() {
      steps = [];
    },
    async unwind() {
      const taken = steps.reverse();
      steps = [];
      for (const { what, undo } of taken) {
        try {
          await undo();
        } catch (error) {
          onFailure(what, error);
        }
      }
    },
  };
}
