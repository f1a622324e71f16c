import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { execa, type Options } from 'execa';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parse as parseYAML } from 'yaml';
import { buildCLI } from '../../hack/build.ts';
import { openAuthority, writeKubeconfig } from '../../hack/cluster/certificates.ts';
import {
  API_VERSION,
  GROUP,
  IP_ALLOCATION,
  IP_POOL,
  NODE_SUBNET,
  VERSION,
  type IPAllocationSpec,
} from '../../src/api/index.ts';
import { allocationStore, nodeSubnetStore, NODES, poolStore } from '../../src/kube/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import { mustSucceed, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';
import { startLossyProxy, type LossyProxy } from './lossy-proxy.ts';

/** kubectl-weft as people get it: the built program, against a real apiserver. */

const server = useApiserver();
let program: string;
let proxy: LossyProxy;

beforeAll(async () => {
  program = await buildCLI();
  proxy = await startLossyProxy(server().plane, server().dir);
});
afterAll(() => proxy.stop());

beforeEach(async () => {
  proxy.setFault(() => 'none');
  for (const { plural } of [IP_ALLOCATION, NODE_SUBNET, IP_POOL]) {
    await server().client.request({ method: 'DELETE', path: `/apis/${GROUP}/${VERSION}/${plural}` });
  }
});

describe('addr request', () => {
  it('prints the address alone, of each family one a line, and holds it for who asked', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16', 'fd01::/64'] });
    const { stdout } = await weft(['addr', 'request', 'pods'], { env: { SUDO_USER: 'alice' } });
    expect(stdout).toBe('10.1.0.1\nfd01::1');
    const { spec } = await stored('10.1.0.1');
    expect(spec).toMatchObject({ pool: 'pods', address: parseAddress('10.1.0.1') });
    expect(spec.holder).toMatch(/^cli:alice@./);
    expect([spec.nodeName, spec.attachment, spec.pod]).toEqual([undefined, undefined, undefined]);
  });

  it('answers data to scripts, and takes a holder and one family', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16', 'fd01::/64'] });
    const ask = ['addr', 'request', 'pods', '--holder', 'the printer', '--family', 'ipv6', '-o'];
    const json = await weft([...ask, 'json']);
    expect(JSON.parse(json.stdout)).toEqual([{ address: 'fd01::1', pool: 'pods', holder: 'the printer' }]);
    const yaml = await weft([...ask, 'yaml']);
    expect(parseYAML(yaml.stdout)).toEqual([{ address: 'fd01::2', pool: 'pods', holder: 'the printer' }]);
    const held = await weft(['addr', 'list', '--holder', '-o', 'json']);
    expect(JSON.parse(held.stdout)).toHaveLength(2);
  });

  it('leaves the subnets of nodes alone as long as there is other space', async () => {
    const pool = await makePool('pods', { cidrs: ['10.1.0.0/28'], nodeSubnetPrefixLength: { ipv4: 29 } });
    await makeSubnet('10.1.0.0/29', pool, await makeNode('n1'));
    await use('10.1.0.2', { nodeName: 'n1' });
    const found: string[] = [];
    for (let i = 0; i < 9; i++) found.push((await weft(['addr', 'request', 'pods'])).stdout);
    const [outside, inside] = [found.slice(0, 7), found.slice(7)];
    expect(outside).toEqual(Array.from({ length: 7 }, (_, i) => `10.1.0.${i + 9}`));
    expect(inside).toEqual(['10.1.0.1', '10.1.0.3']);
  });

  it('draws from the subnets of the node that was named', async () => {
    const pool = await makePool('pods', { cidrs: ['10.1.0.0/16', 'fd01::/64'] });
    const node = await makeNode('n1');
    await makeSubnet('10.1.7.0/26', pool, node);
    await makeSubnet('10.1.8.0/26', pool, await makeNode('n2'));
    // Of an earlier Node of that name: not this machine's to draw from.
    await makeSubnet('10.1.9.0/26', pool, { name: 'n1', uid: 'an-earlier-uid' });
    await use('10.1.7.1', { nodeName: 'n1' });
    const { stdout } = await weft(['addr', 'request', 'pods', '--node', 'n1']);
    expect(stdout).toBe('10.1.7.2');
    expect((await stored('10.1.7.2')).spec.nodeName).toBe('n1');
  });

  it('passes over the address of a node that lies in the subnet', async () => {
    const lan = { use: 'Lan', cidrs: ['172.16.0.0/24'], gateway: { ipv4: '172.16.0.254' } };
    const node = await makeNode('n1');
    await makeSubnet('172.16.0.0/26', await makePool('lan', lan), node, []);
    await makeSubnet('10.1.0.0/26', await makePool('pods', { cidrs: ['10.1.0.0/16'] }), node);
    const { stdout } = await weft(['addr', 'request', 'lan', '--node', 'n1']);
    expect(stdout).toBe('172.16.0.2');
  });

  it('starts again where the node gives the subnet back at that moment', async () => {
    const pool = await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    const node = await makeNode('n1');
    await makeSubnet('10.1.0.0/26', pool, node);
    await makeSubnet('10.1.0.64/26', pool, node);
    let deletion: Promise<unknown> | undefined;
    proxy.setFault(({ method, path }) => {
      if (method !== 'GET' || !path.includes('nodesubnets/10.1.0.0-26')) return 'none';
      deletion ??= server().kubectl(['delete', 'nodesubnet', '10.1.0.0-26', '--wait=true']);
      return { delayMs: 1_500 };
    });
    const { stdout } = await weft(['addr', 'request', 'pods', '--node', 'n1'], throughProxy());
    await deletion;
    expect(stdout).toBe('10.1.0.65');
    expect(await addresses()).toEqual(['10.1.0.65']);
  });

  it('has as many winners as there are addresses where many ask at once', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/30'], nodeSubnetPrefixLength: { ipv4: 30 } });
    const results = await Promise.all(
      Array.from({ length: 6 }, () => weft(['addr', 'request', 'pods'], { reject: false })),
    );
    const won = results.filter(({ exitCode }) => exitCode === 0);
    expect(won.map(({ stdout }) => stdout).sort()).toEqual(['10.1.0.1', '10.1.0.2', '10.1.0.3']);
    const lost = results.filter(({ exitCode }) => exitCode !== 0);
    expect(lost).toHaveLength(3);
    for (const { exitCode, stdout, stderr } of lost) {
      expect([exitCode, stdout]).toEqual([1, '']);
      expect(stderr).toContain('IPPool pods has no free ipv4 address');
    }
    expect(await addresses()).toHaveLength(3);
  });

  it('holds one address where the answer to its create is lost', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    let lost = 0;
    proxy.setFault(({ method }) => (method === 'POST' && lost++ === 0 ? 'lose-answer' : 'none'));
    const { stdout } = await weft(['addr', 'request', 'pods'], throughProxy());
    expect(lost).toBe(2);
    expect(stdout).toBe('10.1.0.1');
    expect(await addresses()).toEqual(['10.1.0.1']);
  });

  it('leaves nothing behind where it is interrupted', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16', 'fd01::/64'] });
    let posts = 0;
    proxy.setFault(({ method }) => (method === 'POST' && posts++ > 0 ? { status: 503 } : 'none'));
    const running = execa(program, ['addr', 'request', 'pods'], { ...throughProxy(), reject: false });
    await eventually('the second create', () => posts > 2);
    expect(await addresses()).toEqual(['10.1.0.1']);
    running.kill('SIGINT');
    const { exitCode, stdout, stderr } = await running;
    expect([exitCode, stdout]).toEqual([130, '']);
    expect(stderr).toContain('stopped by SIGINT');
    expect(await addresses()).toEqual([]);
  });

  it.each([
    [['nothing'], 'there is no IPPool nothing: there is old, pods, young'],
    [['young'], 'IPPool young gives out no addresses: each of its CIDRs overlaps one of an older IPPool'],
    [['old'], 'IPPool old gives out no addresses: it is disabled'],
    [['pods', '--family', 'ipv6'], 'IPPool pods has no ipv6 CIDR'],
    [['pods', '--node', 'n9'], 'there is no node n9'],
    [['pods', '--node', 'n2'], 'node n2 has no ipv4 subnet of IPPool pods'],
  ])('refuses %j with a reason', async (argv, reason) => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await makePool('old', { cidrs: ['10.2.0.0/16'], disabled: true });
    // Of one second or of two, by time or by name: the younger.
    await makePool('young', { cidrs: ['10.1.128.0/17'] });
    await makeNode('n2');
    const { exitCode, stdout, stderr } = await weft(['addr', 'request', ...argv], { reject: false });
    expect(stderr).toContain(`error: ${reason}`);
    expect([exitCode, stdout]).toEqual([1, '']);
    expect(await addresses()).toEqual([]);
  });
});

describe('addr release', () => {
  it('gives an address back that is held on no node, at once', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16', 'fd01::/64'] });
    await weft(['addr', 'request', 'pods', '--holder', 'me']);
    expect((await weft(['addr', 'release', '10.1.0.1'])).stdout).toBe('10.1.0.1 is released; me had it');
    const other = await weft(['addr', 'release', 'FD01:0::0001', '-o', 'json']);
    expect(JSON.parse(other.stdout)).toEqual({
      address: 'fd01::1',
      outcome: 'deleted',
      owner: 'me',
      pool: 'pods',
    });
    expect(await addresses()).toEqual([]);
  });

  it('lets one rest that is held on a node, and says so when it is asked again', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await use('10.1.0.1', { nodeName: 'n1', holder: 'me' });
    const first = await weft(['addr', 'release', '10.1.0.1']);
    expect(first.stdout).toBe('10.1.0.1 is released and rests before it is handed out again; me had it');
    expect((await stored('10.1.0.1')).status?.releasedAt).toBeDefined();
    const again = await weft(['addr', 'release', '10.1.0.1']);
    expect(again.stdout).toMatch(/^10\.1\.0\.1 was released \d+s ago and rests; me had it$/);
  });

  it('refuses one that a sandbox has, names its pod, and obeys --force', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await use('10.1.0.1', { nodeName: 'n1' });
    const refused = await weft(['addr', 'release', '10.1.0.1'], { reject: false });
    expect([refused.exitCode, refused.stdout]).toEqual([1, '']);
    expect(refused.stderr).toContain(
      'error: 10.1.0.1 belongs to pod shop/web-0 (interface eth0 of container 0123456789ab on node n1).',
    );
    expect(refused.stderr).toContain('The pod is gone.');
    expect(refused.stderr).toContain('kubectl weft addr release 10.1.0.1 --force');
    expect((await stored('10.1.0.1')).status).toBeUndefined();
    await weft(['addr', 'release', '10.1.0.1', '--force']);
    expect(await addresses()).toEqual([]);
  });

  it('refuses one whose pod is there, as the README shows, and obeys --force', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    const pod = { namespace: 'shop', name: 'web-0', uid: await makePod('shop', 'web-0') };
    await use('10.1.0.1', { nodeName: 'n1', pod });
    const refused = async () => {
      const { exitCode, stdout, stderr } = await weft(['addr', 'release', '10.1.0.1'], { reject: false });
      expect([exitCode, stdout, await addresses()]).toEqual([1, '', ['10.1.0.1']]);
      return stderr;
    };
    const owner =
      'error: 10.1.0.1 belongs to pod shop/web-0 (interface eth0 of container 0123456789ab on node n1).';
    const force = 'To release it all the same: kubectl weft addr release 10.1.0.1 --force';
    const isThere = (how: string) =>
      `${owner}\nThe pod is there (${how}): delete the pod, and the address goes with it.\n${force}`;
    expect(await refused()).toBe(isThere('Running'));
    // No kubelet is there to end it.
    await mustSucceed(server().kubectl(['delete', 'pod', 'web-0', '-n', 'shop', '--wait=false']));
    expect(await refused()).toBe(isThere('terminating'));
    // Another pod of the name is not the one that has the address.
    await mustSucceed(
      server().kubectl(['delete', 'pod', 'web-0', '-n', 'shop', '--force', '--grace-period=0']),
    );
    await makePod('shop', 'web-0');
    expect(await refused()).toContain(`${owner}\nThe pod is gone.`);

    const forced = await weft(['addr', 'release', '10.1.0.1', '--force']);
    expect(forced.stdout).toBe('10.1.0.1 is released; shop/web-0 had it');
    expect(await addresses()).toEqual([]);
    await server().kubectl(['delete', 'pod', 'web-0', '-n', 'shop', '--force', '--grace-period=0']);
  });

  it('refuses what weft holds itself', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await use('10.1.0.1', { holder: 'sticky', sticky: 'shop/web-0' });
    const { exitCode, stderr } = await weft(['addr', 'release', '10.1.0.1'], { reject: false });
    expect(exitCode).toBe(1);
    expect(stderr).toContain('10.1.0.1 is kept by weft itself (sticky)');
    expect(await addresses()).toEqual(['10.1.0.1']);
  });

  it('does not release the next owner’s, who came while it was under way', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await use('10.1.0.1', { holder: 'me' });
    let swapped: Promise<unknown> | undefined;
    proxy.setFault(({ method }) => {
      if (method !== 'DELETE') return 'none';
      swapped ??= server()
        .kubectl(['delete', 'ipallocation', '10.1.0.1'])
        .then(() => use('10.1.0.1', { nodeName: 'n1' }));
      return { delayMs: 1_500 };
    });
    await weft(['addr', 'release', '10.1.0.1', '--force'], throughProxy());
    await swapped;
    expect((await stored('10.1.0.1')).spec.pod?.name).toBe('web-0');
  });

  it.each([
    ['10.1.0.9', 'nobody has 10.1.0.9: it lies in 10.1.0.0/26 of IPPool pods, a subnet of node n1'],
    ['10.1.0.0', 'nobody is ever given 10.1.0.0'],
    ['10.1.200.1', 'nobody has 10.1.200.1: it lies in IPPool pods, in no node'],
    ['192.0.2.1', 'nobody has 192.0.2.1: it lies in no IPPool'],
  ])('says where an address lies that nobody has: %s', async (address, reason) => {
    const pool = await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await makeSubnet('10.1.0.0/26', pool, await makeNode('n1'));
    for (const verb of ['release', 'list']) {
      const { exitCode, stderr } = await weft(['addr', verb, address], { reject: false });
      expect(stderr).toContain(`error: ${reason}`);
      expect(exitCode).toBe(1);
    }
  });
});

describe('addr list', () => {
  beforeEach(async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16', 'fd01::/64'] });
    await use('10.1.0.10', { nodeName: 'n1' });
    await use('10.1.0.9', { nodeName: 'n2', pod: { namespace: 'shop', name: 'web-1', uid: 'u' } });
    await use('fd01::5', { nodeName: 'n1', pod: { namespace: 'bank', name: 'web-0', uid: 'u' } });
    await use('10.1.0.11', { holder: 'the printer' });
    await weft(['addr', 'release', '10.1.0.11', '--force']);
    await use('10.1.0.11', { holder: 'the printer', nodeName: 'n1' });
    await weft(['addr', 'release', '10.1.0.11']);
    await use('10.9.0.1', { pool: 'other', holder: 'a router' });
  });

  it('is a table by address, plain in a pipe', async () => {
    const { stdout } = await weft(['addr', 'list']);
    expect(stdout.split('\n').map((line) => line.replace(/ +\d+s$/, ''))).toEqual([
      'ADDRESS    POOL   NODE  OWNER        STATE    FOR',
      '10.1.0.9   pods   n2    shop/web-1   used',
      '10.1.0.10  pods   n1    shop/web-0   used',
      '10.1.0.11  pods   n1    the printer  resting',
      '10.9.0.1   other  -     a router     held',
      'fd01::5    pods   n1    bank/web-0   used',
    ]);
  });

  it.each([
    [['--pool', 'other'], ['10.9.0.1']],
    [['--node', 'n2'], ['10.1.0.9']],
    [
      ['--node', 'n1', '--pod', 'web-0'],
      ['10.1.0.10', 'fd01::5'],
    ],
    [['-n', 'bank'], ['fd01::5']],
    [['--holder'], ['10.1.0.11', '10.9.0.1']],
    [['--holder', '--pool', 'pods'], ['10.1.0.11']],
    [['FD01:0:0::0005'], ['fd01::5']],
    [['fd01-0000-0000-0000-0000-0000-0000-0005'], ['fd01::5']],
    [['10.1.0.9', '--node', 'n1'], []],
  ])('with %j shows %j', async (argv, expected) => {
    const { stdout } = await weft(['addr', 'list', ...argv, '-o', 'json']);
    const found = JSON.parse(stdout) as { readonly address: string }[];
    expect(found.map(({ address }) => address)).toEqual(expected);
  });

  it('gives scripts all there is to know', async () => {
    const { stdout } = await weft(['addr', 'list', '10.1.0.10', '-o', 'yaml']);
    expect(parseYAML(stdout)).toEqual([
      {
        address: '10.1.0.10',
        state: 'used',
        pool: 'pods',
        node: 'n1',
        namespace: 'shop',
        pod: 'web-0',
        container: '0123456789abcdef',
        interface: 'eth0',
        createdAt: expect.stringMatching(/^20..-..-..T/) as string,
      },
    ]);
  });

  it('tells a person that there is nothing, and a script nothing', async () => {
    const none = await weft(['addr', 'list', '--node', 'n9']);
    expect([none.stdout, none.stderr]).toEqual(['', 'no addresses found']);
    const json = await weft(['addr', 'list', '--node', 'n9', '-o', 'json']);
    expect([json.stdout, json.stderr]).toEqual(['[]', '']);
  });
});

describe('pool show', () => {
  it('counts pool, CIDRs and nodes from the objects, whatever a status says', async () => {
    const pool = await makePool('pods', { cidrs: ['10.1.0.0/24'], nodeSubnetPrefixLength: { ipv4: 28 } });
    const [n1, n2] = [await makeNode('n1'), await makeNode('n2')];
    await makeSubnet('10.1.0.0/28', pool, n1);
    await makeSubnet('10.8.0.0/28', pool, n2);
    await use('10.1.0.1', { nodeName: 'n1' });
    await use('10.8.0.3', { nodeName: 'n2', holder: 'a printer' });
    await use('10.1.0.200', { holder: 'a router' });
    const { ipv4 } = wrongStatus();
    await poolStore(server().client).writePoolStatus(pool, { ipv4 });

    const { stdout } = await weft(['pool', 'show']);
    expect(stdout.replaceAll(/ \d+s$/gm, '').split('\n')).toEqual([
      'pods   serving, draining',
      '',
      '  HELD WITHOUT A POD  HOLDER     NODE  FOR',
      '  10.1.0.200          a router   -    ',
      '  10.8.0.3            a printer  n2   ',
      '',
      '  POOL               USE  ALLOCATED  RESTING  FREE  RESERVED  SUBNETS',
      '  pods         IPv4   1%          3        0   238        31  2, 15 free',
      '',
      '  CIDR               USE  ALLOCATED  RESTING  FREE  RESERVED  SUBNETS',
      '  10.1.0.0/24  IPv4  <1%          2        0   238        16  1, 15 free',
      '  drained      IPv4   6%          1        0     0        15  1, 0 free',
      '',
      '  NODE               USE  ALLOCATED  RESTING  FREE  RESERVED  SUBNETS',
      '  n1           IPv4   6%          1        0    14         1  10.1.0.0/28',
      '  n2           IPv4   6%          1        0     0        15  10.8.0.0/28 (drained)',
    ]);
    const json = JSON.parse((await weft(['pool', 'show', 'pods', '-o', 'json'])).stdout) as unknown;
    expect(json).toMatchObject([
      {
        name: 'pods',
        serves: true,
        exhausted: [],
        usage: { ipv4: { allocated: 3, free: '238', capacity: '272' } },
        holders: [
          { address: '10.1.0.200', holder: 'a router' },
          { address: '10.8.0.3', node: 'n2' },
        ],
        cidrs: [{ cidr: '10.1.0.0/24', drained: false }, { drained: true }],
        nodes: [
          { node: 'n1', subnets: [{ cidr: '10.1.0.0/28', drained: false }] },
          {
            node: 'n2',
            subnets: [{ cidr: '10.8.0.0/28', drained: true }],
            usage: { ipv4: { allocated: 1 } },
          },
        ],
      },
    ]);
  });

  it('reads the allocations of the pool that is named, and of those that have some in its ranges, only', async () => {
    const pods = await makePool('pods', { cidrs: ['10.1.0.0/24'], nodeSubnetPrefixLength: { ipv4: 28 } });
    const near = await makePool('near', { cidrs: ['10.1.0.0/16'], nodeSubnetPrefixLength: { ipv4: 28 } });
    const far = await makePool('far', { cidrs: ['10.7.0.0/16'] });
    const lan = await makePool('lan', {
      use: 'Lan',
      cidrs: ['172.16.0.0/24'],
      gateway: { ipv4: '172.16.0.9' },
    });
    const node = await makeNode('n1');
    await makeSubnet('10.1.0.0/28', pods, node);
    await makeSubnet('10.1.0.16/28', near, node);
    await makeSubnet('10.7.0.0/26', far, node);
    await makeSubnet('172.16.0.0/26', lan, node, []);
    await use('10.1.0.1', { nodeName: 'n1' });
    await use('10.7.0.1', { nodeName: 'n1', pool: 'far' });
    // Held without a node, of ranges that are another's by now.
    await use('10.1.0.200', { pool: 'far', holder: 'a printer' });
    await use('10.1.0.201', { pool: 'pods', holder: 'a scanner' });
    const all = JSON.parse((await weft(['pool', 'show', '-o', 'json'])).stdout) as {
      name: string;
      usage: object;
    }[];
    expect(all.find(({ name }) => name === 'pods')?.usage).toMatchObject({ ipv4: { allocated: 2 } });
    const show = async (...names: string[]) => {
      const begun = proxy.requests.length;
      const { stdout } = await weft(['pool', 'show', ...names, '-o', 'json'], throughProxy());
      expect(JSON.parse(stdout)).toEqual(all.filter(({ name }) => names.includes(name)));
      const paths = proxy.requests.slice(begun).map(({ path }) => decodeURIComponent(path));
      return paths.flatMap((path) => {
        const [, kind, query] = /(nodesubnets|ipallocations)\?(.*)$/.exec(path) ?? [];
        return kind === undefined
          ? []
          : [`${kind} ${/fieldSelector=([^&]*)/.exec(query ?? '')?.[1] ?? 'all'}`];
      });
    };
    expect((await show('pods')).sort()).toEqual([
      'ipallocations spec.nodeName=',
      'ipallocations spec.pool=near',
      'ipallocations spec.pool=pods',
      'nodesubnets all',
    ]);
    expect((await show('far', 'pods')).sort()).toEqual([
      'ipallocations spec.nodeName=',
      'ipallocations spec.pool=far',
      'ipallocations spec.pool=near',
      'ipallocations spec.pool=pods',
      'nodesubnets all',
    ]);
    // A range of another pool's by now, in which a pod of `far` still lives.
    await makeSubnet('10.1.0.40/32', far, node);
    expect((await show('pods')).sort()).toContain('ipallocations spec.pool=far');
  });

  it('counts the subnets of a node that the pool does not select as drained', async () => {
    const spec = { cidrs: ['10.1.0.0/24'], nodeSelector: { matchLabels: { zone: 'a' } } };
    const pool = await makePool('pods', spec);
    const [n1, n2] = [await makeNode('n1'), await makeNode('n2')];
    await mustSucceed(server().kubectl(['label', 'node', 'n1', 'zone=a', '--overwrite']));
    await makeSubnet('10.1.0.0/26', pool, n1);
    await makeSubnet('10.1.0.64/26', pool, n2);
    const { stdout } = await weft(['pool', 'show']);
    expect(stdout).toMatch(/ n1 .* 63 +1 +10\.1\.0\.0\/26$/m);
    expect(stdout).toMatch(/ n2 .* 0 +64 +10\.1\.0\.64\/26 \(drained\)$/m);
    const { exitCode, stderr } = await weft(['addr', 'request', 'pods', '--node', 'n2'], { reject: false });
    expect([exitCode, stderr]).toEqual([
      1,
      expect.stringContaining('node n2 has no ipv4 subnet of IPPool pods'),
    ]);
  });

  it('shows the pools that were named, and refuses a name that is none', async () => {
    await makePool('a', { cidrs: ['10.1.0.0/24'] });
    await makePool('b', { cidrs: ['10.2.0.0/24'] });
    const { stdout } = await weft(['pool', 'show', 'b', '-o', 'json']);
    expect((JSON.parse(stdout) as { readonly name: string }[]).map(({ name }) => name)).toEqual(['b']);
    const { exitCode, stderr } = await weft(['pool', 'show', 'b', 'c'], { reject: false });
    expect([exitCode, stderr]).toEqual([1, 'error: there is no IPPool c: there is a, b']);
  });

  it('is coloured and has bars on a terminal, no colours with NO_COLOR, and neither in a pipe', async () => {
    const pool = await makePool('pods', { cidrs: ['10.1.0.0/24'], nodeSubnetPrefixLength: { ipv4: 28 } });
    await makeSubnet('10.1.0.0/28', pool, await makeNode('n1'));
    await use('10.1.0.1', { nodeName: 'n1' });
    const onTerminal = async (env: Record<string, string>) =>
      (
        await execa('script', ['-qec', `${program} pool show`, '/dev/null'], {
          env: { ...kubectlEnv(), ...env },
        })
      ).stdout;
    const coloured = await onTerminal({ TERM: 'xterm', NO_COLOR: '' });
    expect(coloured).toContain('\u001b[');
    const plain = await onTerminal({ TERM: 'xterm', NO_COLOR: '1' });
    expect(plain).not.toContain('\u001b[');
    // Each row has its own, and the legend below, which shows the same signs, is none of them.
    for (const output of [stripVTControlCharacters(coloured), plain]) {
      for (const row of ['pods', '10.1.0.0/24', 'n1']) {
        expect(output).toMatch(new RegExp(`^\\s*${row}\\s.*[█▉▊▋▌▍▎▏]·`, 'm'));
      }
    }
    const { stdout } = await weft(['pool', 'show'], { env: { TERM: 'xterm' } });
    for (const sign of ['\u001b', '█', '·']) expect(stdout).not.toContain(sign);
  });
});

describe('what goes wrong outside', () => {
  it('is quiet where the reader goes first', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await Promise.all(
      Array.from({ length: 300 }, (_, i) => use(`10.1.${i >> 8}.${i & 255}`, { nodeName: 'n1' })),
    );
    const whole = await weft(['addr', 'list', '-o', 'json']);
    expect(whole.stdout.length).toBeGreaterThan(65_536);
    for (const reader of ['head -1', 'true']) {
      const piped = await execa(
        'bash',
        ['-c', `set -o pipefail; "$0" addr list -o json | ${reader}`, program],
        {
          env: kubectlEnv(),
          reject: false,
        },
      );
      expect([piped.exitCode, piped.stderr]).toEqual([0, '']);
    }
  });

  it('says so where the answer cannot be written', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    const full = await execa('bash', ['-c', '"$0" pool show > /dev/full', program], {
      env: kubectlEnv(),
      reject: false,
    });
    expect([full.exitCode, full.stderr]).toEqual([
      1,
      expect.stringContaining('cannot write the answer: ENOSPC'),
    ]);
  });

  it('ends with 3 where nobody listens', async () => {
    const config = await kubeconfigTo('https://127.0.0.1:1');
    const { exitCode, stdout, stderr } = await weft(['addr', 'list', '--kubeconfig', config], {
      reject: false,
    });
    expect([exitCode, stdout]).toEqual([3, '']);
    expect(stderr).toMatch(/^error: .*no answer from the apiserver \(.*ECONNREFUSED/);
  });

  it('ends with 3, and sends nothing, where the certificate is not the cluster’s', async () => {
    const stranger = await openAuthority(join(server().dir, 'stranger'));
    const { plane, dir } = server();
    const config = await writeKubeconfig(join(dir, 'stranger.kubeconfig'), plane.url, stranger, plane.admin);
    const { exitCode, stderr } = await weft(['addr', 'list', '--kubeconfig', config], { reject: false });
    expect(exitCode).toBe(3);
    expect(stderr).toMatch(/certificate|self.signed|verify/i);
  });

  it('ends with 3 where the apiserver does not know who asks', async () => {
    const config = await kubeconfigTo(server().plane.url, { token: 'of-nobody' });
    const { exitCode, stderr } = await weft(['addr', 'list', '--kubeconfig', config], { reject: false });
    expect([exitCode, stderr]).toEqual([3, expect.stringContaining('Unauthorized')]);
  });

  it('ends with 3 where the kubeconfig cannot be used', async () => {
    const broken = join(server().dir, 'broken.kubeconfig');
    await writeFile(broken, 'clusters: [');
    for (const [argv, message] of [
      [['--kubeconfig', '/nowhere'], 'cannot read the kubeconfig /nowhere'],
      [['--kubeconfig', broken], `cannot read the kubeconfig ${broken}`],
      [['--context', 'nope'], 'has no context "nope": it has'],
    ] as const) {
      const { exitCode, stderr } = await weft(['pool', 'show', ...argv], { reject: false });
      expect([exitCode, stderr]).toEqual([3, expect.stringContaining(message)]);
    }
  });

  it('ends with 3 where the apiserver answers with errors', async () => {
    proxy.setFault(() => ({ status: 503 }));
    const { exitCode } = await weft(['addr', 'list'], { ...throughProxy(), reject: false });
    expect(exitCode).toBe(3);
  });

  it('ends with 2 for what it does not understand', async () => {
    for (const argv of [
      ['addr', 'lst'],
      ['addr', 'list', '--nope'],
      ['addr', 'release', '10.1'],
    ]) {
      expect((await weft(argv, { reject: false })).exitCode).toBe(2);
    }
  });
});

describe('a person without the administrator’s rights', () => {
  it('holds and releases addresses under weft’s admission policies', async () => {
    const config = join(import.meta.dirname, '../../config/rbac');
    await server().kubectl(['create', 'namespace', 'weft-system']);
    await mustSucceed(server().kubectl(['apply', '-k', config]));
    const pool = await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await makeSubnet('10.1.0.0/26', pool, await makeNode('n1'));
    const alice = await kubeconfigOf('alice');

    const refused = await weft(['addr', 'request', 'pods', '--kubeconfig', alice], { reject: false });
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toMatch(/User "alice" cannot list resource "(ippools|nodesubnets|ipallocations)"/);

    await grant('alice', [
      { apiGroups: [GROUP], resources: ['ippools', 'nodesubnets'], verbs: ['get', 'list'] },
      { apiGroups: [GROUP], resources: ['ipallocations'], verbs: ['get', 'list', 'create', 'delete'] },
      { apiGroups: [GROUP], resources: ['ipallocations/status'], verbs: ['patch'] },
      { apiGroups: [''], resources: ['nodes'], verbs: ['get'] },
    ]);
    const asAlice = (...argv: string[]) => weft([...argv, '--kubeconfig', alice], { reject: false });
    const nowhere = await eventually('the rights', async () => {
      const result = await asAlice('addr', 'request', 'pods');
      return result.exitCode === 0 && result;
    });
    expect(nowhere.stdout).toBe('10.1.0.65');
    const onNode = await asAlice('addr', 'request', 'pods', '--node', 'n1');
    expect([onNode.stdout, onNode.stderr]).toEqual(['10.1.0.1', '']);
    for (const address of ['10.1.0.65', '10.1.0.1']) {
      expect((await asAlice('addr', 'release', address)).stdout).toContain(`${address} is released`);
    }
    // Whether its pod is there is not for alice to see.
    await use('10.1.0.2', { nodeName: 'n1' });
    expect((await asAlice('addr', 'release', '10.1.0.2')).stderr).toMatch(
      /belongs to pod shop\/web-0 .*\nIt is released by itself when the sandbox goes, by its node's agent\./,
    );
    expect((await asAlice('pool', 'show')).exitCode).toBe(0);
  });
});

it('logs in by the program that a kubeconfig names', async () => {
  const { kubectl, plane, dir } = server();
  await kubectl(['create', 'serviceaccount', 'robot', '--namespace=default']);
  const token = await mustSucceed(kubectl(['create', 'token', 'robot', '--namespace=default']));
  await grant('system:serviceaccount:default:robot', [
    { apiGroups: [GROUP], resources: ['ipallocations'], verbs: ['list'] },
  ]);
  const apiVersion = 'client.authentication.k8s.io/v1';
  const credential = JSON.stringify({ apiVersion, kind: 'ExecCredential', status: { token } });
  const login = join(dir, 'login');
  await writeFile(login, `#!/bin/sh\necho '${credential}'\n`, { mode: 0o755 });
  const exec = { apiVersion, command: login, interactiveMode: 'Never' };
  const config = await kubeconfigTo(plane.url, { exec });
  await eventually('the rights', async () => {
    const { exitCode, stderr } = await weft(['addr', 'list', '--kubeconfig', config], { reject: false });
    expect(stderr).toMatch(/^no addresses found$|User "system:serviceaccount:default:robot" cannot list/);
    return exitCode === 0;
  });
});

describe('check', () => {
  it('knows nothing of a node without an agent, and never calls that clean', async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await makeNode('silent');
    const table = await weft(['check'], { reject: false });
    expect(table.exitCode).toBe(3);
    expect(table.stdout).toMatch(/^unknown {2}silent: no weft-agent runs there/m);
    expect(table.stdout).toContain('nothing wrong where it could be seen; nothing is known of');
    const json = await weft(['check', '-o', 'json'], { reject: false });
    expect(json.exitCode).toBe(3);
    expect(JSON.parse(json.stdout)).toMatchObject({ findings: [] });
  });

  it('ends with 0 where all could be seen and nothing is wrong', async () => {
    await server().kubectl(['delete', 'nodes', '--all']);
    const { exitCode, stdout } = await weft(['check', '-o', 'json'], { reject: false });
    expect([exitCode, JSON.parse(stdout)]).toMatchObject([0, { findings: [], unknownNodes: [] }]);
  });

  it('ends with 3 where the apiserver is away', async () => {
    const config = await kubeconfigTo('https://127.0.0.1:1');
    const { exitCode, stdout } = await weft(['check', '-o', 'json', '--kubeconfig', config], {
      reject: false,
    });
    expect(exitCode).toBe(3);
    expect(JSON.parse(stdout)).toMatchObject({ couldNot: expect.stringContaining('ECONNREFUSED') as string });
  });
});

describe('completion', () => {
  const names = async (script: string, args: readonly string[] = [], shell = 'bash') => {
    const path = `${dirname(program)}:${server().plane.binaries}:${process.env.PATH ?? ''}`;
    const options = { env: { ...kubectlEnv(), PATH: path }, reject: false } as const;
    return (await execa(shell, ['-c', script, shell, ...args], options)).stdout.split('\n');
  };
  const inBash = (...words: string[]) =>
    names(
      'source <(kubectl-weft completion bash); COMP_WORDS=(kubectl-weft "$@"); COMP_CWORD=$#; _kubectl_weft; ' +
        'printf "%s\\n" "${COMPREPLY[@]}"',
      words,
    );
  /** The functions that zsh's completion has, as far as the script calls them. */
  const ZSH = `compdef() { [[ $1 == _kubectl_weft && $2 == kubectl-weft ]] || print "compdef $*" }
    compset() { cut=$2 }
    _describe() { print -rl -- "\${(@P)2}" \${cut:+"without $cut"} }
    source <(kubectl-weft completion zsh); words=(kubectl-weft "$@"); CURRENT=$#words; _kubectl_weft`;
  const inZsh = (...words: string[]) => names(ZSH, words, 'zsh');
  /**
   * Types each of them into a zsh of its own terminal, whose completion is zsh's own, and answers the lines that stood there
   * then. A tab is the key.
   */
  const typedInZsh = async (...typed: string[]) => {
    const told = join(server().dir, 'told');
    await writeFile(told, '');
    const path = `${dirname(program)}:${process.env.PATH ?? ''}`;
    const env = { ...kubectlEnv(), PATH: path, TERM: 'dumb', TOLD: told, HOME: server().dir };
    await execa('zsh', ['-fc', ZSH_TERMINAL, 'zsh', ...typed], { env, timeout: 30_000 });
    return (await readFile(told, 'utf8')).split('\n').slice(0, -1);
  };
  const ZSH_TERMINAL = `
    zmodload zsh/zpty
    zpty terminal zsh -f -i
    tell() { zpty -w terminal "$1" }
    tell 'PS1=; autoload -Uz compinit; compinit -u -D; source <(kubectl-weft completion zsh)'
    tell 'told() { print -r -- "$BUFFER" >>$TOLD; BUFFER= }; zle -N told; bindkey "^G" told'
    tell 'print ready >>$TOLD'
    until [[ -s $TOLD ]]; do zpty -r -t terminal said; sleep 0.05; done
    lines=1
    for line in "$@"; do
      zpty -w -n terminal "$line"$'\\a'
      (( lines += 1 ))
      until (( $(wc -l <$TOLD) >= lines )); do zpty -r -t terminal said; sleep 0.05; done
    done`;
  const byKubectl = async (...words: string[]) =>
    (await names('kubectl __complete weft "$@" 2>/dev/null', words)).map((line) => line.split('\t')[0]);

  beforeEach(async () => {
    await makePool('pods', { cidrs: ['10.1.0.0/16'] });
    await makePool('lan', { cidrs: ['10.2.0.0/16'] });
    await makeNode('n1');
  });

  it('completes in bash', async () => {
    expect(await inBash('addr', 're')).toEqual(['request', 'release']);
    expect(await inBash('pool', 'show', 'p')).toEqual(['pods']);
    expect(await inBash('addr', 'request', 'pods', '--node', 'n1')).toEqual(['n1']);
    expect(await inBash('addr', 'list', '--pool', '=', 'l')).toEqual(['lan']);
    expect(await inBash('addr', 'request', '--fo')).toEqual(['']);
  });

  it('completes kubectl weft by kubectl itself', async () => {
    expect(await byKubectl('addr', '')).toEqual(['list', 'request', 'release', ':4']);
    expect(await byKubectl('pool', 'show', 'pods', 'l')).toEqual(['lan', ':4']);
    expect(await byKubectl('addr', 'list', '--pool=p')).toEqual(['pods', ':4']);
  });

  it('completes in zsh', async () => {
    expect(await inZsh('addr', 're')).toEqual([
      expect.stringMatching(/^request:./),
      expect.stringMatching(/^release:./),
    ]);
    expect(await inZsh('pool', 'show', 'p')).toEqual(['pods:']);
    expect(await inZsh('addr', 'request', 'pods', '--node', 'n1')).toEqual(['n1:']);
    expect(await inZsh('addr', 'list', '--pool=l')).toEqual(['lan:', 'without *=']);
  });

  it('completes in a zsh that somebody types into', async () => {
    const [, ...lines] = await typedInZsh(
      'kubectl-weft addr rel\t',
      // What is in common; a list; and its first, and its second, in the order of their names.
      'kubectl-weft addr r\t',
      'kubectl-weft addr r\t\t\t',
      'kubectl-weft addr r\t\t\t\t',
      'kubectl-weft pool show p\t',
      'kubectl-weft addr list --pool=l\t',
      'kubectl-weft addr list --pool l\t',
      'kubectl-weft addr request pods --fam\t',
      'kubectl-weft nothing x\t',
    );
    expect(lines.map((line) => line.trimEnd())).toEqual([
      'kubectl-weft addr release',
      'kubectl-weft addr re',
      'kubectl-weft addr release',
      'kubectl-weft addr request',
      'kubectl-weft pool show pods',
      'kubectl-weft addr list --pool=lan',
      'kubectl-weft addr list --pool lan',
      'kubectl-weft addr request pods --family',
      'kubectl-weft nothing x',
    ]);
  });
});

it('runs as a plugin of kubectl, flags and all', async () => {
  await makePool('pods', { cidrs: ['10.1.0.0/16'] });
  const { binaries, kubeconfig } = server().plane;
  const path = `${dirname(program)}:${process.env.PATH ?? ''}`;
  const { stdout } = await execa(
    join(binaries, 'kubectl'),
    ['weft', 'addr', 'request', 'pods', '--kubeconfig', kubeconfig, '--holder', 'me'],
    { env: { PATH: path } },
  );
  expect(stdout).toBe('10.1.0.1');
});

function weft(argv: readonly string[], { env, ...options }: Options & { env?: Record<string, string> } = {}) {
  return execa(program, argv, { ...options, env: { ...kubectlEnv(), ...env } }) as Promise<{
    readonly stdout: string;
    readonly stderr: string;
    readonly exitCode: number;
  }>;
}

function kubectlEnv(): Record<string, string> {
  return { KUBECONFIG: server().plane.kubeconfig };
}

function throughProxy(): { env: Record<string, string> } {
  return { env: { KUBECONFIG: proxy.kubeconfig } };
}

async function makePool(name: string, spec: object) {
  const object = { apiVersion: API_VERSION, kind: IP_POOL.kind, metadata: { name }, spec };
  await mustSucceed(server().kubectl(['apply', '--server-side', '-f', '-'], object));
  const pool = await poolStore(server().client).get(name);
  if (pool === undefined) throw new Error(`there is no pool ${name}`);
  return pool;
}

async function makeNode(name: string): Promise<{ readonly name: string; readonly uid: string }> {
  const { client, kubectl } = server();
  await kubectl(['create', '-f', '-'], { apiVersion: 'v1', kind: 'Node', metadata: { name } });
  const status = { addresses: [{ type: 'InternalIP', address: '172.16.0.1' }] };
  await mustSucceed(
    kubectl([
      'patch',
      'node',
      name,
      '--subresource=status',
      '--type=merge',
      '-p',
      JSON.stringify({ status }),
    ]),
  );
  const node = (await client.request({ method: 'GET', path: `${NODES}/${name}` })) as {
    readonly metadata: { readonly uid: string };
  };
  return { name, uid: node.metadata.uid };
}

async function makeSubnet(
  cidr: string,
  { metadata }: Awaited<ReturnType<typeof makePool>>,
  node: { readonly name: string; readonly uid: string },
  nextHops = ['172.16.0.1'],
): Promise<void> {
  await nodeSubnetStore(server().client).create({
    cidr: parseCIDR(cidr),
    pool: metadata.name,
    poolUID: metadata.uid,
    nodeName: node.name,
    nodeUID: node.uid,
    nextHops: nextHops.map(parseAddress),
  });
}

/** One that runs, as far as the apiserver knows. Answers its UID. */
async function makePod(namespace: string, name: string): Promise<string> {
  const { kubectl } = server();
  await kubectl(['create', 'namespace', namespace]);
  // A pod is refused without it, and no controller of Kubernetes is here to make it.
  await kubectl(['create', 'serviceaccount', 'default', '-n', namespace]);
  const container = { name: 'c', image: 'none' };
  const spec = { nodeName: 'n1', automountServiceAccountToken: false, containers: [container] };
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace }, spec };
  await mustSucceed(kubectl(['create', '-f', '-'], pod));
  const running = JSON.stringify({ status: { phase: 'Running' } });
  const patch = [
    'patch',
    'pod',
    name,
    '-n',
    namespace,
    '--subresource=status',
    '--type=merge',
    '-p',
    running,
  ];
  await mustSucceed(kubectl(patch));
  return mustSucceed(kubectl(['get', 'pod', name, '-n', namespace, '-o', 'jsonpath={.metadata.uid}']));
}

/** Lets the pod shop/web-0, or a holder, have an address of the pool `pods`. */
async function use(address: string, spec: Partial<IPAllocationSpec>): Promise<void> {
  const attachment = {
    network: 'weft',
    containerID: '0123456789abcdef',
    ifName: 'eth0',
    kind: 'Interface' as const,
  };
  const pod = { namespace: 'shop', name: 'web-0', uid: 'u' };
  await allocationStore(server().client).create({
    address: parseAddress(address),
    pool: 'pods',
    ...(spec.holder === undefined ? { attachment, pod } : {}),
    ...spec,
  });
}

async function stored(name: string) {
  const found = await allocationStore(server().client).get(name);
  if (found === undefined) throw new Error(`there is no IPAllocation ${name}`);
  return found;
}

async function addresses(): Promise<string[]> {
  const found = await allocationStore(server().client).listMatching({});
  return found.map(({ metadata }) => metadata.name);
}

function wrongStatus() {
  const ipv4 = {
    ...{ capacity: '1', allocated: 77, resting: 77, reserved: '77', free: '77' },
    ...{ nodeSubnets: 77, freeSubnets: '77' },
  };
  return { ipv4 };
}

/** A kubeconfig that leads to `url`, as administrator or as that user. */
async function kubeconfigTo(url: string, user?: object): Promise<string> {
  const config = parseYAML(await readFile(server().plane.kubeconfig, 'utf8')) as {
    clusters: { cluster: { server: string } }[];
    users: { user: object }[];
  };
  for (const { cluster } of config.clusters) cluster.server = url;
  if (user !== undefined) for (const one of config.users) one.user = user;
  const file = join(server().dir, 'elsewhere.kubeconfig');
  await writeFile(file, JSON.stringify(config));
  return file;
}

async function kubeconfigOf(name: string): Promise<string> {
  const { plane, dir } = server();
  const pair = await plane.authority.issue({ name, commonName: name });
  return writeKubeconfig(join(dir, `${name}.kubeconfig`), plane.url, plane.authority, pair);
}

async function grant(user: string, rules: readonly object[]): Promise<void> {
  const metadata = { name: `rights-of-${user.replaceAll(':', '-')}` };
  const apiVersion = 'rbac.authorization.k8s.io/v1';
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: metadata.name };
  for (const object of [
    { apiVersion, kind: 'ClusterRole', metadata, rules },
    { apiVersion, kind: 'ClusterRoleBinding', metadata, roleRef, subjects: [{ kind: 'User', name: user }] },
  ]) {
    await mustSucceed(server().kubectl(['apply', '-f', '-'], object));
  }
}
