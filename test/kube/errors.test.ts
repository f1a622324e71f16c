import { describe, expect, it } from 'vitest';
import {
  AlreadyExistsError,
  ConflictError,
  errorOfAnswer,
  ForbiddenError,
  GoneError,
  InvalidError,
  KubeError,
  NotFoundError,
  ServerError,
  TooManyRequestsError,
  UnauthorizedError,
  UnreachableError,
} from '../../src/kube/index.ts';

const status = (code: number, reason: string, message = 'because', details?: object) => ({
  statusCode: code,
  text: JSON.stringify({ kind: 'Status', code, reason, message, details }),
});

describe('an answer that is no', () => {
  it.each([
    [409, 'AlreadyExists', AlreadyExistsError],
    [409, 'Conflict', ConflictError],
    [404, 'NotFound', NotFoundError],
    [410, 'Gone', GoneError],
    [410, 'Expired', GoneError],
    [401, 'Unauthorized', UnauthorizedError],
    [403, 'Forbidden', ForbiddenError],
    [422, 'Invalid', InvalidError],
    [400, 'BadRequest', InvalidError],
    [429, 'TooManyRequests', TooManyRequestsError],
    [500, 'InternalError', ServerError],
    [504, 'Timeout', ServerError],
    [409, 'SomethingNew', ServerError],
  ])('%i %s is one of its own kind', (code, reason, kind) => {
    const error = errorOfAnswer('POST /x', status(code, reason));
    expect(error.constructor).toBe(kind);
    expect(error.name).toBe(kind.name);
    expect(error).toBeInstanceOf(KubeError);
    expect(error.message).toBe(`POST /x: because (${code} ${reason})`);
  });

  it('is told by its code where what answered is no apiserver', () => {
    const error = errorOfAnswer('GET /x', { statusCode: 404, text: '404 page not found\n' });
    expect(error).toBeInstanceOf(NotFoundError);
    expect(error.message).toBe('GET /x: 404 page not found (404 without reason)');
    expect(errorOfAnswer('GET /x', { statusCode: 502, text: '' })).toBeInstanceOf(ServerError);
    // 409 alone does not say which of the two it is, so it is neither.
    expect(errorOfAnswer('POST /x', { statusCode: 409, text: '' })).toBeInstanceOf(ServerError);
  });

  it('says when to come back', () => {
    const told = errorOfAnswer('GET /x', { ...status(429, 'TooManyRequests'), retryAfterSeconds: 3 });
    expect(told).toMatchObject({ retryAfterMs: 3_000 });
    const inStatus = errorOfAnswer('GET /x', status(429, 'TooManyRequests', '', { retryAfterSeconds: 5 }));
    expect(inStatus).toMatchObject({ retryAfterMs: 5_000 });
  });

  it('knows an apiserver that is behind', () => {
    const behind = errorOfAnswer(
      'GET /x',
      status(504, 'Timeout', 'Too large resource version: 12, current: 3'),
    );
    expect(behind).toMatchObject({ isTooLargeResourceVersion: true });
    expect(errorOfAnswer('GET /x', status(504, 'Timeout'))).toMatchObject({
      isTooLargeResourceVersion: false,
    });
  });
});

describe('no answer', () => {
  it('says whether it may have been carried out, and why', () => {
    const refused = new AggregateError([new Error('refused ::1'), new Error('refused 127.0.0.1')]);
    expect(new UnreachableError('POST /x', false, refused).message).toBe(
      'POST /x: no answer from the apiserver (refused ::1, refused 127.0.0.1); it was not sent',
    );
    expect(new UnreachableError('POST /x', true, new Error('reset')).message).toContain(
      'whether it was carried out is not known',
    );
  });
});
