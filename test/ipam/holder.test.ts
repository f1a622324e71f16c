import { describe, expect, it } from 'vitest';
import { isOwnHolder, whyNotHolder } from '../../src/ipam/index.ts';

describe('isOwnHolder', () => {
  it.each(['sticky', 'Sticky', 'sticky/shop/web-0', 'node/node-1', 'node:node-1', 'weft', 'weft:gateway'])(
    'knows %j as a word of weft',
    (holder) => {
      expect(isOwnHolder(holder)).toBe(true);
    },
  );

  it.each(['cli:root@host', 'stickyness', 'node-7', 'nodes/x', 'weft-admin', 'my/node', 'the load balancer'])(
    'leaves %j to people',
    (holder) => {
      expect(isOwnHolder(holder)).toBe(false);
      expect(whyNotHolder(holder)).toBeUndefined();
    },
  );
});

describe('whyNotHolder', () => {
  it.each([
    ['sticky', /weft itself uses "sticky"/],
    ['node/node-1', /choose another name/],
    ['', /must be text/],
    [' x', /spaces around/],
    ['a\nb', /one line/],
    ['\u001b[31mred', /plain text/],
    ['x'.repeat(254), /254 characters, and 253/],
  ])('refuses %j', (holder, reason) => {
    expect(whyNotHolder(holder)).toMatch(reason);
  });

  it('takes as many characters as the kind allows', () => {
    expect(whyNotHolder('x'.repeat(253))).toBeUndefined();
  });
});
