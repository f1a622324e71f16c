import { UndecodableInputError } from './error.ts';

export type JSONValue = null | boolean | number | string | JSONValue[] | JSONObject;

export interface JSONObject {
  readonly [key: string]: JSONValue;
}

/**
 * Strict JSON. Unlike JSON.parse it names the position of every fault, and refuses duplicate keys and `__proto__`:
 * of two values for one key, two readers may each obey another.
 * `what` names the text in messages.
 * @throws UndecodableInputError
 */
export function parseJSON(text: string, what: string): JSONValue {
  const reader = new Reader(text, what);
  const value = reader.value(0);
  reader.end();
  return value;
}

/** Deeper than any configuration, and shallow enough for the stack. */
const MAX_DEPTH = 100;

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

class Reader {
  readonly #text: string;
  readonly #what: string;
  #at = 0;

  constructor(text: string, what: string) {
    this.#text = text;
    this.#what = what;
  }

  value(depth: number): JSONValue {
    if (depth > MAX_DEPTH) throw this.#fault(`nesting deeper than ${MAX_DEPTH}`);
    this.#skipSpace();
    const first = this.#text[this.#at];
    if (first === '{') return this.#object(depth);
    if (first === '[') return this.#array(depth);
    if (first === '"') return this.#string();
    for (const [word, value] of [
      ['true', true],
      ['false', false],
      ['null', null],
    ] as const) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#number();
  }

  end(): void {
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#unexpected('the end');
  }

  #object(depth: number): JSONObject {
    const entries: Record<string, JSONValue> = {};
    this.#at++;
    this.#skipSpace();
    if (this.#take('}')) return entries;
    do {
      this.#skipSpace();
      if (this.#text[this.#at] !== '"') throw this.#unexpected('a key in double quotes');
      const keyAt = this.#at;
      const key = this.#string();
      if (key === '__proto__' || Object.hasOwn(entries, key)) {
        this.#at = keyAt;
        throw this.#fault(
          key === '__proto__' ? 'the key "__proto__"' : `the key ${JSON.stringify(key)} again`,
        );
      }
      this.#skipSpace();
      if (!this.#take(':')) throw this.#unexpected('":"');
      entries[key] = this.value(depth + 1);
      this.#skipSpace();
    } while (this.#take(','));
    if (!this.#take('}')) throw this.#unexpected('"," or "}"');
    return entries;
  }

  #array(depth: number): JSONValue[] {
    const items: JSONValue[] = [];
    this.#at++;
    this.#skipSpace();
    if (this.#take(']')) return items;
    do {
      items.push(this.value(depth + 1));
      this.#skipSpace();
    } while (this.#take(','));
    if (!this.#take(']')) throw this.#unexpected('"," or "]"');
    return items;
  }

  #string(): string {
    this.#at++;
    let result = '';
    let from = this.#at;
    for (;;) {
      const char = this.#text[this.#at];
      if (char === undefined || char < ' ') throw this.#unexpected('the end of a string');
      if (char === '"') break;
      this.#at++;
      if (char !== '\\') continue;
      result += this.#text.slice(from, this.#at - 1) + this.#escape();
      from = this.#at;
    }
    result += this.#text.slice(from, this.#at);
    this.#at++;
    return result;
  }

  #escape(): string {
    const char = this.#text[this.#at] ?? '';
    const hex = this.#text.slice(this.#at + 1, this.#at + 5);
    if (char === 'u' && /^[0-9a-fA-F]{4}$/.test(hex)) {
      this.#at += 5;
      return String.fromCharCode(Number.parseInt(hex, 16));
    }
    const plain = Object.hasOwn(ESCAPES, char) ? ESCAPES[char] : undefined;
    if (plain === undefined) throw this.#unexpected('an escape');
    this.#at++;
    return plain;
  }

  #number(): number {
    const pattern = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null) throw this.#unexpected('a value');
    this.#at = pattern.lastIndex;
    return Number(match[0]);
  }

  #skipSpace(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }

  #take(char: string): boolean {
    if (this.#text[this.#at] !== char) return false;
    this.#at++;
    return true;
  }

  #unexpected(wanted: string): UndecodableInputError {
    const char = this.#text[this.#at];
    const found = char === undefined ? 'the end of the text' : JSON.stringify(char);
    return this.#fault(`expected ${wanted} and found ${char === '\ufeff' ? 'a byte order mark' : found}`);
  }

  #fault(fault: string): UndecodableInputError {
    const before = this.#text.slice(0, this.#at).split('\n');
    const column = (before.at(-1)?.length ?? 0) + 1;
    return new UndecodableInputError(
      `${this.#what} is not JSON: ${fault} at position ${this.#at} (line ${before.length}, column ${column})`,
    );
  }
}
