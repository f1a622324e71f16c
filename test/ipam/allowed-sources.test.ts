import { describe, expect, test } from 'vitest';
import { poolsAllowing, SourcesRefusedError } from '../../src/ipam/index.ts';
import { parseCIDR } from '../../src/net/index.ts';
import { poolOf } from './objects.ts';

const closed = poolOf('closed', { cidrs: ['10.0.0.0/16'] });
const open = poolOf('open', { cidrs: ['10.1.0.0/16'], allowedSources: ['192.168.0.0/16', 'fd99::/48'] });
const wider = poolOf('wider', { cidrs: ['10.2.0.0/16'], allowedSources: ['192.0.0.0/8'] });

describe('the pools that let a pod send from foreign sources', () => {
  test.each([
    { sources: ['192.168.0.0/16'], pools: ['open', 'wider'] },
    { sources: ['192.168.7.0/24', 'fd99::/64'], pools: ['open'] },
    { sources: ['192.169.0.0/16'], pools: ['wider'] },
    { sources: [], pools: ['closed', 'open', 'wider'] },
  ])('$sources: $pools', ({ sources, pools }) => {
    const allowing = poolsAllowing([closed, open, wider], sources.map(parseCIDR));
    expect(allowing.map(({ metadata }) => metadata.name)).toEqual(pools);
  });

  test.each(['192.0.0.0/7', '203.0.113.0/24', 'fd99::/47', '::ffff/128'])('none for %s', (source) => {
    expect(() => poolsAllowing([closed, open, wider], [parseCIDR(source)])).toThrow(SourcesRefusedError);
  });

  test('says what is refused, by whom, and the way out', () => {
    expect(() =>
      poolsAllowing([open, closed], [parseCIDR('192.168.1.0/24'), parseCIDR('203.0.113.0/24')]),
    ).toThrow(
      'the pod asks to send from 203.0.113.0/24 by its annotation ipam.weft.dev/allowed-sources, and may not: ' +
        'IPPool open allows 192.168.0.0/16, fd99::/48; IPPool closed allows none. ' +
        'The owner of a pool can allow it by spec.allowedSources',
    );
  });
});
