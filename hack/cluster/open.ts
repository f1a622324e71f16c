import { join } from 'node:path';
import { execa } from 'execa';
import { findFabric } from './fabric.ts';
import { nodeCommand } from './node.ts';
import { entering, joining, openParts } from './parts.ts';
import { planCluster, type Plan } from './plan.ts';
import type { ProcessRecord } from './processes.ts';
import { readState, stateDirectory } from './state.ts';

/** A running cluster, for tests, demo and benchmark. */
export type Cluster = {
  readonly name: string;
  readonly plan: Plan;
  /** The names of the nodes, node-1 first. */
  readonly nodes: readonly string[];
  /** For a member of system:masters, from the host. */
  readonly kubeconfig: string;
  /** Holds kubectl, cnitool and ctr. */
  readonly programs: string;
  /** Where states, logs (logs/NODE.kubelet.log, …) and images are. */
  readonly directory: string;
  /** kubectl against this cluster; answers stdout. */
  kubectl(args: readonly string[], input?: string): Promise<string>;
  /**
   * The command line that runs `command` in a node, or in `router`, `control-plane` or `fabric`, for callers that
   * start it themselves. Its processes end with the cluster.
   */
  commandOn(place: string, command: readonly string[]): Promise<[string, ...string[]]>;
  /** Runs a command there and answers stdout; throws execa's error if it fails. */
  execOnNode(place: string, command: readonly string[], input?: string): Promise<string>;
  /** Imports an OCI or docker archive into the containerd of the nodes, of all if none are named. */
  importImage(archive: string, nodes?: readonly string[]): Promise<void>;
};

/** Opens a cluster that is up. Throws ClusterNotUpError. */
export async function openCluster(name: string): Promise<Cluster> {
  const state = await readState(name);
  if (state === undefined) throw new ClusterNotUpError(name, `there is no cluster ${name}`);
  const directory = stateDirectory(name);
  const parts = openParts(directory, state.cgroup);
  const plan = planCluster(state.options);
  const kubeconfig = join(directory, 'kubeconfig');
  const programs = join(directory, 'bin');

  const commandOn = async (place: string, command: readonly string[]) => {
    if (plan.nodes.some((node) => node.name === place)) {
      const holder = await parts.find(place);
      if (holder === undefined) throw new ClusterNotUpError(name, `${place} is off`);
      return nodeCommand(state, place, holder, command);
    }
    const fabric = await findFabric(parts);
    if (fabric === undefined) throw new ClusterNotUpError(name, 'its network is down');
    const places = { fabric: fabric.bridges, router: fabric.router, 'control-plane': fabric.controlPlane };
    const holder = Object.entries(places).find(([known]) => known === place)?.[1];
    if (holder === undefined) throw new NoSuchPlaceError(place, [...nodes, ...Object.keys(places)]);
    return joining(join(state.cgroup, 'fabric'), [...entering(holder, ['net']), ...command]);
  };
  const nodes = plan.nodes.map((node) => node.name);

  return {
    ...{ name, plan, nodes, kubeconfig, programs, directory, commandOn },
    async kubectl(args, input) {
      const options = { env: { KUBECONFIG: kubeconfig }, ...(input === undefined ? {} : { input }) };
      return (await execa(join(programs, 'kubectl'), args, options)).stdout;
    },
    async execOnNode(place, command, input) {
      const [program, ...args] = await commandOn(place, command);
      return (await execa(program, args, input === undefined ? {} : { input })).stdout;
    },
    async importImage(archive, on = nodes) {
      await Promise.all(
        on.map(async (node) => {
          const holder = await parts.find(node);
          if (holder === undefined) throw new ClusterNotUpError(name, `${node} is off`);
          await importImageInto(state, node, holder, archive);
        }),
      );
    },
  };
}

/** Streams the archive, which the node itself may not see, into its containerd. */
export async function importImageInto(
  context: { readonly cgroup: string },
  nodeName: string,
  holder: ProcessRecord,
  archive: string,
): Promise<void> {
  const load = ['ctr', '--namespace', 'k8s.io', 'images', 'import', '-'];
  const [command, ...args] = await nodeCommand(context, nodeName, holder, load);
  await execa(command, args, { inputFile: archive });
}

export class ClusterNotUpError extends Error {
  override name = 'ClusterNotUpError' as const;
  constructor(name: string, reason: string) {
    super(`${reason}; npm run cluster -- up --name ${name} makes or repairs it`);
  }
}

export class NoSuchPlaceError extends Error {
  override name = 'NoSuchPlaceError' as const;
  constructor(value: string, places: readonly string[]) {
    super(`there is no ${JSON.stringify(value)} in this cluster; there are ${places.join(', ')}`);
  }
}
