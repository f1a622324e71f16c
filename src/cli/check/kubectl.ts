import { execa, ExecaError } from 'execa';

export interface KubectlOptions {
  /** Absent: what kubectl uses by itself. */
  readonly kubeconfig?: string;
  readonly context?: string;
  readonly namespace: string;
  /** With PATH, HOME and what login programs want. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** How long one command may take. */
  readonly timeoutMs: number;
}

/** Runs a command in the agent's container of that pod, and answers what it prints. */
export type ExecInAgent = (pod: string, command: readonly string[], signal: AbortSignal) => Promise<string>;

/** The command could not be run, or did not succeed. */
export class ExecError extends Error {
  override name = 'ExecError' as const;
}

/**
 * Runs `kubectl exec` with the rights of who calls: exec is a protocol of its own, and whoever may not use it is told so
 * by the program that they know.
 */
export function kubectlExec(options: KubectlOptions): ExecInAgent {
  const { kubeconfig, context, namespace, env, timeoutMs } = options;
  const where = [
    ...(kubeconfig === undefined ? [] : ['--kubeconfig', kubeconfig]),
    ...(context === undefined ? [] : ['--context', context]),
  ];
  return async (pod, command, signal) => {
    const args = [...where, 'exec', '--namespace', namespace, pod, '--container', 'agent', '--', ...command];
    try {
      const { stdout } = await execa('kubectl', args, {
        stdin: 'ignore',
        env,
        extendEnv: false,
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        cancelSignal: signal,
        maxBuffer: 64 << 20,
      });
      return stdout;
    } catch (error) {
      signal.throwIfAborted(); // whoever pressed Ctrl-C has the reason there
      if (!(error instanceof ExecaError)) throw error;
      throw new ExecError(reasonOf(error, timeoutMs), { cause: error });
    }
  };
}

function reasonOf(
  error: Pick<ExecaError, 'code' | 'timedOut' | 'stderr' | 'shortMessage'>,
  timeoutMs: number,
): string {
  if (error.code === 'ENOENT') return 'there is no kubectl in PATH, by which nodes are asked: install it';
  if (error.timedOut) return `kubectl exec did not end within ${timeoutMs / 1000} s`;
  const said = typeof error.stderr === 'string' ? error.stderr.trim() : '';
  return `kubectl exec: ${said === '' ? error.shortMessage : said}`;
}
