// Tests each rule of the legacy subprotocol `graphql-ws` (PROTOCOL.md of npm subscriptions-transport-ws) with raw
// sockets.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BINARY, RawSocket } from '../lib/raw-ws.mjs';
import { Server } from '../lib/server.mjs';
import { until, within } from '../lib/wait.mjs';

const PROTOCOL = 'graphql-ws';
const options = { timeout: 30_000 };
const HEALTH = { query: '{ health { status } }' };
const messages = (topic, more = '') => ({ query: `subscription { messages(topic: "${topic}"${more}) { data } }` });

const open = (t, server, path = '/graphql') => RawSocket.open(t, server.port, path, [PROTOCOL]);

/** Opens a connection and initialises it. */
async function ready(t, server) {
  const raw = await open(t, server);
  raw.send({ type: 'connection_init', payload: {} });
  assert.deepEqual(await raw.next(), { type: 'connection_ack' });
  assert.deepEqual(await raw.next(), { type: 'ka' });
  return raw;
}

/** Returns the next message that is not a keep-alive. */
async function next(raw) {
  for (;;) {
    const message = await raw.next();
    if (message.type !== 'ka') return message;
  }
}

/** Checks that nothing came in between: the result of a further operation is the next message. */
async function silent(raw) {
  raw.send({ id: 'silent', type: 'start', payload: HEALTH });
  assert.deepEqual(await next(raw), { id: 'silent', type: 'data', payload: { data: { health: { status: 'ok' } } } });
  assert.deepEqual(await next(raw), { id: 'silent', type: 'complete' });
}

/** Defines a test with its own server. */
const rule = (name, run, env) => test(name, options, async (t) => run(t, await Server.start(t, env)));

describe('graphql-ws (legacy): the connection', { concurrency: false }, () => {
  for (const path of ['/graphql', '/graphql/ws']) {
    rule(`the subprotocol is agreed on at ${path}`, async (t, server) => {
      const raw = await open(t, server, path);
      assert.equal(raw.headers['sec-websocket-protocol'], PROTOCOL);
    });
  }

  rule('connection_init is answered by connection_ack, and ka right after it', async (t, server) => {
    await ready(t, server);
  });

  rule('connection_init may carry parameters, or none', async (t, server) => {
    for (const payload of [{ token: 'x', deep: { a: [1] } }, {}, null, undefined]) {
      const raw = await open(t, server);
      raw.send({ type: 'connection_init', payload });
      assert.equal((await raw.next()).type, 'connection_ack');
    }
  });

  rule('ka follows each connection_ack', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ type: 'connection_init' });
    assert.deepEqual(await raw.next(), { type: 'connection_ack' });
    assert.deepEqual(await raw.next(), { type: 'ka' });
    await silent(raw);
  });

  rule('ka comes again and again', async (t, server) => {
    const raw = await ready(t, server);
    for (let i = 0; i < 3; i++) assert.deepEqual(await raw.next(), { type: 'ka' });
    await silent(raw);
  }, { PING_INTERVAL: '100ms' });

  rule('the server says nothing before connection_init', async (t, server) => {
    const raw = await open(t, server);
    raw.send({ type: 'connection_init' });
    assert.deepEqual(await raw.next(), { type: 'connection_ack' });
  });

  rule('an operation before connection_init is not executed', async (t, server) => {
    const raw = await open(t, server);
    raw.send({ id: '1', type: 'start', payload: { query: 'mutation { createTopic(name: "a") { name } }' } });
    assert.equal((await raw.next()).close, 4401);
    assert.equal(await server.topic('a'), null);
  });

  rule('connection_terminate ends the connection and its operations', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'start', payload: messages('a') });
    await server.subscribers('a', 1);
    raw.send({ type: 'connection_terminate' });
    assert.equal((await raw.closed()).close, 1000);
    await server.subscribers('a', 0);
    raw.socket.end();
    await within('the end', raw.gone);
  });

  rule('a connection that breaks takes its operations with it', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'start', payload: messages('a') });
    await server.subscribers('a', 1);
    raw.socket.resetAndDestroy();
    await server.subscribers('a', 0);
  });

  rule('a server that stops closes with 1001 and says no complete', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'start', payload: messages('a') });
    await server.subscribers('a', 1);
    const stopped = server.kill('SIGTERM');
    assert.equal((await next(raw)).close, 1001);
    raw.socket.end();
    await stopped;
  });
});

describe('graphql-ws (legacy): operations', { concurrency: false }, () => {
  rule('a query: data, then complete', async (t, server) => {
    const raw = await ready(t, server);
    await silent(raw);
  });

  rule('a mutation with variables and operationName: data, then complete', async (t, server) => {
    const raw = await ready(t, server);
    const query = 'mutation M($d: JSON!) { publish(topic: "a", data: $d) { offset } } query Q { stats { published } }';
    raw.send({ id: 'm', type: 'start', payload: { query, operationName: 'M', variables: { d: { x: 1 } } } });
    assert.deepEqual(await next(raw), { id: 'm', type: 'data', payload: { data: { publish: { offset: 1 } } } });
    assert.deepEqual(await next(raw), { id: 'm', type: 'complete' });
    raw.send({ id: 'q', type: 'start', payload: { query, operationName: 'Q', variables: null } });
    assert.deepEqual(await next(raw), { id: 'q', type: 'data', payload: { data: { stats: { published: 1 } } } });
    assert.deepEqual(await next(raw), { id: 'q', type: 'complete' });
  });

  rule('a subscription: data for each result, in order', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'start', payload: messages('a') });
    await server.subscribers('a', 1);
    for (let i = 1; i <= 20; i++) {
      await server.publish('a', i);
      assert.deepEqual(await next(raw), { id: '1', type: 'data', payload: { data: { messages: { data: i } } } });
    }
    await silent(raw);
  });

  rule('errors of a resolver are data with errors, then complete', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'start', payload: { query: 'mutation { createTopic(name: "a.*") { name } }' } });
    const { id, type, payload } = await next(raw);
    assert.deepEqual([id, type, payload.data, payload.errors[0].extensions.code], ['1', 'data', null, 'INVALID_TOPIC']);
    assert.deepEqual(await next(raw), { id: '1', type: 'complete' });
    await silent(raw);
  });

  for (const [what, payload, code] of [
    ['does not parse', { query: '{' }, 'BAD_REQUEST'],
    ['breaks the schema', { query: '{ nope }' }, 'BAD_REQUEST'],
    ['lacks a variable', { query: 'query ($n: String!) { topic(name: $n) { name } }' }, 'BAD_REQUEST'],
    ['is a subscription that breaks the schema', { query: 'subscription { messages { data } }' }, 'BAD_REQUEST'],
    ['is a subscription that is refused', messages('$reserved'), 'INVALID_TOPIC'],
    ['has no query', {}, 'BAD_REQUEST'],
    ['has variables that are no object', { ...HEALTH, variables: [] }, 'BAD_REQUEST'],
    // The protocol also allows parsed documents instead of text, but no client sends them.
    ['has a parsed document', { query: { kind: 'Document', definitions: [] } }, 'BAD_REQUEST'],
  ]) {
    rule(`an operation that ${what} is answered by error, one error as an object, and nothing follows`, async (t, server) => {
      const raw = await ready(t, server);
      raw.send({ id: '1', type: 'start', payload });
      const answer = await next(raw);
      assert.deepEqual([answer.id, answer.type], ['1', 'error']);
      assert.equal(typeof answer.payload.message, 'string');
      assert.equal(answer.payload.extensions.code, code);
      await silent(raw);
    });
  }

  rule('stop ends the source and is answered by complete; nothing follows', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'start', payload: messages('a') });
    await server.subscribers('a', 1);
    raw.send({ id: '1', type: 'stop' });
    assert.deepEqual(await next(raw), { id: '1', type: 'complete' });
    await server.subscribers('a', 0);
    await server.publish('a', 1);
    await silent(raw);
  });

  rule('stop of what does not run is ignored', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: 'never', type: 'stop' });
    await silent(raw);
    raw.send({ id: 'silent', type: 'stop' });
    await silent(raw);
  });

  rule('the source’s end: data with the error, then complete', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'start', payload: messages('a') });
    await server.subscribers('a', 1);
    await server.deleteTopic('a');
    const { type, payload } = await next(raw);
    assert.deepEqual([type, payload.data, payload.errors[0].extensions.code], ['data', null, 'TOPIC_DELETED']);
    assert.deepEqual(await next(raw), { id: '1', type: 'complete' });
    await silent(raw);
  });

  rule('a repeated id replaces the operation', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'start', payload: messages('a') });
    await server.subscribers('a', 1);
    raw.send({ id: '1', type: 'start', payload: messages('b') });
    await server.subscribers('b', 1);
    await server.subscribers('a', 0);
  });

  rule('too many operations: error with LIMIT_REACHED, the connection stays', async (t, server) => {
    const raw = await ready(t, server);
    for (const id of ['1', '2']) raw.send({ id, type: 'start', payload: messages('a') });
    const { id, type, payload } = await next(raw);
    assert.deepEqual([id, type, payload.extensions.code], ['2', 'error', 'LIMIT_REACHED']);
    raw.send({ id: '1', type: 'stop' });
    assert.deepEqual(await next(raw), { id: '1', type: 'complete' });
    await silent(raw);
  }, { MAX_OPERATIONS_PER_CONNECTION: '1' });
});

describe('graphql-ws (legacy): invalid messages', { concurrency: false }, () => {
  for (const [what, message] of [
    ['is not JSON', 'hello'],
    ['is empty', ''],
    ['is an array', '[]'],
    ['has no type', '{}'],
    ['has an unknown type', '{"type":"hello"}'],
    ['is of the newer protocol (subscribe)', JSON.stringify({ id: '1', type: 'subscribe', payload: HEALTH })],
    ['is of the newer protocol (ping)', '{"type":"ping"}'],
    ['is one that only a server sends', '{"id":"1","type":"data","payload":{}}'],
    ['is a start without an id', JSON.stringify({ type: 'start', payload: HEALTH })],
    ['is a start whose id is a number', JSON.stringify({ id: 1, type: 'start', payload: HEALTH })],
    ['is a stop without an id', '{"type":"stop"}'],
    ['is a connection_init whose parameters are no object', '{"type":"connection_init","payload":7}'],
  ]) {
    rule(`connection_error when a message ${what}; the connection and its operations stay`, async (t, server) => {
      const raw = await ready(t, server);
      raw.send({ id: 'live', type: 'start', payload: messages('a') });
      await server.subscribers('a', 1);
      raw.send(message);
      const { type, payload } = await next(raw);
      assert.equal(type, 'connection_error');
      assert.equal(typeof payload.message, 'string');
      await silent(raw);
      await server.publish('a', 1);
      assert.deepEqual(await next(raw), { id: 'live', type: 'data', payload: { data: { messages: { data: 1 } } } });
    });
  }

  rule('connection_error when a message is binary', async (t, server) => {
    const raw = await ready(t, server);
    raw.frame(BINARY, '{"type":"connection_terminate"}');
    assert.equal((await next(raw)).type, 'connection_error');
    await silent(raw);
  });

  rule('a flood of invalid messages ends the connection with 1008', async (t, server) => {
    const raw = await ready(t, server);
    for (let i = 0; i < 3; i++) raw.send('hello');
    await until('the close', () => raw.frames.items.some(({ close }) => close === 1008));
    assert.equal(raw.frames.items.filter(({ type }) => type === 'connection_error').length, 3);
  }, { MAX_MALFORMED_FRAMES: '3' });
});
