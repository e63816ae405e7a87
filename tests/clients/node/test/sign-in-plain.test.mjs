// Clients of /ws and of event streams sign in, and go on with fresh credentials.

import { EventSource } from 'eventsource';
import polyfill from 'event-source-polyfill';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import WebSocket from 'ws';
import { bearer, guarded } from '../lib/access.mjs';
import { after, Inbox, until, within } from '../lib/wait.mjs';

const options = { timeout: 60_000 };
const { EventSourcePolyfill } = polyfill;

/** Opens /ws. The inbox gets the frames, and at last `{closed}`. */
function open(t, server, { search = '', ...more } = {}) {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/ws${search}`, more);
  const inbox = new Inbox();
  socket.on('message', (text) => inbox.push(JSON.parse(text)));
  socket.on('close', (closed, reason) => inbox.push({ closed, reason: `${reason}` }));
  socket.on('error', (error) => inbox.push({ failed: error.message }));
  after(t, () => socket.terminate());
  const opened = new Promise((resolve) => socket.once('open', resolve));
  const send = (frame) => socket.send(JSON.stringify(frame));
  return { inbox, send, opened: () => within('the socket opens', opened), next: (what) => inbox.next(what) };
}

async function reads(server, socket) {
  socket.send({ type: 'subscribe', topic: 'news', last: 1 });
  assert.equal((await socket.next('the ack')).type, 'ack');
  await server.publish('news', 'x');
  assert.equal((await socket.next('the event')).data, 'x');
}

for (const kind of ['API_KEY', 'a key of ACCESS_FILE', 'a token']) {
  test(`/ws: ${kind} in a header, in X-API-Key, in a first frame`, options, async (t) => {
    const server = await guarded(t);
    const credential = server.credentials[kind];
    for (const headers of [bearer(credential), { 'X-API-Key': credential }]) {
      const socket = open(t, server, { headers });
      await socket.opened();
      await reads(server, socket);
    }
    const socket = open(t, server);
    await socket.opened();
    socket.send({ type: 'auth', token: credential, request_id: 'a' });
    const { ts, ...ack } = await socket.next('the ack');
    assert.ok(ts);
    assert.deepEqual(ack, { type: 'ack', status: 'ok', request_id: 'a' });
    await reads(server, socket);
  });
}

test('/ws: a bad header is refused at the upgrade, a bad frame leaves the socket open', options, async (t) => {
  const server = await guarded(t);
  const refused = open(t, server, { headers: bearer('wrong') });
  assert.match((await refused.next()).failed, /401/);
  const socket = open(t, server);
  await socket.opened();
  socket.send({ type: 'subscribe', topic: 'news' });
  assert.equal((await socket.next()).error.code, 'UNAUTHENTICATED');
  socket.send({ type: 'auth', token: server.fresh(-1) });
  const { error } = await socket.next();
  assert.deepEqual(error, { code: 'UNAUTHENTICATED', message: 'the token has expired' });
  socket.send({ type: 'auth', token: server.fresh() });
  assert.equal((await socket.next()).type, 'ack');
  await reads(server, socket);
});

test('/ws: a socket that never signs in is closed with 4401', options, async (t) => {
  const server = await guarded(t, { CONNECTION_INIT_TIMEOUT: '100ms' });
  const socket = open(t, server);
  const { closed, reason } = await socket.next('the close');
  assert.equal(closed, 4401);
  assert.match(reason, /^Unauthorized/);
});

test('/ws: another auth frame before the token expires, and the subscription goes on', options, async (t) => {
  const server = await guarded(t);
  const socket = open(t, server, { headers: bearer(server.fresh(3)) });
  await socket.opened();
  socket.send({ type: 'subscribe', topic: 'news' });
  assert.equal((await socket.next()).type, 'ack');
  socket.send({ type: 'auth', token: server.fresh(3_600) });
  assert.equal((await socket.next()).type, 'ack');
  // This one is only here to say when the first token has expired.
  const clock = open(t, server, { headers: bearer(server.fresh(3)) });
  await clock.opened();
  clock.send({ type: 'subscribe', topic: 'news' });
  assert.equal((await clock.next()).type, 'ack');
  assert.equal((await clock.next('the end of the token')).error.code, 'UNAUTHENTICATED');
  await server.publish('news', 1);
  assert.equal((await socket.next('the message')).data, 1);
  // The same connection may not become another principal's.
  socket.send({ type: 'auth', token: server.credentials['a key of ACCESS_FILE'] });
  assert.equal((await socket.next()).error.code, 'FORBIDDEN');
});

test('/ws: fresh credentials after the end of a token, on the same socket, miss nothing', options, async (t) => {
  const server = await guarded(t);
  const socket = open(t, server, { headers: bearer(server.fresh(2)) });
  await socket.opened();
  const subscribe = { type: 'subscribe', topic: 'news', consumer: 'tab-1', ack: 'EXPLICIT' };
  socket.send(subscribe);
  assert.equal((await socket.next()).consumer.resumed, false);
  const ended = await socket.next('the end of the token');
  assert.deepEqual([ended.type, ended.topic, ended.error.code], ['error', 'news', 'UNAUTHENTICATED']);
  await server.publish('news', 1);
  socket.send({ type: 'auth', token: server.fresh() });
  assert.equal((await socket.next()).type, 'ack');
  socket.send(subscribe);
  assert.equal((await socket.next()).consumer.resumed, true);
  assert.equal((await socket.next()).data, 1);
});

test('/ws: a key whose hash is replaced ends at once, and the new key goes on with its consumer', options, async (t) => {
  const server = await guarded(t);
  const socket = open(t, server, { headers: bearer(server.credentials['a key of ACCESS_FILE']) });
  await socket.opened();
  const subscribe = { type: 'subscribe', topic: 'news', consumer: 'tab-1', ack: 'EXPLICIT' };
  socket.send(subscribe);
  assert.equal((await socket.next()).consumer.resumed, false);
  server.write({ billing: 'its new key' });
  assert.equal((await socket.next('the end of the old key')).error.code, 'UNAUTHENTICATED');
  await server.publish('news', 1);
  const next = open(t, server, { headers: bearer('its new key') });
  await next.opened();
  next.send(subscribe);
  assert.equal((await next.next()).consumer.resumed, true);
  assert.equal((await next.next()).data, 1);
});

test('max_connections: one socket too many is closed with 1013, one stream too many gets 429', options, async (t) => {
  const server = await guarded(t);
  server.write({ few: 'one connection' }, 'max_connections = 1');
  const headers = bearer('one connection');
  const asked = () => fetch(`${server.origin}/topics`, { headers });
  // The server looks at the file every two seconds; asking all the time would only keep it busy.
  await until('the server knows the key', async () => {
    await new Promise((resolve) => setTimeout(resolve, 200));
    return (await asked()).status === 200;
  });
  const first = open(t, server, { headers });
  await first.opened();
  await reads(server, first);
  const refused = await open(t, server, { headers }).next('the close');
  assert.deepEqual(refused, { closed: 1013, reason: 'the principal has as many connections as it may' });
  const graphql = new WebSocket(server.ws, 'graphql-transport-ws', { headers });
  const closed = await within('the close', new Promise((resolve) => graphql.on('close', resolve)));
  assert.equal(closed, 1013);
  const stream = await fetch(`${server.origin}/topics/news/messages`, { headers: { ...headers, accept: 'text/event-stream' } });
  assert.equal(stream.status, 429);
  assert.equal((await stream.json()).error.code, 'LIMIT_REACHED');
  // Requests are no connections.
  assert.equal((await asked()).status, 200);
});

test('AUTH_QUERY_TOKEN: a credential in the address, by setting only', options, async (t) => {
  for (const allowed of [true, false]) {
    const server = await guarded(t, { AUTH_QUERY_TOKEN: `${allowed}` });
    const search = `?access_token=${encodeURIComponent(server.credentials['a token'])}`;
    const socket = open(t, server, { search });
    await socket.opened();
    if (allowed) await reads(server, socket);
    else {
      socket.send({ type: 'subscribe', topic: 'news' });
      assert.equal((await socket.next()).error.code, 'UNAUTHENTICATED');
    }
    assert.equal((await fetch(`${server.origin}/topics${search}`)).status, allowed ? 200 : 401);
    assert.ok(!server.log.includes(server.credentials['a token']));
  }
});

/** Collects what an event source says. */
function listen(t, source) {
  const inbox = new Inbox();
  for (const name of ['message', 'gap', 'deleted', 'error']) {
    source.addEventListener(name, ({ type, data, code, status, lastEventId }) => {
      inbox.push({ type, data: data && JSON.parse(data), status: code ?? status, lastEventId });
    });
  }
  after(t, () => source.close());
  return inbox;
}

/** Signs in as a page does, and returns what the browser then sends. */
async function cookie(server, credential) {
  const response = await fetch(`${server.origin}/auth/cookie`, { method: 'POST', headers: bearer(credential) });
  assert.equal(response.status, 204);
  const [set] = response.headers.getSetCookie();
  const [pair, ...attributes] = set.split('; ');
  assert.deepEqual(attributes, ['Path=/', 'HttpOnly', 'SameSite=Strict', 'Secure']);
  assert.ok(!pair.includes(credential));
  return pair;
}

const SOURCES = {
  'EventSource with the cookie': async (server, url, credential) => {
    const jar = await cookie(server, credential);
    // This EventSource keeps no cookies; a browser adds them in this way.
    return new EventSource(url, { fetch: (address, init) => fetch(address, { ...init, headers: { ...init.headers, cookie: jar } }) });
  },
  'EventSource with a header by its own fetch': (_, url, credential) =>
    new EventSource(url, { fetch: (address, init) => fetch(address, { ...init, headers: { ...init.headers, ...bearer(credential) } }) }),
  'event-source-polyfill with headers': (_, url, credential) => new EventSourcePolyfill(url, { headers: bearer(credential) }),
};

for (const [name, connect] of Object.entries(SOURCES)) {
  test(`${name}: a topic's stream, and a GraphQL subscription`, options, async (t) => {
    const server = await guarded(t);
    await server.publish('news', 1);
    const query = 'subscription { messages(topic: "news", last: 1) { data } }';
    const rest = listen(t, await connect(server, `${server.origin}/topics/news/messages?last=1`, server.credentials['a token']));
    assert.equal((await rest.next()).data.data, 1);
    const inbox = new Inbox();
    const graphql = await connect(server, `${server.http}?${new URLSearchParams({ query })}`, server.credentials['a key of ACCESS_FILE']);
    after(t, () => graphql.close());
    graphql.addEventListener('next', ({ data }) => inbox.push(JSON.parse(data)));
    assert.equal((await inbox.next()).data.messages.data, 1);
  });

  test(`${name}: without it the stream is refused, and a topic that may not be read is FORBIDDEN`, options, async (t) => {
    const server = await guarded(t);
    const denied = await connect(server, `${server.origin}/topics/secret/messages`, server.credentials['a token']);
    const refused = new EventSource(`${server.origin}/topics/news/messages`);
    const [ofDenied, ofRefused] = [denied, refused].map((source) => listen(t, source));
    assert.equal((await ofRefused.next()).status, 401);
    const { status, type } = await ofDenied.next();
    assert.deepEqual([status, type], [403, 'error']);
  });
}

test('EventSource: the stream ends with the token, and the next one goes on by Last-Event-ID', options, async (t) => {
  const server = await guarded(t);
  const seconds = [3, 3_600];
  // It reconnects by itself; the application has a fresh token by then.
  const source = new EventSource(`${server.origin}/topics/news/messages`, {
    fetch: (address, init) => fetch(address, { ...init, headers: { ...init.headers, ...bearer(server.fresh(seconds.shift())) } }),
  });
  const inbox = listen(t, source);
  await server.subscribers('news', 1);
  await server.publish('news', 1);
  assert.equal((await inbox.next()).data.data, 1);
  const ended = await inbox.next('the end of the token');
  assert.equal(ended.data?.error.code, 'UNAUTHENTICATED');
  await server.publish('news', 2);
  const rest = [];
  while (rest.at(-1)?.type !== 'message') rest.push(await inbox.next('the next message'));
  assert.equal(rest.at(-1).data.data, 2);
  assert.deepEqual(seconds, []);
});
