import { defineConfig } from 'vitest/config';

/** One project per kind of part under test; hack/test.ts runs them in this order. */
const project = (name: string, include: string[], extra: object = {}) => ({
  test: { name, include, environment: 'node', ...extra },
});

/** Tests that own a namespace, an apiserver or a cluster: one file at a time, generous deadlines. */
const realParts = { fileParallelism: false, testTimeout: 60_000, hookTimeout: 120_000 };

export default defineConfig({
  test: {
    projects: [
      project('unit', [
        'test/{net,api,ipam,dataplane,kube,metrics,cni,agent,controller,cli,hack}/**/*.test.ts',
        'test/*.test.ts',
        'test/contract/fake/**/*.test.ts',
      ]),
      project('apiserver', ['test/apiserver/**/*.test.ts'], realParts),
      project('kernel', ['test/kernel/**/*.test.ts'], realParts),
      project('node', ['test/node/**/*.test.ts'], realParts),
      project('e2e', ['test/e2e/**/*.test.ts'], {
        ...realParts,
        testTimeout: 300_000,
        hookTimeout: 1_200_000,
      }),
    ],
  },
});
