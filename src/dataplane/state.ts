import type { CIDR, Family, IPAddress } from '../net/index.ts';
import type { FilterState } from './filter.ts';

/** Route protocol number that marks node state: derived from the NodeSubnets, diffed whole (design, section 7). */
export const NODE_ROUTE_PROTOCOL = 84;

/** Of a node's own subnets: an address without a pod is answered at once, and never by a default route. */
export const UNREACHABLE_METRIC = 4096;

/** Metric of the routes to other nodes' subnets: what the kernel gives to a route without one. */
export const PEER_METRIC: Readonly<Record<Family, number>> = { ipv4: 0, ipv6: 1024 };

/** Where a node's route leads. */
export type RouteTarget =
  | { readonly kind: 'unreachable' }
  | {
      readonly kind: 'gateway';
      readonly link: string;
      readonly gateway: IPAddress;
      readonly onlink: boolean;
    };

/** A route of node state. */
export interface NodeRoute {
  readonly destination: CIDR;
  readonly metric: number;
  readonly target: RouteTarget;
  /** Source of the node's own packets along this route. */
  readonly preferredSource: IPAddress | undefined;
}

/** The one device through which all nodes behind routers are reached. */
export interface VxlanDevice {
  readonly name: string;
  readonly vni: number;
  readonly port: number;
  readonly mac: string;
  readonly mtu: number;
  readonly local: IPAddress;
}

/** An address of the node's own, as a host prefix on a link. */
export interface OwnAddress {
  readonly link: string;
  readonly address: IPAddress;
}

/** Who has an address on the VXLAN device: permanent, since nobody is asked there. */
export interface PeerNeighbour {
  readonly address: IPAddress;
  readonly mac: string;
}

/** Behind which node's address a MAC is. */
export interface PeerForwarding {
  readonly mac: string;
  readonly destination: IPAddress;
}

/** MTUs of pods' links, bytes. */
export interface PodMTU {
  /** Of pods whose pool may encapsulate. */
  readonly encapsulated: number;
  /** Of pods whose pool never does. */
  readonly plain: number;
  /** Where those have their addresses: this node's subnets of such pools. */
  readonly plainSubnets: readonly CIDR[];
}

/** Everything in a node's kernel that follows from the objects alone. */
export interface NodeState {
  readonly vxlan: VxlanDevice | undefined;
  readonly addresses: readonly OwnAddress[];
  readonly routes: readonly NodeRoute[];
  readonly neighbours: readonly PeerNeighbour[];
  readonly forwarding: readonly PeerForwarding[];
  readonly filter: FilterState;
  /** The families whose packets this node must forward. No other is spoken of to the kernel. */
  readonly families: readonly Family[];
  /**
   * Where pods have their addresses, as filters of the host are told: what is on its way to a pod of another node, or
   * behind a link of another plugin, bears no link's name of ours. Of other nodes' what a pool lists no more is left out.
   */
  readonly forwarded: readonly CIDR[];
  /** Source of the node's own packets to pods. Absent: the node holds no subnet of the family. */
  readonly preferredSource: Readonly<Partial<Record<Family, IPAddress>>>;
  readonly podMTU: PodMTU;
  /**
   * Subnets that name this node under an older UID. What stands for them in the kernel stays and is not added:
   * a marked route there is the proof by which the agent binds them anew.
   */
  readonly undecided: readonly CIDR[];
  /** What could not be expressed and why, for people: peers without a usable address, and the like. */
  readonly notes: readonly string[];
}
