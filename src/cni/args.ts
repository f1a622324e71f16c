import type { PodReference } from '../api/index.ts';
import { excerpt, InvalidEnvironmentError } from './error.ts';

/**
 * The pod in CNI_ARGS ("K=V;K=V"), or undefined where the runtime names none: cnitool, another orchestrator.
 * @throws InvalidEnvironmentError naming the pair that is wrong
 */
export function parseArgs(text: string): PodReference | undefined {
  const pairs = parsePairs(text);
  const ignoresUnknown = parseBoolean(pairs.get('IgnoreUnknown'));
  for (const [key, value] of pairs) {
    const rule = KNOWN.get(key);
    if (rule === undefined && !ignoresUnknown)
      throw invalid(`${key}=${value}`, 'weft does not know this key');
    if (rule !== undefined && value !== '' && !rule.isValid(value))
      throw invalid(`${key}=${value}`, rule.mustBe);
  }
  const namespace = pairs.get('K8S_POD_NAMESPACE') ?? '';
  const name = pairs.get('K8S_POD_NAME') ?? '';
  const uid = pairs.get('K8S_POD_UID') ?? '';
  if (namespace === '' && name === '' && uid === '') return undefined;
  if (namespace === '') throw invalid(`K8S_POD_NAME=${name}`, 'K8S_POD_NAMESPACE is missing beside it');
  if (name === '') throw invalid(`K8S_POD_NAMESPACE=${namespace}`, 'K8S_POD_NAME is missing beside it');
  return { namespace, name, ...(uid === '' ? {} : { uid }) };
}

/** DNS-1123: what the apiserver lets an object be named. */
const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
/** A UUID, or the hash by which the kubelet names a static pod. */
const UID = /^[A-Za-z0-9][A-Za-z0-9-]{0,62}$/;

interface Rule {
  readonly isValid: (value: string) => boolean;
  readonly mustBe: string;
}

const KNOWN: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  [
    'IgnoreUnknown',
    { isValid: (value) => BOOLEANS.has(value.toLowerCase()), mustBe: 'it must be 1, true, 0 or false' },
  ],
  ['K8S_POD_NAMESPACE', { isValid: (value) => LABEL.test(value), mustBe: 'it must be a DNS-1123 label' }],
  [
    'K8S_POD_NAME',
    {
      isValid: (value) => value.length <= 253 && SUBDOMAIN.test(value),
      mustBe: 'it must be a DNS-1123 subdomain',
    },
  ],
  ['K8S_POD_UID', { isValid: (value) => UID.test(value), mustBe: 'it must be letters, digits and "-"' }],
  ['K8S_POD_INFRA_CONTAINER_ID', { isValid: () => true, mustBe: '' }],
]);

const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ['1', true],
  ['true', true],
  ['0', false],
  ['false', false],
]);

function parsePairs(text: string): ReadonlyMap<string, string> {
  const pairs = new Map<string, string>();
  if (text === '') return pairs;
  for (const pair of text.split(';')) {
    const middle = pair.indexOf('=');
    if (middle <= 0) throw invalid(pair, 'expected KEY=VALUE');
    const key = pair.slice(0, middle);
    if (pairs.has(key)) throw invalid(pair, 'the key is there twice');
    pairs.set(key, pair.slice(middle + 1));
  }
  return pairs;
}

function parseBoolean(value: string | undefined): boolean {
  return BOOLEANS.get((value ?? '').toLowerCase()) ?? false;
}

function invalid(pair: string, reason: string): InvalidEnvironmentError {
  return new InvalidEnvironmentError(`invalid CNI_ARGS pair "${excerpt(pair)}": ${reason}`);
}
