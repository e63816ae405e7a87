// A browser's EventSource (npm eventsource) with the topic's own stream, and with a GraphQL subscription in the URL.

import { EventSource } from 'eventsource';
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Proxy, Server } from '../lib/server.mjs';
import { after, Inbox, until, within } from '../lib/wait.mjs';

const options = { timeout: 60_000 };

/** It waits three seconds before it reconnects, as browsers do, and has no setting for a shorter time. */
const CONNECTS_AGAIN = 15_000;

function graphql(at, args, fields = 'id data offset cursor gap { reason missed }') {
  return `${at.http}?query=${encodeURIComponent(`subscription { messages(${args}) { ${fields} } }`)}`;
}

function open(t, url, events) {
  const inbox = new Inbox();
  const source = new EventSource(url);
  for (const name of events) source.addEventListener(name, ({ type, data, lastEventId }) => inbox.push({ type, data: data && JSON.parse(data), lastEventId }));
  after(t, () => source.close());
  return { source, inbox, next: (what) => inbox.next(what) };
}

const DOORS = {
  'GET /topics/{name}/messages': {
    open: (t, at, start = '') => {
      const stream = open(t, `${at.origin}/topics/news/messages${start && `?${start}`}`, ['message', 'gap', 'deleted', 'consumer', 'error']);
      return stream;
    },
    message: ({ data }) => data,
  },
  'GET /graphql?query=subscription…': {
    open: (t, at, start = '') => {
      const args = new URLSearchParams(start);
      const list = [...args].map(([name, value]) => `, ${name}: ${name === 'last' || name === 'ack' ? value : JSON.stringify(value)}`);
      return open(t, graphql(at, `topic: "news"${list.join('')}`), ['next', 'complete']);
    },
    message: ({ data }) => data.data.messages,
  },
};

for (const [door, { open, message }] of Object.entries(DOORS)) {
  const rest = door.startsWith('GET /topics');
  describe(`EventSource on ${door}`, { concurrency: 2 }, () => {
    test('history, then live; id is the cursor', options, async (t) => {
      const server = await Server.start(t);
      for (let i = 1; i <= 3; i++) await server.publish('news', { i });
      const stream = open(t, server, 'last=2');
      for (let i = 2; i <= 3; i++) {
        const event = await stream.next();
        assert.deepEqual(message(event).data, { i });
        assert.equal(event.lastEventId, message(event).cursor);
      }
      await server.publish('news', { i: 4 });
      assert.deepEqual(message(await stream.next()).data, { i: 4 });
      stream.source.close();
      await server.subscribers('news', 0);
    });

    test('a deleted topic', options, async (t) => {
      const server = await Server.start(t);
      await server.publish('news', 1);
      const stream = open(t, server, 'last=1');
      await stream.next();
      await server.deleteTopic('news');
      const event = await stream.next();
      if (rest) {
        assert.equal(event.type, 'deleted');
        assert.equal(event.data.topic, 'news');
      } else {
        assert.equal(event.data.errors[0].extensions.code, 'TOPIC_DELETED');
        assert.equal((await stream.next()).type, 'complete');
      }
      stream.source.close();
    });

    test('cut twice in the middle of a message: it connects again by Last-Event-ID and misses nothing, and nothing comes twice', options, async (t) => {
      const server = await Server.start(t);
      const proxy = await Proxy.start(t, server);
      proxy.cutsLeft = 2;
      const { source, inbox } = open(t, proxy, 'last=1000');
      const TOTAL = 40;
      for (let i = 1; i <= TOTAL; i++) await server.publish('news', { i, pad: 'x'.repeat(200) });
      const messages = () => inbox.items.filter(({ type }) => type === 'message' || type === 'next').map(message);
      await until(() => `all come (SEED=${proxy.seed}): ${messages().map(({ offset }) => offset)}`, () => messages().length >= TOTAL, 2 * CONNECTS_AGAIN);
      assert.deepEqual(messages().map(({ data }) => data.i), Array.from({ length: TOTAL }, (_, i) => i + 1), `SEED=${proxy.seed}`);
      assert.equal(proxy.cuts, 2);
      source.close();
    });

    for (const ack of ['AUTO', 'EXPLICIT']) {
      test(`cut in the middle of a message with a consumer and ${ack}`, options, async (t) => {
        const server = await Server.start(t);
        const proxy = await Proxy.start(t, server);
        const { source, inbox } = open(t, proxy, `consumer=tab-1&ack=${ack}`);
        await server.subscribers('news', 1);
        const TOTAL = 30;
        const messages = () => inbox.items.filter(({ type }) => type === 'message' || type === 'next').map(message);
        // Before its first event a client has no Last-Event-ID. With AUTO, what is lost in a cut at that time counts as
        // delivered.
        await server.publish('news', { i: 1 });
        await until('the first comes', () => messages().length === 1);
        proxy.cutsLeft = 1;
        proxy.cut();
        for (let i = 2; i <= TOTAL; i++) await server.publish('news', { i, pad: 'x'.repeat(200) });
        const all = () => messages().at(-1)?.data.i >= TOTAL;
        await until(() => `all come (SEED=${proxy.seed}): ${messages().map(({ offset }) => offset)}`, all, CONNECTS_AGAIN);
        // The Last-Event-ID that EventSource sends is an acknowledgement, so nothing is delivered twice.
        assert.deepEqual(messages().map(({ data }) => data.i), Array.from({ length: TOTAL }, (_, i) => i + 1), `SEED=${proxy.seed}`);
        source.close();
      });
    }

    test('server killed and started again: it learns NEW_EPOCH', options, async (t) => {
      const server = await Server.start(t);
      await server.publish('news', 1);
      const stream = open(t, server, 'last=1');
      await stream.next();
      // The browser's own error events do not come from the server.
      await server.restart();
      await server.publish('news', 2);
      const events = stream.inbox.items;
      const gap = () => events.find(({ type, data }) => (rest ? type === 'gap' && data : data?.extensions?.gap));
      await until('the gap', gap, CONNECTS_AGAIN);
      assert.equal(rest ? gap().data.reason : gap().data.extensions.gap.reason, 'NEW_EPOCH');
      await until('the message', () => events.some((event) => ['message', 'next'].includes(event.type) && message(event).data === 2));
      stream.source.close();
    });
  });
}

describe('EventSource on a pattern', { concurrency: 2 }, () => {
  const doors = {
    'GET /topics/{name}/messages': (at) => `${at.origin}/topics/orders.*/messages`,
    'GET /graphql?query=subscription…': (at) => graphql(at, 'topic: "orders.*"', 'topic data cursor patternCursor gap { reason missed }'),
  };
  for (const [door, address] of Object.entries(doors)) {
    test(`${door}: cut in the middle of messages, it goes on in every topic, also in those made meanwhile`, options, async (t) => {
      const server = await Server.start(t);
      const proxy = await Proxy.start(t, server);
      const { source, inbox } = open(t, address(proxy), ['message', 'next', 'gap', 'deleted', 'error']);
      const got = () => inbox.items.filter(({ type }) => type === 'message' || type === 'next');
      const read = ({ type, data }) => (type === 'next' ? data.data.messages : data);
      // Publishing creates the topics. The first message shows that the subscription to the pattern is live.
      let sent = 0;
      const send = (topic) => server.publish(`orders.${topic}`, { i: (sent += 1), pad: 'x'.repeat(200) });
      await until('the first comes', async () => {
        if (got().length === 0) await send('eu');
        return got().length > 0;
      });
      const first = read(got()[0]).data.i;
      // Messages that were published until then were published before the subscription, or are delivered as well.
      proxy.cutsLeft = 1;
      proxy.cut();
      for (let count = 0; count < 40; count++) await send(['eu', 'us', `new-${count % 4}`][count % 3]);
      await until(() => `all come (SEED=${proxy.seed}): ${got().map((event) => read(event).data.i)}`, () => got().some((event) => read(event).data.i === sent), 2 * CONNECTS_AGAIN);
      const numbers = got().map((event) => read(event).data.i);
      assert.deepEqual(numbers, Array.from({ length: sent - first + 1 }, (_, index) => first + index), `SEED=${proxy.seed}`);
      for (const event of got()) assert.equal(event.lastEventId, read(event).patternCursor ?? read(event).pattern_cursor);
      source.close();
    });
  }
});

test('query and mutation errors reach an EventSource as results', options, async (t) => {
  const server = await Server.start(t);
  const stream = open(t, graphql(server, 'topic: "$reserved"'), ['next', 'complete']);
  const result = await within('the error', stream.next());
  assert.equal(result.data.errors[0].extensions.code, 'INVALID_TOPIC');
  assert.equal((await stream.next()).type, 'complete');
  stream.source.close();
});
