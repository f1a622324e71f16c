import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { desiredNodeState, renderFilter, type HostPort } from '../../src/dataplane/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import { input, pool, subnet } from './objects.ts';

const DOCUMENT = join(import.meta.dirname, '../../docs/datapath.md');

it('are all that a node with everything has: docs/datapath.md shows each of its rules and chains', async () => {
  const text = await readFile(DOCUMENT, 'utf8');
  const pools = [
    pool('main', ['10.64.0.0/16', 'fd64::/64']),
    pool('tenant', ['10.65.0.0/16'], { isolation: { mode: 'Isolated', peers: [], dns: true } }),
    pool('bridge', ['10.66.0.0/16'], { use: 'Bridge' }),
  ];
  const { filter } = desiredNodeState(
    input({
      pools,
      subnets: [
        subnet('10.64.0.0/26', 'a', ['192.168.1.1']),
        subnet('10.66.0.0/26', 'a', ['192.168.1.1'], { pool: 'bridge' }),
      ],
    }),
  );
  const hostPort = { protocol: 'tcp', hostPort: 8080, podAddress: parseAddress('10.64.0.1'), podPort: 80 };
  const attachment = {
    linkName: 'weft0',
    hostPorts: [{ ...hostPort, hostAddress: undefined }] as readonly HostPort[],
    allowedSources: [parseCIDR('192.168.10.0/24')],
  };
  const added = renderFilter(filter, [attachment]).nftables.flatMap((command) =>
    'add' in command ? [command.add as Added] : [],
  );
  const rules = added.flatMap(({ rule }) => rule?.comment ?? []);
  const chains = added.flatMap(({ chain }) => chain?.name ?? []);
  expect(rules).toContain('isolated from each other');
  expect(rules.filter((comment) => !text.includes(`comment "${comment}"`))).toEqual([]);
  // Tenants' chains differ by their number alone.
  const shown = chains.filter((name) => !/^tenant\d$/.test(name));
  expect(shown.filter((name) => !text.includes(`chain ${name} {`))).toEqual([]);
});

interface Added {
  readonly rule?: { readonly comment?: string };
  readonly chain?: { readonly name: string };
}
