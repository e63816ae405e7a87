// The table of a topic's state in the console.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { assertAccessible } from '../lib/accessible.mjs';
import { close, until } from '../lib/browser.mjs';
import { openConsole } from '../lib/console.mjs';
import { execute, start } from '../lib/server.mjs';

after(close);

async function put(origin, values) {
  const query = 'mutation ($messages: [PublishInput!]!) { publishMany(messages: $messages) { error { message } } }';
  const messages = values.map(([key, data]) => ({ topic: 'prices', key, data }));
  const { publishMany } = await execute(origin, query, { messages });
  assert.ok(publishMany.every(({ error }) => error === null));
}

test('the state is a table of keys, in pages, which stays up to date', async (t) => {
  const origin = await start(t);
  const keys = Array.from({ length: 30 }, (_, index) => `key-${String(index).padStart(2, '0')}`);
  for (const round of [0, 1]) await put(origin, keys.map((key) => [key, { round }]));
  const opened = await openConsole(t, origin, '#/topics/prices');
  if (!opened) return;
  const { page, clean } = opened;
  await page.getByText('State: the newest value of each key').click();
  await page.getByText('1–25 of 30 keys').waitFor();
  const state = page.locator('.state');
  const rows = () => state.locator('tbody tr').evaluateAll((all) => all.map((row) => row.innerText.split('\t').slice(0, 2)));
  assert.deepEqual(await rows(), keys.slice(0, 25).map((key) => [key, '{"round":1}']));
  await assertAccessible(page, 'state');

  await put(origin, [['key-01', 'new'], ['key-00a', 'another']]);
  await page.getByText('1–25 of 31 keys').waitFor();
  await until('the new values', async () => JSON.stringify((await rows()).slice(0, 3)) === JSON.stringify([['key-00', '{"round":1}'], ['key-00a', '"another"'], ['key-01', '"new"']]));
  await state.getByRole('button', { name: 'Next keys' }).click();
  await page.getByText('26–31 of 31 keys').waitFor();
  assert.equal((await rows()).length, 6);

  await state.getByLabel('Keys that begin with').fill('key-00');
  await page.getByText('1–2 of 2 keys').waitFor();
  await put(origin, [['key-00b', 'third'], ['other', 1]]);
  await page.getByText('1–3 of 3 keys').waitFor();
  assert.deepEqual((await rows()).map(([key]) => key), ['key-00', 'key-00a', 'key-00b']);
  clean();
});
