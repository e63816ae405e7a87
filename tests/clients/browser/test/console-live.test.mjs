// The console under load, and after a restart of the server.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { close, picture, until } from '../lib/browser.mjs';
import { openConsole, rowsOf } from '../lib/console.mjs';
import { createTopic, launch, proxy, publish, publishMany, start } from '../lib/server.mjs';

after(close);

/** Calls `make` each time after so many milliseconds, so many times in all. */
async function pace(milliseconds, times, make) {
  const began = Date.now();
  for (let turn = 0; turn < times; turn += 1) {
    const wait = began + turn * milliseconds - Date.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    await make(turn);
  }
}

/** Publishes 1,000 messages a second for three seconds, and returns how long the page's long tasks took, in milliseconds. */
async function load(page, origin, topic) {
  await page.goto(`${origin}/#/topics/${topic}`);
  await page.getByText('No messages yet.').waitFor();
  await page.evaluate(() => {
    globalThis.tasks = [];
    const observer = new PerformanceObserver((list) => globalThis.tasks.push(...list.getEntries().map(({ duration }) => duration)));
    observer.observe({ entryTypes: ['longtask'] });
  });
  const TURNS = 30;
  await pace(100, TURNS, (turn) => publishMany(origin, topic, 100, (n) => ({ n: 100 * turn + n, text: 'a message of a usual size' })));
  const all = `${(100 * TURNS).toLocaleString('en')} messages`;
  await until('all messages', async () => (await page.locator('.tallies').innerText()).startsWith(all));
  await rowsOf(page).getByText(`"n":${100 * TURNS - 1},`).waitFor();
  return page.evaluate(() => globalThis.tasks);
}

test('at 1,000 messages a second nothing blocks the page for 200 ms, and it holds a bounded number of rows', async (t) => {
  const origin = await start(t);
  const opened = await openConsole(t, origin);
  if (!opened) return;
  const { page, clean } = opened;
  // What is measured is the time on the clock. Where other programs use the machine as well, the page gets three chances.
  let slowest = Infinity;
  for (let attempt = 1; attempt <= 3 && slowest > 200; attempt += 1) {
    const topic = `orders-${attempt}`;
    await createTopic(origin, topic, 1_000, 0);
    const tasks = await load(page, origin, topic);
    t.diagnostic(`tasks over 50 ms: ${tasks.map(Math.round).join(', ') || 'none'}`);
    slowest = Math.max(0, ...tasks);
  }
  assert.ok(slowest <= 200, `${slowest} ms`);
  const elements = await page.evaluate(() => document.querySelectorAll('*').length);
  assert.ok(elements < 600, `${elements} elements`);
  await page.getByText('0 missed').waitFor();
  await page.getByText('earlier rows left this page').waitFor();
  clean();
});

test('after a restart the page continues behind its last message, and says what it missed', async (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-console-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const settings = { ENGINE: 'disk', DATA_DIR: directory };
  const { origin, stop } = await launch(t, settings);
  const { origin: between, cut, mend } = await proxy(t, origin);
  await createTopic(origin, 'orders', 3, 0);
  const opened = await openConsole(t, between, '#/topics/orders');
  if (!opened) return;
  const { page } = opened;
  await page.getByText('No messages yet.').waitFor();
  for (let n = 1; n <= 2; n += 1) await publish(origin, 'orders', { n });
  await rowsOf(page).getByText('{"n":2}').waitFor();

  cut();
  await page.getByText('Connection lost', { exact: true }).waitFor();
  await stop();
  await launch(t, { ...settings, PORT: new URL(origin).port });
  await publish(origin, 'orders', { n: 3 });
  mend();
  await page.getByText('Live', { exact: true }).first().waitFor();
  await rowsOf(page).getByText('{"n":3}').waitFor();
  const texts = await rowsOf(page).allInnerTexts();
  assert.ok(texts[2] === 'Connection lost.' && /^Connected again after .* The tail continues after offset 2\.$/.test(texts[3]), texts.join('; '));
  await page.getByText('0 missed').waitFor();

  // More than the history holds.
  cut();
  await page.getByText('Connection lost', { exact: true }).waitFor();
  for (let n = 4; n <= 9; n += 1) await publish(origin, 'orders', { n });
  mend();
  await rowsOf(page).getByText('{"n":9}').waitFor();
  await rowsOf(page).getByText('Gap: 3 messages missed (offsets 4 to 6): the history no longer has them').waitFor();
  await page.getByText('3 missed', { exact: true }).waitFor();
  await picture(page, 'console-resumed.png');
});

test('a topic that is gone after a restart is waited for, and its new life begins with a gap', async (t) => {
  const { origin, stop } = await launch(t);
  await createTopic(origin, 'orders', 3, 0);
  const opened = await openConsole(t, origin, '#/topics/orders');
  if (!opened) return;
  const { page } = opened;
  await page.getByText('No messages yet.').waitFor();
  await publish(origin, 'orders', 'before');
  await rowsOf(page).getByText('"before"').waitFor();

  await stop();
  await page.getByText('Connection lost', { exact: true }).waitFor();
  await launch(t, { PORT: new URL(origin).port });
  await page.getByText('Waiting for the topic').waitFor();
  // To look at a topic does not create it.
  assert.equal((await fetch(`${origin}/topics/orders`)).status, 404);
  for (const n of [1, 2]) await publish(origin, 'orders', { after: n });
  await rowsOf(page).getByText('{"after":2}').waitFor();
  await rowsOf(page).getByText('Another epoch of the topic begins here').waitFor();
  assert.equal(await rowsOf(page).getByText('{"after":1}').count(), 1);
});
