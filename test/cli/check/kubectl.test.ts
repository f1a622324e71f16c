import { expect, test } from 'vitest';
import { ExecError, kubectlExec } from '../../../src/cli/check/kubectl.ts';

const exec = (path: string) => kubectlExec({ namespace: 'n', env: { PATH: path }, timeoutMs: 10_000 });

test('who does not want to wait any longer has his own reason back, and no mistake of ours', async () => {
  const stopped = new Error('stopped by SIGINT');
  const caller = new AbortController();
  const asking = exec('/nowhere')(
    'pod',
    ['true'],
    AbortSignal.any([caller.signal, AbortSignal.abort(stopped)]),
  );
  await expect(asking).rejects.toBe(stopped);
});

test('a machine without kubectl is told to install it', async () => {
  const asking = exec('/nowhere')('pod', ['true'], new AbortController().signal);
  await expect(asking).rejects.toThrow(ExecError);
  await expect(exec('/nowhere')('pod', ['true'], new AbortController().signal)).rejects.toThrow(
    'there is no kubectl in PATH',
  );
});
