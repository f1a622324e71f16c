import { FAMILIES, formatAddress, type IPAddress } from '../net/index.ts';

/** What on a node still works by weft while no agent runs any more. */
export interface StillUsed {
  /** The addresses of living pods' interfaces, as their links record them. */
  readonly pods: readonly Readonly<Partial<Record<'ipv4' | 'ipv6', IPAddress>>>[];
  /** Network configurations of others that name one of weft's executables. */
  readonly configurations: readonly string[];
}

/**
 * Why a node cannot be cleared of weft yet; undefined where it can. A pod's interface is not taken from under it, and
 * its DEL needs the executable and a network configuration that names it: without one containerd refuses to remove the
 * pod (F34).
 */
export function whyStillUsed({ pods, configurations }: StillUsed): string | undefined {
  const reasons = [
    ...(pods.length === 0 ? [] : [podReason(pods)]),
    ...(configurations.length === 0
      ? []
      : [
          `${configurations.join(', ')} still names weft's executables: remove it, or give it another plugin`,
        ]),
  ];
  return reasons.length === 0 ? undefined : reasons.join('; ');
}

function podReason(pods: StillUsed['pods']): string {
  const shown = pods.slice(0, MOST_SHOWN).map((addresses) =>
    FAMILIES.flatMap((family) => addresses[family] ?? [])
      .map(formatAddress)
      .join(' and '),
  );
  const more = pods.length > MOST_SHOWN ? ` and ${pods.length - MOST_SHOWN} more` : '';
  const subject = pods.length === 1 ? '1 interface of a pod lives' : `${pods.length} interfaces of pods live`;
  return (
    `${subject} on this node (${shown.join(', ')}${more}): delete these pods, or drain the node; ` +
    `"kubectl get pods -A -o wide" shows whose addresses they are`
  );
}

const MOST_SHOWN = 10;
