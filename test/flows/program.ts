import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { setPriority } from 'node:os';
import type { FlowOutcome, FlowSpec } from './flows.ts';

/**
 * The ends of flows, in whatever network namespace they were started in: `serve PORT ADDRESS…` sends back what comes by
 * TCP and UDP; `send SPECS` sends the numbers of each flow (JSON) and, when its stdin ends, tells what became of them in
 * a line of JSON.
 */
const [role = '', ...args] = process.argv.slice(2);

// A socket that is not read in time loses packets itself, which is nobody's fault but a busy machine's.
setPriority(-20);
/** Bytes; the kernel gives less where its limit is lower. */
const RECEIVE_BUFFER = 1 << 20;

/** So long what is still on its way at the end is waited for. */
const LAST_MS = 10_000;

if (role === 'serve') {
  const [port = '', ...addresses] = args;
  await Promise.all(addresses.map((address) => serve(address, Number(port))));
  process.stdout.write('ready\n');
} else {
  const specs = JSON.parse(args[0] ?? '[]') as FlowSpec[];
  const flows = specs.map((spec) => (spec.protocol === 'TCP' ? sendByTCP(spec) : sendByUDP(spec)));
  await Promise.all(flows.map((flow) => flow.connected));
  process.stdout.write('ready\n');
  process.stdin.resume();
  process.stdin.once('end', () => {
    for (const flow of flows) flow.stop();
    const deadlineMs = performance.now() + LAST_MS;
    setInterval(() => {
      const outcomes = flows.map((flow) => flow.outcome());
      if (outcomes.some(({ lost }) => lost > 0) && performance.now() < deadlineMs) return;
      process.stdout.write(`${JSON.stringify(outcomes)}\n`, () => process.exit(0));
    }, 10);
  });
}

interface SendingFlow {
  readonly connected: Promise<void>;
  stop(): void;
  outcome(): FlowOutcome;
}

async function serve(address: string, port: number): Promise<void> {
  const server = createServer((socket) => void socket.pipe(socket).on('error', () => socket.destroy()));
  const udp = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  udp.on('message', (data, from) => udp.send(data, from.port, from.address, () => undefined));
  await Promise.all([
    new Promise<void>((resolve) => server.listen(port, address, resolve)),
    new Promise<void>((resolve) => udp.bind(port, address, resolve)),
  ]);
  udp.setRecvBufferSize(RECEIVE_BUFFER);
}

/** Every number must come back, each after the one before it. */
function sendByTCP({ address, port, source, everyMs }: FlowSpec): SendingFlow {
  const socket = connect({
    ...{ host: address, port },
    ...(source === undefined ? {} : { localAddress: source }),
  });
  socket.setNoDelay(true);
  const silence = measureSilence();
  const connected = Promise.withResolvers<undefined>();
  let sent = 0;
  let returned = 0;
  let rest = '';
  let error: string | undefined;
  socket.on('connect', () => {
    silence.heard();
    connected.resolve(undefined);
  });
  socket.on('error', ({ message }) => (error ??= message));
  socket.on('close', () => {
    error ??= 'the other end closed it';
    connected.reject(new Error(`TCP to ${address} port ${port}: ${error}`));
  });
  socket.on('data', (data) => {
    silence.heard();
    const lines = (rest + data.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === String(returned)) returned++;
      else error ??= `${line} came back instead of ${returned}`;
    }
  });
  const timer = every(everyMs, connected.promise, () => socket.write(`${sent++}\n`));
  return {
    connected: connected.promise,
    stop() {
      timer.stop();
      silence.stop();
    },
    outcome() {
      const lost = sent - returned;
      return outcomeOf({ sent, lost, gapMs: lost * everyMs, error, longestMs: silence.longestMs() });
    },
  };
}

/** In any order, and once or more often. */
function sendByUDP({ address, port, source, everyMs }: FlowSpec): SendingFlow {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  const silence = measureSilence();
  const connected = Promise.withResolvers<undefined>();
  const returned = new Set<number>();
  let sent = 0;
  let error: string | undefined;
  socket.on('error', ({ message }) => (error ??= message));
  socket.on('message', (data) => {
    silence.heard();
    returned.add(Number(data.toString()));
  });
  socket.on('connect', () => {
    silence.heard();
    connected.resolve(undefined);
  });
  socket.bind({ port: 0, ...(source === undefined ? {} : { address: source }) }, () => {
    socket.setRecvBufferSize(RECEIVE_BUFFER);
    socket.connect(port, address);
  });
  const timer = every(everyMs, connected.promise, () =>
    socket.send(String(sent++), (failure) => (error ??= failure?.message)),
  );
  return {
    connected: connected.promise,
    stop() {
      timer.stop();
      silence.stop();
    },
    outcome() {
      let run = 0;
      let longestRun = 0;
      for (let number = 0; number < sent; number++) {
        run = returned.has(number) ? 0 : run + 1;
        longestRun = Math.max(longestRun, run);
      }
      const gapMs = longestRun * everyMs;
      return outcomeOf({ sent, lost: sent - returned.size, gapMs, error, longestMs: silence.longestMs() });
    },
  };
}

/** From what was heard first (that the connection stands) to its stop. */
function measureSilence() {
  let lastMs: number | undefined;
  let longest = 0;
  let stopped = false;
  const heard = () => {
    if (stopped) return;
    const nowMs = performance.now();
    longest = Math.max(longest, nowMs - (lastMs ?? nowMs));
    lastMs = nowMs;
  };
  return {
    heard,
    stop() {
      heard();
      stopped = true;
    },
    longestMs: () => Math.round(longest),
  };
}

function every(intervalMs: number, after: Promise<unknown>, act: () => void): { stop(): void } {
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  void after.then(
    () => {
      if (!stopped) timer = setInterval(act, intervalMs);
    },
    () => undefined,
  );
  return {
    stop() {
      stopped = true;
      clearInterval(timer);
    },
  };
}

function outcomeOf({
  error,
  ...counts
}: Omit<FlowOutcome, 'error'> & { readonly error: string | undefined }): FlowOutcome {
  return { ...counts, ...(error === undefined ? {} : { error }) };
}
