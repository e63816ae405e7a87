// The scenarios that every client must pass, whatever its transport.
//
// A driver wraps one stock client, with its own code and settings for reconnecting:
//   make({http, ws}) → { run(operation, variables) → {data, errors}, subscribe(operation, variables, sink) → stop, close() }
// with sink.next({data, errors, extensions}), sink.end(errors?).
//
// Traits say how a client differs from the others: `reconnects`, `auto` (see the drivers), `invalid` (whether it sends
// documents that violate the schema), `sticky` (whether it carries one result's extensions over to the next),
// `spared` (how many bytes of each connection it needs to receive so that it retries after a cut).

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ACKNOWLEDGE, CREATE, INVALID, MESSAGES, PUBLISH, TOPIC } from './operations.mjs';
import { Proxy, Server } from './server.mjs';
import { after, DEADLINE, Inbox, until, within } from './wait.mjs';

const CUTS = 8;
const MESSAGES_CUT = 60;
const LONG = 4 * DEADLINE;

const codes = (errors) => (errors ?? []).map((error) => error.extensions?.code);

/** One subscription of a client, and everything that it received. */
class Stream {
  results = new Inbox();

  constructor(client, variables, operation = MESSAGES) {
    this.ended = new Promise((resolve) => {
      this.stop = client.subscribe(operation, variables, {
        next: (result) => this.results.push(result),
        end: (errors) => resolve(errors ?? []),
      });
    });
  }

  async message() {
    const result = await this.results.next('a message');
    assert.deepEqual(codes(result.errors), [], JSON.stringify(result));
    return { ...result.data.messages, extensions: result.extensions };
  }

  /** A gap that no message follows. */
  async gap() {
    const result = await this.results.next('a gap');
    assert.deepEqual(codes(result.errors), [], JSON.stringify(result));
    assert.equal(result.data.messages, null);
    return result.extensions?.gap;
  }
}

/** Registers the tests of one client. */
export function scenarios(name, make, traits = {}) {
  const { reconnects = true, auto = true, invalid = true, sticky = false, spared } = traits;
  const options = { timeout: 60_000 };

  const connect = (t, at) => {
    const client = make({ http: at.http, ws: at.ws, origin: at.origin });
    after(t, () => client.close?.());
    return client;
  };

  describe(name, { concurrency: false }, () => {
    test('query', options, async (t) => {
      const server = await Server.start(t);
      await server.publish('news', 1);
      const client = connect(t, server);
      const { data, errors } = await within('the answer', client.run(TOPIC, { name: 'news' }));
      assert.deepEqual(codes(errors), []);
      assert.equal(data.topic.name, 'news');
      assert.equal(data.topic.messageCount, 1);
      const nothing = await within('the answer', client.run(TOPIC, { name: 'nowhere' }));
      assert.equal(nothing.data.topic, null);
    });

    test('mutation', options, async (t) => {
      const server = await Server.start(t);
      const client = connect(t, server);
      const data = { title: 'Grüße 🌍', list: [1, 2.5, null, true], nested: { a: {} } };
      const { data: done, errors } = await within('the answer', client.run(PUBLISH, { topic: 'news', data, id: 'first', key: 'k' }));
      assert.deepEqual(codes(errors), []);
      assert.equal(done.publish.offset, 1);
      assert.equal(done.publish.duplicate, false);
      const page = await (await fetch(`${server.origin}/topics/news/messages`)).json();
      assert.deepEqual(page.messages.map(({ id, key, data }) => ({ id, key, data })), [{ id: 'first', key: 'k', data }]);
      const again = await within('the answer', client.run(PUBLISH, { topic: 'news', data, id: 'first' }));
      assert.equal(again.data.publish.duplicate, true);
      assert.equal(again.data.publish.cursor, done.publish.cursor);
    });

    test('subscription: history, then live, in order and once', options, async (t) => {
      const server = await Server.start(t);
      for (let i = 1; i <= 5; i++) await server.publish('news', { i });
      const client = connect(t, server);
      const stream = new Stream(client, { topic: 'news', last: 3 });
      for (let i = 3; i <= 5; i++) assert.deepEqual((await stream.message()).data, { i });
      for (let i = 6; i <= 50; i++) await server.publish('news', { i });
      for (let i = 6; i <= 50; i++) {
        const message = await stream.message();
        assert.deepEqual(message.data, { i });
        assert.equal(message.offset, i);
        assert.equal(message.gap, null);
      }
      await stream.stop();
    });

    test('error of a resolver: extensions.code', options, async (t) => {
      const server = await Server.start(t);
      const client = connect(t, server);
      const { errors } = await within('the answer', client.run(CREATE, { name: 'a.*' }));
      assert.deepEqual(codes(errors), ['INVALID_TOPIC']);
      assert.deepEqual(codes((await within('the answer', client.run(CREATE, { name: 'a' }))).errors), []);
      assert.deepEqual(codes((await within('the answer', client.run(CREATE, { name: 'a' }))).errors), ['TOPIC_EXISTS']);
      const conflict = await within('the answer', client.run(PUBLISH, { topic: 'a', data: 1, expectedOffset: 7 }));
      assert.deepEqual(codes(conflict.errors), ['CONFLICT']);
    });

    if (invalid) {
      test('error of the request: extensions.code', options, async (t) => {
        const server = await Server.start(t);
        const client = connect(t, server);
        const { errors } = await within('the answer', client.run(INVALID, {}));
        assert.deepEqual(codes(errors), ['BAD_REQUEST']);
      });
    }

    test('error of a subscription: extensions.code, and the end', options, async (t) => {
      const server = await Server.start(t);
      const client = connect(t, server);
      const stream = new Stream(client, { topic: '$reserved' });
      const errors = [...(await within('the end', stream.ended))];
      for (const result of stream.results.items) errors.push(...(result.errors ?? []));
      assert.deepEqual(codes(errors), ['INVALID_TOPIC']);
      // The client still works.
      assert.equal((await within('the answer', client.run(TOPIC, { name: 'x' }))).data.topic, null);
    });

    test('a deleted topic: TOPIC_DELETED, then the end', options, async (t) => {
      const server = await Server.start(t);
      await server.publish('news', 1);
      const client = connect(t, server);
      const stream = new Stream(client, { topic: 'news', last: 1 });
      await stream.message();
      await server.deleteTopic('news');
      const errors = [...(await within('the end', stream.ended))];
      for (const result of stream.results.items) errors.push(...(result.errors ?? []));
      assert.deepEqual(codes(errors), ['TOPIC_DELETED']);
    });

    test('a gap that no message follows is a result without one, and the subscription goes on', options, async (t) => {
      const server = await Server.start(t);
      const { cursor } = await server.publish('news', 1);
      await server.deleteTopic('news');
      await server.publish('news', 2);
      await server.deleteTopic('news');
      const client = connect(t, server);
      const stream = new Stream(client, { topic: 'news', after: cursor });
      const gap = await stream.gap();
      assert.deepEqual([gap.reason, gap.missed, gap.topic], ['NEW_EPOCH', 0, 'news']);
      await server.publish('news', 3);
      const message = await stream.message();
      assert.deepEqual([message.data, message.gap], [3, null]);
      await stream.stop();
    });

    test('orderly stop: the server drops the subscription', options, async (t) => {
      const server = await Server.start(t);
      await server.publish('news', 1);
      const client = connect(t, server);
      const one = new Stream(client, { topic: 'news', last: 1 });
      // This is a different operation, because some clients share one subscription between equal operations.
      const other = new Stream(client, { topic: 'news', last: 2 });
      await one.message();
      await other.message();
      await server.subscribers('news', 2);
      await one.stop();
      await server.subscribers('news', 1);
      await server.publish('news', 2);
      assert.equal((await other.message()).data, 2);
      assert.equal(one.results.unread, 0);
      await other.stop();
      await server.subscribers('news', 0);
      await client.close?.();
    });

    if (!reconnects) return;

    /** Publishes while connections are cut at random points, and compares what arrived with what was sent. */
    const cuts = async (t, ack) => {
      const server = await Server.start(t);
      const proxy = await Proxy.start(t, server);
      const client = connect(t, proxy);
      const control = connect(t, server);
      const topic = 'orders';
      const consumer = 'tab-1';
      let [newest, acked, ackedAtCut, repeats, results] = [0, 0, 0, 0, 0];
      let fault;
      const acknowledge = async ({ cursor, offset }) => {
        const { data } = await control.run(ACKNOWLEDGE, { topic, consumer, cursor });
        if (data?.acknowledge) acked = Math.max(acked, offset);
      };
      proxy.onCut = () => (ackedAtCut = acked);
      proxy.cutsLeft = CUTS;
      proxy.spared = spared ?? proxy.spared;
      const stop = client.subscribe(MESSAGES, { topic, consumer, ack }, {
        next: (result) => {
          const message = result.data?.messages;
          if (!message) return (fault ??= `not a message: ${JSON.stringify(result)}`);
          const told = result.extensions?.consumer;
          if (told && !sticky && results > 0 && !told.resumed) fault ??= `not resumed: ${JSON.stringify(told)}`;
          results += 1;
          const { offset } = message;
          if (message.gap) fault ??= `a gap: ${JSON.stringify(message.gap)}`;
          if (message.data.i !== offset) fault ??= `message ${message.data.i} at offset ${offset}`;
          if (offset > newest + 1) fault ??= `lost ${newest + 1} to ${offset - 1}`;
          if (offset <= newest) repeats += 1;
          if (ack === 'EXPLICIT' && offset <= ackedAtCut) {
            fault ??= `${offset} came again although ${ackedAtCut} was acknowledged before the cut`;
          }
          newest = Math.max(newest, offset);
          if (ack === 'EXPLICIT' && offset % 3 === 0) acknowledge(message).catch(() => {});
        },
        end: (errors) => (fault ??= `ended: ${JSON.stringify(errors?.map((error) => error.stack ?? error) ?? null)}`),
      });
      const check = (what) => () => {
        if (fault) throw new Error(`${what}: ${fault} (${proxy.cuts} cuts, SEED=${proxy.seed})`);
        return newest >= sent;
      };
      let sent = 0;
      const send = () => {
        sent += 1;
        return server.publish(topic, { i: sent, pad: 'x'.repeat(100 + ((sent * 37) % 300)) });
      };
      await until('the consumer is known', async () => (await server.topic(topic)) && (await server.consumers(topic)).length === 1);
      while (sent < MESSAGES_CUT) {
        await send();
        // Waits for the client to keep pace, so that cuts happen while messages flow and not before.
        await until(() => `messages keep coming (${newest} of ${sent})`, () => (check('while publishing')(), newest >= sent - 12), LONG);
      }
      await until(() => `all messages come (${newest} of ${sent}; ${proxy.cuts} cuts, SEED=${proxy.seed})`, check('all'), LONG);
      for (let extra = 0; extra < 3; extra++) {
        proxy.cut();
        await send();
        await until(() => `message ${sent} comes after a cut`, check('after a cut'), LONG);
      }
      t.diagnostic(`${proxy.cuts} cuts, ${repeats} repeated of ${sent}`);
      await stop();
      if (ack === 'EXPLICIT') assert.ok(acked > 0, 'nothing was acknowledged');
    };

    test('cut at random points, consumer with EXPLICIT: nothing lost, nothing acknowledged repeated', options, (t) => cuts(t, 'EXPLICIT'));

    if (auto) {
      test('cut at random points, consumer with AUTO: nothing lost', options, (t) => cuts(t, 'AUTO'));
    }

    test('server killed and started again: a cursor learns NEW_EPOCH', options, async (t) => {
      const server = await Server.start(t);
      const { cursor } = await server.publish('news', 1);
      const client = connect(t, server);
      const stream = new Stream(client, { topic: 'news', after: cursor });
      await server.publish('news', 2);
      assert.equal((await stream.message()).data, 2);
      await server.restart();
      for (const data of [3, 4]) await server.publish('news', data);
      // A client that is back before the first message receives the gap at once; otherwise the gap comes with that
      // message.
      let message = await stream.message();
      assert.equal(message.extensions?.gap?.reason, 'NEW_EPOCH', JSON.stringify(message));
      assert.equal(message.extensions.gap.missed, 0);
      if (message.offset) assert.equal(message.gap.reason, 'NEW_EPOCH');
      else message = await stream.message();
      assert.equal(message.data, 3);
      const next = await stream.message();
      assert.equal(next.data, 4);
      assert.equal(next.gap, null);
      if (!sticky) assert.equal(next.extensions?.gap, undefined);
      await stream.stop();
    });

    test('server killed and started again: a consumer learns resumed: false', options, async (t) => {
      const server = await Server.start(t);
      const client = connect(t, server);
      const stream = new Stream(client, { topic: 'news', consumer: 'tab-1' });
      await server.subscribers('news', 1);
      await server.publish('news', 1);
      const first = await stream.message();
      assert.equal(first.extensions?.consumer?.name, 'tab-1');
      assert.equal(first.extensions.consumer.resumed, false);
      await server.publish('news', 2);
      const second = await stream.message();
      if (!sticky) assert.equal(second.extensions?.consumer, undefined);
      await server.restart();
      await server.subscribers('news', 1);
      await server.publish('news', 3);
      const message = await stream.message();
      assert.equal(message.data, 3);
      assert.equal(message.extensions?.consumer?.resumed, false, JSON.stringify(message));
      await stream.stop();
    });

    test('server stopped in good order and started again: the subscription goes on', options, async (t) => {
      const server = await Server.start(t);
      const client = connect(t, server);
      const stream = new Stream(client, { topic: 'news', consumer: 'tab-1' });
      let ended = false;
      stream.ended.then((errors) => (ended = `the client takes it for the end: ${JSON.stringify(errors)}`));
      await server.subscribers('news', 1);
      await server.publish('news', 1);
      assert.equal((await stream.message()).data, 1);
      await server.restart('SIGTERM');
      await until('the client is back', async () => {
        if (ended) throw new Error(ended);
        return (await server.topic('news'))?.subscribers === 1;
      });
      await server.publish('news', 2);
      assert.equal((await stream.message()).data, 2);
      await stream.stop();
    });

    test('cut and connected again: a consumer learns resumed: true', options, async (t) => {
      const server = await Server.start(t);
      const proxy = await Proxy.start(t, server);
      const client = connect(t, proxy);
      const stream = new Stream(client, { topic: 'news', consumer: 'tab-1', ack: 'EXPLICIT' });
      await server.subscribers('news', 1);
      const { cursor } = await server.publish('news', 1);
      await server.publish('news', 2);
      assert.equal((await stream.message()).data, 1);
      assert.equal((await stream.message()).data, 2);
      const control = connect(t, server);
      await control.run(ACKNOWLEDGE, { topic: 'news', consumer: 'tab-1', cursor });
      proxy.cut();
      const message = await stream.message();
      assert.equal(message.data, 2);
      assert.equal(message.extensions?.consumer?.resumed, true);
      assert.equal(message.extensions.consumer.cursor, cursor);
      await stream.stop();
    });
  });
}
