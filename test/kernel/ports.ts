import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { execa } from 'execa';
import type { Throwaway } from './throwaway.ts';

export type Transport = 'tcp' | 'udp';

/** Answers each TCP connection and each UDP packet with `NAME ADDRESS-OF-WHO-ASKED`, in both families. */
const ECHO = `
const [name, port] = process.argv.slice(1);
const text = (address) => name + ' ' + address.replace(/^::ffff:/, '');
const tcp = require('node:net').createServer((socket) => socket.on('error', () => {}).end(text(socket.remoteAddress ?? '')));
tcp.listen(Number(port), '::', () => {
  const listening = ['udp4', 'udp6'].map((type) => new Promise((resolve) => {
    const udp = require('node:dgram').createSocket({ type, ipv6Only: type === 'udp6' });
    udp.on('message', (_, from) => udp.send(text(from.address), from.port, from.address));
    udp.bind(Number(port), resolve);
  }));
  Promise.all(listening).then(() => console.log('listening'));
});
`;

const ASK = `
const [transport, address, port, source, sourcePort] = process.argv.slice(1);
const give = (answer) => { process.stdout.write(answer); process.exit(0); };
setTimeout(() => process.exit(3), 1500);
if (transport === 'tcp') {
  const options = { host: address, port: Number(port), ...(source === '' ? {} : { localAddress: source }) };
  require('node:net').connect(options).on('data', (data) => give(String(data))).on('error', () => process.exit(2));
} else {
  const udp = require('node:dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4');
  udp.on('message', (data) => give(String(data))).on('error', () => process.exit(2));
  const send = () => udp.send('?', Number(port), address);
  udp.bind({ port: Number(sourcePort), ...(source === '' ? {} : { address: source }) }, send);
}
`;

/** Starts a server in that namespace; what it returns ends it. */
export async function serve(where: Throwaway, name: string, port: number): Promise<() => void> {
  const child = spawn('nsenter', [`--net=${where.path}`, process.execPath, '-e', ECHO, name, String(port)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return () => void child.kill('SIGKILL');
}

/** `NAME ADDRESS` of who answers there; undefined if nobody does. */
export async function ask(
  from: Throwaway,
  transport: Transport,
  address: string,
  port: number,
  { source = '', sourcePort = 0 }: { readonly source?: string; readonly sourcePort?: number } = {},
): Promise<string | undefined> {
  const { stdout, exitCode } = await execa(
    'nsenter',
    [
      `--net=${from.path}`,
      process.execPath,
      '-e',
      ASK,
      transport,
      address,
      String(port),
      source,
      String(sourcePort),
    ],
    { reject: false },
  );
  return exitCode === 0 ? stdout : undefined;
}
