import { afterEach, expect, test } from 'vitest';
import type { PodRules } from '../../src/dataplane/index.ts';
import {
  createPodLink,
  deleteLink,
  dyingPodLink,
  findPodLinks,
  hasPodRules,
  readPodRules,
  recordPodRules,
  TooManyPodRulesError,
} from '../../src/kernel/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import { useThrowaways } from './throwaway.ts';

/** What attachments have of their own in the filters is recorded on their links. */

const { make } = useThrowaways();
const host = make('host');
const pod = make('pod');
const { socket } = host.namespace;

afterEach(() => {
  for (const { link } of findPodLinks(socket)) deleteLink(socket, link.index);
});

const RULES: PodRules = {
  hostPorts: [
    {
      protocol: 'tcp',
      hostPort: 65_535,
      hostAddress: parseAddress('2001:db8:1111:2222:3333:4444:5555:6666'),
      podAddress: parseAddress('fd64:aaaa:bbbb:cccc:dddd:eeee:ffff:1234'),
      podPort: 65_535,
    },
    {
      protocol: 'udp',
      hostPort: 1,
      hostAddress: undefined,
      podAddress: parseAddress('10.64.0.5'),
      podPort: 80,
    },
    {
      protocol: 'sctp',
      hostPort: 9,
      hostAddress: parseAddress('192.0.2.1'),
      podAddress: parseAddress('10.64.0.5'),
      podPort: 9,
    },
  ],
  allowedSources: ['192.168.0.0/16', 'fd99::/48', '203.0.113.7/32'].map(parseCIDR),
};

test('what is recorded is read again, the oldest link first', () => {
  const [first, second] = [link('a'), link('b')];
  recordPodRules(socket, second.hostIndex, { hostPorts: [], allowedSources: RULES.allowedSources });
  recordPodRules(socket, first.hostIndex, RULES);
  expect(readPodRules(socket)).toEqual([
    { linkName: first.hostName, ...RULES },
    { linkName: second.hostName, hostPorts: [], allowedSources: RULES.allowedSources },
  ]);
});

test('the same port of another link can be recorded beside it, also while that one dies', () => {
  const [first, second] = [link('a'), link('b')];
  recordPodRules(socket, first.hostIndex, RULES);
  dyingPodLink(socket, pod.namespace, first.hostName);
  recordPodRules(socket, second.hostIndex, RULES);
  expect(readPodRules(socket).map(({ linkName }) => linkName)).toEqual([second.hostName]);
  host.sh(`ip link delete xweft${first.hostIndex}`);
});

test('names that others gave to the link say nothing', () => {
  const { hostName } = link('a');
  for (const name of [
    'wport_1_tcp_0_any_10.0.0.1_80',
    'wport_x',
    'wsource_1_10.0.0.0',
    'wsource_1_x_8',
    'mine',
  ]) {
    host.sh(`ip link property add dev ${hostName} altname ${name}`);
  }
  expect(readPodRules(socket)).toEqual([{ linkName: hostName, hostPorts: [], allowedSources: [] }]);
});

test('as many as may be are recorded, and one more is an error', () => {
  const { hostIndex, hostName } = link('a');
  const many = (count: number) => ({
    hostPorts: Array.from({ length: count }, (_, index) => ({
      protocol: 'tcp' as const,
      hostPort: 10_000 + index,
      hostAddress: parseAddress('2001:db8:1111:2222:3333:4444:5555:6666'),
      podAddress: parseAddress('fd64:aaaa:bbbb:cccc:dddd:eeee:ffff:1234'),
      podPort: 10_000 + index,
    })),
    allowedSources: [],
  });
  expect(() => recordPodRules(socket, hostIndex, many(129))).toThrow(TooManyPodRulesError);
  expect(findPodLinks(socket).some((found) => hasPodRules(found.link))).toBe(false);
  recordPodRules(socket, hostIndex, many(128));
  expect(readPodRules(socket)).toEqual([{ linkName: hostName, ...many(128) }]);
});

function link(containerID: string) {
  return createPodLink(socket, pod.namespace, { containerID, ifName: `eth-${containerID}`, mtu: 1500 });
}
