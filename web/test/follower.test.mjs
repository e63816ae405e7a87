// How the console follows a topic, with a connection and a server that the test makes up.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './lib/load.mjs';

const [{ Follower }, { MAX_HELD, Tail }] = await Promise.all(['follower.ts', 'tail.ts'].map(load));

const settle = () => new Promise((resolve) => setImmediate(resolve));

/** A server that does what the test says. `requests` has each subscription: its variables and its sink. */
function world(t, start = {}) {
  const requests = [];
  const acknowledged = new Map();
  let exists = true;
  let connection = Promise.resolve();
  const asked = [];
  const client = {
    subscribe: ({ variables, extensions }, sink) => {
      const request = { variables, extensions, sink, isStopped: false, live: (cursor) => acknowledged.get(extensions.ack)(cursor) };
      requests.push(request);
      return () => (request.isStopped = true);
    },
  };
  const tail = new Tail();
  const follower = new Follower('orders', start, tail, {
    connected: async () => {
      await connection;
      return client;
    },
    onAcknowledged: (ack, listener) => {
      acknowledged.set(ack, listener);
      return () => acknowledged.delete(ack);
    },
    exists: async () => exists,
    ask: async (message) => asked.push(message) > 0,
    anotherCredential: () => new Promise(() => {}),
    sleep: settle,
    changed: () => {},
  });
  t.after(() => follower.stop());
  void follower.run();
  const message = (offset) => ({
    data: { messages: { messageId: `m${offset}`, key: null, headers: null, data: offset, offset, cursor: `c${offset}`, publishedAt: '' } },
  });
  const set = (values) => {
    if (values.exists !== undefined) exists = values.exists;
    if (values.connection) connection = values.connection;
  };
  const texts = () => tail.rows.map((row) => (row.kind === 'message' ? row.message.offset : row.kind === 'gap' ? row.gap.missed : row.text));
  return { requests, tail, follower, message, set, texts, asked };
}

test('after a break it continues behind the last message, and a gap stands in its place', async (t) => {
  const { requests, follower, message, texts } = world(t, { last: 100 });
  await settle();
  assert.deepEqual(requests[0].variables, { topic: 'orders', last: 100 });
  requests[0].live('c0');
  for (const offset of [1, 2]) requests[0].sink.next(message(offset));
  assert.equal(follower.phase, 'live');

  requests[0].sink.error({ code: 1006 });
  await settle();
  assert.deepEqual(requests[1].variables, { topic: 'orders', after: 'c2' });
  requests[1].live('c2');
  requests[1].sink.next({ ...message(7), extensions: { gap: { missed: 4, fromOffset: 3, toOffset: 6, reason: 'EXPIRED' } } });
  assert.deepEqual(texts(), [1, 2, 'Connection lost.', 'Connected again after less than a second. The tail continues after offset 2.', 4, 7]);
});

test('a gap that no message follows is shown, and comes again after a break', async (t) => {
  const { requests, message, texts } = world(t);
  await settle();
  requests[0].live('c0');
  requests[0].sink.next(message(1));
  requests[0].sink.next({ data: { messages: null }, extensions: { gap: { missed: 9, fromOffset: 2, toOffset: 10, reason: 'EXPIRED' } } });
  assert.deepEqual(texts(), [1, 9]);
  requests[0].sink.error({ code: 1006 });
  await settle();
  assert.deepEqual(requests[1].variables, { topic: 'orders', after: 'c1' });
});

test('where nothing came yet, it continues where the server said that it began', async (t) => {
  const { requests } = world(t);
  await settle();
  assert.deepEqual(requests[0].variables, { topic: 'orders' });
  requests[0].live('c41');
  requests[0].sink.error(new Event('error'));
  await settle();
  assert.deepEqual(requests[1].variables, { topic: 'orders', after: 'c41' });
});

test('a topic that does not exist is not subscribed to until it does', async (t) => {
  const { requests, follower, message, set, texts } = world(t);
  await settle();
  requests[0].live('c0');
  requests[0].sink.next(message(1));
  set({ exists: false });
  requests[0].sink.next({ data: null, errors: [{ message: 'deleted', extensions: { code: 'TOPIC_DELETED' } }] });
  requests[0].sink.complete();
  for (let turn = 0; turn < 10; turn += 1) await settle();
  assert.equal(requests.length, 1);
  assert.equal(follower.phase, 'missing');
  assert.match(texts()[1], /^The topic was deleted/);
  set({ exists: true });
  for (let turn = 0; turn < 10; turn += 1) await settle();
  // The old position: what was missed is then told as a gap.
  assert.deepEqual(requests[1].variables, { topic: 'orders', after: 'c1' });
});

test('a tail that is held and full reads no further, and continues from there', async (t) => {
  const { requests, tail, follower, message } = world(t);
  await settle();
  requests[0].live('c0');
  tail.hold();
  for (let offset = 1; offset <= MAX_HELD; offset += 1) requests[0].sink.next(message(offset));
  await settle();
  assert.equal(requests[0].isStopped, true);
  assert.equal(follower.phase, 'full');
  assert.equal(requests.length, 1);
  follower.release();
  await settle();
  assert.equal(tail.rows.length, MAX_HELD);
  assert.deepEqual(requests[1].variables, { topic: 'orders', after: `c${MAX_HELD}` });
});

test('withdrawn credentials ask for others, and the tail continues; what is refused for good is said once', async (t) => {
  const { requests, follower, asked, message, texts } = world(t);
  await settle();
  requests[0].live('c0');
  requests[0].sink.next(message(1));
  requests[0].sink.next({ data: null, errors: [{ message: 'they have expired', extensions: { code: 'UNAUTHENTICATED' } }] });
  requests[0].sink.complete();
  await settle();
  assert.deepEqual(asked, ['they have expired']);
  assert.deepEqual(requests[1].variables, { topic: 'orders', after: 'c1' });
  requests[1].sink.error([{ message: 'after: is no cursor', extensions: { code: 'BAD_REQUEST' } }]);
  for (let turn = 0; turn < 5; turn += 1) await settle();
  assert.equal(follower.phase, 'stopped');
  assert.equal(requests.length, 2);
  assert.equal(texts().at(-1), 'After: is no cursor.');
});

test('a follower that is stopped ends its subscription', async (t) => {
  const { requests, follower } = world(t);
  await settle();
  follower.stop();
  await settle();
  assert.equal(requests[0].isStopped, true);
  assert.equal(requests.length, 1);
});

test('a state goes on where it was cut until it has come, and then as a tail does', async (t) => {
  const { requests, tail, message } = world(t, { state: true, filter: { field: '$key', eq: 'a' } });
  let completed = 0;
  tail.complete = () => (completed += 1);
  await settle();
  const start = { topic: 'orders', state: true, filter: { field: '$key', eq: 'a' } };
  assert.deepEqual([requests[0].variables, requests[0].extensions.lastEventId], [start, undefined]);
  requests[0].live('c0');
  requests[0].sink.error({ code: 1006 });
  await settle();
  assert.deepEqual([requests[1].variables, requests[1].extensions.lastEventId], [start, undefined]);
  requests[1].live('c0');
  requests[1].sink.next(message(1));
  requests[1].sink.error({ code: 1006 });
  await settle();
  assert.deepEqual([requests[2].variables, requests[2].extensions.lastEventId], [start, 'c1']);
  requests[2].live('c1');
  requests[2].sink.next({ ...message(2), extensions: { state: { complete: true, cursor: 'c2' } } });
  assert.equal(completed, 1);
  requests[2].sink.error({ code: 1006 });
  await settle();
  const { filter } = start;
  assert.deepEqual([requests[3].variables, requests[3].extensions.lastEventId], [{ topic: 'orders', after: 'c2', filter }, undefined]);
});
