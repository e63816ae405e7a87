// The console where access is restricted.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { accessOf } from '../lib/access.mjs';
import { close, picture, until } from '../lib/browser.mjs';
import { assertAccessible } from '../lib/accessible.mjs';
import { openConsole, rowsOf } from '../lib/console.mjs';
import { createTopic, publish, start } from '../lib/server.mjs';

after(close);

test('a key that may see one topic sees one topic', async (t) => {
  const { settings, keep } = accessOf(t, { 'a-narrow-key': 'subscribe = ["orders.eu"]\npublish = ["orders.eu"]\n' });
  const origin = await start(t, settings);
  for (const name of ['orders.eu', 'orders.us', 'secrets']) {
    await createTopic(origin, name, 10, 0);
    await publish(origin, name, { in: name });
  }
  const opened = await openConsole(t, origin);
  if (!opened) return;
  const { page, requests, clean } = opened;
  const dialog = page.getByRole('dialog', { name: 'Sign in' });

  // The page asks by itself, and whoever does not want to can do so later.
  await dialog.getByText('this needs credentials').waitFor();
  await assertAccessible(page, 'the dialog');
  await picture(page, 'console-sign-in.png');
  await page.keyboard.press('Escape');
  await page.getByRole('heading', { name: 'Sign in to go on' }).waitFor();
  await page.getByRole('main').getByRole('button', { name: 'Sign in' }).click();
  await dialog.getByLabel('Key or token').fill('wrong');
  await page.keyboard.press('Enter');
  await dialog.getByText('the credential is not known here').waitFor();
  await dialog.getByLabel('Key or token').fill('a-narrow-key');
  await page.keyboard.press('Enter');

  await page.getByRole('link', { name: 'orders.eu' }).waitFor();
  await page.getByText('{"in":"orders.eu"}').waitFor();
  assert.equal(await page.locator('table.topics tbody tr').count(), 1);
  await page.getByText('need the right to statistics, which your key or token does not have').waitFor();
  await picture(page, 'console-one-topic.png');

  await page.getByRole('link', { name: 'orders.eu' }).click();
  await rowsOf(page).getByText('{"in":"orders.eu"}').waitFor();
  await page.getByText('The consumers need the right to statistics').waitFor();
  await publish(origin, 'orders.eu', 'live');
  await rowsOf(page).getByText('"live"').waitFor();
  await assertAccessible(page, 'the topic');
  // What it may not is refused in words.
  await page.getByRole('button', { name: 'Delete', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
  await page.getByRole('dialog').getByText('Your key or token does not allow this.').waitFor();
  await page.keyboard.press('Escape');

  await page.goto(`${origin}/#/topics/secrets`);
  await page.getByText('Your key or token does not allow this.').waitFor();
  assert.equal(await page.getByText('{"in":"secrets"}').count(), 0);

  // The key is withdrawn while the tail is open, and another one continues where it stood.
  await page.goto(`${origin}/#/topics/orders.eu`);
  await rowsOf(page).getByText('"live"').waitFor();
  keep({});
  await dialog.waitFor();
  await publish(origin, 'orders.eu', 'meanwhile');
  keep({ 'another-key': 'subscribe = ["orders.eu"]\n' });
  await until('the server has the new key', async () => (await fetch(`${origin}/topics`, { headers: { 'x-api-key': 'another-key' } })).status === 200);
  await dialog.getByLabel('Key or token').fill('another-key');
  await page.keyboard.press('Enter');
  await rowsOf(page).getByText('"meanwhile"').waitFor();
  assert.equal(await rowsOf(page).getByText('"live"').count(), 1);

  // Signing out forgets what was read, and the key.
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in to go on' }).waitFor();
  assert.equal(await page.getByText('meanwhile').count(), 0);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  for (const url of requests) assert.ok(!url.includes('-key'), url);
  clean('401');
});
