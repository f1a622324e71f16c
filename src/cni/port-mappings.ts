import * as z from 'zod';
import { HOST_PORT_PROTOCOLS, type PortMapping } from '../dataplane/index.ts';
import { parseAddressInAnySpelling, type IPAddress } from '../net/index.ts';
import { excerpt, InvalidConfigurationError } from './error.ts';

/**
 * What a runtime hands over for the capability portMappings (conventions, "dynamic plugin specific fields"). Entries
 * without a host port say nothing to a network.
 * @throws InvalidConfigurationError naming the entry and the value
 */
export function parsePortMappings(value: unknown): PortMapping[] {
  if (value === undefined || value === null) return [];
  const parsed = Mappings.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new InvalidConfigurationError(
      `runtimeConfig.portMappings.${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'cannot be read'}`,
    );
  }
  return parsed.data
    .filter(({ hostPort }) => hostPort > 0)
    .map(({ protocol, hostPort, containerPort, hostIP }) => ({
      protocol,
      hostPort,
      containerPort,
      hostAddress: hostIP === '' ? undefined : addressIn(hostIP),
    }));
}

const Mappings = z.array(
  z.preprocess(
    spelledAsAgreed,
    z.object({
      hostPort: z.int().min(0).max(65_535).default(0),
      containerPort: z.int().min(1).max(65_535),
      protocol: z
        .string()
        .transform((text) => (text === '' ? 'tcp' : text.toLowerCase()))
        .pipe(z.enum(HOST_PORT_PROTOCOLS))
        .default('tcp'),
      hostIP: z.string().default(''),
    }),
  ),
);

/** containerd writes HostPort and the like: plugins in Go read keys whatever their case. */
function spelledAsAgreed(entry: unknown): unknown {
  if (typeof entry !== 'object' || entry === null) return entry;
  return Object.fromEntries(
    Object.entries(entry).map(([key, value]) => [
      KEYS.find((known) => known.toLowerCase() === key.toLowerCase()) ?? key,
      value,
    ]),
  );
}

const KEYS = ['hostPort', 'containerPort', 'protocol', 'hostIP'];

function addressIn(text: string): IPAddress {
  try {
    return parseAddressInAnySpelling(text);
  } catch (cause) {
    throw new InvalidConfigurationError(
      `runtimeConfig.portMappings: hostIP ${excerpt(JSON.stringify(text))} is no IP address`,
      { cause },
    );
  }
}
