import { Acknowledger } from './acknowledge.js';
import { PubSubError } from './error.js';
import { overEventStream } from './event-stream.js';
import { pause, wait, type Server } from './http.js';
import type { Filter, Gap, Message, Overflow, Start } from './model.js';
import { overWebSocket } from './web-socket.js';

/** `waiting` is the time before another attempt. */
export type Status = 'connecting' | 'live' | 'waiting';

export interface ConsumeOptions<Data = unknown> extends Server, Start {
  /** A topic's name, or a pattern. */
  topic: string;
  /**
   * The name under which the server keeps the position. A message is acknowledged when `onMessage` has returned, and whoever
   * consumes under this name next continues behind it. Without a name, the position is kept here, for as long as this runs.
   */
  consumer?: string;
  /** How long the server keeps the position while nobody uses it, such as `15m`. */
  consumerTtl?: string;
  filter?: Filter;
  overflow?: Overflow;
  /** Called for each message, one after the other. If it throws or rejects, `consume` ends with this error. */
  onMessage: (message: Message<Data>) => unknown;
  /** Called in the place of messages that could not be delivered, in order with `onMessage`. */
  onGap: (gap: Gap) => unknown;
  /**
   * With `state`: called once, in order with `onMessage`, when what was handled is the state at this position. What follows is
   * live. It is not called for a `consumer` that the server knows already, because that goes on from its position.
   */
  onState?: (cursor: string) => unknown;
  /** Called for each error after which `consume` tries again. */
  onError?: (error: PubSubError) => void;
  onStatus?: (status: Status) => void;
  /** Ends `consume`, after the call of `onMessage` that runs. */
  signal?: AbortSignal;
  /** `event-stream` is for networks that let no WebSocket through. */
  transport?: 'websocket' | 'event-stream';
  /** How many messages may wait for `onMessage`. When they are so many, they are handled before more are asked for. */
  maxWaiting?: number;
  /** The class to use, where the platform has none: `ws` in Node.js before version 22. */
  WebSocket?: unknown;
  /** The class to use, where the platform has none: `eventsource` in Node.js. */
  EventSource?: new (url: string) => EventSource;
}

const MAX_WAITING = 1_000;

type Item = ({ message: Message } | { gap: Gap } | { state: string }) & { position: string | undefined };
/** Why a subscription has ended: with an error, because too many messages wait, or because it was told to. */
type End = { error: unknown } | 'full' | 'aborted';

/**
 * Calls `onMessage` for every message of a topic, in order, and `onGap` where messages are missing. It connects again when the
 * connection breaks, and continues behind the last message that was handled. Within one call each message is handled once. A
 * new call for the same `consumer` may get a message again whose acknowledgement did not reach the server.
 *
 * Resolves when `signal` has ended it. Rejects with the error that `onMessage` or `onGap` has thrown, or with a `PubSubError` if
 * trying again cannot help: the credential may not do this (`UNAUTHENTICATED`, `FORBIDDEN`), somebody else consumes under the
 * same name (`CONSUMER_TAKEN_OVER`), or the topic was deleted (`TOPIC_DELETED`).
 */
export function consume<Data = unknown>(options: ConsumeOptions<Data>): Promise<void> {
  return new Consumption(options as ConsumeOptions<never>).run();
}

class Consumption {
  readonly #options: ConsumeOptions<never>;
  readonly #signal: AbortSignal;
  readonly #acknowledger: Acknowledger | undefined;
  readonly #maxWaiting: number;
  #waiting: Item[] = [];
  /** The call that handles what waits, while there is one. */
  #working: Promise<void> | undefined;
  /** What a handler has thrown. */
  #failure: { error: unknown } | undefined;
  /** Behind what was handled last. */
  #position: string | undefined;
  /** The gap that was told last, if no message came after it: the server may repeat it after a reconnect. */
  #toldGap: string | undefined;
  #wasEverLive = false;
  #stateIsComplete = false;

  constructor(options: ConsumeOptions<never>) {
    this.#options = options;
    this.#signal = options.signal ?? new AbortController().signal;
    this.#maxWaiting = options.maxWaiting ?? MAX_WAITING;
    const { consumer, topic } = options;
    if (consumer !== undefined) this.#acknowledger = new Acknowledger(options, topic, consumer, this.#maxWaiting, this.#signal);
  }

  async run(): Promise<void> {
    let failures = 0;
    while (!this.#signal.aborted) {
      const { end, wasLive } = await this.#once();
      if (wasLive) failures = 0;
      if (typeof end === 'string') continue;
      const { error } = end;
      if (!(error instanceof PubSubError) || !this.#mayRepeat(error, failures)) throw error;
      this.#options.onError?.(error);
      this.#options.onStatus?.('waiting');
      await wait(Math.max(pause(failures), error.retryAfterMs ?? 0), this.#signal);
      failures += 1;
    }
  }

  /** A token that has expired is replaced once: a fresh one that is refused, too, is not going to be accepted. */
  #mayRepeat(error: PubSubError, failures: number): boolean {
    return error.isTransient || (error.code === 'UNAUTHENTICATED' && typeof this.#options.token === 'function' && failures === 0);
  }

  /** One subscription, from its request until all that came is handled and, as far as possible, acknowledged. */
  async #once(): Promise<{ end: End; wasLive: boolean }> {
    this.#options.onStatus?.('connecting');
    let wasLive = false;
    const end = await new Promise<End>((resolve) => {
      const abort = (): void => finish('aborted');
      const finish = (end: End): void => {
        this.#signal.removeEventListener('abort', abort);
        close();
        resolve(end);
      };
      const take = (item: Item): void => {
        this.#waiting.push(item);
        this.#working ??= this.#work(finish);
        if (this.#waiting.length >= this.#maxWaiting) finish('full');
      };
      const source = this.#options.transport === 'event-stream' ? overEventStream : overWebSocket;
      const close = source({ ...this.#options, ...this.#start() }, {
        onLive: (position) => {
          wasLive = true;
          this.#options.onStatus?.('live');
          this.#live(position, take);
        },
        onGap: (gap, position) => take({ gap, position }),
        onMessage: (message, position) => take({ message, position }),
        onState: (position) => take({ state: position, position }),
        onEnd: (error) => finish({ error }),
      });
      this.#signal.addEventListener('abort', abort);
    });
    await this.#working;
    // What waits after a failure or an abort was not handled, and the server still has it.
    this.#waiting = [];
    await this.#acknowledger?.flush();
    return { end: this.#failure ?? this.#acknowledger?.failure ?? end, wasLive };
  }

  #start(): { start: Start; resume?: string } {
    const { last, after, since, state, consumer } = this.#options;
    // A consumer goes on from the position that the server keeps.
    if (state && !this.#stateIsComplete && (consumer === undefined || this.#position === undefined)) {
      // The server goes on behind the position, and says when the rest of the state has come.
      return { start: { state }, ...(this.#position !== undefined && { resume: this.#position }) };
    }
    if (this.#position !== undefined) return { start: { after: this.#position } };
    const start = { ...(last !== undefined && { last }), ...(after !== undefined && { after }), ...(since !== undefined && { since }) };
    return { start };
  }

  #live(position: string | undefined, take: (item: Item) => void): void {
    const { topic, since, consumer, state } = this.#options;
    const isInState = state === true && !this.#stateIsComplete;
    const continues = this.#position !== undefined || since !== undefined || consumer !== undefined || isInState;
    if (this.#wasEverLive && !continues) {
      take({ gap: { topic, missed: null, fromOffset: null, toOffset: null, reason: 'UNKNOWN_POSITION' }, position });
    } else if (!isInState || consumer !== undefined) {
      // A state of which nothing was handled is read as a whole again.
      this.#position ??= position;
    }
    this.#wasEverLive = true;
  }

  async #work(finish: (end: End) => void): Promise<void> {
    try {
      for (let item = this.#waiting.shift(); item && !this.#signal.aborted; item = this.#waiting.shift()) await this.#handle(item);
    } catch (error) {
      this.#failure = { error };
      finish(this.#failure);
    } finally {
      this.#working = undefined;
    }
  }

  async #handle(item: Item): Promise<void> {
    const { position } = item;
    const id = 'message' in item ? item.message.id : undefined;
    if ('gap' in item) {
      const gap = JSON.stringify(item.gap);
      if (gap !== this.#toldGap) await this.#options.onGap(item.gap);
      this.#toldGap = gap;
    } else if ('state' in item) {
      await this.#options.onState?.(item.state);
      this.#stateIsComplete = true;
    } else if (!this.#acknowledger?.isHandled(item.message.id)) {
      await this.#options.onMessage(item.message as Message<never>);
      this.#toldGap = undefined;
    }
    if (position === undefined) return;
    this.#position = position;
    await this.#acknowledger?.handled(position, id);
  }
}
