import {
  InvalidAddressError,
  InvalidCIDRError,
  parseAddress,
  parseCIDR,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { InvalidAnnotationError } from './errors.ts';

/** On a namespace: the pools its pods are bound to. On a pod: which of those it wants. Names, with commas between. */
export const POOLS_ANNOTATION = 'ipam.weft.dev/pools';

/** On a pod: the addresses that it wants and no others, at most one of each family, with a comma between. */
export const ADDRESSES_ANNOTATION = 'ipam.weft.dev/addresses';
/** On a StatefulSet's pods: "true" keeps their addresses for the pods of their names. */
export const STICKY_ANNOTATION = 'ipam.weft.dev/sticky';

/**
 * On a pod that routes for others: the CIDRs of the sources that it may send from besides its own addresses, with commas
 * between.
 */
export const ALLOWED_SOURCES_ANNOTATION = 'ipam.weft.dev/allowed-sources';

/** Where an annotation stands, for messages: `Namespace shop`, `Pod shop/web-0`. */
export type AnnotationPlace = string;

/**
 * The pools that an annotation names; undefined where there is none.
 * @throws InvalidAnnotationError
 */
export function parsePoolNames(
  annotations: Readonly<Record<string, string>>,
  place: AnnotationPlace,
): readonly string[] | undefined {
  const text = annotations[POOLS_ANNOTATION];
  if (text === undefined) return undefined;
  const names = text.split(',').map((name) => name.trim());
  const wrong = names.find((name) => !POOL_NAME.test(name) || name.length > 63);
  if (wrong !== undefined) {
    throw new InvalidAnnotationError(
      place,
      POOLS_ANNOTATION,
      text,
      `"${wrong}" is no name of an IPPool; expected names with commas between, such as "blue,green"`,
    );
  }
  return [...new Set(names)];
}

/**
 * The addresses that a pod asks for; undefined where it asks for none.
 * @throws InvalidAnnotationError
 */
export function parseAddresses(
  annotations: Readonly<Record<string, string>>,
  place: AnnotationPlace,
): Partial<Record<Family, IPAddress>> | undefined {
  const text = annotations[ADDRESSES_ANNOTATION];
  if (text === undefined) return undefined;
  const invalid = (reason: string) =>
    new InvalidAnnotationError(
      place,
      ADDRESSES_ANNOTATION,
      text,
      `${reason}; expected one address, or one of each family, such as "10.244.0.10,fd00:10::a"`,
    );
  const addresses: Partial<Record<Family, IPAddress>> = {};
  for (const part of text.split(',').map((one) => one.trim())) {
    if (part.length > LONGEST_SPELLING) throw invalid('it has something that is longer than any address');
    try {
      const address = parseAddress(part);
      if (addresses[address.family] !== undefined) throw invalid(`it names two of ${address.family}`);
      addresses[address.family] = address;
    } catch (error) {
      if (error instanceof InvalidAddressError) throw invalid(error.message);
      throw error;
    }
  }
  return addresses;
}

/** An IPv6 address that ends in an IPv4 one, in full: longer texts need not be shown. */
const LONGEST_SPELLING = 45;

/**
 * Whether the pod's addresses are to be kept for it.
 * @throws InvalidAnnotationError
 */
export function parseSticky(annotations: Readonly<Record<string, string>>, place: AnnotationPlace): boolean {
  const text = annotations[STICKY_ANNOTATION];
  if (text === undefined || text === 'true' || text === 'false') return text === 'true';
  throw new InvalidAnnotationError(place, STICKY_ANNOTATION, text, 'expected "true" or "false"');
}

/**
 * The sources that a pod asks to send from; undefined where it asks for none.
 * @throws InvalidAnnotationError
 */
export function parseAllowedSources(
  annotations: Readonly<Record<string, string>>,
  place: AnnotationPlace,
): readonly CIDR[] | undefined {
  const text = annotations[ALLOWED_SOURCES_ANNOTATION];
  if (text === undefined) return undefined;
  const invalid = (reason: string) =>
    new InvalidAnnotationError(
      place,
      ALLOWED_SOURCES_ANNOTATION,
      text,
      `${reason}; expected CIDRs with commas between, such as "192.168.0.0/16,fd99::/48"`,
    );
  const parts = text.split(',', MOST_SOURCES + 1).map((part) => part.trim());
  if (parts.length > MOST_SOURCES) throw invalid(`it names more than ${MOST_SOURCES}`);
  return parts.map((part) => {
    try {
      return parseCIDR(part.slice(0, LONGEST_SPELLING + '/128'.length));
    } catch (error) {
      if (error instanceof InvalidCIDRError) throw invalid(error.message);
      throw error;
    }
  });
}

/** Each is a name of the pod's link and an element of its filter. */
const MOST_SOURCES = 32;

const POOL_NAME = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
