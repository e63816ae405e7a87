// Tests each rule of the distinct-connections mode of GraphQL over SSE (PROTOCOL.md of npm graphql-sse) with raw
// sockets, and of multipart/mixed subscriptions as Apollo's clients read them. The other mode is in
// protocol-graphql-sse-single.test.mjs.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { RawRequest } from '../lib/raw-http.mjs';
import { Server } from '../lib/server.mjs';
import { until, within } from '../lib/wait.mjs';

const options = { timeout: 30_000 };
const STREAM = 'text/event-stream';
const rule = (name, run, env) => test(name, options, async (t) => run(t, await Server.start(t, env)));
const messages = (topic, more = '') => `subscription { messages(topic: "${topic}"${more}) { data cursor } }`;

const post = (t, server, request, headers = {}) =>
  RawRequest.send(t, server.port, {
    headers: { accept: STREAM, 'content-type': 'application/json', ...headers },
    body: JSON.stringify(request),
  });
const get = (t, server, parameters, headers = {}) =>
  RawRequest.send(t, server.port, {
    method: 'GET',
    path: `/graphql?${new URLSearchParams(parameters)}`,
    headers: { accept: STREAM, ...headers },
  });

describe('GraphQL over SSE, distinct connections: the stream', { concurrency: false }, () => {
  for (const [method, ask] of [
    ['POST', (t, server, query, headers) => post(t, server, { query }, headers)],
    ['GET', (t, server, query, headers) => get(t, server, { query }, headers)],
  ]) {
    rule(`a subscription by ${method} is answered with an event stream`, async (t, server) => {
      const stream = await ask(t, server, messages('a'));
      assert.equal(stream.status, 200);
      assert.match(stream.headers['content-type'], /^text\/event-stream(; *charset=utf-8)?$/i);
      assert.match(stream.headers['cache-control'], /no-cache|no-store/);
      await server.subscribers('a', 1);
      for (let i = 1; i <= 3; i++) {
        await server.publish('a', i);
        const { data, id } = await stream.result();
        assert.equal(data.messages.data, i);
        assert.equal(id, data.messages.cursor);
      }
    });

    rule(`a query by ${method}: next, then complete`, async (t, server) => {
      const stream = await ask(t, server, '{ health { status } }');
      assert.equal(stream.status, 200);
      assert.match(stream.headers['content-type'], /^text\/event-stream/);
      assert.deepEqual(await stream.result(), { data: { health: { status: 'ok' } } });
      await stream.complete();
    });
  }

  rule('a mutation by POST: next, then complete', async (t, server) => {
    const query = 'mutation M($d: JSON!) { publish(topic: "a", data: $d) { offset } }';
    const stream = await post(t, server, { query, operationName: 'M', variables: { d: 'line\nbreak' } });
    assert.deepEqual(await stream.result(), { data: { publish: { offset: 1 } } });
    await stream.complete();
  });

  rule('variables and operationName by GET', async (t, server) => {
    const query = 'query A { stats { topics } } query B($name: String!) { topic(name: $name) { name } }';
    const stream = await get(t, server, { query, operationName: 'B', variables: '{"name":"none"}' });
    assert.deepEqual(await stream.result(), { data: { topic: null } });
    await stream.complete();
  });

  for (const [accept, type] of [
    ['text/event-stream, application/json;q=0.5', /^text\/event-stream/],
    ['application/json;q=0.5, text/*', /^text\/event-stream/],
    ['application/json, text/event-stream;q=0.9', /^application\/json/],
    ['text/event-stream, application/json', /^application\/json/],
  ]) {
    rule(`a query of a client that accepts ${accept}: ${type.source}`, async (t, server) => {
      for (const [query, json] of [['{ health { status } }', 200], ['{ nope }', 422]]) {
        const stream = await post(t, server, { query }, { accept });
        // A stream has said 200 before it has anything to say.
        assert.equal(stream.status, type.test('text/event-stream') ? 200 : json);
        assert.match(stream.headers['content-type'], type);
      }
    });
  }

  rule('line breaks in data stay inside one data line', async (t, server) => {
    await server.publish('a', { text: 'one\ntwo\r\nthree\u2028four' });
    const stream = await post(t, server, { query: messages('a', ', last: 1') });
    assert.deepEqual((await stream.result()).data.messages.data, { text: 'one\ntwo\r\nthree\u2028four' });
  });

  rule('the stream opens before there is anything to say', async (t, server) => {
    const stream = await post(t, server, { query: messages('quiet') });
    assert.equal(stream.status, 200);
    await until('first bytes', () => stream.body.length > 0);
    assert.match(stream.body, /^:/);
  });

  rule('an idle stream is kept alive by comments', async (t, server) => {
    const stream = await post(t, server, { query: messages('quiet') });
    await until('comments', () => (stream.body.match(/^:/gm) ?? []).length >= 4);
    await server.publish('quiet', 1);
    assert.equal((await stream.result()).data.messages.data, 1);
  }, { PING_INTERVAL: '100ms' });

  rule('the source’s end: next with the error, then complete', async (t, server) => {
    const stream = await post(t, server, { query: messages('a') });
    await server.subscribers('a', 1);
    await server.deleteTopic('a');
    const { data, errors } = await stream.result();
    assert.deepEqual([data, errors[0].extensions.code], [null, 'TOPIC_DELETED']);
    await stream.complete();
  });

  rule('a server that stops ends the stream without complete, which would tell the client not to come back', async (t, server) => {
    const stream = await post(t, server, { query: messages('a') });
    await server.subscribers('a', 1);
    await server.publish('a', 1);
    const stopped = server.kill('SIGTERM');
    assert.equal((await stream.result()).data.messages.data, 1);
    await within('the end', stream.gone);
    assert.ok(!stream.body.includes('complete'), stream.body);
    await stopped;
  });

  rule('the client stops by closing the connection', async (t, server) => {
    const stream = await post(t, server, { query: messages('a') });
    await server.subscribers('a', 1);
    stream.socket.destroy();
    await server.subscribers('a', 0);
  });
});

describe('GraphQL over SSE, distinct connections: errors', { concurrency: false }, () => {
  for (const [what, request, code] of [
    ['does not parse', { query: '{' }, 'BAD_REQUEST'],
    ['breaks the schema', { query: '{ nope }' }, 'BAD_REQUEST'],
    ['is a subscription that breaks the schema', { query: 'subscription { messages { data } }' }, 'BAD_REQUEST'],
    ['lacks a variable', { query: 'subscription ($t: String!) { messages(topic: $t) { data } }' }, 'BAD_REQUEST'],
    ['is a subscription that is refused', { query: messages('$reserved') }, 'INVALID_TOPIC'],
  ]) {
    for (const [method, ask] of [['POST', post], ['GET', get]]) {
      rule(`a request by ${method} that ${what}: next with errors, then complete`, async (t, server) => {
        const stream = await ask(t, server, request);
        assert.equal(stream.status, 200);
        assert.match(stream.headers['content-type'], /^text\/event-stream/);
        const result = await stream.result();
        assert.equal(result.errors[0].extensions.code, code);
        assert.ok(!('data' in result), 'a request error has no data');
        await stream.complete();
      });
    }
  }

  rule('an error of execution: next with data null and errors, then complete', async (t, server) => {
    const stream = await post(t, server, { query: 'mutation { createTopic(name: "a.*") { name } }' });
    const { data, errors } = await stream.result();
    assert.deepEqual([data, errors[0].extensions.code], [null, 'INVALID_TOPIC']);
    await stream.complete();
  });

  rule('406 when the client accepts nothing that is served', async (t, server) => {
    const answer = await post(t, server, { query: '{ health { status } }' }, { accept: 'text/plain' });
    assert.equal(answer.status, 406);
  });

  rule('a subscription of a client that accepts no stream is refused', async (t, server) => {
    const answer = await post(t, server, { query: messages('a') }, { accept: 'application/json' });
    assert.equal(answer.status, 400);
    await within('the body', answer.ended);
    assert.equal(JSON.parse(answer.body).errors[0].extensions.code, 'BAD_REQUEST');
  });

  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', undefined]) {
    rule(`415 when the body is ${type ?? 'of no type'}`, async (t, server) => {
      const headers = { accept: STREAM, ...(type && { 'content-type': type }) };
      const answer = await RawRequest.send(t, server.port, { headers, body: JSON.stringify({ query: messages('a') }) });
      assert.equal(answer.status, 415);
    });
  }

  rule('405 for a mutation by GET', async (t, server) => {
    const answer = await get(t, server, { query: 'mutation { createTopic(name: "a") { name } }' });
    assert.equal(answer.status, 405);
    assert.match(answer.headers.allow, /POST/);
    assert.equal(await server.topic('a'), null);
  });

  rule('405 for another method', async (t, server) => {
    // PUT and DELETE belong to the single-connection mode.
    for (const method of ['PATCH', 'OPTIONS']) {
      const headers = { accept: STREAM, 'content-type': 'application/json' };
      const answer = await RawRequest.send(t, server.port, { method, headers, body: '{}' });
      assert.equal(answer.status, 405);
      assert.match(answer.headers.allow, /GET.*POST|POST.*GET/);
    }
  });

  rule('400 when the request is not JSON, 422 when it is no request', async (t, server) => {
    for (const [body, status] of [['{', 400], ['"text"', 422], ['{}', 422], ['{"query":1}', 422]]) {
      const headers = { accept: STREAM, 'content-type': 'application/json' };
      assert.equal((await RawRequest.send(t, server.port, { headers, body })).status, status, body);
    }
  });
});

describe('GraphQL over SSE: Last-Event-ID', { concurrency: false }, () => {
  for (const header of ['Last-Event-ID', 'last-event-id']) {
    rule(`${header} resumes after that message, whatever the document says`, async (t, server) => {
      const cursors = [];
      for (let i = 1; i <= 5; i++) cursors.push((await server.publish('a', i)).cursor);
      const stream = await get(t, server, { query: messages('a', ', last: 1') }, { [header]: cursors[1] });
      for (let i = 3; i <= 5; i++) assert.equal((await stream.result()).data.messages.data, i);
      await server.publish('a', 6);
      assert.equal((await stream.result()).data.messages.data, 6);
    });
  }

  rule('of another life of the topic: the gap says so', async (t, server) => {
    const { cursor } = await server.publish('a', 1);
    await server.deleteTopic('a');
    await server.publish('a', 2);
    const stream = await get(t, server, { query: messages('a') }, { 'last-event-id': cursor });
    const { data, extensions } = await stream.result();
    assert.equal(data.messages.data, 2);
    assert.deepEqual([extensions.gap.reason, extensions.gap.missed], ['NEW_EPOCH', 0]);
  });

  rule('of a message that is no longer kept: the gap counts exactly', async (t, server) => {
    const { cursor } = await server.publish('a', 1);
    for (let i = 2; i <= 10; i++) await server.publish('a', i);
    const stream = await get(t, server, { query: messages('a') }, { 'last-event-id': cursor });
    const { data, extensions } = await stream.result();
    assert.equal(data.messages.data, 8);
    const { reason, missed, fromOffset, toOffset } = extensions.gap;
    assert.deepEqual([reason, missed, fromOffset, toOffset], ['EXPIRED', 6, 2, 7]);
  }, { MAX_MESSAGES_PER_TOPIC: '3' });

  rule('an empty one is none', async (t, server) => {
    await server.publish('a', 1);
    const stream = await get(t, server, { query: messages('a', ', last: 1') }, { 'last-event-id': '' });
    assert.equal((await stream.result()).data.messages.data, 1);
  });

  rule('one that is no cursor is refused, not passed over: the client would miss messages and not know', async (t, server) => {
    await server.publish('a', 1);
    const stream = await get(t, server, { query: messages('a') }, { 'last-event-id': 'not-a-cursor' });
    if (stream.status === 400) return;
    await server.publish('a', 2);
    const result = await stream.result();
    assert.equal(result.errors?.[0].extensions.code, 'BAD_REQUEST', JSON.stringify(result));
  });

  rule('with a consumer and AUTO it says where the client really is', async (t, server) => {
    const query = messages('a', ', consumer: "tab-1"');
    const first = await get(t, server, { query });
    await server.subscribers('a', 1);
    const cursors = [];
    for (let i = 1; i <= 5; i++) cursors.push((await server.publish('a', i)).cursor);
    for (let i = 1; i <= 5; i++) await first.result();
    first.socket.destroy();
    await server.subscribers('a', 0);
    // The connection accepted five messages; the client had read two when the connection was cut.
    const again = await get(t, server, { query }, { 'last-event-id': cursors[1] });
    await server.publish('a', 6);
    for (let i = 3; i <= 6; i++) assert.equal((await again.result()).data.messages.data, i);
  });
});

describe('multipart/mixed subscriptions', { concurrency: false }, () => {
  const ACCEPT = 'multipart/mixed;boundary="graphql";subscriptionSpec="1.0",application/json';
  const parts = (body) => body.split('\r\n--graphql').map((part) => part.split('\r\n\r\n')[1]).filter(Boolean).map((part) => JSON.parse(part));

  rule('each result is a part with its payload, and the delimiter follows at once', async (t, server) => {
    const stream = await post(t, server, { query: messages('a') }, { accept: ACCEPT });
    assert.equal(stream.status, 200);
    assert.match(stream.headers['content-type'], /^multipart\/mixed/);
    assert.match(stream.headers['content-type'], /boundary="?graphql"?/);
    assert.match(stream.headers['content-type'], /subscriptionSpec="?1\.0"?/);
    await server.subscribers('a', 1);
    for (let i = 1; i <= 3; i++) {
      await server.publish('a', i);
      await until(`part ${i} with its delimiter`, () => parts(stream.body).length === i && stream.body.endsWith('--graphql'));
      assert.equal(parts(stream.body).at(-1).payload.data.messages.data, i);
    }
    await server.deleteTopic('a');
    await within('the end', stream.ended);
    assert.ok(stream.body.trimEnd().endsWith('--graphql--'), stream.body.slice(-50));
    assert.equal(parts(stream.body).at(-1).payload.errors[0].extensions.code, 'TOPIC_DELETED');
  });

  rule('a heartbeat is an empty object', async (t, server) => {
    const stream = await post(t, server, { query: messages('quiet') }, { accept: ACCEPT });
    await until('heartbeats', () => parts(stream.body).length >= 2);
    assert.deepEqual(parts(stream.body).slice(0, 2), [{}, {}]);
  }, { PING_INTERVAL: '100ms' });

  rule('a query of such a client is answered as JSON', async (t, server) => {
    const answer = await post(t, server, { query: '{ health { status } }' }, { accept: ACCEPT });
    assert.match(answer.headers['content-type'], /^application\/json/);
    await within('the body', answer.ended);
    assert.deepEqual(JSON.parse(answer.body), { data: { health: { status: 'ok' } } });
  });
});
