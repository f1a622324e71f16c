import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import {
  AliasTooLongError,
  createVeth,
  createVxlan,
  deleteLink,
  deleteLinkGroup,
  getLink,
  listLinks,
  NetlinkError,
  openNamespaceSocket,
  renameLink,
  setAlias,
  setGroup,
  setLinkDown,
  setLinkUp,
  setMtu,
  VXLAN_LINK_NAME,
} from '../../../src/kernel/index.ts';
import { parseAddress } from '../../../src/net/index.ts';
import { useThrowaways } from '../throwaway.ts';

const { own, make } = useThrowaways();
const host = make('host');
const pod = make('pod');
const socket = host.namespace.socket;

function indexOf(name: string): number {
  const link = getLink(socket, { name });
  if (link === undefined) throw new Error(`no link ${name}`);
  return link.index;
}

describe('a link', () => {
  test('is set up and down, renamed, and given alias, group and MTU', () => {
    host.addLink('d0', '02:00:00:00:00:01');
    const index = indexOf('d0');
    setLinkDown(socket, index);
    setLinkUp(socket, index);
    expect(getLink(socket, { index })?.up).toBe(true);
    setLinkDown(socket, index);
    expect(getLink(socket, { index })?.up).toBe(false);
    renameLink(socket, index, 'd1');
    setAlias(socket, index, 'w1 an alias');
    setGroup(socket, index, 77);
    setMtu(socket, index, 1300);
    expect(getLink(socket, { index })).toMatchObject({
      name: 'd1',
      kind: 'veth',
      alias: 'w1 an alias',
      group: 77,
      mtu: 1300,
      mac: '02:00:00:00:00:01',
    });
    expect(host.sh('ip -o link show d1')).toContain('group 77');
    expect(deleteLink(socket, index)).toBe(true);
    expect(deleteLink(socket, index)).toBe(false);
    expect(getLink(socket, { index })).toBeUndefined();
    expect(getLink(socket, { name: 'd1' })).toBeUndefined();
  });

  test('the loopback is told from others', () => {
    expect(
      listLinks(socket)
        .filter((link) => link.loopback)
        .map((link) => link.name),
    ).toEqual(['lo']);
  });

  test('an alias holds 255 bytes, counted as bytes', () => {
    host.addLink('d2', '02:00:00:00:00:02');
    const index = indexOf('d2');
    const longest = `${'ä'.repeat(127)}x`;
    setAlias(socket, index, longest);
    expect(getLink(socket, { index })?.alias).toBe(longest);
    expect(() => {
      setAlias(socket, index, 'ä'.repeat(128));
    }).toThrow(AliasTooLongError);
  });

  test('a refusal names the object, the code and what the kernel says', () => {
    let refusal: unknown;
    try {
      renameLink(socket, 1, 'd2');
    } catch (error) {
      refusal = error;
    }
    expect(refusal).toBeInstanceOf(NetlinkError);
    expect(refusal).toMatchObject({ code: 'EEXIST', errno: 17, request: 'change link 1: name "d2"' });
    host.addLink('d3', '02:00:00:00:00:04');
    expect(() => {
      setMtu(socket, indexOf('d3'), 9);
    }).toThrow(/^change link \d+: mtu "9": EINVAL: invalid argument \(the kernel says: mtu less than/);
  });
});

describe('VXLAN', () => {
  test.each([
    ['IPv4 underlay', '192.0.2.1'],
    ['IPv6 underlay', '2001:db8::1'],
  ])('%s: what was asked for is what is there, and iproute2 sees it so', (_, local) => {
    const spec = {
      name: VXLAN_LINK_NAME,
      vni: 4097,
      port: 4789,
      mac: '02:11:22:33:44:55',
      mtu: 1430,
      local: parseAddress(local),
    };
    createVxlan(socket, spec);
    const link = getLink(socket, { name: VXLAN_LINK_NAME });
    expect(link).toMatchObject({ kind: 'vxlan', mac: spec.mac, mtu: 1430, up: false });
    expect(link?.vxlan).toEqual({
      vni: 4097,
      port: 4789,
      local: spec.local,
      learning: false,
      device: undefined,
    });
    const shown = host.sh(`ip -d link show ${VXLAN_LINK_NAME}`);
    expect(shown).toMatch(new RegExp(`vxlan id 4097 local ${local} .*dstport 4789 .*nolearning`));
    expect(link && deleteLink(socket, link.index)).toBe(true);
  });

  test('drift shows: a device with learning, of another VNI, bound to a link', () => {
    host.addLink('under', '02:00:00:00:00:05');
    host.sh('ip link add vx type vxlan id 5 dstport 8472 learning dev under');
    expect(getLink(socket, { name: 'vx' })?.vxlan).toEqual({
      vni: 5,
      port: 8472,
      local: undefined,
      learning: true,
      device: indexOf('under'),
    });
  });
});

test('the kernel counts every MAC that we give as given (addr_assign_type 3), so udev leaves it alone', () => {
  createVeth(
    socket,
    { name: 'weftassign', mac: 'ee:ee:ee:ee:ee:ee', mtu: 1450 },
    { name: 'eth9', mac: '02:00:00:00:00:09', mtu: 1450, namespaceFd: pod.namespace.fd },
  );
  createVxlan(socket, {
    name: 'vxlan.assign',
    vni: 9,
    port: 4790,
    mac: '02:00:00:00:00:0a',
    mtu: 1400,
    local: parseAddress('192.0.2.1'),
  });
  const typeOf = (name: string) => `cat /sys/class/net/${name}/addr_assign_type`;
  expect(host.sh(typeOf('weftassign'))).toBe('3\n');
  expect(host.sh(typeOf('vxlan.assign'))).toBe('3\n');
  expect(pod.sh(typeOf('eth9'))).toBe('3\n');
  host.sh('ip link add plain type bridge');
  expect(host.sh(typeOf('plain'))).toBe('1\n');
});

describe('deleting a link group', () => {
  test('deletes 48 veths at once and keeps the others, beside the event loop', async () => {
    using background = openNamespaceSocket(own, host.path);
    const heldUp: number[] = [];
    // The calling thread may be kept waiting by other programs; hardly three times in a row.
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 48; i++) addVethOfGroup(`g${i}`, 4242);
      addVethOfGroup(`kept${round}`, 4243);
      const lag = measureLag();
      const started = performance.now();
      const deletion = deleteLinkGroup(background.socket, 4242);
      const called = performance.now() - started;
      await deletion;
      const elapsed = performance.now() - started;
      const worst = await lag.stop();
      heldUp.push(called / elapsed);
      console.log(
        `48 veths deleted in ${elapsed.toFixed(1)} ms, the call took ${called.toFixed(2)} ms, ` +
          `longest turn of the event loop ${worst.toFixed(1)} ms`,
      );
    }
    const left = listLinks(socket).filter((link) => /^(g\d|kept)/.test(link.name));
    expect(left.map((link) => link.name)).toEqual(['kept0', 'kept1', 'kept2']);
    expect(Math.min(...heldUp)).toBeLessThan(0.2);
  });

  test('an empty group is success', async () => {
    using background = openNamespaceSocket(own, host.path);
    await deleteLinkGroup(background.socket, 4242);
  });

  test('the socket refuses other work meanwhile, and serves again afterwards', async () => {
    using background = openNamespaceSocket(own, host.path);
    const deletion = deleteLinkGroup(background.socket, 4243);
    expect(() => listLinks(background.socket)).toThrow('busy');
    await deletion;
    expect(listLinks(background.socket).length).toBeGreaterThan(0);
  });
});

test('a closed socket says so', () => {
  const closed = openNamespaceSocket(own, host.path);
  closed.close();
  expect(() => listLinks(closed.socket)).toThrow('closed');
});

function addVethOfGroup(name: string, group: number): void {
  createVeth(
    socket,
    { name, mac: 'ee:ee:ee:ee:ee:ee', mtu: 1450 },
    { name, mac: '02:00:00:00:00:09', mtu: 1450, namespaceFd: pod.namespace.fd },
  );
  setGroup(socket, indexOf(name), group);
}

/** The longest turn of the event loop, in milliseconds. */
function measureLag(): { stop: () => Promise<number> } {
  let worst = 0;
  let running = true;
  const loop = (async () => {
    while (running) {
      const before = performance.now();
      await nextTurn();
      worst = Math.max(worst, performance.now() - before);
    }
  })();
  return {
    stop: async () => {
      running = false;
      await loop;
      return worst;
    },
  };
}
