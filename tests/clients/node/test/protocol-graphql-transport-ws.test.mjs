// Tests each rule of graphql-transport-ws (PROTOCOL.md of npm graphql-ws) with raw sockets. The tests of the older
// subprotocol are in protocol-graphql-ws-legacy.test.mjs.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BINARY, CLOSE, RawSocket } from '../lib/raw-ws.mjs';
import { Server } from '../lib/server.mjs';
import { until, within } from '../lib/wait.mjs';

const PROTOCOL = 'graphql-transport-ws';
const options = { timeout: 30_000 };
const HEALTH = { query: '{ health { status } }' };
const messages = (topic, more = '') => ({ query: `subscription { messages(topic: "${topic}"${more}) { data } }` });

const open = (t, server, protocols = [PROTOCOL], path = '/graphql') => RawSocket.open(t, server.port, path, protocols);

/** Opens a connection and initialises it. */
async function ready(t, server) {
  const raw = await open(t, server);
  raw.send({ type: 'connection_init' });
  assert.deepEqual(await raw.next(), { type: 'connection_ack' });
  return raw;
}

/** Checks that nothing came in between: the pong to a ping is the next message. */
async function silent(raw) {
  raw.send({ type: 'ping', payload: { silent: true } });
  assert.deepEqual(await raw.next(), { type: 'pong', payload: { silent: true } });
}

/** Defines a test with its own server. */
const rule = (name, run, env) => test(name, options, async (t) => run(t, await Server.start(t, env)));

describe('graphql-transport-ws: communication', { concurrency: false }, () => {
  for (const path of ['/graphql', '/graphql/ws']) {
    rule(`the subprotocol is agreed on at ${path}`, async (t, server) => {
      const raw = await open(t, server, [PROTOCOL], path);
      assert.equal(raw.headers['sec-websocket-protocol'], PROTOCOL);
    });
  }

  rule('of several subprotocols one that both know is chosen', async (t, server) => {
    const raw = await open(t, server, ['soap', PROTOCOL, 'graphql-ws']);
    assert.equal(raw.headers['sec-websocket-protocol'], PROTOCOL);
    raw.send({ type: 'connection_init' });
    assert.deepEqual(await raw.next(), { type: 'connection_ack' });
  });

  rule('4406 when no subprotocol is acceptable', async (t, server) => {
    for (const protocols of [[], ['soap'], ['graphql-transport-wss']]) {
      const raw = await open(t, server, protocols);
      assert.equal(raw.headers['sec-websocket-protocol'], undefined);
      const { close, reason } = await raw.next();
      assert.deepEqual([close, reason], [4406, 'Subprotocol not acceptable']);
    }
  });

  rule('the server says nothing before the client does', async (t, server) => {
    const raw = await open(t, server);
    await silent(raw);
  });
});

describe('graphql-transport-ws: ConnectionInit', { concurrency: false }, () => {
  rule('ConnectionAck answers ConnectionInit', async (t, server) => {
    await ready(t, server);
  });

  rule('ConnectionInit may carry a payload, or null for none', async (t, server) => {
    for (const payload of [{ token: 'x', deep: { a: [1] } }, {}, null]) {
      const raw = await open(t, server);
      raw.send({ type: 'connection_init', payload });
      assert.equal((await raw.next()).type, 'connection_ack');
    }
  });

  rule('4408 when ConnectionInit does not come in time', async (t, server) => {
    const raw = await open(t, server);
    const { close, reason } = await raw.next();
    assert.deepEqual([close, reason], [4408, 'Connection initialisation timeout']);
  }, { CONNECTION_INIT_TIMEOUT: '200ms' });

  rule('4408 too when only pings come', async (t, server) => {
    const raw = await open(t, server);
    raw.send({ type: 'ping' });
    assert.deepEqual(await raw.next(), { type: 'pong' });
    assert.equal((await raw.next()).close, 4408);
  }, { CONNECTION_INIT_TIMEOUT: '200ms' });

  rule('an initialised connection outlives the init timeout', async (t, server) => {
    const raw = await ready(t, server);
    const other = await open(t, server);
    assert.equal((await other.next()).close, 4408);
    await silent(raw);
  }, { CONNECTION_INIT_TIMEOUT: '200ms' });

  rule('4429 at a second ConnectionInit', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ type: 'connection_init' });
    const { close, reason } = await raw.next();
    assert.deepEqual([close, reason], [4429, 'Too many initialisation requests']);
  });

  rule('Subscribe right behind ConnectionInit, without waiting for the ack', async (t, server) => {
    const raw = await open(t, server);
    raw.together(() => {
      raw.send({ type: 'connection_init' });
      raw.send({ id: '1', type: 'subscribe', payload: HEALTH });
    });
    assert.deepEqual(await raw.next(), { type: 'connection_ack' });
    assert.equal((await raw.next()).type, 'next');
    assert.deepEqual(await raw.next(), { id: '1', type: 'complete' });
  });

  test.todo('4403 when the server refuses the ConnectionInit (the service has no credentials yet)');
});

describe('graphql-transport-ws: Ping and Pong', { concurrency: false }, () => {
  rule('Pong answers Ping, with its payload, before and after ConnectionInit', async (t, server) => {
    const raw = await open(t, server);
    raw.send({ type: 'ping' });
    assert.deepEqual(await raw.next(), { type: 'pong' });
    raw.send({ type: 'connection_init' });
    assert.equal((await raw.next()).type, 'connection_ack');
    raw.send({ type: 'ping', payload: { at: 12345678901234567890, text: 'é' } });
    assert.deepEqual(await raw.next(), { type: 'pong', payload: { at: 12345678901234567890, text: 'é' } });
    raw.send({ type: 'ping', payload: null });
    assert.equal((await raw.next()).type, 'pong');
  });

  rule('an unasked Pong is accepted and not answered', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ type: 'pong' });
    raw.send({ type: 'pong', payload: { heartbeat: 1 } });
    await silent(raw);
  });

  rule('the server pings at the WebSocket level; who answers stays', async (t, server) => {
    const raw = await ready(t, server);
    await until('several pings', () => raw.pings >= 3);
    await silent(raw);
  }, { PING_INTERVAL: '100ms' });

  rule('who does not answer pings is dropped', async (t, server) => {
    const raw = await ready(t, server);
    raw.answersPings = false;
    await within('the end', raw.gone);
    assert.ok(raw.pings >= 1);
  }, { PING_INTERVAL: '100ms' });
});

describe('graphql-transport-ws: Subscribe', { concurrency: false }, () => {
  rule('4401 before ConnectionInit', async (t, server) => {
    const raw = await open(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: HEALTH });
    const { close, reason } = await raw.next();
    assert.deepEqual([close, reason], [4401, 'Unauthorized']);
  });

  rule('4409 when the id is in use', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: 'same', type: 'subscribe', payload: messages('a') });
    await server.subscribers('a', 1);
    raw.send({ id: 'same', type: 'subscribe', payload: messages('b') });
    const { close, reason } = await raw.next();
    assert.deepEqual([close, reason], [4409, 'Subscriber for same already exists']);
    await server.subscribers('a', 0);
  });

  for (const [what, payload] of [
    ['query', HEALTH],
    ['mutation', { query: 'mutation { createTopic(name: "never") { name } }' }],
    ['request that would be refused', { query: '{ nope }' }],
  ]) {
    rule(`4409 also when the id of a subscription is used for a ${what}, which is not executed`, async (t, server) => {
      const raw = await ready(t, server);
      raw.send({ id: 'same', type: 'subscribe', payload: messages('a') });
      await server.subscribers('a', 1);
      raw.send({ id: 'same', type: 'subscribe', payload });
      assert.equal((await raw.next()).close, 4409);
      assert.equal(await server.topic('never'), null);
    });
  }

  rule('4409 also when the id of a query that has not been answered is used again', async (t, server) => {
    const raw = await ready(t, server);
    raw.together(() => {
      for (let i = 0; i < 2; i++) raw.send({ id: 'same', type: 'subscribe', payload: HEALTH });
    });
    assert.equal((await raw.next()).close, 4409);
  });

  rule('a close reason has at most 123 bytes and stays UTF-8', async (t, server) => {
    for (const id of ['x'.repeat(255), 'ü'.repeat(127), '🌍'.repeat(63)]) {
      const raw = await ready(t, server);
      raw.send({ id, type: 'subscribe', payload: messages('a') });
      raw.send({ id, type: 'subscribe', payload: messages('a') });
      const { close, reason, bytes } = await raw.next();
      assert.equal(close, 4409);
      assert.ok(bytes <= 123, `${bytes} bytes`);
      assert.equal(Buffer.from(reason).length, bytes, 'cut inside a character');
    }
  });

  rule('the same id on another connection is another operation', async (t, server) => {
    const [one, other] = [await ready(t, server), await ready(t, server)];
    one.send({ id: '1', type: 'subscribe', payload: messages('a') });
    other.send({ id: '1', type: 'subscribe', payload: messages('a') });
    await server.subscribers('a', 2);
    await server.publish('a', 7);
    for (const raw of [one, other]) assert.deepEqual(await raw.next(), { id: '1', type: 'next', payload: { data: { messages: { data: 7 } } } });
  });

  rule('an id may be used again after the client’s Complete', async (t, server) => {
    const raw = await ready(t, server);
    for (let round = 0; round < 3; round++) {
      raw.send({ id: '1', type: 'subscribe', payload: messages(`topic${round}`) });
      await server.subscribers(`topic${round}`, 1);
      await server.publish(`topic${round}`, round);
      assert.deepEqual((await raw.next()).payload.data.messages, { data: round });
      raw.send({ id: '1', type: 'complete' });
    }
    await silent(raw);
  });

  rule('an id may be used again after the server’s Complete and after Error', async (t, server) => {
    const raw = await ready(t, server);
    for (let round = 0; round < 3; round++) {
      raw.send({ id: '1', type: 'subscribe', payload: HEALTH });
      assert.equal((await raw.next()).type, 'next');
      assert.equal((await raw.next()).type, 'complete');
      raw.send({ id: '1', type: 'subscribe', payload: { query: '{ nope }' } });
      assert.equal((await raw.next()).type, 'error');
    }
  });

  rule('queries and mutations over the socket: Next, then Complete', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: 'q', type: 'subscribe', payload: HEALTH });
    assert.deepEqual(await raw.next(), { id: 'q', type: 'next', payload: { data: { health: { status: 'ok' } } } });
    assert.deepEqual(await raw.next(), { id: 'q', type: 'complete' });
    const query = 'mutation M($d: JSON!) { publish(topic: "a", data: $d) { offset } } query Q { stats { published } }';
    raw.send({ id: 'm', type: 'subscribe', payload: { query, operationName: 'M', variables: { d: { x: 1 } }, extensions: { any: 1 } } });
    assert.deepEqual(await raw.next(), { id: 'm', type: 'next', payload: { data: { publish: { offset: 1 } } } });
    assert.deepEqual(await raw.next(), { id: 'm', type: 'complete' });
    raw.send({ id: 'q', type: 'subscribe', payload: { query, operationName: 'Q', variables: null, extensions: null } });
    assert.deepEqual(await raw.next(), { id: 'q', type: 'next', payload: { data: { stats: { published: 1 } } } });
    assert.deepEqual(await raw.next(), { id: 'q', type: 'complete' });
  });

  rule('operationName, variables and extensions may be null', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: { ...HEALTH, operationName: null, variables: null, extensions: null } });
    assert.equal((await raw.next()).type, 'next');
    assert.equal((await raw.next()).type, 'complete');
  });

  rule('messages of several operations interleave: a rare one comes between those of a busy one', async (t, server) => {
    await server.publishNumbers('busy', 500);
    const raw = await ready(t, server);
    raw.send({ id: 'rare', type: 'subscribe', payload: messages('rare') });
    await server.subscribers('rare', 1);
    raw.send({ id: 'busy', type: 'subscribe', payload: messages('busy', ', last: 500') });
    await server.publish('rare', 'x');
    const seen = { busy: [], rare: [] };
    while (seen.busy.length < 500 || seen.rare.length < 1) {
      const { id, type, payload } = await raw.next();
      assert.equal(type, 'next');
      seen[id].push(payload.data.messages.data);
    }
    assert.deepEqual(seen, { busy: Array.from({ length: 500 }, (_, i) => i + 1), rare: ['x'] });
  });

  rule('operations on one connection do not wait for each other', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: 'live', type: 'subscribe', payload: messages('quiet') });
    for (let i = 0; i < 20; i++) raw.send({ id: `q${i}`, type: 'subscribe', payload: HEALTH });
    const ended = new Set();
    while (ended.size < 20) {
      const { id, type } = await raw.next();
      assert.notEqual(id, 'live');
      if (type === 'complete') ended.add(id);
    }
    await server.publish('quiet', 1);
    assert.equal((await raw.next()).id, 'live');
  });
});

describe('graphql-transport-ws: Next, Error and Complete', { concurrency: false }, () => {
  for (const [what, query] of [
    ['does not parse', '{'],
    ['breaks the schema', '{ nope }'],
    ['lacks a variable', 'query ($name: String!) { topic(name: $name) { name } }'],
    ['names no operation', 'query A { health { status } } query B { health { status } }'],
    ['is a subscription that breaks the schema', 'subscription { messages { data } }'],
  ]) {
    rule(`Error answers a request that ${what}, and nothing follows`, async (t, server) => {
      const raw = await ready(t, server);
      raw.send({ id: '1', type: 'subscribe', payload: { query } });
      const { id, type, payload } = await raw.next();
      assert.deepEqual([id, type], ['1', 'error']);
      assert.ok(Array.isArray(payload) && payload.length > 0);
      for (const { message, extensions } of payload) {
        assert.equal(typeof message, 'string');
        assert.equal(extensions.code, 'BAD_REQUEST');
      }
      await silent(raw);
    });
  }

  rule('an error of execution is a Next with errors, then Complete', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: { query: 'mutation { createTopic(name: "a.*") { name } }' } });
    const next = await raw.next();
    assert.equal(next.type, 'next');
    assert.equal(next.payload.data, null);
    assert.equal(next.payload.errors[0].extensions.code, 'INVALID_TOPIC');
    assert.deepEqual(await raw.next(), { id: '1', type: 'complete' });
    await silent(raw);
  });

  rule('a subscription that its resolver refuses is an Error', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: messages('$reserved') });
    const { type, payload } = await raw.next();
    assert.equal(type, 'error');
    assert.equal(payload[0].extensions.code, 'INVALID_TOPIC');
    await silent(raw);
  });

  rule('the client’s Complete ends the source, and is not echoed', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: messages('a') });
    await server.subscribers('a', 1);
    raw.send({ id: '1', type: 'complete' });
    await server.subscribers('a', 0);
    await server.publish('a', 1);
    await silent(raw);
  });

  rule('Subscribe and Complete in one go leave nothing behind', async (t, server) => {
    const raw = await ready(t, server);
    for (let i = 0; i < 100; i++) {
      raw.send({ id: '1', type: 'subscribe', payload: messages('a', ', last: 1') });
      raw.send({ id: '1', type: 'complete' });
    }
    await silent(raw);
    await server.subscribers('a', 0);
  });

  for (const [what, payload] of [['query', HEALTH], ['request that is refused', { query: '{ nope }' }]]) {
    rule(`a ${what} that the client completes before it is answered is not answered`, async (t, server) => {
      const raw = await ready(t, server);
      raw.together(() => {
        raw.send({ id: '1', type: 'subscribe', payload });
        raw.send({ id: '1', type: 'complete' });
        raw.send({ id: '2', type: 'subscribe', payload: HEALTH });
      });
      assert.deepEqual(await raw.next(), { id: '2', type: 'next', payload: { data: { health: { status: 'ok' } } } });
      assert.deepEqual(await raw.next(), { id: '2', type: 'complete' });
      await silent(raw);
    });
  }

  rule('Complete of an operation that ended with Error or Complete is ignored', async (t, server) => {
    const raw = await ready(t, server);
    for (const [payload, count] of [[{ query: '{ nope }' }, 1], [HEALTH, 2]]) {
      raw.send({ id: '1', type: 'subscribe', payload });
      for (let i = 0; i < count; i++) await raw.next();
      raw.send({ id: '1', type: 'complete' });
      await silent(raw);
    }
  });

  rule('Complete before ConnectionInit is of an unknown id, and ignored', async (t, server) => {
    const raw = await open(t, server);
    raw.send({ id: '1', type: 'complete' });
    await silent(raw);
  });

  rule('Complete of an unknown id is ignored', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: 'never', type: 'complete' });
    await silent(raw);
  });

  rule('the source’s end: Next with the error, then one Complete; a Complete that crosses it is ignored', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: messages('a') });
    await server.subscribers('a', 1);
    await server.deleteTopic('a');
    const next = await raw.next();
    assert.deepEqual([next.type, next.payload.data, next.payload.errors[0].extensions.code], ['next', null, 'TOPIC_DELETED']);
    assert.deepEqual(await raw.next(), { id: '1', type: 'complete' });
    raw.send({ id: '1', type: 'complete' });
    await silent(raw);
  });

  rule('Next messages of one operation keep their order, none after Complete', async (t, server) => {
    await server.publishNumbers('a', 200);
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: messages('a', ', last: 200') });
    for (let i = 1; i <= 200; i++) assert.deepEqual((await raw.next()).payload.data.messages, { data: i });
    raw.send({ id: '1', type: 'complete' });
    await silent(raw);
  });
});

describe('graphql-transport-ws: invalid messages', { concurrency: false }, () => {
  const subscribe = (fields) => JSON.stringify({ id: '1', type: 'subscribe', payload: HEALTH, ...fields });
  for (const [what, message] of [
    ['is not JSON', 'hello'],
    ['is empty', ''],
    ['is an array', '[]'],
    ['is null', 'null'],
    ['has no type', '{}'],
    ['has a type that is no string', '{"type":1}'],
    ['has an unknown type', '{"type":"start","id":"1","payload":{}}'],
    ['is one that only a server sends (connection_ack)', '{"type":"connection_ack"}'],
    ['is one that only a server sends (next)', '{"type":"next","id":"1","payload":{}}'],
    ['is one that only a server sends (error)', '{"type":"error","id":"1","payload":[]}'],
    ['is a Subscribe without an id', subscribe({ id: undefined })],
    ['is a Subscribe whose id is a number', subscribe({ id: 1 })],
    ['is a Subscribe whose id is empty', subscribe({ id: '' })],
    ['is a Subscribe without a payload', subscribe({ payload: undefined })],
    ['is a Subscribe whose payload is text', subscribe({ payload: '{ health { status } }' })],
    ['is a Subscribe without a query', subscribe({ payload: {} })],
    ['is a Subscribe whose query is no string', subscribe({ payload: { query: {} } })],
    ['is a Subscribe whose operationName is no string', subscribe({ payload: { ...HEALTH, operationName: 1 } })],
    ['is a Subscribe whose variables are no object', subscribe({ payload: { ...HEALTH, variables: '{}' } })],
    ['is a Subscribe whose extensions are no object', subscribe({ payload: { ...HEALTH, extensions: 'x' } })],
    ['is a Complete without an id', '{"type":"complete"}'],
    ['is a Ping whose payload is no object', '{"type":"ping","payload":"x"}'],
    ['is a Pong whose payload is no object', '{"type":"pong","payload":7}'],
    ['is a ConnectionInit whose payload is no object', '{"type":"connection_init","payload":"x"}'],
  ]) {
    rule(`4400 when a message ${what}`, async (t, server) => {
      const raw = message.includes('connection_init') ? await open(t, server) : await ready(t, server);
      raw.send(message);
      const { close, reason, bytes } = await raw.next();
      assert.equal(close, 4400);
      assert.ok(reason.length > 0, 'no reason given');
      assert.ok(bytes <= 123);
    });
  }

  rule('4400 also before ConnectionInit', async (t, server) => {
    const raw = await open(t, server);
    raw.send('{"type":"hello"}');
    assert.equal((await raw.next()).close, 4400);
  });

  rule('4400 when a message is binary', async (t, server) => {
    const raw = await ready(t, server);
    raw.frame(BINARY, '{"type":"ping"}');
    assert.equal((await raw.next()).close, 4400);
  });

  rule('unknown fields are let be', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', extra: true, payload: { ...HEALTH, more: 1 } });
    assert.equal((await raw.next()).type, 'next');
    assert.equal((await raw.next()).type, 'complete');
  });

  rule('a client that goes on sending still sees the code, and nothing after it', async (t, server) => {
    const raw = await ready(t, server);
    raw.send('nonsense');
    for (let i = 0; i < 500; i++) raw.send({ id: `${i}`, type: 'subscribe', payload: messages('a', ', last: 5') });
    assert.equal((await raw.next()).close, 4400);
    await server.subscribers('a', 0);
    raw.frame(CLOSE, Buffer.from([0x11, 0x30]));
    raw.socket.end();
    await within('the end', raw.gone);
    assert.equal(raw.frames.unread, 0);
  });
});

describe('graphql-transport-ws: the end', { concurrency: false }, () => {
  rule('the client’s close is answered with its code, and its subscriptions end', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: messages('a') });
    await server.subscribers('a', 1);
    raw.frame(CLOSE, Buffer.from([0x03, 0xe8]));
    assert.equal((await raw.closed()).close, 1000);
    await server.subscribers('a', 0);
    raw.socket.end();
    await within('the end', raw.gone);
  });

  rule('a connection that breaks takes its subscriptions with it', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: messages('a') });
    await server.subscribers('a', 1);
    raw.socket.resetAndDestroy();
    await server.subscribers('a', 0);
  });

  rule('a server that stops closes with 1001', async (t, server) => {
    const raw = await ready(t, server);
    raw.send({ id: '1', type: 'subscribe', payload: messages('a') });
    await server.subscribers('a', 1);
    const stopped = server.kill('SIGTERM');
    assert.equal((await raw.closed()).close, 1001);
    raw.socket.end();
    await stopped;
  });

  rule('too many operations on one connection: Error with LIMIT_REACHED, the connection stays', async (t, server) => {
    const raw = await ready(t, server);
    for (let i = 0; i < 3; i++) raw.send({ id: `${i}`, type: 'subscribe', payload: messages('a') });
    const { id, type, payload } = await raw.next();
    assert.deepEqual([id, type, payload[0].extensions.code], ['2', 'error', 'LIMIT_REACHED']);
    await silent(raw);
  }, { MAX_OPERATIONS_PER_CONNECTION: '2' });
});
