import { expect, it } from 'vitest';
import { formatAddress } from '../../../src/net/index.ts';
import { rebootNode } from '../../../hack/cluster/cluster.ts';
import { expectAgreement, isHeld } from './addresses.ts';
import { CLUSTER_NAME } from './bring-up.ts';
import { addressesOf, lostPaths } from './paths.ts';
import { isReady, type Stage } from './stage.ts';
import { deployment, WEB } from './workload.ts';

const NODE = 'node-2';
const REBOOTS = 3;
/** Of a subnet of 31: what three boots leaked would not fit. */
const PODS = 10;

/** F9: the machine goes off at once and comes back with an empty /run. */
export function rebootTests(stage: () => Stage): void {
  it(`frees what earlier boots held and gives the pods addresses again, ${REBOOTS} times`, async () => {
    const { cluster, eventually, allocations, pods, node, subnets } = stage();
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(deployment('crowd', PODS, NODE)));
    await cluster.kubectl(['rollout', 'status', 'deployment/crowd', '--timeout=120s']);
    const held = async () => (await allocations()).filter((one) => isHeld(one) && one.spec.nodeName === NODE);
    const pieces = (await subnets()).filter(({ spec }) => spec.nodeName === NODE).length;

    for (let reboot = 1; reboot <= REBOOTS; reboot++) {
      const before = (await held()).map(({ metadata }) => metadata.uid);
      await rebootNode(CLUSTER_NAME, NODE);
      const bootID = await cluster.execOnNode(NODE, ['cat', '/proc/sys/kernel/random/boot_id']);
      await eventually(
        `after reboot ${reboot}: only this boot's sandboxes hold addresses`,
        async () => {
          expect((await node(NODE)).status.nodeInfo.bootID).toBe(bootID);
          const now = await held();
          expect(namesOf(now.filter(({ metadata }) => before.includes(metadata.uid)))).toEqual([]);
          expect(namesOf(now.filter(({ spec }) => spec.attachment?.netns?.bootID !== bootID))).toEqual([]);
          const own = [...(await pods('app=crowd')), ...(await pods(`app=${WEB}`))];
          const here = own.filter(({ spec }) => spec.nodeName === NODE);
          expect(namesOf(here.filter((pod) => !isReady(pod)))).toEqual([]);
          const theirs = now.filter(({ spec }) =>
            here.some(({ metadata }) => metadata.uid === spec.pod?.uid),
          );
          expect(theirs.map(({ spec }) => formatAddress(spec.address)).sort()).toEqual(
            here.flatMap(addressesOf).sort(),
          );
        },
        150,
      );
    }
    const everywhere = [...(await pods('app=crowd')), ...(await pods(`app=${WEB}`))].flatMap(addressesOf);
    expect(new Set(everywhere).size).toBe(everywhere.length);
    await eventually('every path works', async () => expect(await lostPaths(stage())).toEqual([]));
    await eventually('links, sandboxes and allocations agree', () => expectAgreement(stage()));
    await eventually(
      'it holds no more subnets than before',
      async () => {
        expect((await subnets()).filter(({ spec }) => spec.nodeName === NODE)).toHaveLength(pieces);
      },
      90,
    );
    await cluster.kubectl(['delete', 'deployment', 'crowd']);
  });
}

/** Short enough for a message. */
const namesOf = (objects: readonly { readonly metadata: { readonly name: string } }[]): string[] =>
  objects.map(({ metadata }) => metadata.name);
