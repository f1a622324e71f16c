import type { NftDocument } from '../../src/dataplane/index.ts';
import { parseAddress, type IPAddress } from '../../src/net/index.ts';

/** A packet that a node forwards. */
export interface Packet {
  readonly from: IPAddress;
  readonly to: IPAddress;
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  /** Of ICMP they mean nothing. */
  readonly ports: readonly [source: number, destination: number];
  /** Whether it goes against the direction in which its connection was opened. */
  readonly isReply: boolean;
}

/**
 * What a base chain of the document makes of a packet: nft's rules as the kernel reads them, as far as these chains use
 * them. What it does not know, it refuses to judge.
 */
export function verdictOf(document: NftDocument, baseChain: string, packet: Packet): 'accept' | 'drop' {
  const added = document.nftables.flatMap((command) => ('add' in command ? [command.add as Added] : []));
  const rulesOf = (chain: string) => added.flatMap(({ rule }) => (rule?.chain === chain ? [rule.expr] : []));
  const elementsOf = (reference: string): readonly unknown[] => {
    const name = reference.slice(1);
    const found = added.find(({ set, map }) => set?.name === name || map?.name === name);
    if (found === undefined) throw new Error(`no set or map ${reference}`);
    return found.set?.elem ?? found.map?.elem ?? [];
  };

  let chain = baseChain;
  for (;;) {
    const outcome = follow(rulesOf(chain));
    if (typeof outcome === 'string') return outcome;
    if (outcome === undefined) return 'accept';
    chain = outcome.goto;
  }

  /** Undefined: the end of the chain. */
  function follow(rules: readonly (readonly Expression[])[]): Outcome {
    for (const expressions of rules) {
      const outcome = judge(expressions);
      if (outcome !== undefined) return outcome;
    }
    return undefined;
  }

  function judge(expressions: readonly Expression[]): Outcome {
    for (const expression of expressions) {
      if (expression.match !== undefined) {
        if (!matches(expression.match)) return undefined;
      } else if (expression.vmap !== undefined) {
        const { key, data } = expression.vmap;
        const value = valueOf(key);
        const hit = elementsOf(data).find(
          (element) => Array.isArray(element) && isIn(value, element[0] as unknown),
        );
        if (hit === undefined) return undefined;
        return { goto: ((hit as unknown[])[1] as { goto: { target: string } }).goto.target };
      } else if (expression.goto !== undefined) {
        return { goto: expression.goto.target };
      } else if ('accept' in expression) {
        return 'accept';
      } else if ('drop' in expression) {
        return 'drop';
      } else if (!('counter' in expression)) {
        throw new Error(`an expression that is not known: ${JSON.stringify(expression)}`);
      }
    }
    return undefined;
  }

  function matches({ op, left, right }: Match): boolean {
    const value = valueOf(left);
    // A payload of another protocol ends the rule, whichever the operator is.
    if (value === undefined) return false;
    const equal = right.startsWith('@')
      ? elementsOf(right).some((element) => isIn(value, element))
      : value === right;
    return (op === '==') === equal;
  }

  function valueOf(left: Left): Value {
    if ('concat' in left) {
      const parts = left.concat.map(valueOf);
      return parts.includes(undefined) ? undefined : (parts as (IPAddress | string | number)[]);
    }
    if ('ct' in left && left.ct.key === 'direction') return packet.isReply ? 'reply' : 'original';
    if ('meta' in left && left.meta.key === 'l4proto') return { tcp: 6, udp: 17, icmp: 1 }[packet.protocol];
    if ('payload' in left) {
      const { protocol, field } = left.payload;
      if (protocol === 'th') {
        return packet.protocol === 'icmp' ? undefined : packet.ports[field === 'sport' ? 0 : 1];
      }
      const address = field === 'saddr' ? packet.from : packet.to;
      return (protocol === 'ip') === (address.family === 'ipv4') ? address : undefined;
    }
    throw new Error(`a key that is not known: ${JSON.stringify(left)}`);
  }
}

type Outcome = 'accept' | 'drop' | { readonly goto: string } | undefined;
type Value = IPAddress | string | number | undefined | readonly (IPAddress | string | number)[];
type Left =
  | { readonly concat: readonly Left[] }
  | { readonly payload: { readonly protocol: string; readonly field: string } }
  | { readonly meta: { readonly key: string } }
  | { readonly ct: { readonly key: string } };

interface Match {
  readonly op: '==' | '!=';
  readonly left: Left;
  readonly right: string;
}

interface Expression {
  readonly match?: Match;
  readonly vmap?: { readonly key: Left; readonly data: string };
  readonly goto?: { readonly target: string };
}

interface Added {
  readonly rule?: { readonly chain: string; readonly expr: readonly Expression[] };
  readonly set?: { readonly name: string; readonly elem?: readonly unknown[] };
  readonly map?: { readonly name: string; readonly elem?: readonly unknown[] };
}

function isIn(value: Value, element: unknown): boolean {
  if (Array.isArray(value)) {
    const { concat } = element as { concat: readonly unknown[] };
    return value.every((part, index) => isIn(part as Value, concat[index]));
  }
  if (typeof value !== 'object') return value === element;
  const { range } = typeof element === 'string' ? { range: [element, element] } : (element as Interval);
  const [first, last] = range.map((text) => parseAddress(text).value);
  const address = value as IPAddress;
  return first !== undefined && last !== undefined && address.value >= first && address.value <= last;
}

interface Interval {
  readonly range: readonly string[];
}
