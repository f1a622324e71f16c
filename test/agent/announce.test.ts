import { expect, test } from 'vitest';
import { createAnnounce } from '../../src/agent/announce.ts';
import { NoPoolError } from '../../src/ipam/index.ts';
import type { EventRecord } from '../../src/kube/index.ts';
import { poolOf } from '../ipam/objects.ts';

const refusal = new NoPoolError([{ pool: 'blue', reason: 'it is disabled' }], {
  nodeName: 'n1',
  namespace: 'shop',
});

test('a refusal is an Event on the pod, under the UID that the apiserver knows', () => {
  const events: EventRecord[] = [];
  const announce = createAnnounce({ record: (event) => events.push(event) }, () => 'mirror');
  announce.refused({ namespace: 'shop', name: 'web-0', uid: 'hash' }, refusal);
  const object = { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'web-0', uid: 'mirror' };
  expect(events).toEqual([{ object, type: 'Warning', reason: 'NoIPPool', message: refusal.message }]);
});

test('so is an address from the next pool', () => {
  const events: EventRecord[] = [];
  const announce = createAnnounce({ record: (event) => events.push(event) }, () => undefined);
  const pod = { namespace: 'shop', name: 'web-0', uid: 'u' };
  announce.overflowed(pod, poolOf('b', { cidrs: ['10.0.0.0/16'] }), new Error('IPPool a is full'));
  expect(events[0]?.object.uid).toBe('u');
  expect(events[0]?.message).toBe('the pod has an address of IPPool b: IPPool a is full');
});

test('so is a wish that is not granted', () => {
  const events: EventRecord[] = [];
  const announce = createAnnounce({ record: (event) => events.push(event) }, () => undefined);
  announce.notGranted({ namespace: 'shop', name: 'web-0', uid: 'u' }, 'no StatefulSet made it');
  expect(events[0]).toMatchObject({
    type: 'Warning',
    reason: 'IPAddressNotKept',
    message: 'no StatefulSet made it',
  });
});

test('nobody is told where there is no pod, or none that can be named', () => {
  const events: EventRecord[] = [];
  const announce = createAnnounce({ record: (event) => events.push(event) }, () => undefined);
  announce.refused(undefined, refusal);
  announce.refused({ namespace: 'shop', name: 'web-0' }, refusal);
  expect(events).toEqual([]);
});
