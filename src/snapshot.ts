import { request } from 'node:http';

// The command that `kubectl weft check` runs in an agent's container: `node snapshot.mjs [SOCKET]` prints what the
// agent that serves the node says of it. A file of its own, like the probe: it must start fast and cost little.
const [socketPath = '/run/weft/agent.sock'] = process.argv.slice(2);
const TIMEOUT_MS = 10_000;

try {
  process.stdout.write(`${await ask()}\n`);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}

function ask(): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path: '/snapshot', timeout: TIMEOUT_MS }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => (text += part));
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`the agent answers ${response.statusCode ?? 'nothing'}: ${text.trim()}`));
      });
    });
    asked.on('timeout', () => asked.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)));
    asked.on('error', (cause) => {
      reject(new Error(`no agent answers at ${socketPath}: ${cause.message}`, { cause }));
    });
    asked.end();
  });
}
