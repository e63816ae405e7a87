import type { PubSubError } from './error.js';
import type { Server } from './http.js';
import type { Filter, Gap, Message, Overflow, Start } from './model.js';

/** What one subscription asks for. */
export interface Subscription extends Server {
  topic: string;
  start: Start;
  /** Where the client was, if it still waits for the end of the state: goes before `start`. */
  resume?: string | undefined;
  consumer?: string | undefined;
  consumerTtl?: string | undefined;
  filter?: Filter | undefined;
  overflow?: Overflow | undefined;
  /** The class to use, where the platform has none or another one is wanted. */
  WebSocket?: unknown;
  EventSource?: (new (url: string) => EventSource) | undefined;
}

/** What comes of a subscription, in this order: `onLive` once, then gaps, messages and the end of the
 * state, then `onEnd` once. */
export interface Listener {
  /** The subscription is live, and begins at this position if it is known. */
  onLive(position: string | undefined): void;
  /** `position` is the one behind the gap, if it is known. */
  onGap(gap: Gap, position: string | undefined): void;
  onMessage(message: Message, position: string): void;
  /** What came until here is the state. */
  onState(position: string): void;
  onEnd(error: PubSubError): void;
}

/** Opens a subscription. Returns what closes it; after that, the listener is not called any more. */
export type Source = (subscription: Subscription, listener: Listener) => () => void;
