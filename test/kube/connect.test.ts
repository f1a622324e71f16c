import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openAuthority } from '../../hack/cluster/certificates.ts';
import { createKubeClient, UnreachableError, type TLSFacts } from '../../src/kube/index.ts';

/** A server that shows a certificate, and a process whose files name an authority: at first, and later another. */

let directory: string;
let server: Server;
let url: URL;
let its: Buffer;
let another: Buffer;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-connect-'));
  const authority = await openAuthority(join(directory, 'its'));
  its = await readFile(authority.certificateFile);
  another = await readFile((await openAuthority(join(directory, 'another'))).certificateFile);
  const serving = await authority.issue({ name: 's', commonName: 's', hosts: ['127.0.0.1'] });
  const [cert, key] = await Promise.all(
    [serving.certificateFile, serving.keyFile].map((one) => readFile(one)),
  );
  server = createServer({ cert, key }, (_request, response) => response.end('{}'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
});

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(directory, { recursive: true });
});

it('reads whom to trust again where a certificate cannot be verified, and believes what it reads (F32)', async () => {
  let file: TLSFacts = { ca: another };
  const { ask, reads } = clientOf({ ca: another }, async () => file);
  await expect(ask()).rejects.toThrow(UnreachableError);
  await expect(ask()).rejects.toThrow(/certificate/);
  expect(reads()).toBe(2);
  file = { ca: its };
  expect(await ask()).toEqual({});
  expect(reads()).toBe(3);
  // From then on that is what it knows, also for new connections.
  server.closeAllConnections();
  expect(await ask().catch(ask)).toEqual({});
  expect(reads()).toBe(3);
});

it('lets all that failed at once have what one of them read', async () => {
  const { ask } = clientOf({ ca: another }, async () => ({ ca: its }));
  expect(await Promise.all(Array.from({ length: 8 }, ask))).toEqual(Array.from({ length: 8 }, () => ({})));
});

it('reads nothing as long as connections come about', async () => {
  const { ask, reads } = clientOf({ ca: its }, async () => ({ ca: another }));
  for (let n = 0; n < 3; n++) await ask();
  expect(reads()).toBe(0);
});

it('says both where neither a connection comes about nor its files can be read', async () => {
  const { ask } = clientOf({ ca: another }, () => Promise.reject(new Error('ca.crt is gone')));
  await expect(ask()).rejects.toThrow(/certificate.*ca\.crt is gone/);
});

function clientOf(tls: TLSFacts, read: () => Promise<TLSFacts>) {
  let count = 0;
  const client = createKubeClient({
    server: url,
    tls,
    async freshTLS() {
      count++;
      return read();
    },
    token: async () => undefined,
  });
  return {
    ask: () => client.request({ method: 'GET', path: '/' }),
    reads: () => count,
  };
}
