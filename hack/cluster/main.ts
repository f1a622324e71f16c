import { execa } from 'execa';
import { parseArguments, UsageError, USAGE, type Request } from './arguments.ts';
import { upCluster } from './cluster.ts';
import { downCluster } from './down.ts';
import { openCluster } from './open.ts';
import { stderrProgress } from './progress.ts';

/** npm run cluster: see USAGE in arguments.ts. Only `env` and `exec` write to stdout. */
try {
  process.exitCode = await run(parseArguments(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof Error)) throw error;
  process.stderr.write(`cluster: ${error.message}\n${error instanceof UsageError ? USAGE : ''}`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

async function run(request: Request): Promise<number> {
  const progress = stderrProgress();
  switch (request.verb) {
    case 'up': {
      const cluster = await upCluster(request.options, progress);
      progress(`cluster ${cluster.name} is up: ${cluster.nodes.join(', ')}`);
      return 0;
    }
    case 'down': {
      const found = await downCluster(request.name, progress);
      if (!found) progress(`there is no cluster ${request.name}`);
      return 0;
    }
    case 'exec': {
      const [command, ...args] = await (
        await openCluster(request.name)
      ).commandOn(request.place, request.command);
      const ended = await execa(command, args, { stdio: 'inherit', reject: false });
      return ended.exitCode ?? 1;
    }
    case 'env': {
      const { kubeconfig, programs } = await openCluster(request.name);
      process.stdout.write(
        `export KUBECONFIG=${quoted(kubeconfig)}\nexport PATH=${quoted(programs)}:"$PATH"\n`,
      );
      return 0;
    }
  }
}

/** For a POSIX shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
