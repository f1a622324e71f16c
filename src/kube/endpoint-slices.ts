import * as z from 'zod';
import { parseAddressInAnySpelling, type IPAddress } from '../net/index.ts';
import { startInformer, type Informer, type InformerParts } from './informer.ts';

/** One address and port at which a Service is served. */
export interface ServiceEndpoint {
  readonly address: IPAddress;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly port: number;
  /** The name of the Service's port behind which it stands; empty where the Service has but one. */
  readonly portName: string;
}

/**
 * The endpoints of one slice, also those that are not ready: they may be asked all the same.
 * @throws ZodError, InvalidAddressError
 */
export function parseEndpointSlice(object: unknown): readonly ServiceEndpoint[] {
  const { addressType, endpoints, ports } = EndpointSliceObject.parse(object);
  if (addressType === 'FQDN') return [];
  const addresses = endpoints.flatMap((endpoint) => endpoint.addresses).map(parseAddressInAnySpelling);
  return ports.flatMap(({ name, protocol, port }) =>
    port === undefined ? [] : addresses.map((address) => ({ address, protocol, port, portName: name })),
  );
}

/** Watches the EndpointSlices of one Service. */
export function watchEndpointSlices(
  parts: InformerParts,
  service: { readonly namespace: string; readonly name: string },
): Informer<readonly ServiceEndpoint[]> {
  return startInformer(parts, {
    path: `/apis/discovery.k8s.io/v1/namespaces/${service.namespace}/endpointslices`,
    labelSelector: `kubernetes.io/service-name=${service.name}`,
    parse: parseEndpointSlice,
  });
}

const EndpointSliceObject = z.object({
  addressType: z.enum(['IPv4', 'IPv6', 'FQDN']),
  endpoints: z
    .array(z.object({ addresses: z.array(z.string()) }))
    .nullish()
    .transform((endpoints) => endpoints ?? []),
  ports: z
    .array(
      z.object({
        name: z.string().default(''),
        protocol: z.enum(['TCP', 'UDP', 'SCTP']).default('TCP'),
        port: z.int().min(1).max(65_535).optional(),
      }),
    )
    .nullish()
    .transform((ports) => ports ?? []),
});
