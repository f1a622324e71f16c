import { IncompatibleVersionError, UndecodableInputError } from './error.ts';

/** The CNI versions that weft speaks, the oldest first. */
export const SUPPORTED_VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

export type CniVersion = (typeof SUPPORTED_VERSIONS)[number];

export const LATEST_VERSION: CniVersion = '1.1.0';

/** What a configuration without `cniVersion` means, by the specification. */
const ABSENT_VERSION: CniVersion = '0.1.0';

/**
 * The `cniVersion` of a network configuration or of a result.
 * @throws UndecodableInputError for what is no version at all
 * @throws IncompatibleVersionError for one that weft does not speak
 */
export function parseVersion(value: unknown): CniVersion {
  if (value === undefined || value === '') return ABSENT_VERSION;
  if (typeof value !== 'string' || !/^\d+(\.\d+){0,2}$/.test(value)) {
    throw new UndecodableInputError(`cniVersion ${JSON.stringify(value)} is not a version like "1.0.0"`);
  }
  const version = SUPPORTED_VERSIONS.find((supported) => supported === value);
  if (version === undefined) {
    throw new IncompatibleVersionError(
      `incompatible CNI versions: the configuration is written for ${value}, weft speaks ${SUPPORTED_VERSIONS.join(', ')}`,
    );
  }
  return version;
}

/** Verbs that came later than the first version, and the version that brought them (specification, section 2). */
const FIRST_VERSION: Readonly<Record<string, CniVersion>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' };

/**
 * Refuses a verb that the configuration's version does not know.
 * @throws IncompatibleVersionError
 */
export function requireVerbOfVersion(verb: string, version: CniVersion): void {
  const first = FIRST_VERSION[verb];
  if (first === undefined || SUPPORTED_VERSIONS.indexOf(version) >= SUPPORTED_VERSIONS.indexOf(first)) return;
  throw new IncompatibleVersionError(
    `config version does not allow ${verb}: it is ${version}, and ${verb} came with ${first}`,
  );
}

/** The answer to VERSION. The specification wants the version of the input back; one that is unknown is not echoed. */
export function renderVersions(asked: unknown): object {
  const known = SUPPORTED_VERSIONS.find((supported) => supported === asked);
  return { cniVersion: known ?? LATEST_VERSION, supportedVersions: SUPPORTED_VERSIONS };
}
