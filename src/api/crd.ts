import * as z from 'zod';
import { GROUP, SCHEMA_REVISION, SCHEMA_REVISION_ANNOTATION, VERSION, type Resource } from './group.ts';
import { IP_ALLOCATION, IPAllocationSpec, IPAllocationStatus } from './ipallocation.ts';
import { IP_POOL, IPPoolSpec, IPPoolStatus } from './ippool.ts';
import { NODE_SUBNET, NodeSubnetSpec } from './nodesubnet.ts';
import { NAMED_BY_ADDRESS, NAMED_BY_CIDR, type Rule } from './rules.ts';

type JSONObject = Record<string, unknown>;

/** The three CustomResourceDefinitions as the apiserver takes them, generated from the schemas of this folder. */
export function customResourceDefinitions(): CustomResourceDefinition[] {
  return KINDS.map(definitionOf);
}

/** As much of a CustomResourceDefinition as its readers here need to name. */
export interface CustomResourceDefinition {
  readonly apiVersion: 'apiextensions.k8s.io/v1';
  readonly kind: 'CustomResourceDefinition';
  readonly metadata: { readonly name: string } & JSONObject;
  readonly spec: JSONObject;
}

/** What makes a kind's CRD, beside the schemas. */
interface Kind {
  readonly resource: Resource;
  readonly description: string;
  readonly spec: z.ZodType;
  readonly status?: z.ZodType;
  /** Rules over the whole object: the only place from which metadata.name can be seen. */
  readonly rules: readonly Rule[];
  readonly columns: readonly Column[];
  readonly selectable: readonly string[];
  /** Kept by the running cluster, not by a person: a backup of it would restore claims nobody has. */
  readonly runtime: boolean;
}

interface Column {
  readonly name: string;
  readonly type: 'string' | 'integer' | 'boolean' | 'date';
  readonly jsonPath: string;
  readonly description?: string;
  /** 1: shown by `-o wide` only. */
  readonly priority?: 1;
}

const AGE: Column = { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' };

const KINDS: readonly Kind[] = [
  {
    resource: IP_POOL,
    description:
      'A range of addresses for pods, written by a person: which CIDRs, in which pieces nodes claim them, and ' +
      'how their traffic leaves the cluster.',
    spec: IPPoolSpec,
    status: IPPoolStatus,
    rules: [
      {
        rule: 'self.metadata.name.size() <= 63',
        message:
          'the name of an IPPool has at most 63 characters, since NodeSubnets and IPAllocations carry it',
      },
    ],
    columns: [
      { name: 'Use', type: 'string', jsonPath: '.spec.use', priority: 1 },
      { name: 'Isolation', type: 'string', jsonPath: '.spec.isolation.mode', priority: 1 },
      { name: 'CIDRs', type: 'string', jsonPath: '.spec.cidrs' },
      { name: 'IPv4 Used', type: 'integer', jsonPath: '.status.ipv4.allocated' },
      { name: 'IPv4 Resting', type: 'integer', jsonPath: '.status.ipv4.resting' },
      { name: 'IPv4 Free', type: 'string', jsonPath: '.status.ipv4.free' },
      { name: 'IPv4 Subnets', type: 'integer', jsonPath: '.status.ipv4.nodeSubnets' },
      { name: 'IPv6 Used', type: 'integer', jsonPath: '.status.ipv6.allocated' },
      { name: 'IPv6 Resting', type: 'integer', jsonPath: '.status.ipv6.resting' },
      { name: 'IPv6 Free', type: 'string', jsonPath: '.status.ipv6.free', priority: 1 },
      { name: 'IPv6 Subnets', type: 'integer', jsonPath: '.status.ipv6.nodeSubnets' },
      { name: 'Ready', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].status' },
      {
        name: 'Reason',
        type: 'string',
        jsonPath: '.status.conditions[?(@.type=="Ready")].reason',
        priority: 1,
      },
      AGE,
    ],
    selectable: [],
    runtime: false,
  },
  {
    resource: NODE_SUBNET,
    description:
      'The piece of a pool that one node draws addresses from, named by its CIDR. Written by the weft agent of ' +
      'that node and by nobody else.',
    spec: NodeSubnetSpec,
    rules: [NAMED_BY_CIDR],
    columns: [
      { name: 'CIDR', type: 'string', jsonPath: '.spec.cidr' },
      { name: 'Pool', type: 'string', jsonPath: '.spec.pool' },
      { name: 'Node', type: 'string', jsonPath: '.spec.nodeName' },
      { name: 'Next Hops', type: 'string', jsonPath: '.spec.nextHops' },
      { name: 'Exclusive', type: 'boolean', jsonPath: '.spec.exclusive', priority: 1 },
      AGE,
    ],
    selectable: ['.spec.nodeName', '.spec.pool'],
    runtime: true,
  },
  {
    resource: IP_ALLOCATION,
    description:
      'One address in use, named by the address: creating it is claiming the address. Written by weft; ' +
      '`kubectl get ipallocations --field-selector spec.address=fd00::5` finds one by its address.',
    spec: IPAllocationSpec,
    status: IPAllocationStatus,
    rules: [NAMED_BY_ADDRESS],
    columns: [
      { name: 'Address', type: 'string', jsonPath: '.spec.address' },
      { name: 'Pool', type: 'string', jsonPath: '.spec.pool' },
      { name: 'Node', type: 'string', jsonPath: '.spec.nodeName' },
      { name: 'Namespace', type: 'string', jsonPath: '.spec.pod.namespace' },
      { name: 'Pod', type: 'string', jsonPath: '.spec.pod.name' },
      { name: 'Holder', type: 'string', jsonPath: '.spec.holder', priority: 1 },
      { name: 'Sticky', type: 'string', jsonPath: '.spec.sticky', priority: 1 },
      { name: 'Interface', type: 'string', jsonPath: '.spec.attachment.ifName', priority: 1 },
      { name: 'Container', type: 'string', jsonPath: '.spec.attachment.containerID', priority: 1 },
      {
        name: 'Released',
        type: 'date',
        jsonPath: '.status.releasedAt',
        description: 'For how long the address has been resting; empty while it is in use.',
      },
      AGE,
    ],
    selectable: [
      '.spec.address',
      '.spec.pool',
      '.spec.nodeName',
      '.spec.pod.namespace',
      '.spec.pod.name',
      '.spec.sticky',
    ],
    runtime: true,
  },
];

function definitionOf(kind: Kind): CustomResourceDefinition {
  const { resource } = kind;
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${resource.plural}.${GROUP}`,
      annotations: {
        [SCHEMA_REVISION_ANNOTATION]: String(SCHEMA_REVISION),
        // Without its CRD every object of a kind is deleted, and with the IPAllocations every lock.
        'argocd.argoproj.io/sync-options': 'Prune=false',
        'helm.sh/resource-policy': 'keep',
      },
      ...(kind.runtime ? { labels: { 'velero.io/exclude-from-backup': 'true' } } : {}),
    },
    spec: {
      group: GROUP,
      scope: 'Cluster',
      names: {
        kind: resource.kind,
        listKind: `${resource.kind}List`,
        plural: resource.plural,
        singular: resource.singular,
        categories: ['weft'],
      },
      versions: [
        {
          name: VERSION,
          served: true,
          storage: true,
          schema: { openAPIV3Schema: rootSchema(kind) },
          ...(kind.status === undefined ? {} : { subresources: { status: {} } }),
          additionalPrinterColumns: kind.columns,
          ...(kind.selectable.length === 0
            ? {}
            : { selectableFields: kind.selectable.map((jsonPath) => ({ jsonPath })) }),
        },
      ],
    },
  };
}

function rootSchema(kind: Kind): JSONObject {
  return {
    type: 'object',
    description: kind.description,
    properties: {
      apiVersion: { type: 'string' },
      kind: { type: 'string' },
      metadata: { type: 'object' },
      spec: structuralSchema(kind.spec),
      ...(kind.status === undefined ? {} : { status: structuralSchema(kind.status) }),
    },
    required: ['spec'],
    ...(kind.rules.length === 0 ? {} : { 'x-kubernetes-validations': kind.rules }),
  };
}

/** The wire side of a schema (`io: 'input'`), less what the apiserver has no use for. */
function structuralSchema(schema: z.ZodType): JSONObject {
  const generated: JSONObject = z.toJSONSchema(schema, {
    target: 'openapi-3.0',
    io: 'input',
    override: ({ jsonSchema }) => {
      // The format says it already, in words that the apiserver checks itself.
      if (jsonSchema.format === 'date-time') delete jsonSchema.pattern;
      // zod bounds every integer by what a double holds exactly; no field comes near.
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
      if (jsonSchema.type === 'integer') jsonSchema.format = 'int64';
    },
  });
  return generated;
}
