import { beforeEach, expect, test } from 'vitest';
import type { IPAllocation } from '../../src/api/index.ts';
import {
  createStrayAddresses,
  type NamespaceAddresses,
  type StrayAddresses,
} from '../../src/agent/stray-addresses.ts';
import { cidrHasAddress, formatAddress, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { allocationOf, attachmentOf, RELEASED } from '../ipam/objects.ts';

const SUBNET = parseCIDR('10.0.0.0/26');
const NAME = '10.0.0.5';
const PATH = '/run/netns/a';
const INODE = 42;

let namespaces: Map<string, NamespaceAddresses | Error>;
let allocations: Map<string, IPAllocation>;
let told: Set<string>;
let warnings: string[];
let strays: StrayAddresses;

beforeEach(() => {
  namespaces = new Map([[PATH, has(NAME, '10.9.0.1')]]);
  allocations = new Map();
  told = new Set();
  warnings = [];
  strays = createStrayAddresses({
    namespacePaths: () => namespaces.keys(),
    lookInto(path) {
      const found = namespaces.get(path);
      if (found instanceof Error) throw found;
      return found;
    },
    drawable: () => (address) => cidrHasAddress(SUBNET, address),
    allocation: (name) => allocations.get(name),
    isTold: (name) => told.has(name),
    bootID: 'boot',
    log: { info: () => undefined, warn: (_, message) => warnings.push(message), error: () => undefined },
  });
});

test('are what lies in a subnet that is drawn from and nothing tells of', async () => {
  await strays.read();
  expect([...strays.keys()]).toEqual([NAME]);
  expect(strays.values()).toEqual([{ address: parseAddress(NAME), path: PATH }]);
  expect([strays.has(NAME), strays.has('10.9.0.1')]).toEqual([true, false]);
});

test.each<[string, IPAllocation | undefined, boolean]>([
  ['of a link of ours, or of an object that is remembered', undefined, false],
  ['whose object names this namespace', of({}), false],
  ['whose object names no namespace', allocationOf(NAME, { attachment: attachmentOf('c') }), false],
  [
    'whose object names another namespace, and frees it as soon as that is found gone',
    of({ inode: 7 }),
    true,
  ],
  ['whose object is of an earlier boot', of({ bootID: 'earlier' }), true],
  ['whose object is held by somebody', allocationOf(NAME, { holder: 'printer' }), true],
  ['whose object rests', allocationOf(NAME, { attachment: of({}).spec.attachment }, RELEASED), true],
])('one %s', async (_, allocation, isStray) => {
  if (allocation === undefined) told.add(NAME);
  else allocations.set(NAME, allocation);
  await strays.read();
  expect(strays.has(NAME)).toBe(isStray);
  // It outlives that object.
  allocations.clear();
  expect(strays.has(NAME)).toBe(isStray);
});

test('end with their namespace, and are looked for again only where there were any', async () => {
  await strays.read();
  namespaces.set(PATH, has());
  await strays.readAgain();
  expect([...strays.keys()]).toEqual([]);
  namespaces.set(PATH, has(NAME));
  await strays.readAgain();
  expect([...strays.keys()]).toEqual([]);
});

test('stay where their namespace does not tell for a while, and others are found all the same', async () => {
  await strays.read();
  namespaces.set(PATH, new Error('too many open files'));
  namespaces.set('/run/netns/b', has('10.0.0.6'));
  await strays.readAgain();
  expect([...strays.keys()]).toEqual([NAME, '10.0.0.6']);
  expect(warnings).toHaveLength(1);
  namespaces.delete(PATH);
  await strays.readAgain();
  expect([...strays.keys()]).toEqual(['10.0.0.6']);
});

test('are not more of one namespace than a plugin gives', async () => {
  const many = Array.from({ length: 60 }, (_, index) =>
    formatAddress({ family: 'ipv4', value: SUBNET.first + BigInt(index + 2) }),
  );
  namespaces.set(PATH, has(...many));
  await strays.read();
  expect([...strays.keys()]).toEqual(many.slice(0, 16));
});

function has(...addresses: string[]): NamespaceAddresses {
  return { inode: INODE, addresses: addresses.map(parseAddress) };
}

/** An object of what another plugin made in this namespace, but for what is said. */
function of(netns: { readonly inode?: number; readonly bootID?: string }): IPAllocation {
  const where = { path: PATH, inode: INODE, bootID: 'boot', ...netns };
  return allocationOf(NAME, { attachment: attachmentOf('c', { kind: 'AddressOnly', netns: where }) });
}
