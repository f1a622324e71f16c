import type { HostPort } from '../dataplane/index.ts';
import { formatAddress, type IPAddress } from '../net/index.ts';
import { CommandError, type CommandRunner } from './command.ts';
import { listAddresses } from './rtnetlink/addresses.ts';
import type { NetlinkSocket } from './rtnetlink/socket.ts';

/**
 * Makes the kernel forget flows of UDP to these ports of the node. A flow is translated, or not, by its first packet:
 * one that began before the port led to this pod would go on to nobody, or to the pod before it, for as long as packets
 * come. TCP ends by itself.
 * @throws CommandError
 */
export async function forgetHostPortFlows(
  host: NetlinkSocket,
  run: CommandRunner,
  hostPorts: readonly HostPort[],
): Promise<void> {
  const udp = hostPorts.filter(({ protocol }) => protocol === 'udp');
  if (udp.length === 0) return;
  const own = listAddresses(host).map(({ address }) => address);
  for (const port of udp) {
    const { family } = port.podAddress;
    const addresses = own.filter(
      (address) =>
        address.family === family &&
        (port.hostAddress === undefined || address.value === port.hostAddress.value),
    );
    for (const address of addresses) await forget(run, port.hostPort, address);
  }
}

async function forget(run: CommandRunner, port: number, address: IPAddress): Promise<void> {
  const to = ['--orig-dst', formatAddress(address), '--orig-port-dst', String(port)];
  try {
    await run('conntrack', ['-D', '-f', address.family, '-p', 'udp', ...to]);
  } catch (error) {
    // So it says that there was none.
    if (error instanceof CommandError && error.stderr.includes('0 flow entries')) return;
    throw error;
  }
}
