import type { Clock } from '../ipam/index.ts';
import type { EventOutcome, RequestObserver, RequestVerb } from '../kube/index.ts';
import type { MetricsRegistry } from './registry.ts';

/** Answers that every cluster sees: another had the name, the object had changed, or it had gone. */
const KNOWN_OUTCOMES: Readonly<Record<RequestVerb, readonly string[]>> = {
  get: ['200', '404'],
  list: ['200'],
  watch: ['200', '410'],
  create: ['201', '409'],
  update: ['200', '409'],
  patch: ['200', '404', '409'],
  delete: ['200', '404', '409'],
};

const VERBS = Object.keys(KNOWN_OUTCOMES) as RequestVerb[];

/** Counts and times what is asked of the apiserver. */
export function createRequestMetrics(
  registry: MetricsRegistry,
  clock: Pick<Clock, 'nowMs'>,
): RequestObserver {
  const requests = registry.counts({
    name: 'weft_api_requests_total',
    help:
      'Requests to the apiserver by verb and status code; code "unreachable": no answer came, "aborted": weft gave ' +
      'up waiting. 409 is an answer, not a fault: somebody else was faster.',
    labels: ['verb', 'code'],
    known: VERBS.flatMap((verb) =>
      [...KNOWN_OUTCOMES[verb], 'unreachable', 'aborted'].map((code) => [verb, code]),
    ),
  });
  const durations = registry.histogram({
    name: 'weft_api_request_duration_seconds',
    help:
      'Time from sending a request to the end of its answer; of a watch, to the beginning. Creates are on the way ' +
      'of every ADD: what they take, pods wait.',
    labels: ['verb'],
    known: VERBS.map((verb) => [verb]),
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10],
  });
  return (verb) => {
    const sentMs = clock.nowMs();
    return (outcome) => {
      requests(verb, String(outcome))();
      durations(verb)((clock.nowMs() - sentMs) / 1000);
    };
  };
}

/** Counts the Events that a process tells people by. */
export function createEventMetrics(registry: MetricsRegistry): (outcome: EventOutcome) => void {
  const outcomes: readonly EventOutcome[] = ['written', 'repeated', 'dropped', 'failed'];
  const events = registry.counts({
    name: 'weft_events_total',
    help:
      'Events by what became of them: written; repeated, which one Event counts; dropped, because there were too ' +
      'many at once (the log has them); failed, because the apiserver did not take them.',
    labels: ['result'],
    known: outcomes.map((outcome) => [outcome]),
  });
  return (outcome) => {
    events(outcome)();
  };
}

/** Counts the signs that etcd has been restored from an older snapshot: each is a recovery (design, section 5). */
export function createEtcdMetrics(registry: MetricsRegistry): () => void {
  const wentBack = registry.count({
    name: 'weft_etcd_went_back_total',
    help:
      'Signs that etcd is back at an older state than this process has seen. After each it reads everything anew, ' +
      'and agents write again what living pods have lost.',
  });
  return () => wentBack();
}
