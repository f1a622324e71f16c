/**
 * Run by Node inside a pod's network namespace, as a program of its own: `echo PORT` answers every datagram until its stdin ends, and `send
 * PORT ADDRESS…` keeps one UDP flow and one TCP flow to each address, numbered, until its stdin ends, and then prints
 * what came back. TCP goes to the echo that the test image serves.
 */
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const TCP_ECHO = 7;
const EVERY_MS = 20;
/** What is under way when the flow ends has this long to come back. */
const LAST_WORDS_MS = 2_000;

const [role, port = '', ...addresses] = process.argv.slice(2);
if (role === 'echo') echo(Number(port));
else await send(Number(port), addresses);

function echo(on: number): void {
  process.stdin.on('end', () => process.exit(0)).resume();
  const server = createSocket({ type: 'udp6' });
  server.on('message', (message, from) => server.send(message, from.port, from.address));
  server.bind(on, () => process.stdout.write('listening\n'));
}

async function send(to: number, targets: readonly string[]): Promise<void> {
  let over = false;
  process.stdin.on('end', () => (over = true)).resume();
  const until = () => over;
  const flows = await Promise.all([
    ...targets.map((address) => overUDP(address, to, until)),
    ...targets.map((address) => overTCP(address, until)),
  ]);
  process.stdout.write(JSON.stringify(flows));
  process.exit(0);
}

/** Connected, so that it is one flow, from one port; a number that is lost is not said again. */
async function overUDP(address: string, to: number, isOver: () => boolean): Promise<object> {
  const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
  const missing = new Set<number>();
  const errors: string[] = [];
  socket.on('message', (message) => missing.delete(Number(message.toString())));
  socket.on('error', (error) => errors.push(error.message));
  await new Promise<void>((resolve) => socket.connect(to, address, resolve));
  let sent = 0;
  for (; !isOver(); await sleep(EVERY_MS)) {
    missing.add(++sent);
    socket.send(String(sent));
  }
  await sleep(LAST_WORDS_MS);
  return { flow: `udp ${address}`, sent, lost: [...missing], errors };
}

async function overTCP(address: string, isOver: () => boolean): Promise<object> {
  const socket = connect({ host: address, port: TCP_ECHO });
  const errors: string[] = [];
  let text = '';
  socket.on('data', (piece) => (text += piece.toString()));
  socket.on('error', (error) => errors.push(error.message));
  socket.on('close', () => errors.push('closed'));
  let sent = 0;
  for (; !isOver(); await sleep(EVERY_MS)) socket.write(`${++sent}\n`);
  await sleep(LAST_WORDS_MS);
  const echoed = new Set(text.split('\n').map(Number));
  const lost = Array.from({ length: sent }, (_, index) => index + 1).filter((number) => !echoed.has(number));
  return { flow: `tcp ${address}`, sent, lost, errors: [...errors] };
}
