// Signs in at the pages of a server with access rules, and by the cookie for an EventSource.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, test } from 'node:test';
import { close, open, picture, until } from '../lib/browser.mjs';
import { access } from '../lib/access.mjs';
import { execute, graphiql, openOwn, run, shows, widths } from '../lib/page.mjs';
import { publish, start, subscribers } from '../lib/server.mjs';

after(close);

const KEY = 'a-key-of-this-test';
/** What the server says without a credential, and with a wrong one. */
const NEEDED = 'this needs credentials';
const UNKNOWN = 'the credential is not known here';

/** Fills in the dialog that is open. */
async function submit(page, credential) {
  const dialog = page.getByRole('dialog', { name: 'Sign in' });
  await dialog.getByLabel('Key or token').fill(credential);
  await dialog.getByLabel('Key or token').press('Enter');
}

/** Where the credential must not be. */
async function assertSecret(page, urls) {
  const { href, stored, cookie } = await page.evaluate(() => ({
    href: window.location.href,
    stored: JSON.stringify({ ...localStorage }),
    cookie: document.cookie,
  }));
  for (const place of [href, stored, cookie, ...urls]) assert.ok(!place.includes(KEY), place);
}

/** What must have a name for a screen reader, in an open dialog that fits the screen. */
async function assertAccessible(page) {
  const dialog = page.getByRole('dialog', { name: 'Sign in' });
  await dialog.waitFor();
  const input = dialog.getByLabel('Key or token');
  assert.equal(await input.getAttribute('type'), 'password');
  assert.ok(await input.evaluate((element) => element === document.activeElement), 'the field has the focus');
  const described = await input.getAttribute('aria-describedby');
  assert.equal(await page.locator(`#${described}`).getAttribute('role'), 'alert');
  assert.ok(await dialog.evaluate((element) => element.scrollWidth <= element.clientWidth), 'the dialog holds its content');
  const { x, width } = await dialog.boundingBox();
  const { scrollWidth, clientWidth } = await widths(page);
  assert.ok(x >= 0 && x + width <= clientWidth && scrollWidth === clientWidth, JSON.stringify({ x, width, clientWidth }));
}

for (const [name, options] of [
  ['wide, light', { colorScheme: 'light' }],
  ['390 px, dark', { colorScheme: 'dark', viewport: { width: 390, height: 844 } }],
]) {
  test(`GraphiQL (${name}): asks to sign in, and requests and WebSockets then carry the key`, async (t) => {
    const { settings, keep } = access(t, KEY);
    const origin = await graphiql(t, settings);
    if (!origin) return;
    const { page, requests, clean } = await open(t, origin, options);

    // The page asks for the schema by itself, which is refused.
    const dialog = page.getByRole('dialog', { name: 'Sign in' });
    await dialog.getByText(NEEDED).waitFor();
    await assertAccessible(page);
    await picture(page, `sign-in-graphiql-${options.colorScheme}.png`);
    // A wrong one shows the server's message, and one may try again.
    await submit(page, 'wrong');
    await until('the field is marked', async () => (await dialog.getByLabel('Key or token').getAttribute('aria-invalid')) === 'true');
    await dialog.getByText(UNKNOWN).waitFor();
    await submit(page, `Bearer ${KEY}`);
    await dialog.waitFor({ state: 'detached' });

    await execute(page);
    await shows(page, '"totalCount": 0');
    await run(page, 'Subscribe');
    await shows(page, '"received": 0');
    await until('a subscription', async () => (await subscribers(origin)) === 1);
    await publish(origin, 'orders.us', { order: 'from outside' });
    await shows(page, '"order": "from outside"');
    await assertSecret(page, requests);

    // What runs with the key ends with it.
    await page.getByRole('button', { name: 'Sign out' }).click();
    await until('the subscription has stopped', async () => (await subscribers(origin)) === 0);
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);

    // Without one, a WebSocket is refused with 4403. The subscription begins when one has signed in.
    await until('GraphiQL has noticed', async () => (await page.getByRole('button', { name: /^Execute/ }).count()) > 0);
    await execute(page);
    await dialog.getByText('The server refused the connection.').waitFor();
    await submit(page, KEY);
    await dialog.waitFor({ state: 'detached' });
    await until('a subscription', async () => (await subscribers(origin)) === 1);
    await publish(origin, 'orders.us', { order: 'once more' });
    await shows(page, '"order": "once more"');

    // A reload keeps it for this tab; a withdrawn one asks again, and whoever closes the dialog sees the refusal.
    await page.reload();
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
    await page.locator('.graphiql-response .view-lines').waitFor();
    keep();
    await until('the server has withdrawn the key', async () => (await fetch(`${origin}/topics`, { headers: { 'x-api-key': KEY } })).status === 401);
    await page.reload();
    await page.getByRole('button', { name: 'Sign out', includeHidden: true }).waitFor();
    await dialog.getByText(UNKNOWN).waitFor();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    await page.locator('.graphiql-response .view-lines').waitFor();
    await run(page, 'History');
    await dialog.getByText(UNKNOWN).waitFor();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    await shows(page, 'UNAUTHENTICATED');
    assert.equal(await dialog.count(), 0);
    await assertSecret(page, requests);
    clean('401');
  });
}

for (const [name, options] of [
  ['wide, light', { colorScheme: 'light' }],
  ['390 px, dark', { colorScheme: 'dark', viewport: { width: 390, height: 844 } }],
]) {
  test(`the small page (${name}): asks to sign in, and goes on where it was refused`, async (t) => {
    const { settings, keep } = access(t, KEY);
    const origin = await start(t, settings);
    const { page, requests, clean } = await openOwn(t, origin, options);
    const results = page.getByRole('log');
    const dialog = page.getByRole('dialog', { name: 'Sign in' });
    const example = (text) => page.getByLabel('Example').selectOption(text);
    const execute = () => page.getByRole('button', { name: 'Run' }).click();
    await page.getByRole('button', { name: 'Sign in' }).waitFor();

    // The first request is refused, and the dialog says so. Whoever closes it sees the refusal.
    await execute();
    await dialog.getByText(NEEDED).waitFor();
    await assertAccessible(page);
    await picture(page, `sign-in-page-${options.colorScheme}.png`);
    await page.keyboard.press('Escape');
    await results.locator('.bad').getByText(NEEDED).waitFor();

    await example('Publish a message');
    await execute();
    await submit(page, 'wrong');
    await until('the field is marked', async () => (await dialog.getByLabel('Key or token').getAttribute('aria-invalid')) === 'true');
    await dialog.getByText(UNKNOWN).waitFor();
    await submit(page, 'no key');
    await dialog.getByText('without spaces').waitFor();
    await submit(page, KEY);
    await dialog.waitFor({ state: 'hidden' });
    await page.getByText('Signed in').waitFor();
    // The refused request was sent again.
    await results.getByText('"cursor"').waitFor();

    await example('Subscribe to a topic');
    await execute();
    await results.getByText('"order": 1001').waitFor();
    await assertSecret(page, requests);

    // The key is withdrawn while the subscription runs: it goes on with a new one, where it stood.
    keep();
    await dialog.getByText('the credentials have expired or were withdrawn').waitFor();
    for (const n of [1, 2]) await publish(origin, 'orders.eu', { n });
    keep(`${KEY}-2`);
    await until('the server has the new key', async () => (await fetch(`${origin}/topics`, { headers: { 'x-api-key': `${KEY}-2` } })).status === 200);
    await submit(page, `${KEY}-2`);
    await results.getByText('"n": 2').waitFor();
    assert.equal(await results.getByText('"n": 1').count(), 1);
    assert.equal(await results.getByText('"order": 1001').count(), 1);

    await page.reload();
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
    await example('Subscribe to a topic');
    await execute();
    await page.getByText('1 live').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await until('the subscription has stopped', async () => (await subscribers(origin)) === 0);
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await page.getByRole('button', { name: 'Sign in' }).waitFor();
    await assertSecret(page, requests);
    clean('401', 'ERR_INCOMPLETE_CHUNKED_ENCODING');
  });
}

test('an EventSource of an own page reads with the cookie, which no script sees and no other page can use', async (t) => {
  const { settings, keep } = access(t, KEY);
  const origin = await start(t, settings);
  const { page, clean } = await openOwn(t, origin);
  await publish(origin, 'news', 'the first');
  /** Opens an EventSource and resolves to its first event. */
  const first = (at) =>
    at.evaluate(
      (address) =>
        new Promise((resolve) => {
          const source = new EventSource(address);
          globalThis.source = source;
          source.addEventListener('message', ({ data }) => resolve(JSON.parse(data).data));
          source.onerror = () => resolve('refused');
        }),
      `${origin}/topics/news/messages?last=1`,
    );
  const sign = (method, headers = {}) =>
    page.evaluate(
      ([how, what]) => fetch('/auth/cookie', { method: how, headers: what }).then(({ status }) => status),
      [method, headers],
    );
  assert.equal(await first(page), 'refused');
  assert.equal(await sign('POST', { authorization: 'Bearer wrong' }), 401);
  assert.equal(await sign('POST', { authorization: `Bearer ${KEY}` }), 204);
  assert.equal(await first(page), 'the first');
  assert.equal(await page.evaluate(() => document.cookie), '');

  // For the browser, another port is the same site, so a page there sends the cookie, too. It does not count.
  const development = http.createServer((_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html>'));
  await new Promise((resolve) => development.listen(0, '127.0.0.1', resolve));
  t.after(() => (development.closeAllConnections(), development.close()));
  const foreign = await page.context().newPage();
  await page.context().grantPermissions(['local-network-access']);
  await page.context().route('**/*', (route) => route.continue());
  await foreign.goto(`http://127.0.0.1:${development.address().port}/`);
  const sent = page.context().waitForEvent('request', (request) => request.url().endsWith('/topics/made/messages'));
  const options = { mode: 'no-cors', credentials: 'include', headers: { accept: 'text/event-stream' } };
  // `Cross-Origin-Resource-Policy` hides even an opaque response.
  const seen = await foreign.evaluate(([address, how]) => fetch(address, how).then(() => 'seen', () => 'hidden'), [`${origin}/topics/made/messages`, options]);
  assert.equal(seen, 'hidden');
  assert.match((await (await sent).allHeaders()).cookie, /pubsub_auth=/);
  const made = await fetch(`${origin}/topics/made`, { headers: { 'x-api-key': KEY } });
  assert.equal(made.status, 404);
  await foreign.close();

  // The key is withdrawn while the stream runs.
  await page.evaluate(() => {
    globalThis.ended = new Promise((resolve) => {
      globalThis.source.addEventListener('error', ({ data }) => data && resolve(JSON.parse(data).error.code));
    });
  });
  keep();
  assert.equal(await page.evaluate(() => globalThis.ended), 'UNAUTHENTICATED');
  assert.equal(await sign('DELETE'), 204);
  clean('401', 'another host', 'ERR_BLOCKED_BY_RESPONSE', 'ERR_INCOMPLETE_CHUNKED_ENCODING');
});

test('on an open server nothing asks to sign in', async (t) => {
  const origin = await start(t);
  const { page, clean } = await openOwn(t, origin);
  await page.getByRole('button', { name: 'Run' }).click();
  await page.getByRole('log').getByText('"totalCount": 0').waitFor();
  assert.equal(await page.getByRole('dialog').count(), 0);
  clean();
});
