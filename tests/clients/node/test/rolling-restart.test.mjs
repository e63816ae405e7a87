// Restarts two instances on a cluster of three NATS nodes one after the other, as for an update, while messages are
// published and a stock graphql-ws client subscribes. The clients know only the address of a proxy.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { request } from '../lib/again.mjs';
import { Balancer } from '../lib/balancer.mjs';
import { options as retrying } from '../lib/graphql-ws.mjs';
import { AGREE, Nats } from '../lib/nats.mjs';
import { ACKNOWLEDGE, MESSAGES, PUBLISH } from '../lib/operations.mjs';
import { Server } from '../lib/server.mjs';
import { after, until, within } from '../lib/wait.mjs';

const LONG = 60_000;
const options = { timeout: 180_000 };
const consumer = 'till-1';

/** Publishes m-1, m-2, … one after the other, and repeats each one until it is accepted. */
class Publisher {
  accepted = [];
  repeated = 0;
  #stopped = false;

  constructor(at, topic) {
    this.done = this.#run(at, topic);
    this.done.catch((error) => (this.fault = error));
  }

  async #run(at, topic) {
    while (!this.#stopped) {
      const i = this.accepted.length + 1;
      const { publish } = await request(at, PUBLISH, { topic, id: `m-${i}`, data: { i } });
      if (publish.duplicate) this.repeated += 1;
      this.accepted.push(publish);
      // With a few hundred messages a second, one is always in flight when something happens.
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  async stop() {
    this.#stopped = true;
    await this.done;
  }
}

/** A stock client with a named consumer, which checks that it receives nothing unexpected. */
class Subscriber {
  /** The offset of the first delivery, by the number of the message. */
  first = [undefined];
  duplicates = 0;
  connections = 0;
  /** Message numbers of the newest acknowledgement that was sent, and of the newest one that was confirmed. */
  #sent = 0;
  acked = 0;
  /** The newest confirmed one when the connection was opened. */
  #ackedBefore = 0;
  /** The last message on this connection. */
  #last;
  /** The last message of all connections, with its cursor. */
  #newest;

  constructor(t, at, topic, ack) {
    const client = createClient({
      ...retrying(WebSocket, at.ws),
      lazy: false,
      on: {
        connected: () => {
          this.connections += 1;
          this.#ackedBefore = this.acked;
          this.#last = undefined;
        },
      },
    });
    after(t, () => client.dispose());
    client.subscribe({ query: MESSAGES.text, variables: { topic, consumer, ack } }, {
      next: (result) => {
        try {
          this.#take(result, ack);
        } catch (error) {
          this.fault ??= error;
        }
      },
      error: (error) => (this.fault ??= new Error(`it ended: ${JSON.stringify(error.reason ?? error)}`)),
      complete: () => (this.fault ??= new Error('it ended')),
    });
    if (ack === 'EXPLICIT') {
      const acknowledging = this.#acknowledge(at, topic).catch((error) => (this.fault ??= error));
      after(t, () => {
        this.stopped = true;
        return acknowledging;
      });
    }
  }

  get newest() {
    return this.first.length - 1;
  }

  #take({ data, errors, extensions }, ack) {
    assert.equal(errors, undefined, JSON.stringify(errors));
    const { messageId, data: { i }, offset, cursor, gap } = data.messages;
    assert.equal(gap, null);
    assert.equal(extensions?.gap, undefined);
    assert.equal(messageId, `m-${i}`);
    if (this.#last !== undefined) {
      assert.equal(i, this.#last + 1, `${i} after ${this.#last} on one connection`);
    } else {
      const told = extensions?.consumer;
      assert.equal(told?.name, consumer);
      assert.equal(told.resumed, this.newest > 0, `resumed at message ${i}`);
      if (ack === 'EXPLICIT') {
        // An acknowledgement that is in flight may already have taken effect.
        const begins = `it goes on with ${i}; up to ${this.#ackedBefore} was acknowledged, and perhaps ${this.#sent}`;
        assert.ok(this.#ackedBefore < i && i <= this.#sent + 1, begins);
      }
    }
    this.#last = i;
    if (i <= this.newest) {
      this.duplicates += 1;
      assert.equal(offset, this.first[i], `message ${i} has another offset the second time`);
    } else {
      assert.equal(i, this.newest + 1, `lost ${this.newest + 1} to ${i - 1}`);
      assert.ok(i === 1 || offset > this.first[i - 1], `message ${i} is at ${offset}, the one before at ${this.first[i - 1]}`);
      this.first.push(offset);
    }
    this.#newest = { i, cursor };
  }

  /** Acknowledges the newest message whenever three or more have arrived, one acknowledgement at a time. */
  async #acknowledge(at, topic) {
    while (!this.stopped) {
      const newest = this.#newest;
      if (!newest || newest.i < this.#sent + 3) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        continue;
      }
      this.#sent = newest.i;
      await request(at, ACKNOWLEDGE, { topic, consumer, cursor: newest.cursor });
      this.acked = newest.i;
    }
  }
}

/** Restarts both instances twice while messages flow, and compares what arrived with what was accepted. */
async function rolling(t, nats, { ack, signal, topic }) {
  const env = { ENGINE: 'nats', NATS_URL: nats.urls.join(','), NATS_PREFIX: topic, MAX_MESSAGES_PER_TOPIC: '100000' };
  const servers = [await Server.start(t, env, AGREE), await Server.start(t, env, AGREE)];
  for (const server of servers) await server.ready();
  const proxy = await Balancer.start(t, servers);

  const subscriber = new Subscriber(t, proxy, topic, ack);
  await until('the consumer is known', async () => (await servers[0].topic(topic)) && (await servers[0].consumers(topic)).length === 1);
  const publisher = new Publisher(proxy, topic);
  after(t, () => publisher.stop().catch(() => {}));

  const flows = async (what, count) => {
    const wanted = publisher.accepted.length + count;
    await until(
      () => `${what}, message ${wanted} comes (${publisher.accepted.length} accepted, ${subscriber.newest} came)`,
      () => {
        if (subscriber.fault) throw new Error(`${what}: ${subscriber.fault.stack}`);
        if (publisher.fault) throw new Error(`${what}: ${publisher.fault.stack}`);
        return subscriber.newest >= wanted;
      },
      LONG,
    );
  };

  await flows('at the start', 20);
  let slowest = 0;
  for (let round = 1; round <= 2; round++) {
    for (const [index, server] of servers.entries()) {
      const what = `after ${signal} to instance ${index + 1} in round ${round}`;
      const begun = Date.now();
      const code = await within(`the end ${what}`, server.kill(signal), LONG);
      assert.equal(code, signal === 'SIGTERM' ? 0 : null, server.log.slice(-2_000));
      await flows(what, 1);
      slowest = Math.max(slowest, Date.now() - begun);
      await server.restart();
      await server.ready();
      await flows(`${what} and its start`, 20);
    }
  }
  await publisher.stop();
  const count = publisher.accepted.length;
  await until(() => `all come (${subscriber.newest} of ${count})`, () => subscriber.fault || subscriber.newest >= count, LONG);
  if (subscriber.fault) throw subscriber.fault;
  assert.deepEqual(subscriber.first.slice(1), publisher.accepted.map(({ offset }) => offset));
  // The first stop may have hit the instance that the client did not use. Every later stop made the client move.
  assert.ok(subscriber.connections >= 4, `the client connected ${subscriber.connections} times`);
  if (ack === 'EXPLICIT') assert.ok(subscriber.acked > 0, 'nothing was acknowledged');
  if (ack === 'AUTO' && signal === 'SIGTERM') {
    // An instance that stops stores the position before its client reconnects, so only what was in flight is delivered
    // again.
    assert.ok(subscriber.duplicates <= 40, `${subscriber.duplicates} came again`);
  }

  // Every message is stored once, although publishes were repeated, and both instances return the same history.
  for (const server of servers) {
    const ids = [];
    for (let after = ''; ; ) {
      const page = await (await fetch(`${server.origin}/topics/${topic}/messages?limit=1000${after}`)).json();
      if (!page.messages.length) break;
      ids.push(...page.messages.map(({ id }) => id));
      after = `&after=${page.next}`;
    }
    assert.deepEqual(ids, publisher.accepted.map(({ messageId }) => messageId));
  }
  t.diagnostic(
    `${count} messages, ${publisher.repeated} of them repeated by the publisher, ${subscriber.duplicates} delivered again; ` +
      `${subscriber.connections} connections; at most ${slowest} ms from the signal until messages came again`,
  );
}

test('each instance restarted after the other, twice', { timeout: 600_000 }, async (t) => {
  const nats = await Nats.start(t, 3);
  const runs = [
    { ack: 'EXPLICIT', signal: 'SIGTERM', topic: 'explicit' },
    { ack: 'AUTO', signal: 'SIGTERM', topic: 'auto' },
    { ack: 'EXPLICIT', signal: 'SIGKILL', topic: 'killed' },
  ];
  for (const run of runs) {
    await t.test(`${run.signal}, consumer with ${run.ack}: nothing lost, all in order`, options, (t) => rolling(t, nats, run));
  }
});
