/**
 * The executable: one process per CNI call. It hands what the runtime says to the agent and prints the answer.
 * Every import is paid for by every pod, so it stays with what the runtime has built in, and loads Node's own
 * modules only where the agent is away.
 */
import { agentUnreachable, noteDeleted, requireServingMark, WHERE_TO_LOOK } from './away.ts';
import { callAgent } from './call.ts';
import { CNI_VARIABLES, parseEnvironment, VERBS, type CniEnvironment, type Verb } from './environment.ts';
import { cniErrorObject, VerbDeadlineError } from './error.ts';
import { readInput } from './input.ts';
import type { CallAnswer, CallRequest } from './protocol.ts';
import { LATEST_VERSION, renderVersions, SUPPORTED_VERSIONS } from './versions.ts';

/** Runtimes call STATUS without a deadline and under a lock, so each verb brings its own; in ms. */
const DEADLINE_MS: Readonly<Record<Verb, number>> = {
  ADD: 60_000,
  DEL: 20_000,
  CHECK: 10_000,
  GC: 60_000,
  STATUS: 1_000,
  VERSION: 1_000,
};

/** For how long a silent socket is tried again; in ms. A refused ADD costs the pod more than an agent's restart. */
const PATIENCE_MS: Readonly<Record<Verb, number>> = {
  ADD: 8_000,
  DEL: 3_000,
  CHECK: 8_000,
  GC: 0,
  STATUS: 0,
  VERSION: 0,
};

const SUCCESS: CallAnswer = { stdout: '', exitCode: 0 };

let stdin = '';
let ended = false;

process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
if ((process.env.CNI_COMMAND ?? '') === '' && isTerminal()) explain();
else answer().then(end, fail);

async function answer(): Promise<CallAnswer> {
  const verb = VERBS.find((known) => known === process.env.CNI_COMMAND) ?? parseEnvironment(process.env).verb;
  setTimeout(atDeadline, DEADLINE_MS[verb], verb);
  stdin = await readInput();
  if (verb === 'VERSION') {
    return { stdout: JSON.stringify(renderVersions(askedVersion())), exitCode: 0 };
  }
  const call: CallRequest = { env: cniVariables(), stdin };
  const outcome = await callAgent(call, 0);
  return outcome.kind === 'answered' ? outcome.answer : withoutAgent(call);
}

/** The environment is the agent's to judge, and is looked at here only before the executable acts on its own. */
async function withoutAgent(call: CallRequest): Promise<CallAnswer> {
  const environment = parseEnvironment(process.env);
  const { verb } = environment;
  const outcome = await callAgent(call, PATIENCE_MS[verb]);
  if (outcome.kind === 'answered') return outcome.answer;
  if (verb === 'DEL') return noteThenAskOnce(environment, call);
  if (verb === 'STATUS') {
    requireServingMark();
    return SUCCESS;
  }
  throw agentUnreachable(verb, PATIENCE_MS[verb], outcome.reason);
}

/**
 * An agent reads the notes after it has opened its socket and before it serves. So a note that is written while
 * the socket is still away will be read; and if the socket has opened meanwhile the agent is told itself, since it
 * may have read the notes just before ours: a note left over would take down a later attachment of that name.
 */
async function noteThenAskOnce(environment: CniEnvironment, call: CallRequest): Promise<CallAnswer> {
  const takeBack = noteDeleted(environment, configuration(), new Date());
  const outcome = await callAgent(call, 0);
  if (outcome.kind === 'away') return SUCCESS;
  takeBack();
  return outcome.answer;
}

/** A STATUS that is answered late is no reason to call the node unfit: that is what the mark is for. */
function atDeadline(verb: Verb): void {
  try {
    if (verb !== 'STATUS') {
      const hint = `weft's agent took the call and did not answer; ${WHERE_TO_LOOK}`;
      throw new VerbDeadlineError(verb, DEADLINE_MS[verb], hint);
    }
    requireServingMark();
    end(SUCCESS);
  } catch (error) {
    fail(error);
  }
}

function fail(error: unknown): void {
  const asked = askedVersion();
  const version = typeof asked === 'string' && asked !== '' ? asked : LATEST_VERSION;
  end({ stdout: JSON.stringify(cniErrorObject(error, version, process.env.CNI_COMMAND)), exitCode: 1 });
}

/** Prints the one answer and ends: whatever else is still under way has come too late. */
function end(result: CallAnswer): void {
  if (ended) return;
  ended = true;
  if (result.stdout === '') process.exit(result.exitCode);
  Bun.write(Bun.stdout, `${result.stdout}\n`).then(
    () => process.exit(result.exitCode),
    // Who does not read the answer has not got it.
    () => process.exit(1),
  );
}

function explain(): void {
  process.stderr.write(
    `weft is a CNI plugin; container runtimes call it (CNI ${SUPPORTED_VERSIONS.join(', ')})\n`,
  );
  process.exit(0);
}

function cniVariables(): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const name of CNI_VARIABLES) {
    const value = process.env[name];
    if (value !== undefined) variables[name] = value;
  }
  return variables;
}

function askedVersion(): unknown {
  return Object.getOwnPropertyDescriptor(configuration(), 'cniVersion')?.value;
}

/** The configuration, as far as it can be read at all: the agent is who judges it. */
function configuration(): object {
  try {
    const parsed: unknown = JSON.parse(stdin);
    return typeof parsed === 'object' && parsed !== null ? parsed : {};
  } catch {
    return {};
  }
}

function isTerminal(): boolean {
  return process.getBuiltinModule('node:tty').isatty(0);
}
