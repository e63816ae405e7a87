import { PubSubError } from './error.js';
import { execute, pause, wait, type Server } from './http.js';
import type { Publication } from './model.js';

export interface PublishOptions extends Server {
  topic: string;
  /** Any JSON value. */
  data: unknown;
  /** The message's id: the server stores it once, however often it is published. A random one unless given. */
  id?: string;
  key?: string;
  /** What goes with the data, such as the context of a trace. */
  headers?: Record<string, string>;
  /** Publish only if this is the topic's newest offset, else fail with `CONFLICT`. */
  expectedOffset?: number;
  /**
   * How long to repeat the publish while the server cannot be reached or cannot store, in milliseconds. The default of four
   * minutes is within the server's `DEDUP_WINDOW`, as long as which it knows an id.
   */
  retryForMs?: number;
  signal?: AbortSignal;
}

const RETRY_FOR_MS = 240_000;

const PUBLISH = `mutation Publish($topic: String!, $data: JSON!, $messageId: ID, $key: String, $headers: Headers, $expectedOffset: Long) {
  publish(topic: $topic, data: $data, messageId: $messageId, key: $key, headers: $headers, expectedOffset: $expectedOffset) {
    id messageId topic offset cursor publishedAt duplicate
  }
}`;

/**
 * Publishes a message, and resolves when the server has stored it. It repeats the publish with the same id until the server
 * responds, so that the message is stored once, also if a response is lost. Rejects with a `PubSubError`.
 */
export async function publish(options: PublishOptions): Promise<Publication> {
  const { topic, data, key, headers, expectedOffset, retryForMs = RETRY_FOR_MS } = options;
  const signal = options.signal ?? new AbortController().signal;
  const variables = { topic, data, key, headers, expectedOffset, messageId: options.id ?? randomId() };
  const end = Date.now() + retryForMs;
  for (let failures = 0; ; failures += 1) {
    signal.throwIfAborted();
    try {
      return (await execute<{ publish: Publication }>(options, PUBLISH, variables, signal)).publish;
    } catch (error) {
      if (!(error instanceof PubSubError) || !mayRepeat(error, options, failures)) throw error;
      const milliseconds = Math.max(pause(failures), error.retryAfterMs ?? 0);
      if (Date.now() + milliseconds > end) throw error;
      await wait(milliseconds, signal);
    }
  }
}

/** A token that has expired is replaced once: a fresh one that is refused, too, is not going to be accepted. */
const mayRepeat = (error: PubSubError, { token }: Server, failures: number): boolean =>
  error.isTransient || (error.code === 'UNAUTHENTICATED' && typeof token === 'function' && failures === 0);

/** `crypto.randomUUID` exists only on pages that came over TLS or from this machine. */
function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
