// The page's one WebSocket, on which all subscriptions run. It connects again when it breaks, and waits longer each time.

import { signal } from '@preact/signals';
import { createClient, type Client } from 'graphql-ws';
import { exact } from './json.ts';

/** The shortest and the longest wait before another attempt, in milliseconds. */
const WAITS = [500, 10_000] as const;
/** How often the page asks whether the connection still works, and how long it waits for the answer, in milliseconds. */
const PING_MS = 10_000;
const PONG_MS = 5_000;

export type State =
  | { phase: 'connecting' | 'live' }
  /** `since` is when the connection broke, `until` when the next attempt is. */
  | { phase: 'waiting'; since: number; until: number }
  /** The server takes no connection with this credential. */
  | { phase: 'refused' };

/** The random part lets pages that lost the same server come back at different times. */
export function waitOf(attempt: number, random = Math.random()): number {
  return Math.min(WAITS[1], WAITS[0] * 2 ** attempt) * (0.5 + random / 2);
}

type Closed = { code?: number };

export class Line {
  readonly state = signal<State>({ phase: 'connecting' });
  #url: string;
  #headers: () => Record<string, string>;
  #client: Client | undefined;
  #acknowledged = new Map<string, (cursor: string | undefined) => void>();
  /** Those who wait for a connection. */
  #waiting = new Set<(client: Client) => void>();
  /** Ends the present wait. */
  #wake: () => void = () => {};
  #since = 0;

  constructor(url: URL, headers: () => Record<string, string>) {
    const address = new URL(url);
    address.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    this.#url = address.href;
    this.#headers = headers;
  }

  /** Connects, again and again. */
  async run(): Promise<never> {
    for (let attempt = 0; ; attempt += 1) {
      const { code, wasLive } = await this.#connect();
      if (wasLive) attempt = 0;
      if (code === 4401 || code === 4403) {
        this.state.value = { phase: 'refused' };
        await new Promise<void>((resolve) => (this.#wake = resolve));
        attempt = -1;
      } else {
        if (wasLive || this.#since === 0) this.#since = Date.now();
        await this.#wait(waitOf(attempt));
      }
      this.state.value = { phase: 'connecting' };
    }
  }

  /** One connection, from its attempt to its end. */
  #connect(): Promise<{ code: number | undefined; wasLive: boolean }> {
    return new Promise((resolve) => {
      let wasLive = false;
      let silence: ReturnType<typeof setTimeout> | undefined;
      const client = createClient({
        url: this.#url,
        lazy: false,
        // This class tries again: a client of the library would send operations again as they were, from their old positions.
        retryAttempts: 0,
        onNonLazyError: () => {},
        keepAlive: PING_MS,
        connectionParams: this.#headers,
        jsonMessageReviver: exact,
        on: {
          connected: () => {
            wasLive = true;
            this.#client = client;
            this.state.value = { phase: 'live' };
            this.#waiting.forEach((go) => go(client));
            this.#waiting.clear();
          },
          ping: (received, payload) => {
            if (!received) silence = setTimeout(() => client.terminate(), PONG_MS);
            else if (typeof payload?.ack === 'string') {
              this.#acknowledged.get(payload.ack)?.(payload.cursor as string | undefined);
            }
          },
          pong: (received) => {
            if (received) clearTimeout(silence);
          },
          closed: (event) => {
            clearTimeout(silence);
            this.#client = undefined;
            // Later, so that the library first tells its subscriptions that they broke: one that is disposed of completes them.
            setTimeout(() => Promise.resolve(client.dispose()).catch(() => {}));
            resolve({ code: (event as Closed).code, wasLive });
          },
        },
      });
    });
  }

  async #wait(milliseconds: number): Promise<void> {
    this.state.value = { phase: 'waiting', since: this.#since, until: Date.now() + milliseconds };
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, milliseconds);
    });
  }

  /** Does not wait any longer for the next attempt. */
  hurry(): void {
    this.#wake();
  }

  /** Connects again with the present credential. */
  renew(): void {
    if (this.#client) this.#client.terminate();
    this.#wake();
  }

  /** Resolves when there is a connection. */
  connected(): Promise<Client> {
    return this.#client ? Promise.resolve(this.#client) : new Promise((resolve) => this.#waiting.add(resolve));
  }

  /** Calls `listener` with the position at which the subscription with this text as `extensions.ack` begins. */
  onAcknowledged(ack: string, listener: (cursor: string | undefined) => void): () => void {
    this.#acknowledged.set(ack, listener);
    return () => this.#acknowledged.delete(ack);
  }
}
