// clients/typescript in a browser: unbundled, with the browser's own WebSocket and EventSource.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { close, open, until } from '../lib/browser.mjs';
import { serveFiles } from '../lib/files.mjs';
import { launch, publish, start, TOP } from '../lib/server.mjs';

after(close);

const PACKAGE = path.join(TOP, 'clients/typescript');
const GRAPHQL_WS = path.join(PACKAGE, 'node_modules/graphql-ws/dist');

/** Modules are found by a map, as a browser needs it. The package is there as `client`. */
const PAGE = `<!doctype html><link rel="icon" href="data:,">
<script type="importmap">{"imports": {"pub-sub-client": "/package/index.js", "graphql-ws/client": "/graphql-ws/client.js"}}</script>
<script type="module">globalThis.client = await import('pub-sub-client');</script>`;

function find(pathname) {
  const [, folder, name] = pathname.split('/');
  const folders = { package: path.join(PACKAGE, 'dist'), 'graphql-ws': GRAPHQL_WS };
  return pathname === '/' ? { text: PAGE } : { file: path.join(folders[folder], path.basename(name)) };
}

/** Opens a page that consumes what `options` says. Its events are in `events`, and its errors in `errors`. */
async function consuming(t, url, options) {
  const origin = await serveFiles(t, find);
  const opened = await open(t, origin, { path: '/', also: [url] });
  const { page } = opened;
  await page.waitForFunction(() => globalThis.client);
  await page.evaluate((options) => {
    Object.assign(globalThis, { events: [], errors: [], status: '' });
    globalThis.client
      .consume({
        ...options,
        onMessage: ({ data }) => globalThis.events.push(data),
        onGap: ({ missed, reason }) => globalThis.events.push(`gap of ${missed}: ${reason}`),
        onError: ({ code }) => globalThis.errors.push(code),
        onStatus: (status) => (globalThis.status = status),
      })
      .catch((error) => globalThis.errors.push(`ended: ${error.code}`));
  }, { url, ...options });
  return { ...opened, value: (name) => page.evaluate((name) => globalThis[name], name) };
}

for (const transport of ['websocket', 'event-stream']) {
  for (const consumer of ['tab-1', undefined]) {
    test(`${transport}, ${consumer ? 'as a consumer' : 'by cursor'}: the server is killed and started again, and every message comes once and in order`, async (t) => {
      const directory = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-client-'));
      t.after(() => rmSync(directory, { recursive: true, force: true }));
      const settings = { ENGINE: 'disk', DATA_DIR: directory, MAX_PUBLISH_RATE: '0' };
      const { origin, stop } = await launch(t, settings);
      const { page, value, clean } = await consuming(t, origin, { topic: 'orders', transport, consumer });
      await until('the subscription is live', async () => (await value('status')) === 'live');
      for (let i = 1; i <= 5; i += 1) await publish(origin, 'orders', i);
      await until('five messages', async () => (await value('events')).length === 5);
      await stop();
      await until('the page notices', async () => (await value('status')) === 'waiting');
      // The page itself publishes, too, and waits for the server.
      const published = page.evaluate((url) => globalThis.client.publish({ url, topic: 'orders', data: 6 }), origin);
      await launch(t, { ...settings, PORT: new URL(origin).port });
      assert.equal((await published).duplicate, false);
      await publish(origin, 'orders', 7);
      await until('all messages', async () => (await value('events')).length >= 7);
      assert.deepEqual(await value('events'), [1, 2, 3, 4, 5, 6, 7]);
      assert.ok((await value('errors')).includes('CONNECTION_LOST'));
      clean('ERR_CONNECTION_REFUSED', 'WebSocket connection to', 'socket:', 'ERR_INCOMPLETE_CHUNKED_ENCODING', 'ERR_CONNECTION_RESET', 'ERR_EMPTY_RESPONSE');
    });
  }

  test(`${transport}: a server that forgot everything says so in its place`, async (t) => {
    const { origin, stop } = await launch(t);
    const { value } = await consuming(t, origin, { topic: 'orders', transport });
    await until('the subscription is live', async () => (await value('status')) === 'live');
    await publish(origin, 'orders', 1);
    await until('a message', async () => (await value('events')).length === 1);
    await stop();
    await launch(t, { PORT: new URL(origin).port });
    await publish(origin, 'orders', 2);
    await until('another message', async () => (await value('events')).includes(2));
    assert.deepEqual(await value('events'), [1, 'gap of 0: NEW_EPOCH', 2]);
  });
}

test('event-stream: a token is exchanged for a cookie at the server’s own pages, and works there', async (t) => {
  const API_KEY = 'the-key-of-this-test';
  const origin = await start(t, { API_KEY });
  // The page comes from the server, as a page does that a proxy serves beside it.
  const overlay = (context) => context.route(`${origin}/page/**`, async (route) => {
    const found = find(new URL(route.request().url()).pathname.slice('/page'.length));
    const text = found.text?.replaceAll('"/', '"/page/');
    await route.fulfill(text === undefined ? { path: found.file } : { body: text, contentType: 'text/html' });
  });
  const { page, clean } = await open(t, origin, { path: '/page/' }, async (context) => {
    await context.grantPermissions(['local-network-access']);
    await overlay(context);
  });
  await page.waitForFunction(() => globalThis.client);
  const codes = await page.evaluate(async ({ url, token }) => {
    globalThis.events = [];
    const options = { url, topic: 'orders', transport: 'event-stream', onMessage: ({ data }) => globalThis.events.push(data), onGap: () => {} };
    const without = await globalThis.client.consume(options).catch(({ code }) => code);
    globalThis.client.consume({ ...options, token, onStatus: (status) => (globalThis.status = status) }).catch(({ code }) => globalThis.events.push(code));
    return [without];
  }, { url: origin, token: API_KEY });
  assert.deepEqual(codes, ['UNAUTHENTICATED']);
  await page.waitForFunction(() => globalThis.status === 'live');
  await publish(origin, 'orders', 1);
  await page.waitForFunction(() => globalThis.events.includes(1));
  clean('401', 'status of 401');
});
