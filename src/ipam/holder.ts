/** Words that weft itself writes as the holder of an address; alone, or before "/" or ":", they are never a person's. */
const OWN_WORDS = ['sticky', 'node', 'weft'];

const OWN_FORM = new RegExp(`^(${OWN_WORDS.join('|')})([/:]|$)`, 'i');

/** Whether a holder is weft's own word, on which weft acts: not one that a person may take, or release unasked. */
export function isOwnHolder(holder: string): boolean {
  return OWN_FORM.test(holder);
}

/** Why nobody may hold an address under that name, as a part of a sentence; undefined if one may. */
export function whyNotHolder(holder: string): string | undefined {
  if (holder.trim() !== holder || holder === '') return 'it must be text without spaces around it';
  if (holder.length > LONGEST) return `it has ${holder.length} characters, and ${LONGEST} are allowed`;
  if (/\p{Cc}/u.test(holder)) return 'it must be one line of plain text';
  if (!isOwnHolder(holder)) return undefined;
  const forms = OWN_WORDS.map((word) => `"${word}"`).join(', ');
  return `weft itself uses ${forms} and what begins with them and "/" or ":"; choose another name`;
}

/** As the kind's schema has it. */
const LONGEST = 253;
