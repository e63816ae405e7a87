// Makes docs/console.png, the picture in the README: `npm run picture`, with a binary that has the console. It takes two and a
// half minutes, because the plots show minutes.

import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { close, open } from './lib/browser.mjs';
import { rowsOf } from './lib/console.mjs';
import { withFewColours } from './lib/png.mjs';
import { createTopic, execute, publishAt, start, TOP } from './lib/server.mjs';

const FILE = path.join(TOP, 'docs/console.png');
const MAX_BYTES = 150 * 1_024;
const SECONDS = 140;

/** What `open` and `start` want of a test: somebody who cleans up. */
const ends = [];
const t = { after: (end) => ends.push(end), diagnostic: (text) => console.error(text) };

const SKUS = ['apples', 'pears', 'plums', 'quinces'];
const order = (n) => ({
  order: 1_000 + n,
  total: Number((10 + ((n * 37) % 90) + 0.95).toFixed(2)),
  items: [{ sku: SKUS[n % 4], count: 1 + (n % 5) }],
});

async function traffic(origin, seconds) {
  const query = 'mutation ($messages: [PublishInput!]!) { publishMany(messages: $messages) { error { code } } }';
  let n = 0;
  for (let tick = 0; tick < seconds * 10; tick += 1) {
    // Some more and some less from second to second.
    const number = Math.round(1.2 + 0.9 * Math.sin(tick / 130) + 0.6 * Math.sin(tick / 17) + Math.random());
    const messages = Array.from({ length: Math.max(0, number) }, () => {
      n += 1;
      return { topic: 'orders.eu', key: `customer-${(n * 7) % 23}`, data: order(n) };
    });
    if (messages.length > 0) await execute(origin, query, { messages });
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A consumer that acknowledges now and then. */
async function billing(origin) {
  const query = 'subscription { messages(topic: "orders.eu", consumer: "billing", ack: EXPLICIT) { cursor } }';
  const headers = { 'content-type': 'application/json', accept: 'text/event-stream' };
  const response = await fetch(`${origin}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query }) });
  const acknowledge = 'mutation ($cursor: Cursor!) { acknowledge(topic: "orders.eu", consumer: "billing", cursor: $cursor) }';
  let count = 0;
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const cursor = text.match(/"cursor":"([^"]+)"/)?.[1];
    count += 1;
    if (cursor && count % 170 === 0) await execute(origin, acknowledge, { cursor });
  }
}

try {
  const origin = await start(t);
  await createTopic(origin, 'orders.eu', 500, 200);
  const { cursor } = await publishAt(origin, 'orders.eu', order(0));
  billing(origin).catch(() => {});
  const { page } = await open(t, origin, { path: '/#/topics/orders.eu', colorScheme: 'light' });
  await traffic(origin, SECONDS);
  await page.getByRole('button', { name: 'Replay…' }).click();
  await page.getByLabel('After a cursor').check();
  await page.getByLabel('Cursor', { exact: true }).fill(cursor);
  await page.getByRole('button', { name: 'Replay', exact: true }).click();
  await rowsOf(page).getByText('"order":').first().waitFor();
  await page.getByRole('listbox').hover();
  await page.mouse.wheel(0, -100_000);
  await rowsOf(page).getByText('Gap:').waitFor();
  await page.mouse.move(0, 0);
  await traffic(origin, 3);
  const picture = withFewColours(await page.screenshot());
  if (picture.length > MAX_BYTES) throw new Error(`${picture.length} bytes are more than ${MAX_BYTES}`);
  writeFileSync(FILE, picture);
  console.log(`${FILE}: ${picture.length} bytes`);
} finally {
  for (const end of ends.reverse()) await end();
  await close();
}
