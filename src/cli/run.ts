import { VERSION } from '../version.ts';
import { parseCommandLine } from './arguments.ts';
import type { Command, World } from './command.ts';
import { COMMANDS } from './commands.ts';
import { COMPLETE_WORD, completions } from './complete.ts';
import { EXIT, failureOf, UsageError, type ExitCode } from './errors.ts';
import { helpText } from './help.ts';
import { styleFor } from './style.ts';

/** One call of kubectl-weft, from its words to its exit code. Answers go to stdout, all else to stderr. */
export async function runCLI(
  argv: readonly string[],
  world: World,
  commands: readonly Command[] = COMMANDS,
): Promise<ExitCode> {
  try {
    return await obey(argv, world, commands);
  } catch (error) {
    const { code, text } = failureOf(error);
    await world.stderr.write(`${styleFor(world.stderr, world.env).red('error:')} ${text}\n`);
    return code;
  }
}

async function obey(argv: readonly string[], world: World, commands: readonly Command[]): Promise<ExitCode> {
  if (argv[0] === COMPLETE_WORD) {
    await world.stdout.write(await completions(argv.slice(1), commands, world));
    return EXIT.done;
  }
  const request = parseCommandLine(argv, commands);
  switch (request.kind) {
    case 'help':
      await world.stdout.write(helpText(request.words, commands));
      return EXIT.done;
    case 'version':
      await world.stdout.write(`kubectl-weft ${VERSION}\n`);
      return EXIT.done;
    case 'run':
      try {
        return await request.command.run(request.call, world);
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
        throw new UsageError(error.message, request.command.words);
      }
  }
}
