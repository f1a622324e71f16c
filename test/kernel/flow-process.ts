import { createServer, connect } from 'node:net';

/**
 * One end of a TCP connection, in whatever network namespace it was started in: `serve ADDRESS PORT` sends back what
 * comes; `send ADDRESS PORT [SOURCE]` sends a number every 20 ms and, when its stdin ends, tells in a line of JSON
 * whether all came back in order over the one connection, and the longest time in which nothing came.
 */
const [role = '', host = '', port = '', source] = process.argv.slice(2);

const EVERY_MS = 20;

if (role === 'serve') {
  const server = createServer((socket) => void socket.pipe(socket).on('error', () => socket.destroy()));
  server.listen(Number(port), host, () => process.stdout.write('ready\n'));
} else {
  const socket = connect({
    host,
    port: Number(port),
    ...(source === undefined ? {} : { localAddress: source }),
  });
  let sent = 0;
  let received = '';
  let lastMs = performance.now();
  let longestMs = 0;
  let error: string | undefined;
  socket.setNoDelay(true);
  socket.on('connect', () => {
    process.stdout.write('ready\n');
    lastMs = performance.now();
  });
  socket.on('data', (data) => {
    const nowMs = performance.now();
    longestMs = Math.max(longestMs, nowMs - lastMs);
    lastMs = nowMs;
    received += data.toString();
  });
  socket.on('error', ({ message }) => (error = message));
  const timer = setInterval(() => socket.write(`${sent++}\n`), EVERY_MS);
  process.stdin.resume();
  process.stdin.once('end', () => {
    clearInterval(timer);
    const expected = Array.from({ length: sent }, (_, i) => `${i}\n`).join('');
    const finish = () => {
      process.stdout.write(`${JSON.stringify({ whole: received === expected, error, longestMs })}\n`);
      process.exit(0);
    };
    const poll = setInterval(() => received === expected && finish(), 10);
    setTimeout(() => {
      clearInterval(poll);
      finish();
    }, 10_000);
  });
}
