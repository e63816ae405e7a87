import { lost, PubSubError } from './error.js';
import { execute, pause, wait, type Server } from './http.js';

const ACKNOWLEDGE = `mutation Acknowledge($topic: String!, $consumer: String!, $cursor: Cursor!) {
  acknowledge(topic: $topic, consumer: $consumer, cursor: $cursor)
}`;

/** What somebody wants who is told about errors. */
interface Options extends Server {
  onError?: (error: PubSubError) => void;
}

/**
 * Acknowledges positions of a consumer: one request at a time, each with the newest position, which covers all before it. What is
 * handled and not acknowledged yet comes again after a reconnect. It is known here, so that it is not handled again.
 */
export class Acknowledger {
  readonly #options: Options;
  readonly #topic: string;
  readonly #consumer: string;
  readonly #bound: number;
  readonly #signal: AbortSignal;
  /** What is handled and not acknowledged, in order. */
  #open: { position: string; id: string | undefined }[] = [];
  #ids = new Set<string>();
  #running: Promise<void> | undefined;
  /** An error after which acknowledging again cannot help. */
  failure: { error: unknown } | undefined;

  constructor(options: Options, topic: string, consumer: string, bound: number, signal: AbortSignal) {
    this.#options = options;
    this.#topic = topic;
    this.#consumer = consumer;
    this.#bound = bound;
    this.#signal = signal;
  }

  isHandled(id: string): boolean {
    return this.#ids.has(id);
  }

  /** Everything up to this position is handled. Waits only if too much is not acknowledged. Throws if acknowledging is forbidden. */
  async handled(position: string, id: string | undefined): Promise<void> {
    this.#open.push({ position, id });
    if (id !== undefined) this.#ids.add(id);
    this.#running ??= this.#run();
    for (let failures = 0; this.#open.length >= this.#bound && !this.#signal.aborted && !this.failure; failures += 1) {
      await this.flush();
      if (this.#open.length >= this.#bound) await wait(pause(failures), this.#signal);
    }
    if (this.failure) throw this.failure.error;
  }

  /** Acknowledges what is left, if the server can be reached. */
  async flush(): Promise<void> {
    await this.#running;
    if (this.#open.length > 0 && !this.failure) await (this.#running = this.#run());
  }

  async #run(): Promise<void> {
    try {
      for (let newest = this.#open.at(-1); newest && !this.failure; newest = this.#open.at(-1)) {
        if (!(await this.#acknowledge(newest.position))) break;
        this.#forget(this.#open.indexOf(newest) + 1);
      }
    } finally {
      this.#running = undefined;
    }
  }

  /** Returns whether the server has no more to learn about this position. */
  async #acknowledge(cursor: string): Promise<boolean> {
    const variables = { topic: this.#topic, consumer: this.#consumer, cursor };
    try {
      // An end of `consume` does not end this: what was handled shall be acknowledged.
      await execute(this.#options, ACKNOWLEDGE, variables, new AbortController().signal);
      return true;
    } catch (cause) {
      const error = cause instanceof PubSubError ? cause : lost(cause);
      if (error.code === 'FORBIDDEN') this.failure = { error };
      // A server that has forgotten the consumer makes it again with the next subscription, at the position that is known here.
      else this.#options.onError?.(error);
      return false;
    }
  }

  #forget(count: number): void {
    for (const { id } of this.#open.splice(0, count)) if (id !== undefined) this.#ids.delete(id);
  }
}
