import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, request, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { workOffDeletedNotes } from '../../../src/agent/deleted-notes.ts';
import type { Verbs } from '../../../src/agent/server.ts';
import { NotServingError } from '../../../src/cni/error.ts';
import {
  AGENT_SOCKET,
  CALL_PATH,
  DELETED_DIRECTORY,
  SERVING_MARK,
  type AddResult,
  type CniRequest,
  type DelRequest,
} from '../../../src/cni/index.ts';
import { parseAddress, parseCIDR } from '../../../src/net/index.ts';
import { startMachine, type Machine } from './machine.ts';

/** Said by every failure: whoever meets it has not read the folder's README yet. */
const WHAT_TO_DO =
  'the format between executable and agent has changed, and in a rollout one version meets the other: only add ' +
  'fields that may be missing, or give the call a new path and let the agent serve both; see test/contract/wire/README.md';

const RECORDED = join(import.meta.dirname, '..', '..', 'contract', 'wire', '1');
const Variables = z.record(z.string(), z.string());
const Answer = z.object({ stdout: z.string(), exitCode: z.number() });
const Call = z.object({
  name: z.string(),
  request: z.object({ env: Variables, stdin: z.string() }),
  understood: z.record(z.string(), z.unknown()),
  answer: Answer,
});
const Note = z.object({
  name: z.string(),
  environment: Variables,
  stdin: z.string(),
  file: z.string(),
  note: z.record(z.string(), z.unknown()),
  understood: z.record(z.string(), z.unknown()),
});
const calls = z.array(Call).parse(JSON.parse(await readFile(join(RECORDED, 'calls.json'), 'utf8')));
const notes = z.array(Note).parse(JSON.parse(await readFile(join(RECORDED, 'notes.json'), 'utf8')));

/** What a version to come may say besides. */
const UNKNOWN = { fieldOfALaterVersion: { a: ['b'] } };

it('is spoken at the places that the other version looks at', () => {
  expect({ AGENT_SOCKET, CALL_PATH, SERVING_MARK, DELETED_DIRECTORY }, WHAT_TO_DO).toEqual({
    AGENT_SOCKET: '/run/weft/agent.sock',
    CALL_PATH: '/cni',
    SERVING_MARK: '/run/weft/serving',
    DELETED_DIRECTORY: '/run/weft/deleted',
  });
});

describe.concurrent('this executable', () => {
  it.for(calls)(
    'is understood by the agent of the other version: $name',
    { timeout: 30_000 },
    async (call) => {
      await using machine = await startMachine();
      const agent = await playAgent(machine, { ...call.answer, ...UNKNOWN });
      const { exitCode, stdout } = await machine.call({ env: call.request.env, stdin: call.request.stdin });
      expect(await agent.heard, WHAT_TO_DO).toMatchObject({
        method: 'POST',
        url: '/cni',
        body: call.request,
      });
      const printed = call.answer.stdout === '' ? '' : `${call.answer.stdout}\n`;
      expect({ exitCode, stdout }, WHAT_TO_DO).toEqual({ exitCode: call.answer.exitCode, stdout: printed });
    },
  );

  it.for(notes)('leaves the note that it reads: $name', { timeout: 30_000 }, async (recorded) => {
    await using machine = await startMachine();
    const { exitCode } = await machine.call({ env: recorded.environment, stdin: recorded.stdin });
    expect(exitCode).toBe(0);
    const text = await readFile(join(machine.run, 'deleted', recorded.file), 'utf8');
    const { notedAt, ...note } = JSON.parse(text) as Record<string, unknown>;
    expect({ ...note, notedAt: typeof notedAt }, WHAT_TO_DO).toMatchObject({
      ...recorded.note,
      notedAt: 'string',
    });
  });
});

describe.concurrent('this agent', () => {
  it.for(calls)(
    'understands the executable of the other version: $name',
    { timeout: 30_000 },
    async (call) => {
      await using machine = await startMachine();
      const understood: CniRequest[] = [];
      await machine.serve(verbs(understood));
      const answer = await say(machine, { ...call.request, ...UNKNOWN });
      expect(understood, WHAT_TO_DO).toMatchObject([call.understood]);
      expect(answer.status, WHAT_TO_DO).toBe(200);
      const { stdout, ...rest } = Answer.parse(answer.body);
      expect(rest, WHAT_TO_DO).toEqual({ exitCode: call.answer.exitCode });
      const read = (text: string): unknown => (text === '' ? '' : JSON.parse(text));
      expect(read(stdout), WHAT_TO_DO).toEqual(read(call.answer.stdout));
    },
  );

  it.for(notes)('carries out the note that it left: $name', async (recorded) => {
    await using machine = await startMachine();
    const directory = join(machine.run, 'deleted');
    await mkdir(directory);
    await writeFile(join(directory, recorded.file), JSON.stringify({ ...recorded.note, ...UNKNOWN }));
    const deleted: DelRequest[] = [];
    const errors: unknown[] = [];
    await workOffDeletedNotes({
      directory,
      del: async (one) => void deleted.push(one),
      log: { info: () => undefined, error: (facts) => void errors.push(facts) },
    });
    expect(errors, WHAT_TO_DO).toEqual([]);
    expect(deleted, WHAT_TO_DO).toMatchObject([recorded.understood]);
    expect(await readdir(directory)).toEqual([]);
  });
});

const RESULT: AddResult = {
  interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1450, sandbox: '/run/netns/pod' }],
  ips: [
    {
      address: parseAddress('10.244.1.2'),
      prefixLength: 32,
      gateway: parseAddress('169.254.1.1'),
      interface: 0,
    },
  ],
  routes: [{ destination: parseCIDR('0.0.0.0/0'), gateway: parseAddress('169.254.1.1') }],
  dns: {},
};

/** Verbs that note what they were asked for. */
function verbs(understood: CniRequest[]): Verbs {
  const note = async (asked: CniRequest) => void understood.push(asked);
  const added = async (asked: CniRequest) => {
    understood.push(asked);
    return RESULT;
  };
  return {
    add: added,
    addAddresses: added,
    del: note,
    check: note,
    checkAddresses: note,
    gc: note,
    async status(asked) {
      understood.push(asked);
      throw new NotServingError('waiting for a subnet');
    },
  };
}

/** An agent that says that one answer; `heard` is what it is asked first. */
async function playAgent(machine: Machine, answer: object): Promise<{ readonly heard: Promise<object> }> {
  const heard = Promise.withResolvers<object>();
  const server = createServer((incoming, response) => {
    void textOf(incoming).then((text) => {
      const body = JSON.stringify(answer);
      response.writeHead(200, { 'content-length': Buffer.byteLength(body) }).end(body);
      server.close();
      heard.resolve({ method: incoming.method, url: incoming.url, body: JSON.parse(text) as unknown });
    }, heard.reject);
  });
  await new Promise<void>((resolve) => server.listen(join(machine.run, 'agent.sock'), resolve));
  return { heard: heard.promise };
}

/** Says a call as the executable of another version does. */
async function say(machine: Machine, call: object): Promise<{ status: number | undefined; body: unknown }> {
  const answered = Promise.withResolvers<IncomingMessage>();
  const socketPath = join(machine.run, 'agent.sock');
  const sent = request({ socketPath, method: 'POST', path: '/cni', agent: false }, answered.resolve);
  sent.on('error', answered.reject);
  sent.end(JSON.stringify(call));
  const answer = await answered.promise;
  return { status: answer.statusCode, body: JSON.parse(await textOf(answer)) as unknown };
}

async function textOf(message: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of message as AsyncIterable<Buffer>) pieces.push(piece);
  return Buffer.concat(pieces).toString('utf8');
}
