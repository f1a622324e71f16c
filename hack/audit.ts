import { join } from 'node:path';
import { execa } from 'execa';
import * as z from 'zod';
import { shippedPackages } from './build.ts';

/**
 * Asks npm's registry what is known against the packages of package-lock.json and says it, apart for those whose code is in
 * what `npm run build` makes and those that only work on it. `args` go to npm. Answers the exit code: 0 nothing is known
 * against what is shipped, 1 something is, 3 nothing was looked at, which is never taken for good news.
 */
export async function audit(args: readonly string[], say: (line: string) => void): Promise<0 | 1 | 3> {
  const { stdout, stderr } = await execa('npm', ['audit', '--json', ...args], {
    cwd: join(import.meta.dirname, '..'),
    reject: false,
  });
  const answer = Answer.safeParse(parseJSON(stdout));
  if (!answer.success) {
    say(`npm audit answered what cannot be read; nothing was looked at.\n${stdout}\n${stderr}`);
    return 3;
  }
  if (!('vulnerabilities' in answer.data)) {
    say(`The registry answered no audit: ${answer.data.message.trim()}`);
    say('Nothing was looked at. Ask a registry that does: npm run audit -- --registry=URL');
    return 3;
  }
  const shipped = new Set(await shippedPackages());
  const findings = Object.values(answer.data.vulnerabilities).flatMap(({ name, nodes, via }) =>
    via
      .filter((cause) => typeof cause !== 'string')
      .map(({ severity, title, url, range }) => ({
        line: `${name} ${range} (${severity}): ${title} ${url}`,
        isShipped: nodes.some((folder) => shipped.has(folder)),
      })),
  );
  const of = (isShipped: boolean) => findings.filter((finding) => finding.isShipped === isShipped);
  for (const { line } of of(true)) say(`in what is shipped: ${line}`);
  for (const { line } of of(false)) say(`not shipped: ${line}`);
  say(`${of(true).length} known against the ${shipped.size} packages that are shipped.`);
  return of(true).length > 0 ? 1 : 0;
}

/** A `via` that is text names another package of the same answer, which has the finding itself. */
const Answer = z.union([
  z.object({
    vulnerabilities: z.record(
      z.string(),
      z.object({
        name: z.string(),
        nodes: z.array(z.string()),
        via: z.array(
          z.union([
            z.string(),
            z.object({ severity: z.string(), title: z.string(), url: z.string(), range: z.string() }),
          ]),
        ),
      }),
    ),
  }),
  z.object({ message: z.string() }),
]);

function parseJSON(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

if (import.meta.main) process.exitCode = await audit(process.argv.slice(2), console.log);
