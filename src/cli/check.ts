import { checkExitCode } from './check/exit-code.ts';
import { kubectlExec } from './check/kubectl.ts';
import { checkData, checkText } from './check/report.ts';
import { CHECK_TIMES, runCheck } from './check/run-check.ts';
import { withCluster } from './cluster.ts';
import type { Call, Command, World } from './command.ts';
import type { ExitCode } from './errors.ts';
import { answer, formatOf, OUTPUT_FLAG } from './output.ts';
import { styleFor } from './style.ts';

export const CHECK: Command = {
  words: ['check'],
  summary: 'whether the book, the nodes and their kernels agree',
  about: [
    'Reads the objects, asks the agent of every node what its kernel holds (by kubectl',
    'exec, with your rights), and reads again what seems wrong. What is younger than two',
    'minutes is on its way and not judged; of a node that does not answer nothing is said.',
    'Changes nothing. Exit code 0: clean, 1: problems, 3: not everything could be checked.',
  ].join('\n'),
  operands: [],
  flags: [
    { name: 'agents-in', value: 'NAMESPACE', about: 'where the agents run; default weft-system' },
    OUTPUT_FLAG,
  ],
  run: check,
};

/** One `kubectl exec`: a node that is slower than this is not asked for longer, and is unknown. */
const EXEC_TIMEOUT_MS = 20_000;

async function check(call: Call, world: World): Promise<ExitCode> {
  const format = formatOf(call);
  if (world.stderr.isTerminal) await world.stderr.write('reading the objects and asking the nodes …\n');
  const namespace = call.text('agents-in') ?? 'weft-system';
  const [kubeconfig, context] = [call.text('kubeconfig'), call.text('context')];
  const exec = kubectlExec({
    namespace,
    env: world.env,
    timeoutMs: EXEC_TIMEOUT_MS,
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    ...(context === undefined ? {} : { context }),
  });
  const { clock, signal } = world;
  const result = await withCluster(call, world, ({ client }) =>
    runCheck({ ...CHECK_TIMES, client, exec, clock, namespace, signal }),
  );
  await answer(world, format, {
    data: checkData(result),
    text: () => checkText(result, styleFor(world.stdout, world.env)),
  });
  return checkExitCode(result);
}
