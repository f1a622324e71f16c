/**
 * Between the executable and the agent: `POST /cni` over a unix socket, a CallRequest answered by a CallAnswer,
 * and the files under /run/weft through which they speak while the agent is away. The paths are constants: an
 * executable that could be told others by its environment could be led astray by it.
 */

/** Where the agent listens. */
export const AGENT_SOCKET = '/run/weft/agent.sock';

/** Touched by an agent that is able to serve; comes to be when it first was, since boot. See serving-mark.ts. */
export const SERVING_MARK = '/run/weft/serving';

/** For how long a mark that nobody touches still counts. */
export const SERVING_MARK_FRESH_MS = 10 * 60_000;

/** Attachments that were deleted while the agent was away: one file each, see deleted-note.ts. */
export const DELETED_DIRECTORY = '/run/weft/deleted';

/** The path of a call on the agent's socket. */
export const CALL_PATH = '/cni';

/** More than this on stdin is no network configuration. */
export const MAX_INPUT_BYTES = 1024 * 1024;

/** What the runtime gave the executable: the CNI_* variables that weft reads, and stdin as text. */
export interface CallRequest {
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: string;
}

/** What the executable prints and ends with. */
export interface CallAnswer {
  readonly stdout: string;
  readonly exitCode: number;
}
