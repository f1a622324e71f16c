import { describe, expect, it } from 'vitest';
import { environment, startMachine } from './machine.ts';

/**
 * A container runtime hands its own environment on to what it calls (S17). What is set there for programs of Node, or to
 * reach the outside by a proxy, is not meant for the executable, which speaks to one socket of its own node.
 */
describe('what the runtime’s environment says to other programs', () => {
  const nowhere = 'http://127.0.0.1:1';

  it.each([
    { NODE_OPTIONS: '--no-such-option' },
    { NODE_OPTIONS: '--require /nowhere.js' },
    { NODE_EXTRA_CA_CERTS: '/nowhere', NODE_TLS_REJECT_UNAUTHORIZED: '0' },
    { NODE_DEBUG: 'net,http', DEBUG: '*', FORCE_COLOR: '1' },
    {
      HTTP_PROXY: nowhere,
      HTTPS_PROXY: nowhere,
      http_proxy: nowhere,
      https_proxy: nowhere,
      ALL_PROXY: nowhere,
    },
  ])(
    'changes neither the way nor the answer: %j',
    async (foreign: Readonly<Record<string, string | undefined>>) => {
      await using machine = await startMachine();
      let reached = 0;
      await machine.serve({
        status: async () => {
          reached += 1;
        },
        del: async () => {
          reached += 1;
        },
      });
      for (const verb of ['STATUS', 'DEL', 'VERSION']) {
        const { exitCode, stdout } = await machine.call({ env: { ...environment(verb), ...foreign } });
        expect([verb, exitCode, stdout === '' || typeof JSON.parse(stdout)]).toEqual([
          verb,
          0,
          verb === 'VERSION' ? 'object' : true,
        ]);
      }
      expect(reached).toBe(2);
    },
    60_000,
  );
});
