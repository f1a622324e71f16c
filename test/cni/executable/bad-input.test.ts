import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildExecutable } from '../../../hack/build.ts';
import { DataPathBrokenError, NotServingError, type AddRequest } from '../../../src/cni/index.ts';
import { ClaimDeadlineError, PoolExhaustedError } from '../../../src/ipam/index.ts';
import { LinkExistsError, openNamespaceSocket, openOwnNamespace } from '../../../src/kernel/index.ts';
import { parseCIDR } from '../../../src/net/index.ts';
import { CONFIGURATION, environment, expectError, startMachine, type Call, type Machine } from './machine.ts';

type Row = [name: string, call: Call, code: number, message: RegExp];

const POD = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=1-2-3';
const PREVIOUS = {
  cniVersion: '1.1.0',
  interfaces: [],
  ips: [{ address: '10.0.0.2/32' }],
  routes: [],
  dns: {},
};

const withConfiguration = (verb: string, changes: object): Call => ({
  env: environment(verb),
  stdin: { ...CONFIGURATION, ...changes },
});
const withEnvironment = (verb: string, changes: Record<string, string>): Call => ({
  env: environment(verb, changes),
});
const withText = (stdin: string | Uint8Array): Call => ({ env: environment('ADD'), stdin });
const withArgs = (CNI_ARGS: string): Call => withEnvironment('ADD', { CNI_ARGS });
const gc = (lists: object): Call => withConfiguration('GC', lists);

const ROWS: Row[] = [
  [
    'B1 no command',
    { env: {} },
    4,
    /^required env variables \[CNI_COMMAND,CNI_CONTAINERID,CNI_IFNAME,CNI_NETNS\] missing$/,
  ],
  ['B1 an empty command', withEnvironment('', {}), 4, /^required env variables \[CNI_COMMAND\] missing$/],
  ['B1 an unknown command', withEnvironment('FOO', {}), 4, /^unknown CNI_COMMAND: FOO/],
  ['B1 a command in lower case', withEnvironment('add', {}), 4, /^unknown CNI_COMMAND: add/],
  [
    'B1 all that is missing, at once',
    { env: { CNI_COMMAND: 'CHECK' } },
    4,
    /^required env variables \[CNI_CONTAINERID,CNI_IFNAME,CNI_NETNS\] missing$/,
  ],
  [
    'B1 a DEL without container',
    { env: { CNI_COMMAND: 'DEL', CNI_IFNAME: 'eth0' } },
    4,
    /\[CNI_CONTAINERID\] missing/,
  ],

  ...['../../x', '-a', 'a b', 'x'.repeat(300), 'a\nb', 'a/b', '.'].map((id): Row => [
    `B2 container ID ${JSON.stringify(id.slice(0, 20))}`,
    withEnvironment('ADD', { CNI_CONTAINERID: id }),
    4,
    /^invalid CNI_CONTAINERID "/,
  ]),
  [
    'B2 a DEL with such an ID',
    withEnvironment('DEL', { CNI_CONTAINERID: '../../x' }),
    4,
    /^invalid CNI_CONTAINERID/,
  ],

  ...['abcdefghijklmnop', '.', '..', 'a/b', 'a:b', 'a b', '-x', 'a;b$c', 'a\u0007'].map((name): Row => [
    `B3 interface name ${JSON.stringify(name)}`,
    withEnvironment('ADD', { CNI_IFNAME: name }),
    4,
    /^invalid CNI_IFNAME "/,
  ]),

  [
    'B4 no namespace for an ADD',
    withEnvironment('ADD', { CNI_NETNS: '' }),
    4,
    /^required env variables \[CNI_NETNS\] missing$/,
  ],
  ['B4 no namespace for a CHECK', withEnvironment('CHECK', { CNI_NETNS: '' }), 4, /\[CNI_NETNS\] missing/],
  [
    'B4 a relative path',
    withEnvironment('ADD', { CNI_NETNS: 'netns/x' }),
    4,
    /^invalid CNI_NETNS "netns\/x": .*absolute/,
  ],

  [
    'B5 nothing',
    withText(''),
    6,
    /is not JSON: expected a value and found the end of the text at position 0/,
  ],
  ['B5 no JSON', withText('hello'), 6, /is not JSON: .* found "h" at position 0 \(line 1, column 1\)/],
  [
    'B5 cut off',
    withText('{"cniVersion": "1.0.0",\n "name"'),
    6,
    /is not JSON: expected ":" .* at position 31 \(line 2, column 8\)/,
  ],
  ['B5 a byte order mark', withText('\ufeff{}'), 6, /found a byte order mark at position 0/],
  ['B5 10 MB', withText(' '.repeat(10 * 1024 * 1024)), 6, /has 10485760 bytes, more than 1048576/],
  ['B5 a list', withText('[]'), 6, /is not an object/],
  ['B5 __proto__', withText('{"__proto__": {"name": "weft"}}'), 6, /the key "__proto__" at position 1/],
  ['B5 a key twice', withText('{"name": "weft", "name": "other"}'), 6, /the key "name" again at position 17/],
  ['B5 not UTF-8', withText(Uint8Array.of(0x7b, 0xff, 0x7d)), 6, /is not UTF-8/],
  ['B5 nested too deeply', withText('['.repeat(100_000)), 6, /nesting deeper than 100/],

  ['B6 no name', withConfiguration('ADD', { name: undefined }), 7, /^missing network name$/],
  ['B6 an empty name', withConfiguration('DEL', { name: '' }), 7, /^missing network name$/],
  [
    'B6 bad characters',
    withConfiguration('ADD', { name: 'a/b' }),
    7,
    /^invalid characters found in network name "a\/b"/,
  ],
  [
    'B6 a name that is a number',
    withConfiguration('ADD', { name: 7 }),
    7,
    /^invalid characters found in network name 7/,
  ],
  ['B6 a long name', withConfiguration('ADD', { name: 'n'.repeat(41) }), 7, /longer than 40/],
  ['B6 another type', withConfiguration('ADD', { type: 'bridge' }), 7, /type is "bridge"/],

  [
    'B7 an unknown version',
    withConfiguration('ADD', { cniVersion: '9.9' }),
    1,
    /9\.9, weft speaks 0\.1\.0, .*1\.1\.0/,
  ],
  ['B7 no version at all', withConfiguration('ADD', { cniVersion: 'abc' }), 6, /cniVersion "abc"/],
  ['B7 a number', withConfiguration('ADD', { cniVersion: 1 }), 6, /cniVersion 1 is not a version/],
  [
    'B7 CHECK too early',
    withConfiguration('CHECK', { cniVersion: '0.3.1' }),
    1,
    /^config version does not allow CHECK/,
  ],
  [
    'B7 GC too early',
    withConfiguration('GC', { cniVersion: '1.0.0' }),
    1,
    /^config version does not allow GC/,
  ],
  [
    'B7 STATUS too early',
    withConfiguration('STATUS', { cniVersion: '1.0.0' }),
    1,
    /^config version does not allow STATUS/,
  ],
  [
    'B7 STATUS without a version',
    withConfiguration('STATUS', { cniVersion: undefined }),
    1,
    /does not allow STATUS: it is 0\.1\.0/,
  ],

  ...['x', -1, 0, 1279, 70_000, 1500.5, null].map((mtu): Row => [
    `B8 mtu ${JSON.stringify(mtu)}`,
    withConfiguration('ADD', { mtu }),
    7,
    /invalid network configuration: mtu is /,
  ]),
  ['B8 an unknown field', withConfiguration('ADD', { subnet: 5 }), 2, /: subnet: 5$/],
  [
    'B8 an unknown field inside another',
    withConfiguration('ADD', { dns: { server: 'x' } }),
    2,
    /: dns\.server: "x"$/,
  ],
  [
    'B8 an unknown field on CHECK',
    withConfiguration('CHECK', { ipMasq: true, prevResult: PREVIOUS }),
    2,
    /ipMasq: true/,
  ],
  ['B8 a pool that is no name', withConfiguration('ADD', { pool: 'A_B' }), 7, /pool is "A_B"/],
  [
    'B8 a capability nobody serves',
    withConfiguration('ADD', { capabilities: { bandwidth: true } }),
    2,
    /capabilities\.bandwidth/,
  ],
  [
    'B8 a runtime value nobody serves',
    withConfiguration('ADD', { runtimeConfig: { mac: 'c2:b0:57:49:47:f1' } }),
    2,
    /runtimeConfig\.mac: "c2/,
  ],

  [
    'B11 a malformed prevResult',
    withConfiguration('CHECK', { prevResult: { ips: 'x' } }),
    6,
    /^malformed prevResult: ips/,
  ],
  [
    'B11 an address that is none',
    withConfiguration('CHECK', { prevResult: { ips: [{ address: '10.0.0.300/32' }] } }),
    6,
    /malformed prevResult: .*10\.0\.0\.300/,
  ],
  [
    'B11 a prevResult of another version',
    withConfiguration('CHECK', { prevResult: { ...PREVIOUS, cniVersion: '0.4.0' } }),
    6,
    /0\.4\.0 and the configuration in 1\.1\.0/,
  ],
  ['B11 no prevResult', withConfiguration('CHECK', {}), 7, /CHECK needs the prevResult/],
  ['B11 an ADD with one', withConfiguration('ADD', { prevResult: PREVIOUS }), 7, /must be the first plugin/],

  ['B12 GC without a list', gc({}), 7, /without cni\.dev\/valid-attachments/],
  ['B12 GC with a list that is null', gc({ 'cni.dev/valid-attachments': null }), 7, /nothing was collected/],
  [
    'B12 an entry without interface',
    gc({ 'cni.dev/valid-attachments': [{ containerID: 'a' }] }),
    7,
    /0\.ifname: .*nothing was collected/,
  ],
  [
    'B12 an entry with a bad ID',
    gc({ 'cni.dev/attachments': [{ containerID: '../x', ifname: 'eth0' }] }),
    7,
    /0\.containerID: no container ID/,
  ],

  ['B13 no pair', withArgs('FOO'), 4, /^invalid CNI_ARGS pair "FOO"/],
  ['B13 an empty pair', withArgs('IgnoreUnknown=1;;K8S_POD_NAME=x'), 4, /^invalid CNI_ARGS pair ""/],
  [
    'B13 a key twice',
    withArgs(`${POD};K8S_POD_NAME=web-1`),
    4,
    /"K8S_POD_NAME=web-1": the key is there twice/,
  ],
  ['B13 an unknown key', withArgs('A=B'), 4, /^invalid CNI_ARGS pair "A=B": weft does not know this key/],
  [
    'B13 a path as pod name',
    withArgs('K8S_POD_NAMESPACE=default;K8S_POD_NAME=../x'),
    4,
    /"K8S_POD_NAME=\.\.\/x": it must be a DNS-1123/,
  ],
  [
    'B13 a path as namespace',
    withArgs('K8S_POD_NAMESPACE=a/b;K8S_POD_NAME=x'),
    4,
    /"K8S_POD_NAMESPACE=a\/b": it must be a DNS-1123 label/,
  ],
  ['B13 a name without namespace', withArgs('K8S_POD_NAME=x'), 4, /K8S_POD_NAMESPACE is missing/],
  [
    'B13 on CHECK too',
    { env: environment('CHECK', { CNI_ARGS: 'FOO' }), stdin: { ...CONFIGURATION, prevResult: PREVIOUS } },
    4,
    /"FOO"/,
  ],
];

describe('bad input, to the executable', () => {
  let machine: Machine;
  let directory: string;
  let add: (request: AddRequest) => Promise<never>;
  let status: () => Promise<void>;

  beforeAll(async () => {
    machine = await startMachine();
    directory = await mkdtemp(join(tmpdir(), 'weft-input-'));
    await machine.serve({ add: (request) => add(request), status: () => status() });
  }, 120_000);

  afterAll(async () => {
    await machine[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  it.each(ROWS)('%s', async (_name, call, code, message) => {
    add = async () => {
      throw new Error('it came through');
    };
    expectError(await machine.call(call), code, message);
  });

  it('explains itself to a person at a terminal', async () => {
    const executable = await buildExecutable();
    const result = await execa('script', ['-qec', `${executable} 2>${directory}/stderr`, '/dev/null'], {
      env: { PATH: process.env.PATH ?? '' },
      extendEnv: false,
    });
    expect(result.stdout).toBe('');
    expect((await execa('cat', [join(directory, 'stderr')])).stdout).toMatch(/^weft is a CNI plugin/);
  });

  it.each([
    ['nothing at the path', 'absent', 4, /network namespace ".*absent": there is no such file/],
    ['a regular file', 'file', 4, /network namespace ".*file": it is not a namespace/],
    ['a FIFO, without waiting for a writer', 'fifo', 4, /network namespace ".*fifo": it is not a namespace/],
    [
      'a namespace of another kind',
      'mount',
      4,
      /network namespace ".*mount": it is a namespace of another kind/,
    ],
    ["the host's own", 'host', 8, /network namespace ".*host": it is the host's own/],
  ])('B4 refuses %s', async (_name, file, code, message) => {
    await makeNamespacePaths(directory);
    add = async ({ netns }) => {
      using own = openOwnNamespace();
      openNamespaceSocket(own, netns).close();
      throw new Error('it came through');
    };
    const call = { env: environment('ADD', { CNI_NETNS: join(directory, file) }) };
    expectError(await machine.call(call), code, message);
  });

  it('B9 says that the interface is there already', async () => {
    add = async () => {
      throw new LinkExistsError('eth0', 'pod', undefined);
    };
    expectError(await machine.call({}), 106, /"eth0" exists in the pod's namespace already/);
  });

  it('B16 says for how long the apiserver was tried, and the last cause', async () => {
    add = async () => {
      throw new ClaimDeadlineError('default', 45_000, new Error('connect ECONNREFUSED 10.96.0.1:443'));
    };
    expectError(await machine.call({}), 11, /45000 ms: .*ECONNREFUSED 10\.96\.0\.1:443/);
  });

  it('B17 says what a full pool holds', async () => {
    add = async () => {
      throw new PoolExhaustedError({
        pool: 'default',
        family: 'ipv4',
        subnets: [parseCIDR('10.1.2.0/24')],
        usable: 254n,
        inUse: 250,
        resting: 4,
        reserved: 0n,
        nextFreeInMs: 12_000,
      });
    };
    expectError(await machine.call({}), 11, /10\.1\.2\.0\/24.*250 .*4 rest.* 12 s/);
  });

  it.each([
    [50, new NotServingError('weft cannot serve on this node yet: its subnet is being claimed')],
    [51, new DataPathBrokenError('this node has had no VXLAN device for 75 s')],
  ])('B14 answers STATUS with %i where the agent says so', async (code, error) => {
    status = async () => {
      throw error;
    };
    expectError(await machine.call({ env: environment('STATUS') }), code, new RegExp(error.message));
  });

  it('B14 answers STATUS with nothing where a pod could be served', async () => {
    status = async () => undefined;
    const result = await machine.call({ env: environment('STATUS') });
    expect(result).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
  });

  it('answers an error that nobody thought of with 999', async () => {
    add = async () => {
      throw new TypeError('undefined is not a function');
    };
    expectError(await machine.call({}), 999, /undefined is not a function/);
  });

  it('writes the error in the version that was asked for', async () => {
    const result = await machine.call({ stdin: { cniVersion: '0.4.0', type: 'weft' } });
    expect(JSON.parse(result.stdout)).toEqual({ cniVersion: '0.4.0', code: 7, msg: 'missing network name' });
  });
});

async function makeNamespacePaths(directory: string): Promise<void> {
  await writeFile(join(directory, 'file'), '');
  await rm(join(directory, 'fifo'), { force: true });
  await execa('mkfifo', [join(directory, 'fifo')]);
  for (const [name, target] of [
    ['host', '/proc/self/ns/net'],
    ['mount', '/proc/self/ns/mnt'],
  ] as const) {
    await rm(join(directory, name), { force: true });
    await symlink(target, join(directory, name));
  }
}
