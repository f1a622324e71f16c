import { beforeEach, describe, expect, test } from 'vitest';
import { createAlarm, type Alarm } from '../../src/agent/alarm.ts';
import type { LiveAttachment } from '../../src/ipam/index.ts';
import type { EventRecord } from '../../src/kube/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import { allocationOf, attachmentOf } from '../ipam/objects.ts';

let events: EventRecord[];
let alarm: Alarm;

beforeEach(() => {
  events = [];
  alarm = createAlarm(
    { record: (event) => events.push(event) },
    {
      node: () => ({ name: 'n1', uid: 'uid-n1' }),
      podOf: (uid) => (uid === 'pod-1' ? { namespace: 'shop', name: 'web-0', uid } : undefined),
    },
  );
});

const address = parseAddress('10.0.0.5');
const attachment: LiveAttachment = {
  containerID: 'c1',
  ifName: 'eth0',
  network: 'weft',
  addresses: [address],
  podUID: 'pod-1',
  linkIndex: 7,
  complete: true,
};

test('limits that this node cannot keep are an Event on the Node', () => {
  alarm.noBandwidth('no ifb');
  expect(events).toMatchObject([
    {
      object: { kind: 'Node', uid: 'uid-n1' },
      type: 'Warning',
      reason: 'NoBandwidthLimits',
      message: 'no ifb',
    },
  ]);
});

test('what was put back is an Event on the Node that names it, and not too much of it', () => {
  alarm.repaired(['route 10.0.1.0/26', 'table inet weft']);
  alarm.repaired(Array.from({ length: 500 }, (_, i) => `route ${i}`));
  expect(events.map(({ object, reason }) => [object.kind, object.uid, reason])).toEqual([
    ['Node', 'uid-n1', 'NetworkRepaired'],
    ['Node', 'uid-n1', 'NetworkRepaired'],
  ]);
  expect(events[0]?.message).toContain('route 10.0.1.0/26; table inet weft');
  expect(events[1]?.message).toMatch(/route 9; and 490 more$/);
});

test('what the sweep freed and made again is an Event each, that names the addresses', () => {
  alarm.swept({ released: ['10.0.0.5', '10.0.0.6'], readopted: [] });
  alarm.swept({ released: [], readopted: ['10.0.0.7'] });
  expect(events).toMatchObject([
    {
      object: { kind: 'Node', uid: 'uid-n1' },
      type: 'Normal',
      reason: 'AddressesReclaimed',
      message: 'addresses were freed whose sandboxes are gone without a DEL: 10.0.0.5; 10.0.0.6',
    },
    {
      object: { kind: 'Node', uid: 'uid-n1' },
      type: 'Warning',
      reason: 'AllocationsRecovered',
      message: 'living pods had lost their IPAllocations, which were made again: 10.0.0.7',
    },
  ]);
});

test('what GC took down is an Event on the Node', () => {
  alarm.collected(['interface eth0 of container c1']);
  expect(events).toMatchObject([
    { object: { kind: 'Node', uid: 'uid-n1' }, type: 'Normal', reason: 'AttachmentsCollected' },
  ]);
  expect(events[0]?.message).toContain('they were freed: interface eth0 of container c1');
});

test('what this node lacks is a Warning on its Node, with the reason', () => {
  alarm.subnetRecovered(parseCIDR('10.0.0.0/26'));
  alarm.noSubnet('blue', 'no /26 is free in its CIDRs');
  alarm.broken(61_400, 'InternalIP 192.0.2.1 is on no link');
  expect(events.map(({ object, type, reason }) => [object.kind, type, reason])).toEqual([
    ['Node', 'Warning', 'SubnetRecovered'],
    ['Node', 'Warning', 'NoNodeSubnet'],
    ['Node', 'Warning', 'NetworkBroken'],
  ]);
  expect(events.map(({ message }) => message)).toEqual([
    '10.0.0.0/26, in which pods of this node live, had lost its NodeSubnet, which was made again',
    'pods get no address of IPPool blue on this node, which has no subnet of it: no /26 is free in its CIDRs',
    'routes and filters of this node have not been right for 61 s: InternalIP 192.0.2.1 is on no link',
  ]);
});

test('a firewall that drops what pods send is said with what to run', () => {
  const pools = ['10.0.0.0/16', 'fd00::/64'].map(parseCIDR);
  alarm.foreignDrop(['inet firewalld filter_FORWARD'], pools);
  alarm.foreignDrop(['inet mine forward'], pools);
  expect(events.map(({ reason }) => reason)).toEqual(['ForeignFirewall', 'ForeignFirewall']);
  expect(events[0]?.message).toContain(
    'Run: firewall-cmd --permanent --zone=trusted --add-interface=vxlan.weft --add-source=10.0.0.0/16 ' +
      '--add-source=fd00::/64 && firewall-cmd --permanent --add-port=4789/udp && firewall-cmd --reload',
  );
  expect(events[1]?.message).toMatch(/let the links weft\* and vxlan\.weft through it$/);
});

test('where DNS is served and nobody can read it, is an Event on the Node', () => {
  alarm.dnsUnsure('the EndpointSlices cannot be read');
  expect(events).toMatchObject([
    { object: { kind: 'Node', uid: 'uid-n1' }, type: 'Warning', reason: 'DNSServersUnsure' },
  ]);
  expect(events[0]?.message).toBe('the EndpointSlices cannot be read');
});

describe('a conflict', () => {
  test("is an Event on the sandbox's pod and on the pod that owns the address", () => {
    const allocation = allocationOf('10.0.0.5', {
      attachment: attachmentOf('c2'),
      nodeName: 'n2',
      pod: { namespace: 'shop', name: 'db-0', uid: 'pod-2' },
    });
    alarm.conflict({ address, attachment, allocation });
    expect(events.map(({ object }) => [object.kind, object.namespace, object.name, object.uid])).toEqual([
      ['Pod', 'shop', 'web-0', 'pod-1'],
      ['Pod', 'shop', 'db-0', 'pod-2'],
    ]);
    expect(events[0]?.message).toContain('10.0.0.5, which by the book belongs to pod shop/db-0');
    expect(events[1]?.message).toContain('10.0.0.5 is on interface eth0 of container c1 on node n1, too');
  });

  test('is one on the allocation where its pod is not known, and one on the Node where the sandbox’s is not', () => {
    const allocation = allocationOf('10.0.0.5', { holder: 'a printer' });
    alarm.conflict({ address, attachment: { ...attachment, podUID: 'unknown' }, allocation });
    expect(events.map(({ object }) => [object.kind, object.name])).toEqual([
      ['Node', 'n1'],
      ['IPAllocation', '10.0.0.5'],
    ]);
  });

  test('with a sandbox whose pod is gone does not ask anybody to delete a pod: its namesake may live', () => {
    const pod = { namespace: 'shop', name: 'web-0', uid: 'pod-2' };
    const allocation = allocationOf('10.0.0.5', { attachment: attachmentOf('c2'), nodeName: 'n2', pod });
    alarm.conflict({ address, attachment: { ...attachment, podUID: 'gone' }, allocation });
    expect(events.map(({ object }) => [object.kind, object.uid])).toEqual([
      ['Node', 'uid-n1'],
      ['Pod', 'pod-2'],
    ]);
    for (const { message } of events) {
      expect(message).toContain('interface eth0 of container c1 on node n1');
      expect(message).toContain('end that sandbox');
      expect(message).not.toContain('delete');
    }
  });

  test('with no pool is told to the pod alone', () => {
    alarm.conflict({ address, attachment });
    expect(events.map(({ object, message }) => [object.name, message.includes('in no IPPool')])).toEqual([
      ['web-0', true],
    ]);
  });
});

test('what the node does without is an Event on the Node for each cause, and the end of it is none', () => {
  alarm.unmet({ notes: ['no route to 10.0.2.0/26: x'], refused: [] });
  alarm.unmet({ notes: [], refused: Array.from({ length: 50 }, (_, i) => `set neighbour ${i}: ENOSPC`) });
  alarm.unmet({ notes: [], refused: [] });
  expect(events.map(({ object, type, reason }) => [object.uid, type, reason])).toEqual([
    ['uid-n1', 'Warning', 'NodesUnreachable'],
    ['uid-n1', 'Warning', 'NetworkRefused'],
  ]);
  expect(events[0]?.message).toContain('no route to 10.0.2.0/26: x');
  expect(events[1]?.message).toContain('set neighbour 0: ENOSPC');
  expect(events[1]?.message).toContain('and 40 more');
});
