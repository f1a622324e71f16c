import { join } from 'node:path';
import { writeKubeconfig } from './certificates.ts';
import { apiserverCommand, apiserverReady, etcdCommand, type ControlPlaneLayout } from './control-plane.ts';
import type { NodeContext } from './node.ts';
import { entering } from './parts.ts';

const GROUP = 'control-plane-servers';

/** Starts etcd and kube-apiserver where they are not running, and waits until the apiserver is ready. */
export async function startStore(context: NodeContext, url: string): Promise<void> {
  const { controlPlane, serviceCidrs } = context.plan;
  const layout: ControlPlaneLayout = {
    dir: join(context.directory, 'control-plane'),
    binaries: context.binaries,
    address: controlPlane.ipv4,
    ports: { client: 2379, peer: 2380, api: controlPlane.port },
    serviceCidrs,
    durable: true,
    extraApiserverArgs: [],
  };
  const etcd = await server(context, 'etcd', etcdCommand(layout).args);
  const apiserver = await server(
    context,
    'kube-apiserver',
    apiserverCommand(layout, context.credentials).args,
  );
  await apiserverReady(url, [etcd, apiserver], layout.dir);
}

/** Starts kube-controller-manager and kube-scheduler where they are not running. */
export async function startControllers(context: NodeContext): Promise<void> {
  const { authority, serviceAccount } = context.credentials;
  const { controlPlane } = context.plan;
  const kubeconfigOf = async (name: string) => {
    const user = await authority.issue({ name, commonName: `system:${name}` });
    const url = `https://${controlPlane.ipv4}:${controlPlane.port}`;
    return writeKubeconfig(
      join(context.directory, 'control-plane', `${name}.kubeconfig`),
      url,
      authority,
      user,
    );
  };
  await server(context, 'kube-controller-manager', [
    `--kubeconfig=${await kubeconfigOf('kube-controller-manager')}`,
    // Node CIDRs are weft's business.
    '--allocate-node-cidrs=false',
    '--use-service-account-credentials=true',
    `--service-account-private-key-file=${serviceAccount.privateFile}`,
    `--root-ca-file=${authority.certificateFile}`,
    '--leader-elect=false',
  ]);
  await server(context, 'kube-scheduler', [
    `--kubeconfig=${await kubeconfigOf('kube-scheduler')}`,
    '--leader-elect=false',
  ]);
}

async function server(context: NodeContext, name: string, args: readonly string[]) {
  const [command = 'nsenter', ...enter] = entering(context.fabric.controlPlane, ['net']);
  const path = join(context.binaries, name);
  const { record } = await context.parts.ensure({
    name,
    group: GROUP,
    command,
    args: [...enter, path, ...args],
  });
  return record;
}
