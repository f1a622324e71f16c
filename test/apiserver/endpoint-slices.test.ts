import { afterEach, expect, it } from 'vitest';
import { watchEndpointSlices, type Informer } from '../../src/kube/index.ts';
import { formatAddress } from '../../src/net/index.ts';
import { informerParts, useApiserver } from './apiserver.ts';

const SLICES = '/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices';
const server = useApiserver();
const running = new Set<Informer<unknown>>();

afterEach(async () => {
  for (const informer of running) await informer.stop();
  running.clear();
});

function slice(name: string, service: string, addresses: readonly string[]): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, labels: { 'kubernetes.io/service-name': service } },
    addressType: addresses[0]?.includes(':') === true ? 'IPv6' : 'IPv4',
    endpoints: addresses.map((address) => ({ addresses: [address] })),
    ports: [{ name: 'dns', port: 53, protocol: 'UDP' }],
  };
}

it('the slices of one Service are followed, and no others', async () => {
  const { client } = server();
  const create = (body: object) => client.request({ method: 'POST', path: SLICES, body });
  await create(slice('kube-dns-a', 'kube-dns', ['10.0.0.5', '10.0.0.6']));
  await create(slice('other-a', 'other', ['10.0.0.7']));
  const informer = watchEndpointSlices(informerParts(client), { namespace: 'kube-system', name: 'kube-dns' });
  running.add(informer);
  await informer.synced;
  const listed = () =>
    informer
      .list()
      .flat()
      .map(
        ({ address, protocol, port, portName }) =>
          `${formatAddress(address)} ${protocol} ${port} ${portName}`,
      )
      .sort();
  expect(listed()).toEqual(['10.0.0.5 UDP 53 dns', '10.0.0.6 UDP 53 dns']);

  const within = AbortSignal.timeout(10_000);
  await create(slice('kube-dns-b', 'kube-dns', ['fd00::5']));
  await create(slice('other-b', 'other', ['fd00::7']));
  await client.request({ method: 'DELETE', path: `${SLICES}/kube-dns-a` });
  await informer.waitFor(() => listed().join() === 'fd00::5 UDP 53 dns', within);
});
