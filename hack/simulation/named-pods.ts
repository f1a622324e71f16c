import type { AttachmentKey } from '../../src/ipam/index.ts';
import type { PodReference } from '../../src/api/index.ts';

/** A pod that is made again and again under one name, as a StatefulSet or a person makes it. */
export interface PodIdentity {
  readonly namespace: string;
  readonly name: string;
  readonly annotations: Readonly<Record<string, string>>;
  /** The StatefulSet that makes it. */
  readonly statefulSet?: string;
  /** The addresses that it must have, if it has any. */
  readonly fixed?: readonly string[];
}

/** A pod that is there: at most one of its name, as the apiserver has it. */
export interface NamedPod {
  readonly identity: PodIdentity;
  readonly reference: PodReference;
  /** How many interfaces it has, or is getting. */
  interfaces: number;
}

/** What a node runs: an interface of a sandbox, of a pod with a name or of one that nobody knows. */
export interface Running {
  readonly key: AttachmentKey;
  readonly pod: NamedPod | undefined;
}

export interface PodMaker {
  /** Makes it, bound to the node. */
  createPod(identity: PodIdentity, nodeName: string): Promise<PodReference>;
  /** Takes it out of the apiserver at once. */
  deletePod(pod: PodReference): Promise<void>;
}

/** The pods with names of a soak. */
export interface NamedPods {
  /** Makes one that is not there, bound to the node; undefined where all are. */
  make(nodeName: string, random: () => number): Promise<NamedPod | undefined>;
  /** It has no sandbox any more: it may be made again, on any node. */
  end(pod: NamedPod): Promise<void>;
}

export function createNamedPods(maker: PodMaker, identities: readonly PodIdentity[]): NamedPods {
  const idle = [...identities];
  return {
    async make(nodeName, random) {
      const [identity] = idle.splice(Math.floor(random() * idle.length), 1);
      if (identity === undefined) return undefined;
      try {
        return { identity, reference: await maker.createPod(identity, nodeName), interfaces: 0 };
      } catch (error) {
        idle.push(identity);
        throw error;
      }
    },
    async end({ identity, reference }) {
      await maker.deletePod(reference);
      idle.push(identity);
    },
  };
}
