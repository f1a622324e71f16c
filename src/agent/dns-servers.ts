import * as z from 'zod';
import {
  DNS_SERVERS_SET,
  FILTER_TABLE,
  PROTOCOL_NUMBER,
  setName,
  type DNSServer,
} from '../dataplane/index.ts';
import type { Clock } from '../ipam/index.ts';
import { listNftSet, type CommandRunner } from '../kernel/index.ts';
import type { Informer, ServiceEndpoint } from '../kube/index.ts';
import { FAMILIES, tryParseAddress } from '../net/index.ts';
import type { AgentParts } from './parts.ts';

export interface DNSServersParts {
  /** The Service, as `namespace/name`. */
  readonly service: string;
  /** Begins to watch its EndpointSlices. */
  readonly watch: () => Pick<
    Informer<readonly ServiceEndpoint[]>,
    'isSynced' | 'isAlive' | 'list' | 'keys' | 'waitFor' | 'onChange' | 'startAfresh' | 'stop'
  >;
  /** What an earlier process of this node knew (`knownDNSServers`). */
  readonly known: () => Promise<readonly DNSServer[]>;
  readonly onChange: () => void;
  /** They cannot be read, or there are none: a sentence that says so. */
  readonly onTrouble: (message: string) => void;
  readonly clock: Clock;
  readonly log: AgentParts['log'];
}

/** Where the cluster's DNS is served, watched for as long as anybody is isolated (design, section 7). */
export interface DNSServers {
  /** Whether they are needed from now on. Without need nothing is watched. */
  follow(isNeeded: boolean): void;
  /** As they were last known: what cannot be read any more stays, what never could be is not there. */
  list(): readonly DNSServer[];
  /** Resolves when they have been read, or after some seconds with what an earlier process knew. */
  settled(signal: AbortSignal): Promise<void>;
  /** Looks whether they can be read, and tells of it; to be called now and then. */
  look(): void;
  /** etcd has gone back to an older state. */
  startAfresh(): void;
  stop(): Promise<void>;
}

/** For so long a start waits for them: without them the rules that it sets would cut isolated pods off from DNS. */
const WAIT_MS = 3_000;
/** For so long a watch may be away before people are told. */
const TROUBLE_MS = 60_000;

export function createDNSServers(parts: DNSServersParts): DNSServers {
  const { service, clock, log } = parts;
  let informer: ReturnType<DNSServersParts['watch']> | undefined;
  let lastKnown: readonly DNSServer[] = [];
  let wellAtMs = clock.nowMs();
  let trouble: string | undefined;

  const list = () => {
    if (informer?.isSynced === true) lastKnown = informer.list().flatMap(dnsServersOf);
    return lastKnown;
  };
  return {
    list,
    follow(isNeeded) {
      if (isNeeded === (informer !== undefined)) return;
      if (informer !== undefined) {
        void informer.stop();
        informer = undefined;
        // What is not watched gets old.
        lastKnown = [];
        return;
      }
      wellAtMs = clock.nowMs();
      trouble = undefined;
      const watch = (informer = parts.watch());
      watch.onChange(() => parts.onChange());
    },
    async settled(signal) {
      const watch = informer;
      if (watch === undefined || watch.isSynced) return;
      const waiting = new AbortController();
      const isRead = await Promise.race([
        watch.waitFor(() => watch.isSynced, AbortSignal.any([signal, waiting.signal])).then(() => true),
        clock.sleep(WAIT_MS, AbortSignal.any([signal, waiting.signal])).then(() => false),
      ]).finally(() => waiting.abort());
      if (isRead) return;
      lastKnown = await parts.known();
      log.warn(
        { service, known: lastKnown.length },
        "where the cluster's DNS is served is not known yet: going on with what this node's filters allow",
      );
    },
    look() {
      if (informer === undefined) return;
      const nowMs = clock.nowMs();
      if (informer.isSynced && informer.isAlive()) wellAtMs = nowMs;
      const now =
        nowMs - wellAtMs >= TROUBLE_MS
          ? `the EndpointSlices of Service ${service} cannot be read: isolated pods reach the cluster's DNS where it ` +
            'was last known to be. Look at the rights of weft-agent to list and watch endpointslices, and at the apiserver'
          : informer.isSynced && [...informer.keys()].length === 0
            ? `there is no EndpointSlice of Service ${service}: isolated pods reach no DNS in another pool. ` +
              'Name the Service of the cluster’s DNS to the agents by --dns-service'
            : undefined;
      if (now === trouble) return;
      trouble = now;
      if (now === undefined) log.info({ service }, "where the cluster's DNS is served is known again");
      else parts.onTrouble(now);
    },
    startAfresh: () => informer?.startAfresh(),
    async stop() {
      await informer?.stop();
    },
  };
}

/** What of a Service's endpoints answers DNS: the port of the name that every cluster's has, or number 53. */
function dnsServersOf(endpoints: readonly ServiceEndpoint[]): DNSServer[] {
  return endpoints.flatMap(({ address, protocol, port, portName }) => {
    const isDNS = port === DNS_PORT || DNS_PORT_NAMES.includes(portName);
    if (!isDNS || protocol === 'SCTP') return [];
    return [{ address, port, protocol: protocol === 'TCP' ? 'tcp' : 'udp' }];
  });
}

const DNS_PORT = 53;
const DNS_PORT_NAMES = ['dns', 'dns-tcp'];

/** Those that the kernel's rules allow now: an earlier process of this node has put them there. */
export async function knownDNSServers(run: CommandRunner): Promise<DNSServer[]> {
  const table = { family: 'inet', name: FILTER_TABLE } as const;
  const perFamily = await Promise.all(
    FAMILIES.map((family) => listNftSet(run, table, setName(DNS_SERVERS_SET, family))),
  );
  return perFamily.flatMap((elements) =>
    (elements ?? []).flatMap((element) => {
      const { data } = ServerElement.safeParse(element);
      const address = data === undefined ? undefined : tryParseAddress(data.concat[0]);
      if (data === undefined || address === undefined) return [];
      const [, protocol, port] = data.concat;
      return [
        { address, protocol: protocol === 'tcp' || protocol === PROTOCOL_NUMBER.tcp ? 'tcp' : 'udp', port },
      ];
    }),
  );
}

/** nft prints the protocol's name where it knows it. */
const ServerElement = z.object({
  concat: z.tuple([
    z.string(),
    z.union([z.enum(['tcp', 'udp']), z.literal([PROTOCOL_NUMBER.tcp, PROTOCOL_NUMBER.udp])]),
    z.int(),
  ]),
});
