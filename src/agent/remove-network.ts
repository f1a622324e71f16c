import { desiredNodeState, FILTER_TABLE, HOLD_TABLE } from '../dataplane/index.ts';
import {
  applyNft,
  applyRoutes,
  deleteLink,
  deleteLinkGroup,
  describeRoute,
  DYING_LINK_GROUP,
  ensureAccepted,
  findPodLinks,
  HOST_LINK_MAC,
  listLinks,
  listNftTable,
  listRoutes,
  ROUTE_PROTOCOL,
  type CommandRunner,
  type NetlinkSocket,
} from '../kernel/index.ts';
import { applyNodeState } from './node-state.ts';

/** Deletes the links of pods that have gone: the dying, and those that an ADD has left half-made. Returns what went. */
export async function removeDeadLinks(host: NetlinkSocket): Promise<string[]> {
  const dying = listLinks(host).filter(({ group }) => group === DYING_LINK_GROUP);
  if (dying.length > 0) await deleteLinkGroup(host, DYING_LINK_GROUP);
  const halfMade = findPodLinks(host)
    .filter(({ link, attachment }) => attachment === undefined && link.mac === HOST_LINK_MAC)
    .filter(({ link }) => deleteLink(host, link.index));
  return [...dying, ...halfMade.map(({ link }) => link)].map(({ name }) => `link ${name}`);
}

/**
 * Takes everything out of the kernel that has weft's mark, and nothing else: what a node has that knows of no pool, by
 * the same comparison that keeps a node as the objects say. Can be repeated after any of its steps. Returns what went.
 * @throws CommandError, NetlinkError or an AggregateError of what the kernel refused; all else is gone
 */
export async function removeNetwork(host: NetlinkSocket, run: CommandRunner): Promise<string[]> {
  const removed: string[] = [];
  const { changes, errors, refused } = await applyNodeState(host, STATE_OF_NOTHING, {
    beforeRemovingSubnetRoute: () => 'remove',
    beforeRemovals: () => undefined,
    keepDevice: false,
  });
  removed.push(...changes.map(({ object }) => object));
  const routes = listRoutes(host, { protocol: ROUTE_PROTOCOL.weftPod });
  await applyRoutes(host, { add: [], remove: routes });
  removed.push(...routes.map((route) => `route ${describeRoute(route)}`));
  const accepted = await ensureAccepted(NO_TRAFFIC, { run, ownTable: FILTER_TABLE });
  removed.push(...accepted.removed);
  // The filters go last: nothing is forwarded for pods any more that they would have kept apart.
  for (const name of [HOLD_TABLE, FILTER_TABLE]) {
    const table = { family: 'inet', name } as const;
    if ((await listNftTable(run, table)) === undefined) continue;
    await applyNft(run, { nftables: [{ delete: { table } }] });
    removed.push(`table ${table.family} ${table.name}`);
  }
  const failures = [...errors, ...refused];
  if (failures.length > 0) {
    throw new AggregateError(failures, failures.map(({ message }) => message).join('; '));
  }
  return removed;
}

const NO_TRAFFIC = { vxlan: undefined, families: [], forwarded: [] } as const;

const STATE_OF_NOTHING = desiredNodeState({
  node: { name: '', uid: '', addresses: [] },
  uplinks: {},
  kernelFamilies: [],
  pools: [],
  subnets: [],
  dnsServers: [],
  config: { vni: 1, port: 1, natExempt: [] },
});
