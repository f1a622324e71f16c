import { setTimeout as sleep } from 'node:timers/promises';
import { UnreachableError, type KubeClient } from '../../src/kube/index.ts';

/** What becomes of one request: carried out and answered, never sent, carried out without an answer, or late. */
export type Fault = 'none' | 'lose-request' | 'lose-answer' | { readonly delayMs: number };

/** A client whose way to the apiserver can be cut, and that ends with its process. */
export interface FaultyClient {
  readonly client: KubeClient;
  /** Decides about each request from now on. */
  setFault(fault: () => Fault): void;
  /** Ends the watches that are open; while faults lose requests, new ones fail too. */
  breakWatches(): void;
  /** The process was killed: what was sent may be carried out, nothing more is sent, nobody hears an answer. */
  kill(): void;
}

export function createFaultyClient(upstream: KubeClient): FaultyClient {
  let fault: () => Fault = () => 'none';
  let isDead = false;
  let watches = new AbortController();
  const lost = (what: string, sent: boolean) =>
    new UnreachableError(what, sent, new Error('the simulated way is cut'));
  return {
    client: {
      async request(request) {
        const what = `${request.method} ${request.path}`;
        if (isDead) throw lost(what, false);
        const decided = fault();
        if (decided === 'lose-request') throw lost(what, true);
        if (typeof decided === 'object') await sleep(decided.delayMs, undefined, { signal: request.signal });
        // Who was killed while it was late has not sent it.
        if (isDead) throw lost(what, false);
        if (decided === 'lose-answer') {
          // It is on its way, whatever becomes of who sent it.
          await upstream.request({ ...request, signal: undefined }).catch(() => undefined);
          throw lost(what, true);
        }
        const answer = await upstream.request(request);
        if (isDead) throw lost(what, true);
        return answer;
      },
      async stream(request) {
        if (isDead || fault() === 'lose-request') throw lost(`GET ${request.path} (watch)`, true);
        await upstream.stream({ ...request, signal: AbortSignal.any([request.signal, watches.signal]) });
      },
      close: () => Promise.resolve(),
    },
    setFault(next) {
      fault = next;
    },
    breakWatches() {
      watches.abort(lost('watches', true));
      watches = new AbortController();
    },
    kill() {
      isDead = true;
      watches.abort(lost('watches', true));
    },
  };
}
