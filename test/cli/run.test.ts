import { describe, expect, it } from 'vitest';
import { COMMANDS } from '../../src/cli/commands.ts';
import { EXIT, failureOf } from '../../src/cli/errors.ts';
import { runCLI } from '../../src/cli/run.ts';
import { errorOfAnswer } from '../../src/kube/index.ts';
import { VERSION } from '../../src/version.ts';
import manifest from '../../package.json' with { type: 'json' };
import { testWorld } from './world.ts';

const run = async (...argv: string[]) => {
  const world = testWorld();
  return { code: await runCLI(argv, world), ...world.written };
};

describe('kubectl-weft', () => {
  it('says its version, which is that of the package', async () => {
    expect(await run('--version')).toEqual({ code: 0, stdout: `kubectl-weft ${VERSION}\n`, stderr: '' });
    expect(VERSION).toBe(manifest.version);
  });

  it('lists its commands, those of a group, and the help of each', async () => {
    const whole = await run();
    for (const { words, summary } of COMMANDS) {
      expect(whole.stdout).toMatch(new RegExp(`^  ${words.join(' ')} .*   ${summary}$`, 'm'));
      const { code, stdout } = await run(...words, '--help');
      expect(code).toBe(0);
      expect(stdout).toMatch(new RegExp(`^usage: kubectl weft ${words.join(' ')}`));
      for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(100);
    }
    const group = await run('addr', '--help');
    expect(group.stdout).toContain('addr release');
    expect(group.stdout).not.toContain('pool show');
  });

  it.each([
    [['addr', 'list', '--nope'], 'there is no flag --nope of "addr list"', 'addr list --help'],
    [['addr', 'list', '10.0.0.256'], '"10.0.0.256" is not an IP address', 'addr list --help'],
    [['addr', 'release', 'fe80::1%eth0'], 'a zone is not allowed', 'addr release --help'],
    [['addr', 'list', '-o', 'xml'], '-o xml: it must be one of table, json, yaml', 'addr list --help'],
    [
      ['addr', 'request', 'p', '--family', 'ipv5'],
      '--family ipv5: it must be one of ipv4, ipv6',
      'request --help',
    ],
    [['addr', 'request', 'p', '--holder', 'sticky'], 'weft itself uses "sticky"', 'request --help'],
    [['completion', 'fish'], 'completion fish: it must be one of bash, zsh', 'completion --help'],
    [['frobnicate'], 'there is no command "frobnicate"', 'kubectl weft --help'],
  ])('ends with 2 for %j, and says where the help is', async (argv, message, help) => {
    const { code, stdout, stderr } = await run(...argv);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain(message);
    expect(stderr).toContain(help);
  });

  it('ends with the code that its command answers, and says what is a mistake of its own', async () => {
    const command = { summary: '', about: '', operands: [], flags: [] };
    const commands = [
      { ...command, words: ['find'], run: async () => EXIT.refused },
      { ...command, words: ['break'], run: () => Promise.reject(new Error('no such thing')) },
    ];
    const world = testWorld();
    expect(await runCLI(['find'], world, commands)).toBe(1);
    expect(world.written).toEqual({ stdout: '', stderr: '' });
    expect(await runCLI(['break'], world, commands)).toBe(1);
    expect(world.written.stderr).toMatch(
      /^error: this is a mistake in kubectl-weft, please report it: Error: no such thing\n +at /,
    );
  });

  it('says where weft is not installed', () => {
    const missing = errorOfAnswer('GET /apis/ipam.weft.dev/v1alpha1/ippools', {
      statusCode: 404,
      text: '404 page not found\n',
    });
    expect(failureOf(missing)).toEqual({
      code: 3,
      text: expect.stringContaining('weft is not installed') as string,
    });
  });

  it('ends with 3 where the kubeconfig cannot be read, and says which', async () => {
    const { code, stderr } = await run('addr', 'list', '--kubeconfig', '/nowhere/else');
    expect(code).toBe(3);
    expect(stderr).toMatch(/^error: cannot read the kubeconfig \/nowhere\/else: ENOENT/);
  });
});
