import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createCIDRIndex } from '../../src/dataplane/cidr-index.ts';
import { cidrOf, cidrsOverlap, parseAddress } from '../../src/net/index.ts';

/** Blocks of a few sizes, close to each other, in both families. */
const block = fc
  .record({
    base: fc.constantFrom('10.0.0.0', 'fd00::'),
    offset: fc.integer({ min: 0, max: 255 }),
    hostBits: fc.constantFrom(0, 2, 3, 6, 8, 24),
  })
  .map(({ base, offset, hostBits }) => {
    const { family, value } = parseAddress(base);
    return cidrOf({ family, value: value + BigInt(offset) }, (family === 'ipv4' ? 32 : 128) - hostBits);
  });

test('an index of CIDRs tells which are overlapped as a look at all does, whatever came and went', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ cidr: block, stays: fc.boolean() }), { maxLength: 20 }),
      fc.array(block, { minLength: 1, maxLength: 10 }),
      (blocks, asked) => {
        const index = createCIDRIndex();
        for (const { cidr } of blocks) index.add(cidr);
        for (const { cidr, stays } of blocks) if (!stays) index.remove(cidr);
        const left = blocks.filter(({ stays }) => stays);
        for (const one of asked) {
          expect(index.overlaps(one)).toBe(left.some(({ cidr }) => cidrsOverlap(cidr, one)));
        }
      },
    ),
    { numRuns: 2_000 },
  );
});
