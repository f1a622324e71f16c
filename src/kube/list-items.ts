/** Takes the text of a list apart while it arrives. */
export interface ListText {
  /** The next piece, wherever it was cut. */
  read(piece: string): void;
  /** The list without its items: `{…,"items":[],…}`. */
  rest(): string;
}

const codeOf = (char: string) => char.charCodeAt(0);
const QUOTE = codeOf('"');
const COMMA = codeOf(',');
const LIST = { open: codeOf('['), close: codeOf(']') };
const OBJECT = { open: codeOf('{'), close: codeOf('}') };

/**
 * Calls `onItem` with the text of each element of the list's `items` as soon as it is whole: a page of a list is many
 * hundred times an object, and most of an object is never looked at. Only finds where elements begin and end; whether
 * each, and the rest, is JSON at all JSON.parse says. Elements are objects, as the apiserver's are.
 */
export function createListText(onItem: (text: string) => void): ListText {
  let rest = '';
  /** What has not been handed on: from the beginning of an element, or of a part of the rest. */
  let begun = '';
  let depth = 0;
  let isInString = false;
  let isEscaped = false;
  let isInItems = false;
  /** Where in `begun` the string began. */
  let stringFrom = 0;
  /** The list's own field whose value is next, or being read. */
  let field = '';

  return {
    read(piece) {
      const text = begun + piece;
      const next = (char: string, from: number) => {
        const found = text.indexOf(char, from);
        return found < 0 ? text.length : found;
      };
      let from = 0;
      /** Where the next one is, as last looked for: most texts have none, and are looked through once. */
      let backslash = -1;
      for (let at = begun.length; at < text.length; at++) {
        if (isEscaped) {
          isEscaped = false;
          continue;
        }
        if (isInString) {
          // Most characters are of strings, and mean nothing.
          if (backslash < at) backslash = next('\\', at);
          at = Math.min(next('"', at), backslash);
          if (at === text.length) break;
          if (at === backslash) isEscaped = true;
          else {
            isInString = false;
            if (depth === 1) field = text.slice(stringFrom, at);
          }
          continue;
        }
        const char = text.charCodeAt(at);
        if (char === QUOTE) {
          isInString = true;
          stringFrom = at + 1;
        } else if (char === OBJECT.open || char === LIST.open) {
          depth++;
          if (isInItems && depth === 3) from = at;
          if (char === LIST.open && depth === 2 && field === 'items') {
            isInItems = true;
            rest += text.slice(from, at + 1);
          }
        } else if (char === OBJECT.close || char === LIST.close) {
          depth--;
          if (isInItems && depth === 2) {
            onItem(text.slice(from, at + 1));
            from = at + 1;
          } else if (isInItems && depth === 1) {
            isInItems = false;
            from = at;
          }
        } else if (char === COMMA && depth === 1) field = '';
      }
      // Of what is between two elements nothing is kept.
      if (isInItems && depth === 2) from = text.length;
      begun = text.slice(from);
      stringFrom -= from;
    },
    rest: () => rest + begun,
  };
}
