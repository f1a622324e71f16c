/** Deletes links that were taken down, off the path of those who wait. */
export interface Reaper {
  /** Something is dying: delete it soon. */
  wake(): void;
  /** Resolves when nothing is being deleted and nothing waits to be. */
  idle(): Promise<void>;
}

/**
 * One deletion at a time for all that died since the last: deleting a veth waits 16 to 20 ms in the kernel, and a
 * group of them waits once.
 * @param deleteDying deletes every link of the dying group
 */
export function createReaper(deleteDying: () => Promise<void>, onFailure: (error: unknown) => void): Reaper {
  let wanted = false;
  let running: Promise<void> | undefined;

  const work = async () => {
    while (wanted) {
      wanted = false;
      try {
        await deleteDying();
      } catch (error) {
        // The sweep wakes it again: a link that cannot be deleted now is tried at every sweep.
        onFailure(error);
      }
    }
    running = undefined;
  };

  return {
    wake() {
      wanted = true;
      running ??= work();
    },
    async idle() {
      await running;
    },
  };
}
