import { expect, test } from 'vitest';
import { linksLeftHalfMade } from '../../src/agent/attachments.ts';
import { attachmentID } from '../../src/ipam/index.ts';
import { hostLinkName, type AttachmentAlias, type FoundPodLink } from '../../src/kernel/index.ts';

const LINK: FoundPodLink['link'] = {
  index: 7,
  name: '',
  kind: 'veth',
  mac: undefined,
  mtu: 1500,
  up: true,
  loopback: false,
  operState: 'up',
  alias: undefined,
  altNames: [],
  group: 0,
  peerIndex: undefined,
  peerNamespaceId: undefined,
  master: undefined,
  vxlan: undefined,
};

test('a link without an alias is left half-made unless a call for its very attachment is under way', () => {
  const [left, beingMade, wired] = [linkOf('c1'), linkOf('c2'), linkOf('c3', true)];
  const links = [left, beingMade, wired];
  const inFlight = ['c2', 'c3', 'c4'].map((containerID) => attachmentID({ containerID, ifName: 'eth0' }));
  expect(linksLeftHalfMade(links, inFlight)).toEqual([left]);
  expect(linksLeftHalfMade(links, [attachmentID({ containerID: 'c2', ifName: 'eth1' })])).toEqual([
    left,
    beingMade,
  ]);
});

function linkOf(containerID: string, isComplete = false): FoundPodLink {
  const alias: AttachmentAlias = {
    network: 'weft',
    containerID,
    ifName: 'eth0',
    addresses: {},
    podUID: undefined,
  };
  const link = { ...LINK, name: hostLinkName(containerID, 'eth0') };
  return { link, attachment: isComplete ? alias : undefined };
}
