import { createServer, type Server } from 'node:http';
import { afterEach, expect, it } from 'vitest';
import { audit } from '../../hack/audit.ts';

/** The real npm asks a registry on loopback that says what the test wants. */

let registry: Server | undefined;
afterEach(() => {
  registry?.close();
});

const ADVISORIES = '/-/npm/v1/security/advisories/bulk';

async function audited(status: number, advisories: object) {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    request.resume();
    const isBulk = request.url === ADVISORIES;
    response.writeHead(isBulk ? status : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(isBulk ? advisories : {}));
  });
  registry = server;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the registry has no port');
  const said: string[] = [];
  const flags = [`--registry=http://127.0.0.1:${address.port}`, '--fetch-retries=0'];
  const code = await audit(flags, (line) => said.push(line));
  expect(asked).toContain(`POST ${ADVISORIES}`);
  return { code, said: said.join('\n') };
}

const advisory = (title: string) => ({
  id: 1,
  url: 'https://example.com/1',
  title,
  severity: 'low',
  vulnerable_versions: '>=0',
  cwe: [],
  cvss: { score: 1, vectorString: null },
});

it('finds what is known against a package that is shipped, however little', { timeout: 60_000 }, async () => {
  const { code, said } = await audited(200, { undici: [advisory('smuggles')], ms: [advisory('is slow')] });
  expect(said).toContain('in what is shipped: undici >=0 (low): smuggles https://example.com/1');
  expect(said).toContain('in what is shipped: ms >=0 (low): is slow');
  expect(code).toBe(1);
});

it(
  'says what is known against tools, and those that bundles leave out, and does not fail for it',
  { timeout: 60_000 },
  async () => {
    const { code, said } = await audited(200, {
      eslint: [advisory('hangs')],
      'tar-fs': [advisory('escapes')],
    });
    expect(said).toContain('not shipped: eslint >=0 (low): hangs');
    expect(said).toContain('not shipped: tar-fs >=0 (low): escapes');
    expect(said).toMatch(/^0 known against the \d\d packages that are shipped\.$/m);
    expect(code).toBe(0);
  },
);

it('does not take a registry without audits for good news', { timeout: 60_000 }, async () => {
  const { code, said } = await audited(405, {});
  expect(said).toContain('405 Method Not Allowed');
  expect(said).toContain('Nothing was looked at');
  expect(code).toBe(3);
});
