import { createClient } from 'graphql-ws/client';
import { lost, PubSubError, refused, type GraphQLProblem } from './error.js';
import { address, authorization } from './http.js';
import type { Gap, Message } from './model.js';
import type { Source, Subscription } from './source.js';

/** How often to ask whether the connection still works, and how long to wait for the answer, in milliseconds. */
const PING_MS = 10_000;
const PONG_MS = 5_000;

/** Close codes that say that the credential is missing, bad or too old. */
const UNAUTHENTICATED = [4401, 4403];
/** Close codes after which the same request would fail again. */
const FINAL = [1002, 1007, 1009, 4004, 4005, 4400, 4406, 4409, 4429];

const MESSAGES = `subscription Messages(
  $topic: String!, $last: Int, $after: Cursor, $since: DateTime, $state: Boolean, $filter: Filter, $overflow: Overflow,
  $consumer: String, $consumerTtl: String, $ack: AckMode
) {
  messages(
    topic: $topic, last: $last, after: $after, since: $since, state: $state, filter: $filter, overflow: $overflow,
    consumer: $consumer, consumerTtl: $consumerTtl, ack: $ack
  ) { id messageId topic data key headers removed offset cursor patternCursor publishedAt }
}`;

interface Result {
  data?: { messages: Message | null } | null;
  errors?: readonly GraphQLProblem[];
  extensions?: { gap?: Gap; deleted?: { topic: string }; state?: { cursor: string }; cursor?: string };
}

function variables({ topic, start, filter, overflow, consumer, consumerTtl }: Subscription): Record<string, unknown> {
  return { topic, ...start, filter, overflow, consumer, consumerTtl, ack: consumer === undefined ? undefined : 'EXPLICIT' };
}

/** Why a connection has ended. */
function ended(cause: unknown): PubSubError {
  if (Array.isArray(cause)) return refused((cause as GraphQLProblem[])[0] ?? {});
  const { code, reason } = (cause ?? {}) as { code?: unknown; reason?: string };
  if (typeof code !== 'number') return lost(cause);
  if (UNAUTHENTICATED.includes(code)) return new PubSubError('UNAUTHENTICATED', reason || 'the credential was refused', { cause });
  if (FINAL.includes(code)) return new PubSubError('BAD_REQUEST', reason || `the connection was closed with ${code}`, { cause });
  return lost(new Error(`closed with ${code}${reason ? ` ${reason}` : ''}`));
}

/** A subscription over a WebSocket of its own. */
export const overWebSocket: Source = (subscription, listener) => {
  const url = address(subscription, 'graphql');
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  let silence: ReturnType<typeof setTimeout> | undefined;
  let isOver = false;
  const client = createClient({
    url: url.href,
    webSocketImpl: subscription.WebSocket,
    connectionParams: () => authorization(subscription),
    // `consume` tries again: the library would send the operation as it was, with its old position.
    retryAttempts: 0,
    keepAlive: PING_MS,
    on: {
      // The acknowledgement of the subscription says where it begins. It comes before all messages.
      ping: (received, payload) => {
        if (!received) silence = setTimeout(() => client.terminate(), PONG_MS);
        else if (payload?.ack === 'live' && !isOver) listener.onLive(payload.cursor as string | undefined);
      },
      pong: (received) => {
        if (received) clearTimeout(silence);
      },
      closed: () => clearTimeout(silence),
    },
  });
  let error: PubSubError | undefined;
  const end = (cause: PubSubError): void => {
    if (isOver) return;
    isOver = true;
    listener.onEnd(error ?? cause);
  };
  const next = ({ data, errors, extensions: { gap, deleted, state, cursor } = {} }: Result): void => {
    if (isOver) return;
    if (gap) listener.onGap(gap, data?.messages ? undefined : cursor);
    if (deleted) listener.onGap({ ...deleted, missed: null, fromOffset: null, toOffset: null, reason: 'TOPIC_DELETED' }, cursor);
    const message = data?.messages;
    if (message) listener.onMessage(message, message.patternCursor ?? message.cursor);
    if (state) listener.onState(state.cursor);
    // The stream completes after a result with errors.
    if (errors?.[0]) error ??= refused(errors[0]);
  };
  const stop = client.subscribe(
    // With the second extension, results without a message have a position, too.
    { query: MESSAGES, variables: variables(subscription), extensions: { ack: 'live', 'delivery-guarantee': 'cursor', lastEventId: subscription.resume } },
    { next: (result) => next(result as Result), error: (cause) => end(ended(cause)), complete: () => end(lost(undefined)) },
  );
  return () => {
    isOver = true;
    clearTimeout(silence);
    stop();
  };
};
