import { join } from 'node:path';
import { execa } from 'execa';
import { ensureBinaries } from '../../hack/cluster/binaries.ts';

/** Where the agent's init container puts weft, under both its names. */
export const HOST_BINARIES = '/opt/cni/bin';

/** A call to one of the reference plugins, as a runtime makes it. */
export interface PluginCall {
  readonly command: 'ADD' | 'CHECK' | 'DEL' | 'STATUS';
  readonly config: { readonly type: string };
  readonly containerID?: string;
  readonly ifName?: string;
  readonly netns?: string;
  readonly args?: string | undefined;
}

export interface PluginResult {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly answer: PluginAnswer;
}

/** What the tests read of a result or an error object. */
export interface PluginAnswer {
  readonly code?: number;
  readonly msg?: string;
  readonly interfaces?: readonly { readonly name: string; readonly sandbox?: string }[];
  readonly ips?: readonly { readonly address: string; readonly gateway?: string }[];
  readonly routes?: readonly { readonly dst: string; readonly gw?: string }[];
}

/** The reference plugins, which find weft-ipam in the host's directory. */
export interface ReferencePlugins {
  call(call: PluginCall): Promise<PluginResult>;
}

/** Installs weft's executable as the agent's init container does, and makes sure that the plugins are there. */
export async function installPlugins(checkout: string): Promise<ReferencePlugins> {
  await execa('node', [join(checkout, 'dist/agent.mjs'), 'install', `--cni-bin-dir=${HOST_BINARIES}`]);
  const directory = await ensureBinaries(['bridge', 'ptp', 'macvlan']);
  return {
    async call({ command, config, containerID, ifName = 'eth0', netns, args }) {
      const attachment =
        containerID === undefined ? {} : { CNI_CONTAINERID: containerID, CNI_IFNAME: ifName };
      const { exitCode, stdout } = await execa(join(directory, config.type), [], {
        input: JSON.stringify(config),
        env: {
          CNI_COMMAND: command,
          CNI_PATH: `${HOST_BINARIES}:${directory}`,
          ...attachment,
          ...(netns === undefined ? {} : { CNI_NETNS: netns }),
          ...(args === undefined ? {} : { CNI_ARGS: args }),
        },
        extendEnv: false,
        reject: false,
      });
      return { exitCode, stdout, answer: stdout === '' ? {} : (JSON.parse(stdout) as PluginAnswer) };
    },
  };
}
