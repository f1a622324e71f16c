import type { IPAddress } from '../net/index.ts';
import { addRouteRequest, replaceRouteRequest, ROUTE_PROTOCOL, type Route } from './rtnetlink/routes.ts';
import { addRuleRequest, deleteRuleRequest, type SourceRule } from './rtnetlink/rules.ts';
import type { NetlinkRequest } from './rtnetlink/socket.ts';

/** By which link of a pod the packets of one address leave, and its next hop there. */
export interface SourceRoute {
  readonly podIndex: number;
  readonly address: IPAddress;
  readonly gateway: IPAddress;
}

/**
 * What makes packets of that address leave by that link, wherever they go: a table of the link's own, and a rule. In a
 * pod with several interfaces the main table looks at the destination alone, and would send an answer by the other
 * one, where the host drops its source.
 */
export function sourceRouteRequests(sourceRoute: SourceRoute): NetlinkRequest[] {
  return [addRouteRequest(routeOf(sourceRoute)), addRuleRequest(ruleOf(sourceRoute))];
}

/** The same where it may be there already; what says EEXIST is. */
export function ensureSourceRouteRequests(sourceRoute: SourceRoute): NetlinkRequest[] {
  return [replaceRouteRequest(routeOf(sourceRoute)), addRuleRequest(ruleOf(sourceRoute))];
}

/** The routes go with the link, the rules would stay. ENOENT where there is none. */
export function forgetSourceRequest(source: Pick<SourceRoute, 'podIndex' | 'address'>): NetlinkRequest {
  return deleteRuleRequest(ruleOf(source));
}

function routeOf({ podIndex, address: { family }, gateway }: SourceRoute): Route {
  return {
    dst: { family, first: 0n, prefixLength: 0 },
    type: 'unicast',
    via: gateway,
    onlink: true,
    oif: podIndex,
    metric: METRIC,
    protocol: ROUTE_PROTOCOL.weftPod,
    table: tableOf(podIndex),
  };
}

function ruleOf({ podIndex, address }: Pick<SourceRoute, 'podIndex' | 'address'>): SourceRule {
  return {
    source: address,
    table: tableOf(podIndex),
    priority: PRIORITY,
    protocol: ROUTE_PROTOCOL.weftPod,
  };
}

const METRIC = 1024;
/** Before main, and behind what others may put first. */
const PRIORITY = 1000;
/** Far from the numbers that people and other plugins use. */
const FIRST_TABLE = 0x77650000;

function tableOf(podIndex: number): number {
  return FIRST_TABLE + podIndex;
}
