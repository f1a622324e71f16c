import { InputOutputError } from './error.ts';
import { AGENT_SOCKET, CALL_PATH, type CallAnswer, type CallRequest } from './protocol.ts';

/** The agent's answer, or why there was none for as long as was waited. */
export type CallOutcome =
  | { readonly kind: 'answered'; readonly answer: CallAnswer }
  | { readonly kind: 'away'; readonly reason: string };

/** Between two tries: an agent's restart takes longer, and the try itself costs microseconds. */
const PAUSE_MS = 100;

/**
 * Asks the agent. A socket that is missing, refuses, or breaks off is tried again until `patienceMs` have passed
 * since it first failed; every verb may be said twice, so a call that was cut off is simply said again.
 * @throws InputOutputError if what answers is no agent of ours
 */
export async function callAgent(call: CallRequest, patienceMs: number): Promise<CallOutcome> {
  const body = JSON.stringify(call);
  let awaySince: number | undefined;
  for (;;) {
    try {
      return { kind: 'answered', answer: await post(body) };
    } catch (error) {
      if (error instanceof InputOutputError) throw error;
      const now = performance.now();
      awaySince ??= now;
      if (now - awaySince + PAUSE_MS > patienceMs) return { kind: 'away', reason: reasonOf(error) };
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

async function post(body: string): Promise<CallAnswer> {
  const init: RequestInit & { readonly unix: string } = { method: 'POST', body, unix: AGENT_SOCKET };
  const response = await fetch(`http://agent${CALL_PATH}`, init);
  const text = await response.text();
  const answer = response.status === 200 ? parseAnswer(text) : undefined;
  if (answer === undefined) {
    throw new InputOutputError(
      `what listens on ${AGENT_SOCKET} is no agent of this version of weft: it answered with status ${response.status}`,
    );
  }
  return answer;
}

function parseAnswer(text: string): CallAnswer | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || !('stdout' in value) || !('exitCode' in value))
    return undefined;
  const { stdout, exitCode } = value;
  return typeof stdout === 'string' && typeof exitCode === 'number' ? { stdout, exitCode } : undefined;
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
}
