// Uses the console at `/` as a person does: by its names for things, and by the keyboard.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { close, until } from '../lib/browser.mjs';
import { openConsole, rowsOf } from '../lib/console.mjs';
import { asBrowser } from '../lib/page.mjs';
import { createTopic, execute, publish, publishAt, start } from '../lib/server.mjs';

after(close);

const dialog = (page, name) => page.getByRole('dialog', { name });
const button = (at, name) => at.getByRole('button', { name, exact: true });

test('a topic is created, published to, seen, changed and deleted, from this server alone', async (t) => {
  const origin = await start(t);
  const opened = await openConsole(t, origin);
  if (!opened) return;
  const { page, requests, clean } = opened;
  await page.getByText('Live', { exact: true }).waitFor();

  // The empty page has a command that works as it stands.
  const command = await page.locator('.command code').innerText();
  const { stdout } = await promisify(execFile)('sh', ['-c', command]);
  assert.equal(JSON.parse(stdout).status, 'published', stdout);
  await page.getByRole('link', { name: 'news' }).waitFor();
  await page.getByText('{"hello":"world"}').waitFor();

  await button(page, 'New topic').click();
  await dialog(page, 'New topic').getByLabel('Name').fill('orders.eu');
  await dialog(page, 'New topic').getByLabel('History').fill('5');
  await dialog(page, 'New topic').getByLabel('Age').fill('24h');
  await dialog(page, 'New topic').getByLabel('Expected every').fill('5m');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'orders.eu', level: 1 }).waitFor();
  assert.equal(new URL(page.url()).hash, '#/topics/orders.eu');
  await page.getByText('No messages yet.').waitFor();

  // Numbers are what they were, however long.
  const form = page.getByRole('form', { name: 'Publish' });
  await form.getByLabel('Data (JSON)').fill('{"n": 12345678901234567890, "price": 1.50}');
  await form.getByLabel('Key').fill('customer-7');
  await form.getByLabel('Id').fill('first');
  await form.getByText('Headers and time to live').click();
  await form.getByLabel('Headers').fill('trace');
  await button(form, 'Publish').click();
  await form.getByRole('alert').getByText('Line 1 of the headers').waitFor();
  await form.getByLabel('Headers').fill('trace: 7\nunit: kg');
  await form.getByLabel('Time to live').fill('1h');
  await button(form, 'Publish').click();
  await form.getByText('Published with offset 1.').waitFor();
  await rowsOf(page).getByText('{"n":12345678901234567890,"price":1.50}').waitFor();
  const kept = await fetch(`${origin}/topics/orders.eu/messages`);
  const stored = await kept.text();
  assert.ok(stored.includes('{"n":12345678901234567890,"price":1.50}'), stored);
  assert.deepEqual(JSON.parse(stored).messages[0].headers, { trace: '7', unit: 'kg' });
  await page.getByText('expected every 5m').waitFor();
  await button(form, 'Publish').click();
  await form.getByText('nothing was stored').waitFor();

  // What is no JSON can go as text.
  await form.getByLabel('Id').fill('');
  await form.getByLabel('Data (JSON)').fill('hello, "you"');
  await page.keyboard.press('Control+Enter');
  await form.getByRole('alert').getByText('This is not JSON').waitFor();
  await button(form, 'Publish as text').click();
  await rowsOf(page).getByText(String.raw`"hello, \"you\""`).waitFor();

  // From outside, and the figures follow.
  for (let n = 3; n <= 8; n += 1) await publish(origin, 'orders.eu', { n });
  await rowsOf(page).getByText('{"n":8}').waitFor();
  await page.getByText('of 5 kept for 24h').waitFor();
  await until('the newest offset', async () => (await page.locator('.figures').innerText()).includes('Newest offset\n8'));

  // By the keyboard alone: up to a message, its details, and a replay from there.
  await page.getByRole('listbox').focus();
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('Enter');
  const details = page.getByRole('region', { name: 'Message 8' });
  await details.getByText('"n": 8').waitFor();
  for (let n = 0; n < 7; n += 1) await page.keyboard.press('ArrowUp');
  await page.getByRole('region', { name: 'Message 1' }).getByText('trace: 7').waitFor();
  for (let n = 0; n < 6; n += 1) await page.keyboard.press('ArrowDown');
  await page.getByRole('region', { name: 'Message 7' }).waitFor();
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('.details').count(), 0);
  await page.keyboard.press('Enter');
  await button(page.locator('.details'), 'Replay after it').click();
  await until('the message behind it alone', async () => (await rowsOf(page).count()) === 1);
  await rowsOf(page).getByText('{"n":8}').waitFor();

  await button(page, 'Change').click();
  await dialog(page, 'Change the topic').getByLabel('History').fill('3');
  await dialog(page, 'Change the topic').getByLabel('Age').fill('0s');
  await dialog(page, 'Change the topic').getByLabel('Expected every').fill('');
  await button(page, 'Save').click();
  await page.getByText('of 3 kept').waitFor();
  await until('no silence is reported', async () => !(await page.locator('.figures').innerText()).includes('expected every'));

  await button(page, 'Delete').click();
  await dialog(page, 'Delete the topic').getByText('3 messages').waitFor();
  await button(dialog(page, 'Delete the topic'), 'Delete').click();
  await page.getByRole('heading', { name: 'Topics', level: 1 }).waitFor();
  await until('the topic is gone', async () => (await page.getByRole('link', { name: 'orders.eu' }).count()) === 0);
  assert.equal((await fetch(`${origin}/topics/orders.eu`)).status, 404);

  assert.ok(requests.some((url) => url.startsWith('ws:')));
  clean();
});

test('a gap stands at its place, with its count, offsets and reason', async (t) => {
  const origin = await start(t);
  await createTopic(origin, 'orders', 3, 0);
  const { cursor } = await publishAt(origin, 'orders', { n: 1 });
  for (let n = 2; n <= 9; n += 1) await publish(origin, 'orders', { n });
  const opened = await openConsole(t, origin, '#/topics/orders');
  if (!opened) return;
  const { page, clean } = opened;
  await rowsOf(page).getByText('{"n":9}').waitFor();
  assert.equal(await rowsOf(page).count(), 3);

  await button(page, 'Replay…').click();
  await page.getByLabel('After a cursor').check();
  await page.getByLabel('Cursor', { exact: true }).fill(cursor);
  await button(page, 'Replay').click();
  const gap = 'Gap: 5 messages missed (offsets 2 to 6): the history no longer has them';
  await until('the gap before the messages', async () => (await rowsOf(page).allInnerTexts())[0] === gap);
  assert.equal(await rowsOf(page).count(), 4);
  await page.getByText('5 missed', { exact: true }).waitFor();
  await rowsOf(page).first().click();
  await page.getByRole('region', { name: 'The gap' }).getByText('EXPIRED').waitFor();

  // A cursor that is none is refused in words.
  await button(page, 'Replay…').click();
  await page.getByLabel('After a cursor').check();
  await page.getByLabel('Cursor', { exact: true }).fill('nonsense');
  await button(page, 'Replay').click();
  await rowsOf(page).getByText(/cursor/i).waitFor();
  await page.getByText('Stopped', { exact: true }).waitFor();

  // Since a time, and everything.
  await button(page, 'Replay…').click();
  await page.getByLabel('Since a time').check();
  await button(page, 'Replay').click();
  await rowsOf(page).getByText('{"n":9}').waitFor();
  await button(page, 'Replay…').click();
  await page.getByLabel('Everything that is kept').check();
  await button(page, 'Replay').click();
  await until('three messages', async () => (await rowsOf(page).count()) === 3);
  clean();
});

test('a held tail shows what waits, and misses nothing', async (t) => {
  const origin = await start(t);
  await createTopic(origin, 'orders', 1_000, 0);
  const opened = await openConsole(t, origin, '#/topics/orders');
  if (!opened) return;
  const { page, clean } = opened;
  await page.getByText('No messages yet.').waitFor();
  for (let n = 1; n <= 40; n += 1) await publish(origin, 'orders', { n });
  await rowsOf(page).getByText('{"n":40}').waitFor();

  await page.getByRole('listbox').hover();
  await page.mouse.wheel(0, -10_000);
  await rowsOf(page).getByText('{"n":1}').waitFor();
  await page.getByText('Paused', { exact: true }).waitFor();
  for (let n = 41; n <= 45; n += 1) await publish(origin, 'orders', { n });
  await page.getByRole('button', { name: '5 new' }).click();
  await rowsOf(page).getByText('{"n":45}').waitFor();
  await page.getByText('45 messages', { exact: true }).waitFor();
  assert.equal(await rowsOf(page).getByText('{"n":1}').count(), 0);
  clean();
});

test('the lag of a consumer is followed, it is acknowledged for, and deleted', async (t) => {
  const origin = await start(t);
  await createTopic(origin, 'orders', 100, 0);
  const query = 'subscription { messages(topic: "orders", consumer: "billing", ack: EXPLICIT) { offset } }';
  const headers = { 'content-type': 'application/json', accept: 'text/event-stream' };
  const stream = await fetch(`${origin}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query }) });
  const ended = stream.text();
  const opened = await openConsole(t, origin, '#/topics/orders');
  if (!opened) return;
  const { page, clean } = opened;

  const consumers = page.getByRole('region', { name: 'Consumers' });
  const lag = () => consumers.getByRole('row', { name: 'billing' }).getByRole('cell').nth(1).innerText();
  await until('no lag', async () => (await lag()) === '0');
  for (let n = 1; n <= 7; n += 1) await publish(origin, 'orders', { n });
  await until('a lag of 7', async () => (await lag()) === '7');
  await page.getByRole('img', { name: /consumers: 7/ }).waitFor();
  const subscriptions = page.getByRole('region', { name: 'Subscriptions' });
  await subscriptions.getByRole('cell', { name: 'billing', exact: true }).waitFor();
  await subscriptions.getByRole('cell', { name: /^graphql · 127\.0\.0\.1/ }).first().waitFor();

  await page.getByRole('button', { name: 'Acknowledge all for billing' }).click();
  await until('no lag', async () => (await lag()) === '0');
  const [consumer] = (await execute(origin, '{ consumers(topic: "orders") { positions { offset } } }')).consumers;
  assert.equal(consumer.positions[0].offset, 7);

  // Moved back, its stream delivers all of them again.
  await page.getByLabel('Move billing to').selectOption('oldest');
  await page.getByRole('button', { name: 'Move billing', exact: true }).click();
  await until('a lag of 7', async () => (await lag()) === '7');
  // Ended from here, the stream says so.
  await page.getByRole('button', { name: 'Disconnect billing' }).click();
  await button(dialog(page, 'End the subscription'), 'Disconnect').click();
  const told = await ended;
  assert.ok(told.includes('DISCONNECTED'), told.slice(-500));
  assert.ok(told.split('event: next').length - 1 >= 14, told);

  await page.getByRole('button', { name: 'Delete the consumer billing' }).click();
  await button(dialog(page, 'Delete the consumer'), 'Delete').click();
  await consumers.getByText('No named consumers.').waitFor();
  assert.deepEqual((await execute(origin, '{ consumers(topic: "orders") { name } }')).consumers, []);
  clean();
});

test('the page is served to browsers alone, with the headers that keep it to itself', async (t) => {
  const origin = await start(t);
  const opened = await openConsole(t, origin);
  if (!opened) return;
  const page = await fetch(`${origin}/`, { headers: asBrowser });
  const policy = page.headers.get('content-security-policy');
  for (const part of ["default-src 'none'", "script-src 'self';", "style-src 'self';", "form-action 'none'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(part), `${part} in ${policy}`);
  }
  assert.ok(!policy.includes('unsafe'), policy);
  assert.equal(page.headers.get('vary'), 'accept, accept-encoding');
  assert.equal(page.headers.get('cache-control'), 'no-cache');
  const again = await fetch(`${origin}/`, { headers: { ...asBrowser, 'if-none-match': page.headers.get('etag') } });
  assert.equal(again.status, 304);
  const head = await fetch(`${origin}/`, { method: 'HEAD', headers: asBrowser });
  assert.equal(head.headers.get('content-type'), 'text/html; charset=utf-8');
  const text = await fetch(`${origin}/`);
  assert.equal(text.headers.get('content-type'), 'text/plain; charset=utf-8');

  const html = await page.text();
  const assets = [...html.matchAll(/(?:src|href)="(console\/assets\/[^"]+)"/g)].map(([, address]) => address);
  assert.equal(assets.length, 3);
  let bytes = 0;
  for (const address of assets) {
    const asset = await fetch(`${origin}/${address}`);
    assert.equal(asset.status, 200, address);
    assert.equal(asset.headers.get('content-encoding'), 'gzip', address);
    if (address.includes('licences')) continue;
    assert.ok(asset.headers.get('cache-control').includes('immutable'), address);
    bytes += Number(asset.headers.get('content-length'));
  }
  // The page is small, so that it is there at once on a phone.
  assert.ok(bytes < 60 * 1_024, `${bytes} bytes, compressed`);
  assert.equal((await fetch(`${origin}/console/assets/no-such-file.js`)).status, 404);
});
