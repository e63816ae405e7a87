/** Internal type. DO NOT USE DIRECTLY. */
type Exact<T extends { [key: string]: unknown }> = { [K in keyof T]: T[K] };
/** Internal type. DO NOT USE DIRECTLY. */
export type Incremental<T> = T | { [P in keyof T]?: P extends ' $fragmentName' | '__typename' ? T[P] : never };
import type { DocumentTypeDecoration } from '@graphql-typed-document-node/core';
// Written by `npm run generate` from schema.graphql and operations/.

/** When a consumer's position moves. */
export type AckMode =
  /** As messages reach the client. */
  | 'AUTO'
  /** When the client acknowledges a cursor. */
  | 'EXPLICIT';

/**
 * Which messages are wanted: one condition on a field, or several joined. Exactly one of `field`, `and`, `or` and `not`;
 * with `field`, all operators given must hold. At most 64 conditions, 4 KiB as JSON, unless the server sets otherwise.
 */
export type Filter = {
  /**
   * The way into the message's data, object keys and array indexes joined by `.`: `order.total`. `$key` is the
   * message's key.
   */
  field?: string | null | undefined;
  /**
   * Equal to this JSON value; numbers by value, objects whatever the order of their keys. Null that is given is a value,
   * too: only a field that is null equals it. For no condition, leave it out.
   */
  eq?: unknown;
  /** Not equal to this JSON value, or missing. Null that is given is a value: only a field that is null fails. */
  ne?: unknown;
  /** Equal to one of these. */
  in?: Array<unknown> | null | undefined;
  /** Greater than this number or string. */
  gt?: unknown;
  /** Greater than or equal to this number or string. */
  gte?: unknown;
  /** Less than this number or string. */
  lt?: unknown;
  /** Less than or equal to this number or string. */
  lte?: unknown;
  /** Whether the field is there at all; null counts as there. */
  exists?: boolean | null | undefined;
  /** A string that begins so. */
  startsWith?: string | null | undefined;
  /** A string that has this part, or an array that has this element. */
  contains?: unknown;
  /** All of these hold. */
  and?: Array<Filter> | null | undefined;
  /** One of these holds. */
  or?: Array<Filter> | null | undefined;
  /** This does not hold. */
  not?: Filter | null | undefined;
};

/** What happens to a subscription that falls behind (more than 64 messages wait for it), once it has caught up. */
export type Overflow =
  /**
   * It ends with an error of code `SLOW_CONSUMER` when the history no longer has what it would read next. Subscribing
   * again is safe.
   */
  | 'DISCONNECT'
  /** It reads on from the history; a gap tells when that is gone. */
  | 'HISTORY'
  /** It jumps to the newest message; a gap says what was skipped. */
  | 'LATEST'
  /** It gets only the newest message of each key; gaps say what was skipped. Messages without a key are all kept. */
  | 'LATEST_PER_KEY';

/** Which messages of a topic are kept. */
export type Retention =
  /** The newest ones, up to the bounds of its history. */
  | 'HISTORY'
  /** The newest one of each key, however old it is. Every message needs a key. */
  | 'LATEST_PER_KEY';

/** Where a consumer is moved: exactly one of these. */
export type SeekInput = {
  /** Behind this position: a message's own cursor, or, of a pattern, a pattern cursor. */
  after?: string | null | undefined;
  /** Before the first message published at or after this time. */
  since?: string | null | undefined;
  /** Before the last so many kept messages; 0 is the end. */
  last?: number | null | undefined;
};

/** How a subscription is getting on. */
export type SubscriptionState =
  /** It has been at the end, and messages wait for it. */
  | 'BEHIND'
  /** It has begun in the past and has not come to the end yet. */
  | 'CATCHING_UP'
  /** It has read everything. */
  | 'CAUGHT_UP'
  /** Messages have waited for it for 5 seconds, and it has taken none meanwhile. */
  | 'STALLED';

/** What became of a topic. */
export type TopicEventKind =
  /** It exists now. */
  | 'CREATED'
  /** It is gone. */
  | 'DELETED'
  /** Something was published in it again. */
  | 'RESUMED'
  /** Nothing was published in it for longer than it expects (`expectEvery`). */
  | 'SILENT'
  /** Its settings changed. */
  | 'UPDATED';

export type TopicQueryVariables = Exact<{
  name: string;
}>;


export type TopicQuery = { topic: { createdAt: string, cursor: string, name: string, epoch: string, implicit: boolean, messageCount: number, maxMessages: number, maxPublishRate: number, maxAge: string, expectEvery: string | null, retention: Retention, maxKeys: number, lastOffset: number, lastPublishedAt: string | null, subscriberCount: number } | null };

export type SubscriptionsQueryVariables = Exact<{
  name: string;
}>;


export type SubscriptionsQuery = { topic: { subscriptions: Array<{ id: string, state: SubscriptionState, lag: number, lagMs: number, missed: number, door: string, address: string | null, pattern: string | null, since: string, overflow: Overflow, consumer: string | null, principal: string | null, filterHitRate: number | null }> } | null };

export type ConsumersQueryVariables = Exact<{
  name: string;
}>;


export type ConsumersQuery = { consumers: Array<{ name: string, owner: string | null, ack: AckMode, connected: boolean, lastUsedAt: string, positions: Array<{ topic: string, offset: number, cursor: string, lag: number }> }> };

export type DisconnectMutationVariables = Exact<{
  id: string | number;
}>;


export type DisconnectMutation = { disconnect: boolean };

export type SeekConsumerMutationVariables = Exact<{
  topic: string;
  consumer: string;
  owner?: string | null | undefined;
  to: SeekInput;
}>;


export type SeekConsumerMutation = { seekConsumer: string };

export type PublishMutationVariables = Exact<{
  topic: string;
  data: unknown;
  key?: string | null | undefined;
  messageId?: string | number | null | undefined;
  headers?: Record<string, string> | null | undefined;
  ttl?: string | null | undefined;
}>;


export type PublishMutation = { publish: { messageId: string, offset: number, cursor: string, duplicate: boolean } };

export type AcknowledgeMutationVariables = Exact<{
  topic: string;
  consumer: string;
  owner?: string | null | undefined;
  cursor: string;
}>;


export type AcknowledgeMutation = { acknowledge: boolean };

export type DeleteConsumerMutationVariables = Exact<{
  topic: string;
  consumer: string;
  owner?: string | null | undefined;
}>;


export type DeleteConsumerMutation = { deleteConsumer: boolean };

export type MessagesSubscriptionVariables = Exact<{
  topic: string;
  last?: number | null | undefined;
  after?: string | null | undefined;
  since?: string | null | undefined;
  state?: boolean | null | undefined;
  filter?: Filter | null | undefined;
}>;


export type MessagesSubscription = { messages: { messageId: string, key: string | null, headers: Record<string, string> | null, removed: boolean, data: unknown, offset: number, cursor: string, publishedAt: string } | null };

export type TopicLineFragment = { name: string, epoch: string, implicit: boolean, messageCount: number, maxMessages: number, maxPublishRate: number, maxAge: string, expectEvery: string | null, retention: Retention, maxKeys: number, lastOffset: number, lastPublishedAt: string | null, subscriberCount: number };

export type TopicsQueryVariables = Exact<{
  prefix?: string | null | undefined;
  first: number;
}>;


export type TopicsQuery = { topics: { totalCount: number, nodes: Array<{ name: string, epoch: string, implicit: boolean, messageCount: number, maxMessages: number, maxPublishRate: number, maxAge: string, expectEvery: string | null, retention: Retention, maxKeys: number, lastOffset: number, lastPublishedAt: string | null, subscriberCount: number }>, pageInfo: { hasNextPage: boolean } } };

export type NewestQueryVariables = Exact<{
  name: string;
}>;


export type NewestQuery = { topic: { epoch: string, recent: { nodes: Array<{ offset: number, cursor: string, previous: string | null }> }, newest: { nodes: Array<{ data: unknown }> } } | null };

export type ServerQueryVariables = Exact<{ [key: string]: never; }>;


export type ServerQuery = { health: { status: string, version: string, uptimeSeconds: number } };

export type StatsQueryVariables = Exact<{ [key: string]: never; }>;


export type StatsQuery = { stats: { topics: number, messages: number, published: number, subscribers: number, historyBytes: number } };

export type CreateTopicMutationVariables = Exact<{
  name: string;
  maxMessages?: number | null | undefined;
  maxPublishRate?: number | null | undefined;
  maxAge?: string | null | undefined;
  expectEvery?: string | null | undefined;
  retention?: Retention | null | undefined;
  maxKeys?: number | null | undefined;
}>;


export type CreateTopicMutation = { createTopic: { name: string } };

export type UpdateTopicMutationVariables = Exact<{
  name: string;
  maxMessages?: number | null | undefined;
  maxPublishRate?: number | null | undefined;
  maxAge?: string | null | undefined;
  expectEvery?: string | null | undefined;
  retention?: Retention | null | undefined;
  maxKeys?: number | null | undefined;
}>;


export type UpdateTopicMutation = { updateTopic: { name: string } };

export type DeleteTopicMutationVariables = Exact<{
  name: string;
}>;


export type DeleteTopicMutation = { deleteTopic: { name: string } };

export type TopicEventsSubscriptionVariables = Exact<{
  pattern?: string | null | undefined;
}>;


export type TopicEventsSubscription = { topicEvents: { kind: TopicEventKind, name: string } | null };

export class TypedDocumentString<TResult, TVariables>
  extends String
  implements DocumentTypeDecoration<TResult, TVariables>
{
  __apiType?: NonNullable<DocumentTypeDecoration<TResult, TVariables>['__apiType']>;
  private value: string;
  public __meta__?: Record<string, any> | undefined;

  constructor(value: string, __meta__?: Record<string, any> | undefined) {
    super(value);
    this.value = value;
    this.__meta__ = __meta__;
  }

  override toString(): string & DocumentTypeDecoration<TResult, TVariables> {
    return this.value;
  }
}
export const TopicLineFragmentDoc = new TypedDocumentString(`
    fragment TopicLine on Topic {
  name
  epoch
  implicit
  messageCount
  maxMessages
  maxPublishRate
  maxAge
  expectEvery
  retention
  maxKeys
  lastOffset
  lastPublishedAt
  subscriberCount
}
    `, {"fragmentName":"TopicLine"}) as unknown as TypedDocumentString<TopicLineFragment, unknown>;
export const TopicDocument = new TypedDocumentString(`
    query Topic($name: String!) {
  topic(name: $name) {
    ...TopicLine
    createdAt
    cursor
  }
}
    fragment TopicLine on Topic {
  name
  epoch
  implicit
  messageCount
  maxMessages
  maxPublishRate
  maxAge
  expectEvery
  retention
  maxKeys
  lastOffset
  lastPublishedAt
  subscriberCount
}`) as unknown as TypedDocumentString<TopicQuery, TopicQueryVariables>;
export const SubscriptionsDocument = new TypedDocumentString(`
    query Subscriptions($name: String!) {
  topic(name: $name) {
    subscriptions {
      id
      state
      lag
      lagMs
      missed
      door
      address
      pattern
      since
      overflow
      consumer
      principal
      filterHitRate
    }
  }
}
    `) as unknown as TypedDocumentString<SubscriptionsQuery, SubscriptionsQueryVariables>;
export const ConsumersDocument = new TypedDocumentString(`
    query Consumers($name: String!) {
  consumers(topic: $name) {
    name
    owner
    ack
    connected
    lastUsedAt
    positions {
      topic
      offset
      cursor
      lag
    }
  }
}
    `) as unknown as TypedDocumentString<ConsumersQuery, ConsumersQueryVariables>;
export const DisconnectDocument = new TypedDocumentString(`
    mutation Disconnect($id: ID!) {
  disconnect(subscription: $id)
}
    `) as unknown as TypedDocumentString<DisconnectMutation, DisconnectMutationVariables>;
export const SeekConsumerDocument = new TypedDocumentString(`
    mutation SeekConsumer($topic: String!, $consumer: String!, $owner: String, $to: SeekInput!) {
  seekConsumer(topic: $topic, consumer: $consumer, owner: $owner, to: $to)
}
    `) as unknown as TypedDocumentString<SeekConsumerMutation, SeekConsumerMutationVariables>;
export const PublishDocument = new TypedDocumentString(`
    mutation Publish($topic: String!, $data: JSON!, $key: String, $messageId: ID, $headers: Headers, $ttl: String) {
  publish(
    topic: $topic
    data: $data
    key: $key
    messageId: $messageId
    headers: $headers
    ttl: $ttl
  ) {
    messageId
    offset
    cursor
    duplicate
  }
}
    `) as unknown as TypedDocumentString<PublishMutation, PublishMutationVariables>;
export const AcknowledgeDocument = new TypedDocumentString(`
    mutation Acknowledge($topic: String!, $consumer: String!, $owner: String, $cursor: Cursor!) {
  acknowledge(topic: $topic, consumer: $consumer, owner: $owner, cursor: $cursor)
}
    `) as unknown as TypedDocumentString<AcknowledgeMutation, AcknowledgeMutationVariables>;
export const DeleteConsumerDocument = new TypedDocumentString(`
    mutation DeleteConsumer($topic: String!, $consumer: String!, $owner: String) {
  deleteConsumer(topic: $topic, consumer: $consumer, owner: $owner)
}
    `) as unknown as TypedDocumentString<DeleteConsumerMutation, DeleteConsumerMutationVariables>;
export const MessagesDocument = new TypedDocumentString(`
    subscription Messages($topic: String!, $last: Int, $after: Cursor, $since: DateTime, $state: Boolean, $filter: Filter) {
  messages(
    topic: $topic
    last: $last
    after: $after
    since: $since
    state: $state
    filter: $filter
  ) {
    messageId
    key
    headers
    removed
    data
    offset
    cursor
    publishedAt
  }
}
    `) as unknown as TypedDocumentString<MessagesSubscription, MessagesSubscriptionVariables>;
export const TopicsDocument = new TypedDocumentString(`
    query Topics($prefix: String, $first: Int!) {
  topics(prefix: $prefix, first: $first) {
    totalCount
    nodes {
      ...TopicLine
    }
    pageInfo {
      hasNextPage
    }
  }
}
    fragment TopicLine on Topic {
  name
  epoch
  implicit
  messageCount
  maxMessages
  maxPublishRate
  maxAge
  expectEvery
  retention
  maxKeys
  lastOffset
  lastPublishedAt
  subscriberCount
}`) as unknown as TypedDocumentString<TopicsQuery, TopicsQueryVariables>;
export const NewestDocument = new TypedDocumentString(`
    query Newest($name: String!) {
  topic(name: $name) {
    epoch
    recent: messages(last: 10) {
      nodes {
        offset
        cursor
        previous
      }
    }
    newest: messages(last: 1) {
      nodes {
        data
      }
    }
  }
}
    `) as unknown as TypedDocumentString<NewestQuery, NewestQueryVariables>;
export const ServerDocument = new TypedDocumentString(`
    query Server {
  health {
    status
    version
    uptimeSeconds
  }
}
    `) as unknown as TypedDocumentString<ServerQuery, ServerQueryVariables>;
export const StatsDocument = new TypedDocumentString(`
    query Stats {
  stats {
    topics
    messages
    published
    subscribers
    historyBytes
  }
}
    `) as unknown as TypedDocumentString<StatsQuery, StatsQueryVariables>;
export const CreateTopicDocument = new TypedDocumentString(`
    mutation CreateTopic($name: String!, $maxMessages: Int, $maxPublishRate: Int, $maxAge: String, $expectEvery: String, $retention: Retention, $maxKeys: Int) {
  createTopic(
    name: $name
    maxMessages: $maxMessages
    maxPublishRate: $maxPublishRate
    maxAge: $maxAge
    expectEvery: $expectEvery
    retention: $retention
    maxKeys: $maxKeys
  ) {
    name
  }
}
    `) as unknown as TypedDocumentString<CreateTopicMutation, CreateTopicMutationVariables>;
export const UpdateTopicDocument = new TypedDocumentString(`
    mutation UpdateTopic($name: String!, $maxMessages: Int, $maxPublishRate: Int, $maxAge: String, $expectEvery: String, $retention: Retention, $maxKeys: Int) {
  updateTopic(
    name: $name
    maxMessages: $maxMessages
    maxPublishRate: $maxPublishRate
    maxAge: $maxAge
    expectEvery: $expectEvery
    retention: $retention
    maxKeys: $maxKeys
  ) {
    name
  }
}
    `) as unknown as TypedDocumentString<UpdateTopicMutation, UpdateTopicMutationVariables>;
export const DeleteTopicDocument = new TypedDocumentString(`
    mutation DeleteTopic($name: String!) {
  deleteTopic(name: $name) {
    name
  }
}
    `) as unknown as TypedDocumentString<DeleteTopicMutation, DeleteTopicMutationVariables>;
export const TopicEventsDocument = new TypedDocumentString(`
    subscription TopicEvents($pattern: String) {
  topicEvents(pattern: $pattern) {
    kind
    name
  }
}
    `) as unknown as TypedDocumentString<TopicEventsSubscription, TopicEventsSubscriptionVariables>;