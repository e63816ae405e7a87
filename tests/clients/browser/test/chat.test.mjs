// examples/chat, as `npm run build` makes it: history, live messages, a server that goes and comes back, gaps in their place.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { assertAccessible } from '../lib/accessible.mjs';
import { close, open, picture, until } from '../lib/browser.mjs';
import { serveFiles } from '../lib/files.mjs';
import { createTopic, launch, proxy, publish, start, TOP } from '../lib/server.mjs';

after(close);

const DIST = path.join(TOP, 'examples/chat/dist');
/** What a browser reports while its server is gone. */
const BROKEN = ['ERR_CONNECTION_REFUSED', 'WebSocket connection to', 'socket:', 'ERR_CONNECTION_RESET', 'ERR_EMPTY_RESPONSE'];

/** Opens a room of a server as somebody. */
async function enter(t, server, room, name, options = {}) {
  const origin = await serveFiles(t, (pathname) => ({ file: path.join(DIST, pathname === '/' ? 'index.html' : path.basename(pathname)) }));
  const opened = await open(t, origin, { path: `/?server=${encodeURIComponent(server)}#${room}`, also: [server], ...options });
  await opened.page.getByLabel('Your name').fill(name);
  await opened.page.getByText('Connected', { exact: true }).waitFor();
  return opened;
}

async function say(page, text) {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.getByRole('button', { name: 'Send' }).click();
}

/** What the room shows, row by row. A gap begins with `!`. */
const rows = (page) =>
  page.locator('.rows li:not(.earlier)').evaluateAll((items) =>
    items.map((item) => (item.classList.contains('gap') ? `! ${item.textContent}` : item.querySelector('p').textContent + (item.classList.contains('pending') ? ' …' : ''))),
  );
const shows = (page, wanted) => until(`the rows ${wanted}`, async () => JSON.stringify(await rows(page)) === JSON.stringify(wanted));

test('two people talk: history, live messages, rooms, and what a stranger publishes', async (t) => {
  const origin = await start(t);
  await publish(origin, 'chat.lobby', { from: 'Eve', text: 'before you came' });
  const ada = await enter(t, origin, 'lobby', 'Ada');
  await shows(ada.page, ['before you came']);
  const bob = await enter(t, origin, 'lobby', 'Bob', { colorScheme: 'dark' });
  await say(ada.page, 'hello');
  await shows(bob.page, ['before you came', 'hello']);
  await say(bob.page, 'good morning');
  for (const { page } of [ada, bob]) await shows(page, ['before you came', 'hello', 'good morning']);
  await publish(origin, 'chat.lobby', ['no', 'message']);
  await shows(ada.page, ['before you came', 'hello', 'good morning', '["no","message"]']);
  assert.equal(await bob.page.locator('.own').count(), 1);
  await publish(origin, 'chat.garden', { from: 'Eve', text: 'in the garden' });
  await ada.page.getByRole('link', { name: 'garden' }).click();
  await shows(ada.page, ['in the garden']);
  await assertAccessible(ada.page, 'light');
  await assertAccessible(bob.page, 'dark');
  await picture(bob.page, 'chat-dark.png');
  for (const { clean } of [ada, bob]) clean();
});

test('earlier messages come page by page', async (t) => {
  const origin = await start(t, { MAX_PUBLISH_RATE: '0' });
  for (let i = 1; i <= 100; i += 1) await publish(origin, 'chat.lobby', { from: 'Eve', text: `message ${i}` });
  const { page, clean } = await enter(t, origin, 'lobby', 'Ada');
  const from = async (first) => {
    await shows(page, Array.from({ length: 101 - first }, (_, index) => `message ${first + index}`));
  };
  await from(51);
  for (const first of [21, 1]) {
    await page.getByRole('button', { name: 'Earlier messages' }).click();
    await from(first);
  }
  assert.equal(await page.getByRole('button', { name: 'Earlier messages' }).count(), 0);
  clean();
});

test('the server is killed and started again: what was said meanwhile is sent, and nothing is missing', async (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-chat-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const settings = { ENGINE: 'disk', DATA_DIR: directory };
  const { origin, stop } = await launch(t, settings);
  const { page, clean } = await enter(t, origin, 'lobby', 'Ada');
  await say(page, 'one');
  await shows(page, ['one']);
  await stop();
  await page.getByText('Connection lost. Connecting again…').waitFor();
  await say(page, 'two');
  await shows(page, ['one', 'two …']);
  await launch(t, { ...settings, PORT: new URL(origin).port });
  await shows(page, ['one', 'two']);
  await page.getByText('Connected', { exact: true }).waitFor();
  await say(page, 'three');
  await shows(page, ['one', 'two', 'three']);
  clean(...BROKEN);
});

test('what the room no longer keeps is shown as missing, in its place', async (t) => {
  const origin = await start(t);
  await createTopic(origin, 'chat.lobby', 3, 0);
  const between = await proxy(t, origin);
  const { page, clean } = await enter(t, between.origin, 'lobby', 'Ada', { viewport: { width: 390, height: 700 } });
  await say(page, 'one');
  await shows(page, ['one']);
  between.cut();
  await page.getByText('Connection lost. Connecting again…').waitFor();
  for (let i = 2; i <= 8; i += 1) await publish(origin, 'chat.lobby', { from: 'Eve', text: `${i}` });
  between.mend();
  await shows(page, ['one', '! 4 messages are missing here: the room no longer keeps them.', '6', '7', '8']);
  await assertAccessible(page, 'phone');
  await picture(page, 'chat-phone.png');
  const { scrollWidth, clientWidth } = await page.evaluate(() => document.documentElement);
  assert.equal(scrollWidth, clientWidth);
  clean(...BROKEN);
});

test('a message that is refused can be sent again', async (t) => {
  const origin = await start(t, { MAX_PAYLOAD_BYTES: '60' });
  const { page } = await enter(t, origin, 'lobby', 'Ada');
  await say(page, 'far too long '.repeat(6));
  await page.getByText('Not sent:').waitFor();
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.getByText('Not sent:').waitFor();
  await say(page, 'short');
  await page.getByText('short', { exact: true }).waitFor();
});
