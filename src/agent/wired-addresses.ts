import { allocationName } from '../api/index.ts';
import { attachmentID, type AttachmentKey } from '../ipam/index.ts';
import { FAMILIES, type Family, type IPAddress } from '../net/index.ts';

/**
 * The names of the addresses that interfaces of this node have, as the kernel last said. An address without its
 * object, which somebody deleted by hand or a restored etcd has forgotten, is in use all the same: it is not drawn
 * before the sweep has given the object back.
 */
export interface WiredAddresses {
  has(name: string): boolean;
  keys(): Iterable<string>;
  /**
   * Whether the interface that had the address has gone a moment ago, less than the reuse delay. Its object says so as
   * well, where it has one still, and outlives this process.
   */
  rests(name: string): boolean;
  resting(): Iterable<string>;
  /** An ADD has wired them. */
  wired(key: AttachmentKey, addresses: AddressOfFamily): void;
  /** The attachment's interface has been taken down. */
  gone(key: AttachmentKey): void;
  /** These are all that the kernel has: its links were just dumped completely. */
  read(attachments: readonly (AttachmentKey & { readonly addresses: AddressOfFamily })[]): void;
}

type AddressOfFamily = Readonly<Partial<Record<Family, IPAddress>>>;

export interface WiredAddressesParts {
  /** How long the address of that name rests after its interface has gone. */
  readonly restMs: (name: string) => number;
  /** Monotonic. */
  readonly nowMs: () => number;
}

export function createWiredAddresses({ restMs, nowMs }: WiredAddressesParts): WiredAddresses {
  /** Whose address it is, by the allocation's name. */
  const owners = new Map<string, string>();
  /** Until when an address without an interface rests, by name. */
  const restUntilMs = new Map<string, number>();

  const stillResting = () => {
    for (const [name, untilMs] of restUntilMs) if (untilMs <= nowMs()) restUntilMs.delete(name);
    return restUntilMs;
  };
  const startRest = (name: string) => void restUntilMs.set(name, nowMs() + restMs(name));

  const wired: WiredAddresses['wired'] = (key, addresses) => {
    for (const family of FAMILIES) {
      const address = addresses[family];
      if (address !== undefined) owners.set(allocationName(address), attachmentID(key));
    }
  };

  return {
    has: (name) => owners.has(name),
    keys: () => owners.keys(),
    rests: (name) => stillResting().has(name),
    resting: () => stillResting().keys(),
    wired,
    gone(key) {
      const id = attachmentID(key);
      for (const [name, owner] of owners) {
        if (owner !== id) continue;
        owners.delete(name);
        startRest(name);
      }
    },
    read(attachments) {
      const before = [...owners.keys()];
      owners.clear();
      for (const attachment of attachments) wired(attachment, attachment.addresses);
      for (const name of before) if (!owners.has(name)) startRest(name);
    },
  };
}
