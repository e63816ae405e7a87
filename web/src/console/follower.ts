// Follows a topic without a silent loss: subscribes, and after each break continues behind the last message that came. What
// could not be delivered is a gap in its place.

import type { Client } from 'graphql-ws';
import type { GraphQlError } from './api.ts';
import { MessagesDocument, type Filter, type MessagesSubscription } from './generated.ts';
import type { Tail } from './tail.ts';
import { explained, span, type Gap } from './words.ts';

/** Where a tail begins: nothing of it says live. */
export type Start = { last?: number; since?: string; after?: string; state?: boolean; filter?: Filter };

/** What takes the messages: a tail, or the values of a state. */
export type Taker = Pick<Tail, 'isFull' | 'release' | 'note' | 'gap' | 'message'> & { complete?(): void };

/** What a follower needs of the page. */
export type World = {
  connected: () => Promise<Pick<Client, 'subscribe'>>;
  onAcknowledged: (ack: string, listener: (cursor: string | undefined) => void) => () => void;
  /** Whether the topic exists. To subscribe to one that does not would create it. */
  exists: () => Promise<boolean>;
  /** Asks the person for another credential. Resolves to whether there is one. */
  ask: (message: string) => Promise<boolean>;
  /** Resolves when there is another credential. */
  anotherCredential: () => Promise<void>;
  sleep: (milliseconds: number) => Promise<void>;
  /** The tail has changed. */
  changed: () => void;
};

/** `full` is a tail that is held and reads no further. */
export type Phase = 'starting' | 'live' | 'broken' | 'full' | 'missing' | 'stopped';

type Result = { data?: MessagesSubscription | null; errors?: GraphQlError[]; extensions?: { gap?: Gap; state?: { complete: boolean } } };
type End = { kind: 'broken' | 'full' | 'aborted' } | { kind: 'ended'; error: GraphQlError | undefined };

/** The waits between attempts that the server refuses or that fail, in milliseconds. */
const RETRY_MS = 2_000;
const MISSING_MS = 1_000;

let lastAck = 0;

export class Follower {
  phase: Phase = 'starting';
  readonly #topic: string;
  readonly #start: Start;
  readonly #tail: Taker;
  readonly #world: World;
  readonly #stopped = new AbortController();
  /** The position behind which it continues. */
  #position: string | undefined;
  #offset: number | undefined;
  /** When the connection broke, while it is broken. */
  #brokenAt: number | undefined;
  #released: () => void = () => {};
  /** Whether the state has not come completely. */
  #awaitsState: boolean;

  constructor(topic: string, start: Start, tail: Taker, world: World) {
    this.#topic = topic;
    this.#start = start;
    this.#tail = tail;
    this.#world = world;
    this.#position = start.after;
    this.#awaitsState = start.state === true;
  }

  stop(): void {
    this.#stopped.abort();
    this.#released();
  }

  /** The tail goes on. */
  release(): void {
    this.#tail.release();
    this.#released();
    this.#world.changed();
  }

  #become(phase: Phase): void {
    this.phase = phase;
    this.#world.changed();
  }

  #note(text: string, isBad = false): void {
    this.#tail.note(text, isBad);
    this.#world.changed();
  }

  async run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      const client = await this.#world.connected();
      if (signal.aborted || !(await this.#isThere())) continue;
      if (signal.aborted) return;
      await this.#after(await this.#once(client));
    }
  }

  /** Waits until the topic exists. Returns false where the connection may be another one meanwhile. */
  async #isThere(): Promise<boolean> {
    let exists: boolean;
    try {
      exists = await this.#world.exists();
    } catch {
      // The page's other requests show the error. This one is sent again.
      await this.#world.sleep(MISSING_MS);
      return false;
    }
    if (exists) return true;
    if (this.phase !== 'missing') {
      if (this.#position !== undefined) this.#note('There is no topic of this name now. The tail goes on when there is one again.');
      this.#become('missing');
    }
    await this.#world.sleep(MISSING_MS);
    return false;
  }

  /** One subscription, from its request to its end. */
  #once(client: Pick<Client, 'subscribe'>): Promise<End> {
    return new Promise((resolve) => {
      const ack = `tail-${++lastAck}`;
      let error: GraphQlError | undefined;
      const { filter } = this.#start;
      const goesOn = this.#position !== undefined && !this.#awaitsState;
      const begin = goesOn ? { after: this.#position, ...(filter && { filter }) } : this.#start;
      const variables = { topic: this.#topic, ...begin };
      // The server goes on there, and says when the rest of the state has come.
      const resume = this.#awaitsState && this.#position !== undefined && { lastEventId: this.#position };
      const forget = this.#world.onAcknowledged(ack, (cursor) => this.#acknowledged(cursor));
      const abort = () => finish({ kind: 'aborted' });
      const finish = (end: End) => {
        forget();
        this.#stopped.signal.removeEventListener('abort', abort);
        stop();
        resolve(end);
      };
      const stop = client.subscribe<MessagesSubscription>(
        { query: MessagesDocument.toString(), variables, extensions: { ack, ...resume } },
        {
          next: (result) => {
            error ??= this.#result(result as Result);
            if (this.#tail.isFull) finish({ kind: 'full' });
          },
          // GraphQL errors are a list. Whatever else this is, the connection is gone.
          error: (cause) =>
            finish(Array.isArray(cause) ? { kind: 'ended', error: cause[0] as GraphQlError } : { kind: 'broken' }),
          complete: () => finish({ kind: 'ended', error }),
        },
      );
      this.#stopped.signal.addEventListener('abort', abort);
    });
  }

  /** The subscription is live, and begins here. */
  #acknowledged(cursor: string | undefined): void {
    if (!this.#awaitsState) this.#position ??= cursor;
    if (this.#brokenAt !== undefined) {
      const seconds = (Date.now() - this.#brokenAt) / 1_000;
      const lasted = seconds < 1 ? 'less than a second' : span(seconds);
      const place = this.#offset === undefined ? 'where it stood' : `after offset ${this.#offset}`;
      this.#note(`Connected again after ${lasted}. The tail continues ${place}.`);
      this.#brokenAt = undefined;
    }
    this.#become('live');
  }

  /** Takes one result, and returns the error in it. */
  #result({ data, errors, extensions }: Result): GraphQlError | undefined {
    if (extensions?.gap) this.#tail.gap(extensions.gap);
    if (data?.messages) {
      this.#tail.message(data.messages);
      this.#position = data.messages.cursor;
      this.#offset = data.messages.offset;
    }
    if (extensions?.state) {
      this.#awaitsState = false;
      this.#tail.complete?.();
    }
    this.#world.changed();
    return errors?.[0];
  }

  async #after(end: End): Promise<void> {
    if (end.kind === 'ended') return this.#ended(end.error);
    if (end.kind === 'full') {
      this.#become('full');
      return new Promise((resolve) => (this.#released = resolve));
    }
    if (end.kind === 'broken') {
      // Where it never was live, it has not broken now.
      if (this.phase === 'live') {
        this.#brokenAt = Date.now();
        this.#note('Connection lost.', true);
      }
      this.#become('broken');
    }
  }

  /** The server has ended the subscription. */
  async #ended(error: GraphQlError | undefined): Promise<void> {
    const code = error?.extensions?.code;
    // A server that stops completes the stream, and then closes the connection.
    if (error === undefined) return this.#world.sleep(RETRY_MS);
    if (code === 'TOPIC_DELETED') {
      this.#note('The topic was deleted. The tail goes on when there is one of this name again.', true);
      this.#become('missing');
      return;
    }
    this.#note(explained(code ?? '', error.message), true);
    if (code === 'UNAUTHENTICATED' && (await this.#world.ask(error.message))) return;
    if (code === 'UNAUTHENTICATED' || code === 'FORBIDDEN') {
      this.#become('stopped');
      await this.#world.anotherCredential();
    } else if (code === 'BAD_REQUEST' || code === 'INVALID_TOPIC') {
      // The same request would be refused again.
      this.#become('stopped');
      this.stop();
    } else {
      this.#become('broken');
      await this.#world.sleep(RETRY_MS);
    }
  }
}
