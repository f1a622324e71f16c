/**
 * Starting and awaiting processes at the least cost there is: posix_spawn(3) and a blocking waitpid(2), called
 * directly. Node's own spawn forks its whole address space and hears of the end through its event loop; both would
 * be measured with the program. For a process that does nothing else: while it waits, everything waits.
 */
import { constants } from 'node:os';
import koffi, { type KoffiFunc } from 'koffi';

/** stdout goes to /dev/null, stderr is ours. */
export type Command = {
  readonly argv: readonly [string, ...string[]];
  /** Beside the environment of all. */
  readonly environment?: Readonly<Record<string, string>>;
  /** A file; /dev/null if absent. */
  readonly stdin?: string;
};

/** Starts programs, named by absolute paths, with this environment. */
export function openSpawner(common: Readonly<Record<string, string>>): Spawner {
  const attributes = defaultSignals();
  const actions = new Map<string, Uint8Array>();
  const actionsFor = (stdin: string) => {
    const made = actions.get(stdin) ?? redirecting(stdin);
    actions.set(stdin, made);
    return made;
  };
  return {
    start({ argv, environment, stdin = '/dev/null' }) {
      const variables = Object.entries({ ...common, ...environment }).map(
        ([name, value]) => `${name}=${value}`,
      );
      const pid = [0];
      const path = argv[0];
      const errno = posixSpawn(
        pid,
        path,
        actionsFor(stdin),
        attributes,
        [...argv, null],
        [...variables, null],
      );
      if (errno !== 0) throw new SpawnError(path, errno);
      return pid[0] ?? 0;
    },
    next() {
      const status = [0];
      for (;;) {
        const pid = waitpid(-1, status, 0);
        if (pid > 0) return { pid, failure: failureOf(status[0] ?? 0) };
        const errno = koffi.errno();
        if (errno !== constants.errno.EINTR) throw new SpawnError('waitpid', errno);
      }
    },
  };
}

export type Spawner = {
  /** Answers the process's number. Throws SpawnError. */
  start(command: Command): number;
  /** Blocks until any started process has ended; `failure` says how, unless it ended with 0. */
  next(): { readonly pid: number; readonly failure: string | undefined };
};

/** A program could not be started, or not be waited for. */
export class SpawnError extends Error {
  override name = 'SpawnError' as const;
  readonly errno: number;
  constructor(what: string, errno: number) {
    super(`${what}: error ${errno} (see errno -l)`);
    this.errno = errno;
  }
}

const libc = koffi.load(null);
const posixSpawn = libc.func(
  'int posix_spawn(_Out_ int *pid, const char *path, void *actions, void *attributes, const char **argv, const char **envp)',
) as KoffiFunc<
  (
    pid: number[],
    path: string,
    actions: Uint8Array,
    attributes: Uint8Array,
    argv: readonly (string | null)[],
    envp: readonly (string | null)[],
  ) => number
>;
const waitpid = libc.func('int waitpid(int pid, _Out_ int *status, int options)') as KoffiFunc<
  (pid: number, status: number[], options: number) => number
>;
const initActions = libc.func('int posix_spawn_file_actions_init(void *)') as KoffiFunc<
  (actions: Uint8Array) => number
>;
const addOpen = libc.func(
  'int posix_spawn_file_actions_addopen(void *, int fd, const char *path, int flags, unsigned int mode)',
) as KoffiFunc<(actions: Uint8Array, fd: number, path: string, flags: number, mode: number) => number>;
const initAttributes = libc.func('int posix_spawnattr_init(void *)') as KoffiFunc<
  (attributes: Uint8Array) => number
>;
const setFlags = libc.func('int posix_spawnattr_setflags(void *, short flags)') as KoffiFunc<
  (attributes: Uint8Array, flags: number) => number
>;
const setDefaultSignals = libc.func('int posix_spawnattr_setsigdefault(void *, const void *)') as KoffiFunc<
  (attributes: Uint8Array, signals: Uint8Array) => number
>;

// More than glibc or musl need on any platform: 80 and 336 bytes.
const OPAQUE_BYTES = 1024;
const SIGNAL_SET_BYTES = 128;
const POSIX_SPAWN_SETSIGDEF = 4;
const POSIX_SPAWN_SETSIGMASK = 8;
const O_RDONLY = 0;
const O_WRONLY = 1;

function redirecting(stdin: string): Uint8Array {
  const actions = new Uint8Array(OPAQUE_BYTES);
  initActions(actions);
  addOpen(actions, 0, stdin, O_RDONLY, 0);
  addOpen(actions, 1, '/dev/null', O_WRONLY, 0);
  return actions;
}

/** Node ignores some signals, and what it ignores its children would. */
function defaultSignals(): Uint8Array {
  const attributes = new Uint8Array(OPAQUE_BYTES);
  initAttributes(attributes);
  // All signals, but the two that the C library keeps for itself (32 and 33).
  const signals = new Uint8Array(SIGNAL_SET_BYTES).fill(0xff, 0, 8);
  signals[3] = 0x7f;
  signals[4] = 0xfe;
  setDefaultSignals(attributes, signals);
  // The mask stays as initialized: empty.
  setFlags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  return attributes;
}

function failureOf(status: number): string | undefined {
  if (status === 0) return undefined;
  const signal = status & 0x7f;
  return signal === 0 ? `ended with ${(status >> 8) & 0xff}` : `was ended by signal ${signal}`;
}
