import { afterAll, beforeAll, describe } from 'vitest';
import { addressTests } from './weft/addresses.ts';
import { bootstrapTests } from './weft/bootstrap.ts';
import { bridgedTests } from './weft/bridged.ts';
import { bringUp, takeDown } from './weft/bring-up.ts';
import { checkTests } from './weft/check.ts';
import { cniCallTests } from './weft/cni-calls.ts';
import { controllerTests } from './weft/controller.ts';
import { encapsulationTests } from './weft/encapsulation.ts';
import { exhaustionTests } from './weft/exhaustion.ts';
import { foreignHandsTests } from './weft/foreign-hands.ts';
import { hostPortTests } from './weft/host-ports.ts';
import { noControllerTests } from './weft/no-controller.ts';
import { pathTests } from './weft/paths.ts';
import { rebootTests } from './weft/reboots.ts';
import { restartTests } from './weft/restarts.ts';
import { rolloutTests } from './weft/rollout.ts';
import { renumberingTests } from './weft/renumbering.ts';
import type { Stage } from './weft/stage.ts';
import { stickyTests } from './weft/sticky.ts';
import { tenantTests } from './weft/tenants.ts';
import { uninstallTests } from './weft/uninstall.ts';

// weft on a whole cluster: real kubelets and containerd, the real manifests. One cluster for all of it, in this
// order; what takes a node or a pool away comes last.
describe('weft on a cluster', () => {
  let opened: Stage | undefined;
  const stage = (): Stage => {
    if (opened === undefined) throw new Error('the cluster did not come up');
    return opened;
  };
  beforeAll(async () => {
    opened = await bringUp();
  });
  afterAll(() => takeDown(opened));

  describe('bootstrap', () => bootstrapTests(stage));
  describe('paths', () => pathTests(stage));
  describe('host ports', () => hostPortTests(stage));
  describe('addresses', () => addressTests(stage));
  describe('check', () => checkTests(stage));
  describe('calls of the executable', () => cniCallTests(stage));
  describe('addresses for other plugins', () => bridgedTests(stage));
  describe('a full pool', () => exhaustionTests(stage));
  describe('tenants', () => tenantTests(stage));
  describe('renumbering', () => renumberingTests(stage));
  describe('addresses that stay', () => stickyTests(stage));
  describe('agent restarts', () => restartTests(stage));
  describe('foreign hands', () => foreignHandsTests(stage));
  describe('encapsulation', () => encapsulationTests(stage));
  describe('rollout', () => rolloutTests(stage));
  describe('no controller', () => noControllerTests(stage));
  describe('controller', () => controllerTests(stage));
  describe('reboots', () => rebootTests(stage));
  describe('uninstall', () => uninstallTests(stage));
});
