import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Agent, createServer, request as requestUpstream } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeKubeconfig } from '../../hack/cluster/certificates.ts';
import type { ControlPlane } from '../../hack/cluster/control-plane.ts';

/**
 * What becomes of one request:
 * - `lose-answer`: it reaches the apiserver and is carried out; then the connection breaks instead of the answer
 * - `lose-request`: the connection breaks and the apiserver never sees it
 * - `no-answer`: the apiserver never sees it, and the connection stays open
 * - `delayMs`: it is passed on so much later
 * - `until`: it is passed on when that resolves
 * - `status`: it is not passed on; the proxy answers with that code and a Status
 */
export type Fault =
  | 'none'
  | 'lose-answer'
  | 'lose-request'
  | 'no-answer'
  | { readonly delayMs: number }
  | { readonly until: Promise<void> }
  | { readonly status: 410 | 429 | 500 | 503; readonly retryAfterSeconds?: number };

export interface ProxiedRequest {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly body: string;
}

/** A proxy before the apiserver that loses what it is told to. */
export interface LossyProxy {
  readonly url: string;
  /** A kubeconfig file that leads through it, as cluster administrator. */
  readonly kubeconfig: string;
  /** What came, in order. */
  readonly requests: ProxiedRequest[];
  /** The code that the apiserver answered, of those of them that reached it. */
  readonly codes: ReadonlyMap<ProxiedRequest, number>;
  /** How many connections were opened to it so far. */
  readonly connectionsOpened: number;
  /** Decides about each request from now on. */
  setFault(fault: (request: ProxiedRequest) => Fault): void;
  /** Down: open connections are reset, watches too, and new ones refused. */
  setDown(down: boolean): Promise<void>;
  /** Resets the open connections; new ones are welcome. */
  resetConnections(): void;
  stop(): Promise<void>;
}

/**
 * Starts the proxy. It speaks to the apiserver as its administrator, whoever asks. Its files go to `dir`. `host` is where it
 * listens: the apiserver itself only answers who is on its machine.
 */
export async function startLossyProxy(
  plane: ControlPlane,
  dir: string,
  host = '127.0.0.1',
): Promise<LossyProxy> {
  const serving = await plane.authority.issue({
    name: 'lossy-proxy',
    commonName: 'lossy-proxy',
    hosts: [host, 'localhost'],
  });
  const [ca, cert, key, adminCert, adminKey] = await Promise.all(
    [
      plane.authority.certificateFile,
      serving.certificateFile,
      serving.keyFile,
      plane.admin.certificateFile,
      plane.admin.keyFile,
    ].map((file) => readFile(file)),
  );
  const upstream = new Agent({ keepAlive: true, ca, cert: adminCert, key: adminKey });
  const requests: ProxiedRequest[] = [];
  const codes = new Map<ProxiedRequest, number>();
  const sockets = new Set<Socket>();
  let connectionsOpened = 0;
  let decide: (request: ProxiedRequest) => Fault = () => 'none';

  const server = createServer({ cert, key }, (incoming, outgoing) => {
    void pass(incoming, outgoing).catch(() => outgoing.destroy());
  });
  server.on('connection', (socket: Socket) => {
    connectionsOpened += 1;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  const listen = async (port: number) => {
    server.listen(port, host);
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  const port = await listen(0);
  const url = `https://${host}:${port}`;
  const reset = () => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  const shut = async () => {
    if (!server.listening) return;
    server.close();
    reset();
    await once(server, 'close');
  };

  return {
    url,
    kubeconfig: await writeKubeconfig(join(dir, 'lossy-proxy.kubeconfig'), url, plane.authority, plane.admin),
    requests,
    codes,
    get connectionsOpened() {
      return connectionsOpened;
    },
    setFault(fault) {
      decide = fault;
    },
    async setDown(down) {
      if (down) await shut();
      else if (!server.listening) await listen(port);
    },
    resetConnections: reset,
    async stop() {
      await shut();
      upstream.destroy();
    },
  };

  async function pass(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const body = await bodyOf(incoming);
    const request = { method: incoming.method ?? '', path: incoming.url ?? '', body: body.toString() };
    requests.push(request);
    const fault = decide(request);
    if (fault === 'lose-request') return void incoming.socket.destroy();
    if (fault === 'no-answer') return;
    if (typeof fault === 'object' && 'status' in fault) return refuse(outgoing, fault);
    if (typeof fault === 'object') await ('until' in fault ? fault.until : sleep(fault.delayMs));
    const sent = requestUpstream(`${plane.url}${request.path}`, {
      agent: upstream,
      method: request.method,
      headers: { ...incoming.headers, host: new URL(plane.url).host },
    });
    outgoing.on('close', () => sent.destroy());
    sent.end(body);
    const [answer] = (await once(sent, 'response')) as [IncomingMessage];
    codes.set(request, answer.statusCode ?? 502);
    if (fault === 'lose-answer') {
      await bodyOf(answer);
      return void incoming.socket.destroy();
    }
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    // The head of a watch must not wait for its first event.
    outgoing.flushHeaders();
    answer.on('error', () => outgoing.destroy());
    answer.pipe(outgoing);
  }
}

const REASONS: Readonly<Record<number, string>> = { 410: 'Expired', 429: 'TooManyRequests' };

function refuse(
  outgoing: ServerResponse,
  { status, retryAfterSeconds }: { readonly status: number; readonly retryAfterSeconds?: number },
): void {
  const retry = retryAfterSeconds === undefined ? {} : { 'retry-after': String(retryAfterSeconds) };
  outgoing.writeHead(status, { 'content-type': 'application/json', ...retry });
  const reason = REASONS[status] ?? 'InternalError';
  outgoing.end(
    JSON.stringify({ kind: 'Status', status: 'Failure', code: status, reason, message: 'the proxy says so' }),
  );
}

async function bodyOf(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
