import { describe, expect, test } from 'vitest';
import { whyStillUsed } from '../../src/agent/still-used.ts';
import { parseAddress } from '../../src/net/index.ts';

const pod = (number: number) => ({ ipv4: parseAddress(`10.0.0.${number}`) });

describe('why a node is not cleared yet', () => {
  test('nothing uses it', () => {
    expect(whyStillUsed({ pods: [], configurations: [] })).toBeUndefined();
  });

  test('a pod lives: its addresses, and what to do', () => {
    const both = { ...pod(1), ipv6: parseAddress('fd00::1') };
    expect(whyStillUsed({ pods: [both], configurations: [] })).toBe(
      '1 interface of a pod lives on this node (10.0.0.1 and fd00::1): delete these pods, or drain the node; ' +
        '"kubectl get pods -A -o wide" shows whose addresses they are',
    );
  });

  test('of many pods some are named, and how many more there are', () => {
    const pods = Array.from({ length: 12 }, (_, i) => pod(i + 1));
    const reason = whyStillUsed({ pods, configurations: [] });
    expect(reason).toContain('12 interfaces of pods live on this node (10.0.0.1, ');
    expect(reason).toContain('10.0.0.10 and 2 more)');
    expect(reason).not.toContain('10.0.0.11');
  });

  test('configurations of others name its executables', () => {
    expect(whyStillUsed({ pods: [pod(1)], configurations: ['/etc/cni/net.d/20-a.conf'] })).toMatch(
      /; \/etc\/cni\/net\.d\/20-a\.conf still names weft's executables: remove it, or give it another plugin$/,
    );
  });
});
