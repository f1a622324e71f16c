import { isAddressCall } from './address-call.ts';
import type { CniEnvironment, Verb } from './environment.ts';
import {
  AgentUnreachableError,
  InputOutputError,
  InvalidConfigurationError,
  NotServingError,
} from './error.ts';
import { deletedNoteName, type DeletedNote } from './deleted-note.ts';
import { isNetworkName } from './names.ts';
import { parseServingMark } from './serving-mark.ts';
import { AGENT_SOCKET, DELETED_DIRECTORY, SERVING_MARK, SERVING_MARK_FRESH_MS } from './protocol.ts';

/** Where to look when the agent does not answer; the executable has no way to find out itself. */
export const WHERE_TO_LOOK =
  'look at it with: kubectl -n weft-system get pods -o wide, and kubectl -n weft-system logs POD of this node';

/** The agent stayed away. */
export function agentUnreachable(verb: Verb, patienceMs: number, reason: string): AgentUnreachableError {
  const tried = patienceMs > 0 ? ` for ${patienceMs / 1000} s` : '';
  return new AgentUnreachableError(
    `${verb}: weft's agent on this node does not answer on ${AGENT_SOCKET}${tried} (${reason}); ${WHERE_TO_LOOK}`,
  );
}

/**
 * STATUS without an agent: it restarts, or is being replaced, and pods that run must not be taken out of their
 * Services for that. Only an agent that has been silent for long, or has never been able to serve, is a failure.
 * @throws NotServingError
 */
export function requireServingMark(): void {
  let silentMs: number;
  try {
    silentMs = sinceLastTouchMs();
  } catch (cause) {
    throw new NotServingError(
      `weft's agent has not been able to serve on this node since it booted; ${WHERE_TO_LOOK}`,
      { cause },
    );
  }
  if (silentMs < SERVING_MARK_FRESH_MS) return;
  throw new NotServingError(
    `weft's agent has been silent on this node for ${Math.round(silentMs / 60_000)} minutes; ${WHERE_TO_LOOK}`,
  );
}

/** By the time since boot; by the time of day only where the mark has nothing else to say. */
function sinceLastTouchMs(): number {
  const { readFileSync, statSync } = process.getBuiltinModule('node:fs');
  const touchedMs = parseServingMark(readFileSync(SERVING_MARK, 'utf8'));
  if (touchedMs === undefined) return Date.now() - statSync(SERVING_MARK).mtimeMs;
  return process.getBuiltinModule('node:os').uptime() * 1000 - touchedMs;
}

/**
 * Notes that an attachment is gone, for the agent to read before it serves again. Answers a function that takes
 * the note back.
 * @throws InvalidConfigurationError without a network name
 * @throws InputOutputError if the note cannot be kept: then the runtime must ask again
 */
export function noteDeleted(environment: CniEnvironment, configuration: object, now: Date): () => void {
  const network: unknown = Object.getOwnPropertyDescriptor(configuration, 'name')?.value;
  if (environment.verb !== 'DEL') throw new TypeError(`only a DEL is noted, not ${environment.verb}`);
  if (!isNetworkName(network)) {
    throw new InvalidConfigurationError(`missing or malformed network name: ${JSON.stringify(network)}`);
  }
  const { containerID, ifName, netns } = environment;
  const note: DeletedNote = {
    format: 1,
    network,
    containerID,
    ifName,
    netns,
    ...(isAddressCall(configuration) ? { addressOnly: true } : {}),
    notedAt: now.toISOString(),
  };
  const { mkdirSync, renameSync, unlinkSync, writeFileSync } = process.getBuiltinModule('node:fs');
  const path = `${DELETED_DIRECTORY}/${deletedNoteName(note)}`;
  // Renamed into place: half a note would be one that nobody can read.
  const draft = `${path}.${process.pid}`;
  try {
    mkdirSync(DELETED_DIRECTORY, { recursive: true, mode: 0o700 });
    writeFileSync(draft, JSON.stringify(note), { mode: 0o600 });
    renameSync(draft, path);
  } catch (cause) {
    attempt(() => unlinkSync(draft));
    throw new InputOutputError(
      `DEL: weft's agent is away and the deletion cannot be noted in ${DELETED_DIRECTORY}; ${WHERE_TO_LOOK}`,
      { cause },
    );
  }
  return () => attempt(() => unlinkSync(path));
}

/** For a file that may be gone, or never have been: the agent clears the folder whenever it starts. */
function attempt(remove: () => void): void {
  try {
    remove();
  } catch {
    // Nothing depends on it, and the caller has an answer to give.
  }
}
