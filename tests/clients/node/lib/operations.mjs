// The operations that every client performs.

const operation = (kind, name, text) => ({ kind, name, text });

export const TOPIC = operation('query', 'Topic', `query Topic($name: String!) {
  topic(name: $name) { name epoch messageCount lastOffset }
}`);

export const PUBLISH = operation('mutation', 'Publish', `mutation Publish($topic: String!, $data: JSON!, $id: ID, $key: String, $expectedOffset: Long) {
  publish(topic: $topic, data: $data, messageId: $id, key: $key, expectedOffset: $expectedOffset) { id messageId topic offset cursor publishedAt duplicate }
}`);

export const CREATE = operation('mutation', 'CreateTopic', `mutation CreateTopic($name: String!) {
  createTopic(name: $name) { name epoch }
}`);

export const ACKNOWLEDGE = operation('mutation', 'Acknowledge', `mutation Acknowledge($topic: String!, $consumer: String!, $cursor: Cursor!) {
  acknowledge(topic: $topic, consumer: $consumer, cursor: $cursor)
}`);

export const MESSAGES = operation('subscription', 'Messages', `subscription Messages($topic: String!, $last: Int, $after: Cursor, $consumer: String, $ack: AckMode) {
  messages(topic: $topic, last: $last, after: $after, consumer: $consumer, ack: $ack) {
    id messageId topic data key offset cursor publishedAt gap { missed fromOffset toOffset reason }
  }
}`);

/** This operation violates the schema. */
export const INVALID = operation('query', 'Invalid', 'query Invalid { nothingOfThisName }');
