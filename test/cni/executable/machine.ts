import { mkdtemp, rm, stat } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { expect } from 'vitest';
import { buildExecutable } from '../../../hack/build.ts';
import { serveCni, type CniServer, type ServeOptions, type Verbs } from '../../../src/agent/server.ts';

/** What the executable sees as its host: a /run/weft of its own, in a mount namespace of its own. */
export interface Machine {
  /** What stands at /run/weft there. */
  readonly run: string;
  call(call: Call): Promise<CallResult>;
  /** Serves as an agent does; verbs that are not given fail the test that reaches them. */
  serve(verbs: Partial<Verbs>, options?: Partial<ServeOptions>): Promise<CniServer>;
  /** Takes connections as an agent does and never answers them; resolves to how it ends. */
  serveSilently(onConnection?: (socket: Socket) => void): Promise<() => Promise<void>>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface Call {
  readonly env?: Readonly<Record<string, string>>;
  /** An object is written as JSON. Default: CONFIGURATION. */
  readonly stdin?: string | Uint8Array | object;
  /** Where the runtime stands. */
  readonly cwd?: string;
  /** A disk of its own below /run/weft, that nothing can be written to. */
  readonly disk?: keyof typeof DISKS;
  /** As if the machine had booted so much earlier, seconds: a CI machine may have booted right before. */
  readonly bootedEarlierBy?: number;
  /** So many files may be open at once. */
  readonly openFiles?: number;
}

export interface CallResult {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
  /** What is below /run/weft afterwards, where it is a disk of its own. */
  readonly left: readonly string[];
}

export const CONFIGURATION = { cniVersion: '1.1.0', name: 'weft', type: 'weft' };

/** The environment of a call that nothing is wrong with. */
export const environment = (verb: string, changes: Readonly<Record<string, string>> = {}) => ({
  CNI_COMMAND: verb,
  CNI_CONTAINERID: 'c0ffee',
  CNI_IFNAME: 'eth0',
  CNI_NETNS: '/run/netns/pod',
  CNI_PATH: '/opt/cni/bin',
  ...changes,
});

let building: Promise<string> | undefined;

/** `executable` is weft's own unless a test brings another. */
export async function startMachine(executable?: string): Promise<Machine> {
  // Concurrent tests of one file share one build.
  const program = executable ?? (await (building ??= buildExecutable()));
  const run = await mkdtemp(join(tmpdir(), 'weft-machine-'));
  const ends: (() => Promise<void>)[] = [];
  return {
    run,
    call: (call) => callExecutable(program, run, call),
    async serve(verbs, options = {}) {
      const server = await serveCni({
        socketPath: join(run, 'agent.sock'),
        verbs: { ...UNEXPECTED, ...verbs },
        log: { info: ignore, warn: ignore, error: ignore },
        clock: { nowMs: () => performance.now() },
        ...options,
      });
      ends.push(() => server.close());
      return server;
    },
    async serveSilently(onConnection = ignore) {
      const end = await listenSilently(join(run, 'agent.sock'), onConnection);
      ends.push(end);
      return end;
    },
    async [Symbol.asyncDispose]() {
      for (const end of ends) await end();
      await rm(run, { recursive: true, force: true });
    },
  };
}

/** That the call printed exactly one CNI error object, on stdout, and nothing elsewhere. */
export function expectError(result: CallResult, code: number, message: RegExp): void {
  expect(result.stderr).toBe('');
  const printed: unknown = JSON.parse(result.stdout);
  expect(printed).toMatchObject({ code, msg: expect.stringMatching(message) as string });
  expect(printed).toHaveProperty('cniVersion');
  expect(result.exitCode).toBe(1);
}

export async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Covers /run, so that nothing of the machine is touched, and puts the test's directory at /run/weft. */
const INSIDE = [
  'mount -t tmpfs -o mode=755 tmpfs /run',
  'mkdir -m 700 /run/weft',
  'mount --bind "$1" /run/weft',
  'exec "$2"',
].join(' && ');

/** Disks that take nothing more, by what they are short of. */
const DISKS = {
  room: 'mount -t tmpfs -o size=4k disk /run/weft && mkdir /run/weft/deleted && dd if=/dev/zero of=/run/weft/full 2>&-',
  inodes: 'mount -t tmpfs -o nr_inodes=2 disk /run/weft && mkdir /run/weft/deleted',
  writability: 'mount -t tmpfs disk /run/weft && mkdir /run/weft/deleted && mount -o remount,ro /run/weft',
};

/** Says at the end of stdout what is left there. */
const onDisk = (disk: keyof typeof DISKS) =>
  `mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/weft && { ${DISKS[disk]}; "$2"; code=$?; } && echo && ` +
  `find /run/weft -type f -printf '%P %s\\n' && exit $code`;

async function callExecutable(executable: string, run: string, call: Call): Promise<CallResult> {
  const { env = environment('ADD'), stdin = CONFIGURATION } = call;
  const input = typeof stdin === 'string' || stdin instanceof Uint8Array ? stdin : JSON.stringify(stdin);
  const started = performance.now();
  const limit = call.openFiles === undefined ? [] : ['prlimit', `--nofile=${call.openFiles}`];
  const script = call.disk === undefined ? INSIDE : onDisk(call.disk);
  const { bootedEarlierBy } = call;
  const time = bootedEarlierBy === undefined ? [] : ['--time', '--fork', `--boottime=${bootedEarlierBy}`];
  const within = ['--mount', ...time, ...limit];
  const result = await execa('unshare', [...within, 'sh', '-c', script, 'sh', run, executable], {
    env: { PATH: process.env.PATH ?? '', ...env },
    extendEnv: false,
    input,
    ...(call.cwd === undefined ? {} : { cwd: call.cwd }),
    reject: false,
    stripFinalNewline: false,
  });
  // The executable may end before it has read all of a huge input.
  const { exitCode, stderr } = result;
  const [stdout = '', ...left] = call.disk === undefined ? [result.stdout] : result.stdout.split('\n');
  return {
    exitCode,
    stdout,
    stderr,
    ms: performance.now() - started,
    left: left.filter((line) => line !== ''),
  };
}

const unexpected = async (): Promise<never> => {
  throw new Error('the test did not expect this verb to be reached');
};

const UNEXPECTED: Verbs = {
  add: unexpected,
  addAddresses: unexpected,
  del: unexpected,
  check: unexpected,
  checkAddresses: unexpected,
  status: unexpected,
  gc: unexpected,
};

async function listenSilently(
  path: string,
  onConnection: (socket: Socket) => void,
): Promise<() => Promise<void>> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', ignore);
    socket.on('close', () => sockets.delete(socket));
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
}

function ignore(): void {
  // What is not looked at.
}
