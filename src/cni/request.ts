import * as z from 'zod';
import type { Attachment, PodReference } from '../api/index.ts';
import { isAddressCall } from './address-call.ts';
import { parseAddressConfiguration, type AddressConfiguration } from './address-configuration.ts';
import { parseArgs } from './args.ts';
import {
  parseConfiguration,
  parseNetwork,
  type NetworkConfiguration,
  type NetworkInput,
} from './configuration.ts';
import { parseEnvironment, type CniEnvironment } from './environment.ts';
import { InvalidConfigurationError, InvalidEnvironmentError } from './error.ts';
import { isContainerID, isInterfaceName, namespacePath } from './names.ts';
import type { CallRequest } from './protocol.ts';
import { parsePreviousResult, type AddResult } from './result.ts';
import type { CniVersion } from './versions.ts';

/** One call of the runtime, checked: what the agent's verbs are given. */
export type CniRequest =
  | AddRequest
  | AddressAddRequest
  | CheckRequest
  | AddressCheckRequest
  | DelRequest
  | GcRequest
  | StatusRequest;

/** What an attachment is known by: a sandbox's interface on a network. Never a pod's name: names are used again. */
export type RequestedAttachment = Pick<Attachment, 'network' | 'containerID' | 'ifName'>;

interface Versioned {
  /** The version to answer in. */
  readonly cniVersion: CniVersion;
}

/** Where an attachment is to be, or is. */
interface Placed extends Versioned {
  readonly attachment: RequestedAttachment;
  /** The path of the pod's network namespace; `/var/run/netns` is written `/run/netns`. */
  readonly netns: string;
  /** Undefined for callers other than Kubernetes. */
  readonly pod: PodReference | undefined;
}

/** An interface with its addresses. */
export interface AddRequest extends Placed {
  readonly verb: 'ADD';
  readonly asks: 'Interface';
  readonly configuration: NetworkConfiguration;
}

/** Addresses for the interface that another plugin makes. */
export interface AddressAddRequest extends Placed {
  readonly verb: 'ADD';
  readonly asks: 'AddressOnly';
  readonly configuration: AddressConfiguration;
}

export interface CheckRequest extends Placed {
  readonly verb: 'CHECK';
  readonly asks: 'Interface';
  readonly configuration: NetworkConfiguration;
  /** What ADD answered. */
  readonly previous: AddResult;
}

export interface AddressCheckRequest extends Placed {
  readonly verb: 'CHECK';
  readonly asks: 'AddressOnly';
  readonly configuration: AddressConfiguration;
  /** What the ADD of the other plugin answered. */
  readonly previous: AddResult;
}

export interface DelRequest extends Versioned {
  readonly verb: 'DEL';
  readonly asks: Attachment['kind'];
  readonly attachment: RequestedAttachment;
  /** Undefined where the namespace has gone already and the runtime names none. */
  readonly netns: string | undefined;
}

export interface GcRequest extends Versioned {
  readonly verb: 'GC';
  readonly network: string;
  /** What the runtime still knows of; everything else of this network may go. */
  readonly valid: readonly Pick<Attachment, 'containerID' | 'ifName'>[];
}

export interface StatusRequest extends Versioned {
  readonly verb: 'STATUS';
  readonly network: string;
}

/**
 * Parses a call. What is wrong with the environment is said before what is wrong with the configuration.
 * @throws InvalidEnvironmentError, UndecodableInputError, IncompatibleVersionError, InvalidConfigurationError,
 *   UnsupportedFieldError
 */
export function parseRequest(call: CallRequest): CniRequest {
  const environment = parseEnvironment(call.env);
  const pod = podOf(environment);
  const { verb } = environment;
  const input = parseNetwork(call.stdin, verb);
  const { cniVersion, network } = input;
  const asks = isAddressCall(input.fields) ? 'AddressOnly' : 'Interface';
  switch (verb) {
    case 'ADD': {
      const place = { cniVersion, ...placeOf(environment, network), pod };
      if (asks === 'AddressOnly') {
        return { verb, asks, ...place, configuration: parseAddressConfiguration(input) };
      }
      const configuration = parseConfiguration(input);
      if (input.fields.prevResult !== undefined) {
        throw new InvalidConfigurationError(
          'ADD came with a prevResult: weft makes the interface itself and must be the first plugin of its conflist',
        );
      }
      return { verb, asks, ...place, configuration };
    }
    case 'CHECK': {
      const place = { cniVersion, ...placeOf(environment, network), pod };
      if (asks === 'AddressOnly') {
        const configuration = parseAddressConfiguration(input);
        return { verb, asks, ...place, configuration, previous: previousOf(input) };
      }
      const configuration = parseConfiguration(input);
      return { verb, asks, ...place, configuration, previous: previousOf(input) };
    }
    case 'DEL': {
      const { attachment, netns } = placeOf(environment, network);
      return { verb, asks, cniVersion, attachment, netns: netns === '' ? undefined : netns };
    }
    case 'GC':
      return { verb, cniVersion, network, valid: validAttachments(input) };
    case 'STATUS':
      return { verb, cniVersion, network };
    case 'VERSION':
      throw new InvalidEnvironmentError('VERSION is answered by the executable alone');
  }
}

/** A DEL needs no pod, and must not fail for what nobody reads. */
function podOf(environment: CniEnvironment): PodReference | undefined {
  if (environment.verb !== 'ADD' && environment.verb !== 'CHECK') return undefined;
  return parseArgs(environment.args);
}

function placeOf(
  environment: Extract<CniEnvironment, { containerID: string }>,
  network: string,
): { attachment: RequestedAttachment; netns: string } {
  const { containerID, ifName, netns } = environment;
  return { attachment: { network, containerID, ifName }, netns: namespacePath(netns) };
}

function previousOf(input: NetworkInput): AddResult {
  const previous = input.fields.prevResult;
  if (previous === undefined) {
    throw new InvalidConfigurationError(
      'CHECK needs the prevResult that ADD answered, and the configuration has none',
    );
  }
  return parsePreviousResult(previous, input.cniVersion);
}

/** The specification once named the list otherwise, so runtimes send both names; this is the right one first. */
const ATTACHMENT_LISTS = ['cni.dev/valid-attachments', 'cni.dev/attachments'] as const;

const Attachments = z.array(
  z.object({
    containerID: z.string().refine(isContainerID, 'no container ID'),
    ifname: z.string().refine(isInterfaceName, 'no interface name'),
  }),
);

/** Whatever is doubtful about the list is an error: what it does not name is torn down. */
function validAttachments(input: NetworkInput): GcRequest['valid'] {
  const key = ATTACHMENT_LISTS.find((name) => input.fields[name] !== undefined);
  if (key === undefined) {
    throw new InvalidConfigurationError(
      `GC came without ${ATTACHMENT_LISTS[0]}: without the list of what is still in use nothing can be collected`,
    );
  }
  const parsed = Attachments.safeParse(input.fields[key]);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new InvalidConfigurationError(
      `${key}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}; nothing was collected`,
    );
  }
  return parsed.data.map(({ containerID, ifname }) => ({ containerID, ifName: ifname }));
}
