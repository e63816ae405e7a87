// Tests each rule of the single-connection mode of GraphQL over SSE (PROTOCOL.md of npm graphql-sse) with raw sockets:
// a stream is reserved, connected once, and carries the results of operations that are separate requests.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { RawRequest } from '../lib/raw-http.mjs';
import { Server } from '../lib/server.mjs';
import { until, within } from '../lib/wait.mjs';

const options = { timeout: 30_000 };
const STREAM = 'text/event-stream';
const HEADER = 'x-graphql-event-stream-token';
const HEALTH = '{ health { status } }';
const OK = { data: { health: { status: 'ok' } } };
const messages = (topic, more = '') => `subscription { messages(topic: "${topic}"${more}) { data } }`;

/** Defines a test with its own server. */
const rule = (name, run, env) => test(name, options, async (t) => run(t, await Server.start(t, env)));

/** The two ways to send a token. */
const WAYS = {
  header: (token) => ({ headers: { [HEADER]: token }, search: {} }),
  'search parameter': (token) => ({ headers: {}, search: { token } }),
};

const address = (search) => {
  const text = new URLSearchParams(search).toString();
  return text ? `/graphql?${text}` : '/graphql';
};

async function reserve(t, server) {
  const answer = await RawRequest.send(t, server.port, { method: 'PUT' });
  assert.equal(answer.status, 201);
  return answer.text();
}

function connect(t, server, token, { method = 'GET', way = 'header' } = {}) {
  const { headers, search } = WAYS[way](token);
  return RawRequest.send(t, server.port, { method, path: address(search), headers: { accept: STREAM, ...headers } });
}

/** Opens a stream and returns it with its token. */
async function stream(t, server) {
  const token = await reserve(t, server);
  const connected = await connect(t, server, token);
  assert.equal(connected.status, 200);
  return Object.assign(connected, { token });
}

/** Sends an operation by POST. */
function post(t, server, token, id, request, { way = 'header', ...more } = {}) {
  const { headers, search } = WAYS[way](token);
  const extensions = id === undefined ? request.extensions : { ...request.extensions, operationId: id };
  return RawRequest.send(t, server.port, {
    path: address(search),
    headers: { 'content-type': 'application/json', ...headers, ...more },
    body: JSON.stringify({ ...request, extensions }),
  });
}

/** Sends an operation by GET. */
function get(t, server, token, id, query, { way = 'header', ...more } = {}) {
  const { headers, search } = WAYS[way](token);
  return RawRequest.send(t, server.port, {
    method: 'GET',
    path: address({ ...search, query, extensions: JSON.stringify({ operationId: id }) }),
    headers: { ...headers, ...more },
  });
}

function stop(t, server, token, id, way = 'header') {
  const { headers, search } = WAYS[way](token);
  return RawRequest.send(t, server.port, { method: 'DELETE', path: address({ ...search, operationId: id }), headers });
}

/** Sends an operation, which must be accepted. */
async function start(t, server, token, id, query, more) {
  const answer = await post(t, server, token, id, { query }, more);
  assert.equal(answer.status, 202, answer.body);
}

/** Returns the stream's next event with its data parsed. */
async function next(connected) {
  const { event, data, ...rest } = await connected.event();
  assert.deepEqual(rest, {});
  return { event, ...JSON.parse(data) };
}

async function expect(connected, ...events) {
  for (const event of events) assert.deepEqual(await next(connected), event);
}

/** Checks that nothing came in between: the result of a further operation is the stream's next event. */
async function silent(t, server, connected) {
  const id = `silent-${Math.random()}`;
  await start(t, server, connected.token, id, HEALTH);
  await expect(connected, { event: 'next', id, payload: OK }, { event: 'complete', id });
}

async function refused(answer, status, code) {
  assert.equal(answer.status, status, answer.body);
  const body = JSON.parse(await answer.text());
  assert.equal(body.errors[0].extensions.code, code);
  assert.ok(!('data' in body));
  return body;
}

describe('GraphQL over SSE, single connection: reservations', { concurrency: false }, () => {
  rule('PUT is answered 201 with a token as plain text', async (t, server) => {
    const answer = await RawRequest.send(t, server.port, { method: 'PUT' });
    assert.equal(answer.status, 201);
    assert.match(answer.headers['content-type'], /^text\/plain/);
    const token = await answer.text();
    assert.match(token, /^[\x21-\x7e]{20,}$/);
    // A proxy reads the token there, so that later requests go to the same instance.
    assert.equal(answer.headers[HEADER], token);
  });

  rule('every reservation has a token of its own', async (t, server) => {
    const tokens = new Set();
    for (let i = 0; i < 20; i++) tokens.add(await reserve(t, server));
    assert.equal(tokens.size, 20);
  });

  for (const way of Object.keys(WAYS)) {
    rule(`the token as a ${way} connects the stream`, async (t, server) => {
      const connected = await connect(t, server, await reserve(t, server), { way });
      assert.equal(connected.status, 200);
      assert.match(connected.headers['content-type'], /^text\/event-stream/);
      assert.match(connected.headers['cache-control'], /no-cache|no-store/);
    });
  }

  rule('the stream opens before there is anything to say', async (t, server) => {
    const connected = await stream(t, server);
    await until('first bytes', () => connected.body.length > 0);
    assert.match(connected.body, /^:/);
  });

  rule('POST without a body connects, too', async (t, server) => {
    const token = await reserve(t, server);
    const connected = await connect(t, server, token, { method: 'POST' });
    assert.equal(connected.status, 200);
    await silent(t, server, Object.assign(connected, { token }));
  });

  rule('a POST without a body that does not ask for a stream does not connect one', async (t, server) => {
    const token = await reserve(t, server);
    for (const accept of [undefined, '*/*', 'application/json']) {
      const headers = { [HEADER]: token, ...(accept && { accept }) };
      assert.equal((await RawRequest.send(t, server.port, { headers })).status, 415);
    }
    assert.equal((await connect(t, server, token)).status, 200);
  });

  rule('409 for a second connection; the first goes on', async (t, server) => {
    const connected = await stream(t, server);
    for (const way of Object.keys(WAYS)) await refused(await connect(t, server, connected.token, { way }), 409, 'CONFLICT');
    await silent(t, server, connected);
  });

  rule('of many connections at once, one fulfils the reservation', async (t, server) => {
    const token = await reserve(t, server);
    const answers = await Promise.all(Array.from({ length: 20 }, () => connect(t, server, token)));
    const statuses = answers.map(({ status }) => status).sort();
    assert.deepEqual(statuses, [200, ...Array(19).fill(409)]);
  });

  rule('a token goes with its connection', async (t, server) => {
    const connected = await stream(t, server);
    connected.socket.destroy();
    await until('the token is gone', async () => (await connect(t, server, connected.token)).status === 404);
    await refused(await post(t, server, connected.token, '1', { query: HEALTH }), 404, 'NOT_FOUND');
  });

  rule('404 for a token that nobody was given', async (t, server) => {
    for (const token of ['never', '00000000-0000-4000-8000-000000000000']) {
      for (const way of Object.keys(WAYS)) {
        await refused(await connect(t, server, token, { way }), 404, 'NOT_FOUND');
        await refused(await post(t, server, token, '1', { query: HEALTH }, { way }), 404, 'NOT_FOUND');
        await refused(await post(t, server, token, '1', { query: '{ nope }' }, { way }), 404, 'NOT_FOUND');
        await refused(await get(t, server, token, '1', HEALTH, { way }), 404, 'NOT_FOUND');
        await refused(await stop(t, server, token, '1', way), 404, 'NOT_FOUND');
      }
    }
  });

  rule('a reservation that is not connected in time is gone, and its subscriptions with it', async (t, server) => {
    const token = await reserve(t, server);
    await start(t, server, token, '1', messages('a'));
    await server.subscribers('a', 0);
    await refused(await post(t, server, token, '2', { query: HEALTH }), 404, 'NOT_FOUND');
    await refused(await connect(t, server, token), 404, 'NOT_FOUND');
  }, { CONNECTION_INIT_TIMEOUT: '300ms' });

  rule('a connected stream outlives that time', async (t, server) => {
    const connected = await stream(t, server);
    const later = await reserve(t, server);
    await until('the later one is gone', async () => (await stop(t, server, later, 'none')).status === 404);
    await silent(t, server, connected);
  }, { CONNECTION_INIT_TIMEOUT: '300ms' });
});

describe('GraphQL over SSE, single connection: operations', { concurrency: false }, () => {
  for (const way of Object.keys(WAYS)) {
    for (const [method, ask] of [
      ['POST', (t, server, token, id, query) => post(t, server, token, id, { query }, { way })],
      ['GET', (t, server, token, id, query) => get(t, server, token, id, query, { way })],
    ]) {
      rule(`a query by ${method}, token as a ${way}: 202, then next and complete on the stream`, async (t, server) => {
        const connected = await stream(t, server);
        const answer = await ask(t, server, connected.token, 'q', HEALTH);
        assert.equal(answer.status, 202);
        assert.equal(await answer.text(), '');
        await expect(connected, { event: 'next', id: 'q', payload: OK }, { event: 'complete', id: 'q' });
      });

      rule(`a subscription by ${method}, token as a ${way}: 202, then a next for each result`, async (t, server) => {
        const connected = await stream(t, server);
        const answer = await ask(t, server, connected.token, 's', messages('a'));
        assert.equal(answer.status, 202);
        assert.equal(await answer.text(), '');
        await server.subscribers('a', 1);
        for (let i = 1; i <= 20; i++) {
          await server.publish('a', i);
          await expect(connected, { event: 'next', id: 's', payload: { data: { messages: { data: i } } } });
        }
        await silent(t, server, connected);
      });
    }
  }

  rule('a mutation by POST: 202, then next and complete', async (t, server) => {
    const connected = await stream(t, server);
    const query = 'query Q { stats { topics } } mutation M($d: JSON!) { publish(topic: "a", data: $d) { offset } }';
    const answer = await post(t, server, connected.token, 'm', { query, operationName: 'M', variables: { d: 'line\nbreak' } });
    assert.equal(answer.status, 202);
    const payload = { data: { publish: { offset: 1 } } };
    await expect(connected, { event: 'next', id: 'm', payload }, { event: 'complete', id: 'm' });
  });

  rule('an operationId of any length that fits a request', async (t, server) => {
    const connected = await stream(t, server);
    for (const id of ['ü'.repeat(128), 'x'.repeat(10_000)]) {
      await start(t, server, connected.token, id, HEALTH);
      await expect(connected, { event: 'next', id, payload: OK }, { event: 'complete', id });
    }
  });

  rule('405 for a mutation by GET, which is not executed', async (t, server) => {
    const connected = await stream(t, server);
    const answer = await get(t, server, connected.token, 'm', 'mutation { createTopic(name: "a") { name } }');
    await refused(answer, 405, 'METHOD_NOT_ALLOWED');
    assert.match(answer.headers.allow, /POST/);
    assert.equal(await server.topic('a'), null);
    await silent(t, server, connected);
  });

  rule('operations before the stream is connected: their results wait for it, in order', async (t, server) => {
    const token = await reserve(t, server);
    for (const id of ['1', '2']) await start(t, server, token, id, HEALTH);
    await start(t, server, token, 's', messages('a'));
    await server.subscribers('a', 1);
    for (let i = 1; i <= 3; i++) await server.publish('a', i);
    const connected = await connect(t, server, token);
    const events = [];
    for (let i = 0; i < 7; i++) events.push(await next(connected));
    const single = ['1', '2'].flatMap((id) => [{ event: 'next', id, payload: OK }, { event: 'complete', id }]);
    assert.deepEqual(events.filter(({ id }) => id !== 's'), single);
    const live = [1, 2, 3].map((data) => ({ event: 'next', id: 's', payload: { data: { messages: { data } } } }));
    assert.deepEqual(events.filter(({ id }) => id === 's'), live);
  });

  rule('without the token a request is one by itself, whatever its operationId', async (t, server) => {
    const connected = await stream(t, server);
    const answer = await RawRequest.send(t, server.port, {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query: HEALTH, extensions: { operationId: '1' } }),
    });
    assert.equal(answer.status, 200);
    assert.deepEqual(JSON.parse(await answer.text()), OK);
    await silent(t, server, connected);
  });

  for (const [what, extensions] of [
    ['no extensions', undefined],
    ['extensions without operationId', { other: 1 }],
    ['an empty operationId', { operationId: '' }],
    ['an operationId that is no string', { operationId: 7 }],
    ['extensions that are no object', 'operationId'],
  ]) {
    // What is missing is refused by the stream, what is no request by GraphQL over HTTP.
    const status = what.includes('is no') || what.includes('are no') ? 422 : 400;
    rule(`${status} for ${what}`, async (t, server) => {
      const connected = await stream(t, server);
      await refused(await post(t, server, connected.token, undefined, { query: HEALTH, extensions }), status, 'BAD_REQUEST');
      await silent(t, server, connected);
    });
  }

  rule('409 for the id of a running operation, which goes on', async (t, server) => {
    const connected = await stream(t, server);
    await start(t, server, connected.token, 'same', messages('a'));
    await server.subscribers('a', 1);
    for (const query of [messages('b'), HEALTH, 'mutation { createTopic(name: "b") { name } }']) {
      await refused(await post(t, server, connected.token, 'same', { query }), 409, 'CONFLICT');
    }
    assert.equal(await server.topic('b'), null);
    await server.publish('a', 1);
    await expect(connected, { event: 'next', id: 'same', payload: { data: { messages: { data: 1 } } } });
  });

  rule('an id is free again after its end: complete, stop, error', async (t, server) => {
    const connected = await stream(t, server);
    const { token } = connected;
    for (let round = 0; round < 3; round++) {
      await start(t, server, token, '1', HEALTH);
      await expect(connected, { event: 'next', id: '1', payload: OK }, { event: 'complete', id: '1' });
      await start(t, server, token, '1', messages('a'));
      await stop(t, server, token, '1');
      await expect(connected, { event: 'complete', id: '1' });
      await start(t, server, token, '1', '{ nope }');
      assert.equal((await next(connected)).payload.errors[0].extensions.code, 'BAD_REQUEST');
      await expect(connected, { event: 'complete', id: '1' });
      assert.equal((await post(t, server, token, '1', { query: '{ nope }' }, { accept: 'application/json' })).status, 422);
    }
  });

  rule('the same id on another stream is another operation, and streams do not see each other’s', async (t, server) => {
    const [one, other] = [await stream(t, server), await stream(t, server)];
    await start(t, server, one.token, '1', messages('a'));
    await start(t, server, other.token, '1', messages('b'));
    await server.subscribers('a', 1);
    await server.subscribers('b', 1);
    await server.publish('b', 'for the other');
    await server.publish('a', 'for the one');
    await expect(one, { event: 'next', id: '1', payload: { data: { messages: { data: 'for the one' } } } });
    await expect(other, { event: 'next', id: '1', payload: { data: { messages: { data: 'for the other' } } } });
    await stop(t, server, one.token, '1');
    await server.subscribers('b', 1);
  });

  rule('operations share the stream: a rare one comes between those of a busy one', async (t, server) => {
    const connected = await stream(t, server);
    await server.publishNumbers('busy', 500);
    await start(t, server, connected.token, 'rare', messages('rare'));
    await start(t, server, connected.token, 'busy', messages('busy', ', last: 500'));
    await server.publish('rare', 'x');
    const seen = { busy: [], rare: [] };
    while (seen.busy.length < 500 || seen.rare.length < 1) {
      const { event, id, payload } = await next(connected);
      assert.equal(event, 'next');
      seen[id].push(payload.data.messages.data);
    }
    assert.deepEqual(seen, { busy: Array.from({ length: 500 }, (_, i) => i + 1), rare: ['x'] });
  });

  rule('429 for more operations than one stream may have', async (t, server) => {
    const connected = await stream(t, server);
    for (const id of ['1', '2']) await start(t, server, connected.token, id, messages('a'));
    await refused(await post(t, server, connected.token, '3', { query: HEALTH }), 429, 'LIMIT_REACHED');
    await stop(t, server, connected.token, '1');
    await start(t, server, connected.token, '3', messages('b'));
  }, { MAX_OPERATIONS_PER_CONNECTION: '2' });

  rule('429 when results wait that nobody takes; what was accepted comes', async (t, server) => {
    await server.publish('a', 'x'.repeat(10_000));
    const token = await reserve(t, server);
    const query = '{ topic(name: "a") { messages(last: 1) { nodes { data } } } }';
    let accepted = 0;
    for (;;) {
      const answer = await post(t, server, token, `${accepted}`, { query });
      if (answer.status === 429) break;
      assert.equal(answer.status, 202);
      accepted += 1;
      assert.ok(accepted < 1_000, 'results are heaped up without a bound');
    }
    const connected = Object.assign(await connect(t, server, token), { token });
    for (let id = 0; id < accepted; id++) {
      assert.equal((await next(connected)).id, `${id}`);
      await expect(connected, { event: 'complete', id: `${id}` });
    }
    await silent(t, server, connected);
  });
});

describe('GraphQL over SSE, single connection: errors', { concurrency: false }, () => {
  for (const [what, query, code] of [
    ['does not parse', '{', 'BAD_REQUEST'],
    ['breaks the schema', '{ nope }', 'BAD_REQUEST'],
    ['lacks a variable', 'query ($n: String!) { topic(name: $n) { name } }', 'BAD_REQUEST'],
    ['names no operation', 'query A { health { status } } query B { health { status } }', 'BAD_REQUEST'],
    ['is a subscription that breaks the schema', 'subscription { messages { data } }', 'BAD_REQUEST'],
    ['is a subscription that is refused', messages('$reserved'), 'INVALID_TOPIC'],
  ]) {
    // As in GraphQL over HTTP, the status is the same in both media types.
    const status = what === 'does not parse' ? 400 : 422;
    for (const accept of ['application/graphql-response+json', 'application/json']) {
      rule(`a request that ${what} is answered ${status} in ${accept}, and the stream hears nothing`, async (t, server) => {
        const connected = await stream(t, server);
        const answer = await post(t, server, connected.token, '1', { query }, { accept });
        assert.ok(answer.headers['content-type'].startsWith(accept));
        await refused(answer, status, code);
        await silent(t, server, connected);
      });
    }

    // npm graphql-sse names no media type, and treats any status but 202 as a network error.
    for (const accept of [undefined, '*/*']) {
      rule(`a request that ${what}, of a client that accepts ${accept ?? 'whatever'}: 202, next with errors, complete`, async (t, server) => {
        const connected = await stream(t, server);
        await start(t, server, connected.token, '1', query, accept && { accept });
        const { event, id, payload } = await next(connected);
        assert.deepEqual([event, id, payload.errors[0].extensions.code], ['next', '1', code]);
        assert.ok(!('data' in payload), 'a request error has no data');
        await expect(connected, { event: 'complete', id: '1' });
        await silent(t, server, connected);
      });
    }
  }

  for (const accept of ['*/*', 'application/json', 'application/graphql-response+json']) {
    rule(`an error of execution is a result, in ${accept}, too: 202, next with data null and errors, complete`, async (t, server) => {
      const connected = await stream(t, server);
      await start(t, server, connected.token, '1', 'mutation { createTopic(name: "a.*") { name } }', { accept });
      const { event, payload } = await next(connected);
      assert.deepEqual([event, payload.data, payload.errors[0].extensions.code], ['next', null, 'INVALID_TOPIC']);
      await expect(connected, { event: 'complete', id: '1' });
    });
  }

  for (const [what, body] of [
    ['is not JSON', '{'],
    ['is no object', '"text"'],
    ['has no query', '{"extensions":{"operationId":"1"}}'],
    ['has a query that is no string', '{"query":1,"extensions":{"operationId":"1"}}'],
    ['has variables that are no object', '{"query":"{ health { status } }","variables":[],"extensions":{"operationId":"1"}}'],
    ['is a batch', '[{"query":"{ health { status } }","extensions":{"operationId":"1"}}]'],
  ]) {
    const status = what === 'is not JSON' ? 400 : 422;
    rule(`${status} for a body that ${what}, and the stream hears nothing`, async (t, server) => {
      const connected = await stream(t, server);
      const headers = { 'content-type': 'application/json', [HEADER]: connected.token };
      await refused(await RawRequest.send(t, server.port, { headers, body }), status, 'BAD_REQUEST');
      await silent(t, server, connected);
    });
  }

  for (const type of ['text/plain', 'application/x-www-form-urlencoded', undefined]) {
    rule(`415 for a body ${type ? `of type ${type}` : 'without a type'}`, async (t, server) => {
      const connected = await stream(t, server);
      const body = JSON.stringify({ query: HEALTH, extensions: { operationId: '1' } });
      const headers = { [HEADER]: connected.token, ...(type && { 'content-type': type }) };
      assert.equal((await RawRequest.send(t, server.port, { headers, body })).status, 415);
      await silent(t, server, connected);
    });
  }

  rule('405 for another method', async (t, server) => {
    const token = await reserve(t, server);
    const answer = await RawRequest.send(t, server.port, { method: 'PATCH', headers: { [HEADER]: token } });
    assert.equal(answer.status, 405);
    for (const method of ['GET', 'POST', 'PUT', 'DELETE']) assert.ok(answer.headers.allow.includes(method), answer.headers.allow);
  });
});

describe('GraphQL over SSE, single connection: stopping', { concurrency: false }, () => {
  for (const way of Object.keys(WAYS)) {
    rule(`DELETE, token as a ${way}: 200, the source ends, complete, and nothing after`, async (t, server) => {
      const connected = await stream(t, server);
      await start(t, server, connected.token, '1', messages('a'));
      await start(t, server, connected.token, '2', messages('a', ', overflow: LATEST'));
      await server.subscribers('a', 2);
      const answer = await stop(t, server, connected.token, '1', way);
      assert.equal(answer.status, 200);
      await server.subscribers('a', 1);
      await expect(connected, { event: 'complete', id: '1' });
      await server.publish('a', 1);
      await expect(connected, { event: 'next', id: '2', payload: { data: { messages: { data: 1 } } } });
      await silent(t, server, connected);
    });
  }

  rule('an id that has to be encoded', async (t, server) => {
    const connected = await stream(t, server);
    const id = 'a b&c=d/é?#\n"%41';
    await start(t, server, connected.token, id, messages('a'));
    await server.subscribers('a', 1);
    await server.publish('a', 1);
    await expect(connected, { event: 'next', id, payload: { data: { messages: { data: 1 } } } });
    assert.equal((await stop(t, server, connected.token, id)).status, 200);
    await expect(connected, { event: 'complete', id });
  });

  rule('stopping what has ended, or never was, is no error and not told', async (t, server) => {
    const connected = await stream(t, server);
    await start(t, server, connected.token, '1', messages('a'));
    for (let i = 0; i < 3; i++) assert.equal((await stop(t, server, connected.token, '1')).status, 200);
    assert.equal((await stop(t, server, connected.token, 'never')).status, 200);
    await expect(connected, { event: 'complete', id: '1' });
    await silent(t, server, connected);
  });

  rule('an operation can be stopped before the stream is connected', async (t, server) => {
    const token = await reserve(t, server);
    await start(t, server, token, '1', messages('a'));
    await server.subscribers('a', 1);
    assert.equal((await stop(t, server, token, '1')).status, 200);
    await server.subscribers('a', 0);
    const connected = await connect(t, server, token);
    await expect(connected, { event: 'complete', id: '1' });
  });

  rule('400 for DELETE without an operationId or without a token', async (t, server) => {
    const connected = await stream(t, server);
    const ask = (path, headers) => RawRequest.send(t, server.port, { method: 'DELETE', path, headers });
    await refused(await ask('/graphql', { [HEADER]: connected.token }), 400, 'BAD_REQUEST');
    await refused(await ask('/graphql?operationId=', { [HEADER]: connected.token }), 400, 'BAD_REQUEST');
    await refused(await ask('/graphql?operationId=1', {}), 400, 'BAD_REQUEST');
  });
});

describe('GraphQL over SSE, single connection: the stream', { concurrency: false }, () => {
  rule('the source’s end: next with the error, complete; the stream goes on', async (t, server) => {
    const connected = await stream(t, server);
    await start(t, server, connected.token, '1', messages('a'));
    await server.subscribers('a', 1);
    await server.deleteTopic('a');
    const { event, id, payload } = await next(connected);
    assert.deepEqual([event, id, payload.data, payload.errors[0].extensions.code], ['next', '1', null, 'TOPIC_DELETED']);
    await expect(connected, { event: 'complete', id: '1' });
    await silent(t, server, connected);
  });

  rule('line breaks in data stay inside one data line', async (t, server) => {
    const connected = await stream(t, server);
    const data = { text: 'one\ntwo\r\nthree\u2028four', 'é🌍': null };
    await server.publish('a', data);
    await start(t, server, connected.token, '1', messages('a', ', last: 1'));
    await expect(connected, { event: 'next', id: '1', payload: { data: { messages: { data } } } });
  });

  rule('an idle stream is kept alive by comments', async (t, server) => {
    const connected = await stream(t, server);
    await until('comments', () => (connected.body.match(/^:/gm) ?? []).length >= 4);
    await silent(t, server, connected);
  }, { PING_INTERVAL: '100ms' });

  rule('a stream that breaks takes its operations with it', async (t, server) => {
    const connected = await stream(t, server);
    for (const id of ['1', '2', '3']) await start(t, server, connected.token, id, messages('a'));
    await server.subscribers('a', 3);
    connected.socket.destroy();
    await server.subscribers('a', 0);
  });

  rule('a server that stops delivers and ends the stream without complete, which would tell the client not to come back', async (t, server) => {
    const connected = await stream(t, server);
    await start(t, server, connected.token, '1', messages('a'));
    await server.subscribers('a', 1);
    await server.publish('a', 1);
    const stopped = server.kill('SIGTERM');
    await expect(connected, { event: 'next', id: '1', payload: { data: { messages: { data: 1 } } } });
    await within('the end', connected.gone);
    assert.ok(!connected.body.includes('complete'), connected.body);
    await stopped;
  });
});
