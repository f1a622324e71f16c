import { createServer, request, type Server } from 'node:http';
import { rm } from 'node:fs/promises';

/** What the probes ask; a text says why not. */
export interface Health {
  /** Undefined: alive. Otherwise why the process should be started again. */
  live: () => string | undefined;
  /** Undefined: ready. Otherwise what is being waited for. */
  ready: () => string | undefined;
}

/** The probe's question could not be asked, or was answered with no. */
export class ProbeError extends Error {
  override name = 'ProbeError' as const;
}

/**
 * Answers `GET /livez` and `GET /readyz` on a socket of this pod's own: two agents share a node during a rollout,
 * and on the host network a port would belong to the first of them alone.
 */
export async function serveHealth(socketPath: string, health: Health): Promise<Server> {
  const server = createServer((incoming, response) => {
    const answer = answerProbe(incoming.url, health);
    response.writeHead(answer.status, { 'content-type': 'text/plain' });
    response.end(`${answer.text}\n`);
  });
  await rm(socketPath, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, resolve);
  });
  return server;
}

/**
 * Asks the health socket; resolves where the answer is yes.
 * @throws ProbeError
 */
export function askHealth(socketPath: string, path: string, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, timeout: timeoutMs }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => (text += part));
      response.on('end', () => {
        if (response.statusCode === 200) resolve();
        else reject(new ProbeError(text.trim()));
      });
    });
    asked.on('timeout', () => asked.destroy(new Error(`no answer within ${timeoutMs} ms`)));
    asked.on('error', (cause) => {
      reject(new ProbeError(`${socketPath}: ${cause.message}`, { cause }));
    });
    asked.end();
  });
}

function answerProbe(url: string | undefined, health: Health): { status: number; text: string } {
  const question = url === '/livez' ? health.live : url === '/readyz' ? health.ready : undefined;
  if (question === undefined) return { status: 404, text: 'ask /livez or /readyz' };
  const reason = question();
  return reason === undefined ? { status: 200, text: 'ok' } : { status: 503, text: reason };
}
