// What servers and clients tell each other. The names are those of the server's GraphQL schema.

/** A message. Messages never change. */
export interface Message<Data = unknown> {
  /** Unique over all topics: the text of `cursor`. */
  id: string;
  /** The publisher's id, which is unique within the topic. The server makes one if the publisher gives none. */
  messageId: string;
  topic: string;
  /** What was published. Numbers beyond 2^53 lose digits, as everywhere in JavaScript. */
  data: Data;
  key: string | null;
  /** What the publisher gave with the data, such as the context of a trace. */
  headers: Record<string, string> | null;
  /** Whether this message removed its key, which then has no value any more. Its data is null. */
  removed: boolean;
  /** The message's number in its topic. It only grows, but it may skip numbers. */
  offset: number;
  /** The message's position in its topic, for `after`. */
  cursor: string;
  /** The position over all topics, for `after` of the same pattern. Null unless the subscription is to a pattern. */
  patternCursor: string | null;
  /** When the server accepted the message, as RFC 3339 text in UTC. */
  publishedAt: string;
}

/** Messages that could not be delivered, at their place in the stream. */
export interface Gap {
  topic: string;
  /** How many messages were missed. Null if nobody can know. */
  missed: number | null;
  /** The first and the last missed offset. Null if they are not known. */
  fromOffset: number | null;
  toOffset: number | null;
  /**
   * Why. Besides the server's reasons, such as `EXPIRED`, `COMPACTED` and `SLOW_CONSUMER`, there are two: with `TOPIC_DELETED` a topic of
   * the pattern was deleted with messages that were not read, and with `UNKNOWN_POSITION` the connection broke before the client
   * had learned a position.
   */
  reason: string;
}

/** Where a stored message stands. */
export interface Publication {
  /** Unique over all topics: the text of `cursor`. */
  id: string;
  messageId: string;
  topic: string;
  offset: number;
  cursor: string;
  publishedAt: string;
  /** Whether the message had been stored before: this is then the first one's position. */
  duplicate: boolean;
}

/** Where a subscription begins: one of these, or with the next message. */
export interface Start {
  /** The last so many messages. */
  last?: number;
  /** After this position: the `cursor` of a message, or for a pattern its `patternCursor`. */
  after?: string;
  /** Messages that were published at this time or later. RFC 3339. */
  since?: string;
  /** The state: the newest message of each key, without removed keys. `onState` of `consume` says when it is complete. */
  state?: boolean;
}

/** Which messages are wanted: exactly one of `field`, `and`, `or` and `not`. */
export interface Filter {
  /** The path into `data`, such as `order.total`. `$key` is the message's key. */
  field?: string;
  eq?: unknown;
  ne?: unknown;
  in?: readonly unknown[];
  gt?: number | string;
  gte?: number | string;
  lt?: number | string;
  lte?: number | string;
  exists?: boolean;
  startsWith?: string;
  contains?: unknown;
  and?: readonly Filter[];
  or?: readonly Filter[];
  not?: Filter;
}

/** What happens to a subscription that falls behind. */
export type Overflow = 'HISTORY' | 'LATEST' | 'LATEST_PER_KEY' | 'DISCONNECT';
