// What pages of other origins may do with a server that has no setting for it, in a real browser.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, test } from 'node:test';
import { close, open, until } from '../lib/browser.mjs';
import { publish, start, subscribers } from '../lib/server.mjs';

after(close);

const BLANK = { contentType: 'text/html', body: '<!doctype html><title>another page</title>' };

/** A page of another origin than the server's, with what it tries in `window.tries`. */
async function otherPage(t, origin, pageOrigin, prepare = () => {}) {
  const { page } = await open(t, pageOrigin, {}, async (context) => {
    // Chromium asks people before a page of the internet may reach this machine. They agree, so that the server decides.
    await context.grantPermissions(['local-network-access']);
    await context.route(`${origin}/**`, (route) => route.continue());
    await prepare(context);
  });
  assert.equal(new URL(page.url()).origin, pageOrigin);
  await page.evaluate((server) => {
    const settled = (promise) => promise.then((value) => value, (error) => error.name);
    globalThis.tries = {
      publish: (type, mode) =>
        settled(
          fetch(`${server}/publish`, {
            method: 'POST',
            mode,
            headers: type ? { 'content-type': type, ...(mode ? {} : { authorization: 'Bearer x' }) } : {},
            body: '{"topic":"news","data":"of the other page"}',
          }).then(async (response) => (response.type === 'opaque' ? 'opaque' : (await response.json()).offset)),
        ),
      read: () => settled(fetch(`${server}/topics`).then(async (response) => (await response.json()).topics.length)),
      remove: () => settled(fetch(`${server}/topics/news`, { method: 'DELETE' }).then(({ status }) => status)),
      limited: () => settled(fetch(`${server}/topics/none`).then(async (response) => (await response.json()).error.code)),
      socket: (path, protocol) =>
        new Promise((resolve) => {
          const socket = new WebSocket(server.replace('http', 'ws') + path, protocol);
          socket.onopen = () => resolve('open');
          socket.onerror = () => resolve('error');
        }),
      events: () =>
        new Promise((resolve) => {
          const source = new EventSource(`${server}/topics/news/messages?last=1`);
          source.addEventListener('message', ({ data }) => resolve(data));
          source.onerror = () => resolve('error');
        }),
    };
  }, origin);
  const call = (name, ...given) => page.evaluate(([what, values]) => globalThis.tries[what](...values), [name, given]);
  return { page, call };
}

const messages = async (origin) => (await (await fetch(`${origin}/topics/news`)).json()).messages;

test('a page under development on this machine may use the server', async (t) => {
  const origin = await start(t);
  const development = http.createServer((_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end(BLANK.body));
  await new Promise((resolve) => development.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    development.closeAllConnections();
    development.close();
  });
  await publish(origin, 'news', 'first');
  const { call } = await otherPage(t, origin, `http://127.0.0.1:${development.address().port}`);
  assert.equal(await call('publish', 'application/json'), 2);
  assert.equal(await call('read'), 1);
  assert.equal(await call('limited'), 'TOPIC_NOT_FOUND');
  for (const [path, protocol] of [['/ws'], ['/graphql', 'graphql-transport-ws']]) {
    assert.equal(await call('socket', path, protocol ?? []), 'open', path);
  }
  assert.match(await call('events'), /of the other page/);
});

/** A page of a site on the internet. It is secure, since Chromium keeps others away from this machine by itself. */
const EVIL = 'https://evil.example';
const evilPage = (t, origin) =>
  otherPage(t, origin, EVIL, (context) => context.route(`${EVIL}/**`, (route) => route.fulfill(BLANK)));

test('a page of a foreign site reads nothing and changes nothing', async (t) => {
  const origin = await start(t);
  await publish(origin, 'news', 'first');
  const { call } = await evilPage(t, origin);
  // With a preflight request, as a form would send it, and without a type.
  assert.equal(await call('publish', 'application/json'), 'TypeError');
  assert.equal(await call('publish', 'text/plain', 'no-cors'), 'TypeError');
  assert.equal(await call('publish', '', 'no-cors'), 'TypeError');
  assert.equal(await call('remove'), 'TypeError');
  assert.equal(await call('read'), 'TypeError');
  for (const [path, protocol] of [['/ws'], ['/graphql', 'graphql-transport-ws'], ['/graphql/ws', 'graphql-transport-ws']]) {
    assert.equal(await call('socket', path, protocol ?? []), 'error', path);
  }
  assert.equal(await call('events'), 'error');
  assert.equal(await messages(origin), 1);
  await until('no subscription is left', async () => (await subscribers(origin)) === 0);
});

test('the same page may do all that where the setting allows it', async (t) => {
  const origin = await start(t, { ALLOWED_ORIGINS: `https://other.example,${EVIL}` });
  await publish(origin, 'news', 'first');
  const { call } = await evilPage(t, origin);
  assert.equal(await call('publish', 'application/json'), 2);
  await call('publish', 'text/plain', 'no-cors');
  assert.equal(await messages(origin), 3);
  assert.equal(await call('read'), 1);
  assert.equal(await call('limited'), 'TOPIC_NOT_FOUND');
  assert.equal(await call('socket', '/ws', []), 'open');
  assert.match(await call('events'), /of the other page/);
  assert.equal(await call('remove'), 200);
});
