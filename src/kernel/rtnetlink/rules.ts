import { ADDRESS_BITS, addressBytes, formatAddress, type IPAddress } from '../../net/index.ts';
import { bytes, u32, u8 } from './codec.ts';
import { AF } from './family.ts';
import { CREATE, EXCLUSIVE, type NetlinkRequest } from './socket.ts';

/** A routing rule: packets from that address are looked up in that table. */
export interface SourceRule {
  readonly source: IPAddress;
  readonly table: number;
  /** The lower is asked first; that of the main table is 32766. */
  readonly priority: number;
  readonly protocol: number;
}

const NEWRULE = 32;
const DELRULE = 33;

const SOURCE = 2;
const PRIORITY = 6;
const TABLE = 15;
const PROTOCOL = 21;

const RULE_HEADER_LENGTH = 12;
const ACTION_TO_TABLE = 1;

/** EEXIST where the same rule is there. */
export function addRuleRequest(rule: SourceRule): NetlinkRequest {
  return ruleRequest(NEWRULE, CREATE | EXCLUSIVE, 'add', rule);
}

/** ENOENT where there is no such rule. */
export function deleteRuleRequest(rule: SourceRule): NetlinkRequest {
  return ruleRequest(DELRULE, 0, 'delete', rule);
}

function ruleRequest(type: number, flags: number, verb: string, rule: SourceRule): NetlinkRequest {
  const { source, table, priority, protocol } = rule;
  // struct fib_rule_hdr. The table goes into an attribute, which holds any number.
  const header = Buffer.alloc(RULE_HEADER_LENGTH);
  header.writeUInt8(AF[source.family], 0);
  header.writeUInt8(ADDRESS_BITS[source.family], 2);
  header.writeUInt8(ACTION_TO_TABLE, 7);
  return {
    type,
    flags,
    header,
    attributes: [
      bytes(SOURCE, addressBytes(source)),
      u32(TABLE, table),
      u32(PRIORITY, priority),
      u8(PROTOCOL, protocol),
    ],
    describe: () => `${verb} rule from ${formatAddress(source)} lookup ${table}`,
  };
}
