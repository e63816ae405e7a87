import { lost, PubSubError, refused } from './error.js';
import { address, authorization, execute } from './http.js';
import type { Start } from './model.js';
import type { Listener, Source, Subscription } from './source.js';

/** More than any topic keeps: everything that it has. */
const EVERYTHING = 1_000_000;

/** What a status of HTTP says about the request. An `EventSource` does not tell it. */
const CODES: Record<number, string> = { 400: 'BAD_REQUEST', 401: 'UNAUTHENTICATED', 403: 'FORBIDDEN', 404: 'TOPIC_NOT_FOUND' };

interface Frame {
  topic: string;
  data: unknown;
  id: string;
  key?: string;
  headers?: Record<string, string>;
  removed?: boolean;
  offset: number;
  cursor: string;
  pattern_cursor?: string;
  published_at: string;
  missed?: number | null;
  from_offset: number;
  to_offset: number;
  reason: string;
  consumer: { cursor?: string };
  error: { code: string; message: string };
}

const isPattern = (topic: string): boolean => topic.split('.').some((segment) => segment === '*' || segment === '>');

/** Where the subscription begins. The end of a topic is asked for, because an `EventSource` does not show where it begins. */
async function begin(subscription: Subscription, signal: AbortSignal): Promise<Start> {
  const { start, topic, consumer } = subscription;
  if (Object.keys(start).length > 0 || consumer !== undefined || isPattern(topic)) return start;
  const query = 'query End($topic: String!) { topic(name: $topic) { cursor } }';
  const { topic: found } = await execute<{ topic: { cursor: string } | null }>(subscription, query, { topic }, signal);
  // A topic that does not exist yet has only messages that are still to come.
  return found ? { after: found.cursor } : { last: EVERYTHING };
}

function addressOf({ topic, filter, overflow, consumer, consumerTtl, resume, ...server }: Subscription, start: Start): URL {
  const url = address(server, `topics/${encodeURIComponent(topic)}/messages`);
  const parameters = {
    ...start,
    lastEventId: resume,
    filter: filter && JSON.stringify(filter),
    overflow,
    consumer,
    consumer_ttl: consumerTtl,
    ack: consumer === undefined ? undefined : 'EXPLICIT',
  };
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) url.searchParams.set(name, String(value));
  return url;
}

/** Makes the browser send the credential, which an `EventSource` cannot do itself: by a cookie of the server. */
async function signIn(subscription: Subscription, signal: AbortSignal): Promise<void> {
  if (subscription.token === undefined || subscription.EventSource) return;
  const headers = await authorization(subscription);
  const { status } = await fetch(address(subscription, 'auth/cookie'), { method: 'POST', headers, signal });
  if (status >= 400) throw refusal(status);
}

const refusal = (status: number): PubSubError =>
  status in CODES ? new PubSubError(CODES[status] ?? '', `the server refuses the subscription with status ${status}`) : lost(new Error(`status ${status}`));

/** Finds out why the server has refused a stream. */
async function why(url: URL, subscription: Subscription, signal: AbortSignal): Promise<PubSubError> {
  try {
    const headers = { Accept: 'text/event-stream', ...(await authorization(subscription)) };
    return refusal((await fetch(url, { method: 'HEAD', headers, signal })).status);
  } catch (cause) {
    return lost(cause);
  }
}

/** A subscription over an event stream. */
export const overEventStream: Source = (subscription, listener) => {
  const closed = new AbortController();
  open(subscription, listener, closed.signal).catch((cause: unknown) => {
    if (!closed.signal.aborted) listener.onEnd(cause instanceof PubSubError ? cause : lost(cause));
  });
  return () => closed.abort();
};

async function open(subscription: Subscription, listener: Listener, closed: AbortSignal): Promise<void> {
  await signIn(subscription, closed);
  const start = await begin(subscription, closed);
  closed.throwIfAborted();
  const url = addressOf(subscription, start);
  const source = new (subscription.EventSource ?? EventSource)(url.href);
  closed.addEventListener('abort', () => source.close());
  const on = (name: string, take: (frame: Frame, position: string) => void): void =>
    source.addEventListener(name, (event) => {
      const { data, lastEventId } = event as MessageEvent<string>;
      if (!closed.aborted && data !== undefined) take(JSON.parse(data) as Frame, lastEventId);
    });
  const end = (error: PubSubError): void => {
    source.close();
    if (!closed.aborted) listener.onEnd(error);
  };
  // The `consumer` event follows, with a position.
  source.addEventListener('open', () => closed.aborted || subscription.consumer !== undefined || listener.onLive(start.after));
  on('consumer', ({ consumer }) => listener.onLive(consumer.cursor));
  on('message', ({ id, key, headers, removed, pattern_cursor, published_at, ...frame }, position) => {
    const { topic, data, offset, cursor } = frame;
    const absent = { key: key ?? null, headers: headers ?? null, removed: removed ?? false, patternCursor: pattern_cursor ?? null };
    listener.onMessage({ id: cursor, messageId: id, topic, data, offset, cursor, publishedAt: published_at, ...absent }, position);
  });
  on('state', ({ pattern_cursor, cursor }) => listener.onState(pattern_cursor ?? cursor));
  on('gap', ({ topic, missed, from_offset, to_offset, reason }) =>
    listener.onGap({ topic, missed: missed ?? null, fromOffset: from_offset, toOffset: to_offset, reason }, undefined),
  );
  on('deleted', ({ topic }) =>
    isPattern(subscription.topic)
      ? listener.onGap({ topic, missed: null, fromOffset: null, toOffset: null, reason: 'TOPIC_DELETED' }, undefined)
      : end(new PubSubError('TOPIC_DELETED', `topic ${JSON.stringify(topic)} was deleted`)),
  );
  on('error', ({ error }) => end(refused({ message: error.message, extensions: error })));
  // The server's own errors have data. Any other is one of the connection. An EventSource would connect again by itself, with
  // the position of the last message that came: `consume` does it with that of the last one that was handled.
  source.addEventListener('error', async (event) => {
    if ((event as MessageEvent<string>).data !== undefined || closed.aborted) return;
    const wasRefused = source.readyState === 2;
    source.close();
    const error = wasRefused ? await why(url, subscription, closed) : lost(undefined);
    if (!closed.aborted) listener.onEnd(error);
  });
}
