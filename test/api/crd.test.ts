import { hash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { customResourceDefinitions } from '../../src/api/crd.ts';
import { SCHEMA_REVISION } from '../../src/api/index.ts';

type Node = Record<string, unknown>;
const isNode = (value: unknown): value is Node => typeof value === 'object' && value !== null;

/** Every schema node below `schema` with its path. */
function nodesOf(schema: unknown, path = ''): [string, Node][] {
  if (!isNode(schema)) return [];
  const properties = isNode(schema.properties) ? Object.entries(schema.properties) : [];
  const below = properties.flatMap(([name, child]) => nodesOf(child, `${path}.${name}`));
  const values = nodesOf(schema.additionalProperties, `${path}{}`);
  return [[path, schema], ...below, ...values, ...nodesOf(schema.items, `${path}[]`)];
}

function rootSchemaOf(definition: { spec: Node }): unknown {
  const [version] = definition.spec.versions as { schema: { openAPIV3Schema: unknown } }[];
  return version?.schema.openAPIV3Schema;
}

it('has a revision of its own: who changes a schema raises SCHEMA_REVISION and pins what it is now', () => {
  const schemas = customResourceDefinitions().map(rootSchemaOf);
  const digest = hash('sha256', JSON.stringify(schemas), 'hex').slice(0, 16);
  expect({ revision: SCHEMA_REVISION, digest }).toEqual({ revision: 5, digest: 'e840798d3e49be61' });
});

describe.each(
  customResourceDefinitions().map((definition) => [definition.metadata.name, definition] as const),
)('the CRD %s', (_name, definition) => {
  it('is structural: every node has a type, and none has what zod alone understands', () => {
    for (const [path, node] of nodesOf(rootSchemaOf(definition))) {
      expect(typeof node.type, path).toBe('string');
      for (const key of ['anyOf', 'oneOf', '$ref', 'const']) expect(node, path).not.toHaveProperty(key);
      // A map names the type of its values; `false`, which zod writes for objects without others, is refused.
      expect(node.additionalProperties, path).not.toBe(false);
    }
  });

  it('bounds every string and list of its spec, so that the cost of CEL rules is bounded', () => {
    for (const [path, node] of nodesOf(rootSchemaOf(definition))) {
      if (!path.startsWith('.spec')) continue;
      if (node.type === 'string' && node.enum === undefined) expect(node, path).toHaveProperty('maxLength');
      if (node.type === 'array') expect(node, path).toHaveProperty('maxItems');
    }
  });

  it('is kept when a deployment tool cleans up, and carries the revision of its schema', () => {
    expect(definition.metadata.annotations).toEqual({
      'ipam.weft.dev/schema-revision': String(SCHEMA_REVISION),
      'argocd.argoproj.io/sync-options': 'Prune=false',
      'helm.sh/resource-policy': 'keep',
    });
  });
});
