// Uses the page at /graphql as a person does.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { close, open, picture, until } from '../lib/browser.mjs';
import { asBrowser, execute, graphiql, openOwn, response, run, shows, widths } from '../lib/page.mjs';
import { createTopic, proxy, publish, start, subscribers } from '../lib/server.mjs';

after(close);

test('GraphiQL: queries, mutations and subscriptions work, from this server alone', async (t) => {
  const origin = await graphiql(t);
  if (!origin) return;
  const { page, requests, clean } = await open(t, origin);
  for (const editor of ['query-editor', 'response']) await page.locator(`.graphiql-${editor} .view-lines`).waitFor();

  // The first tab shows something at once, also on a fresh server.
  await execute(page);
  await shows(page, '"totalCount": 0');
  await shows(page, '"status": "ok"');

  await run(page, 'Publish');
  await shows(page, '"duplicate": false');

  await run(page, 'Subscribe');
  // This message was published above and comes from the history.
  await shows(page, '"number": 1001');
  assert.equal(await subscribers(origin), 1);
  await publish(origin, 'orders.us', { order: 'from outside' });
  await shows(page, '"order": "from outside"');
  await publish(origin, 'orders.us', { order: 'and another' });
  await shows(page, '"order": "and another"');
  // The list of all that came, the newest first.
  const list = await response(page);
  assert.ok(list.includes('"received": 3') && list.includes('"order": "from outside"'), list);
  await picture(page, 'graphiql.png');
  await execute(page);
  await until('the subscription has stopped', async () => (await subscribers(origin)) === 0);

  await run(page, 'History');
  await shows(page, '"number": 1001');
  await shows(page, '"hasNextPage": false');

  assert.ok(requests.some((url) => url.startsWith('ws:')));
  clean();
});

test('GraphiQL: a phone has room for the document and the response', async (t) => {
  const origin = await graphiql(t);
  if (!origin) return;
  const { page, clean } = await open(t, origin, { viewport: { width: 390, height: 844 } });
  const [editor, result] = ['query-editor', 'response'].map((name) => page.locator(`.graphiql-${name}`));
  await editor.locator('.view-lines').waitFor();
  await execute(page);
  await shows(page, '"totalCount": 0');
  await run(page, 'Subscribe');
  await shows(page, '"received": 0');
  await publish(origin, 'orders.us', { order: 'from outside' });
  await shows(page, '"order": "from outside"');
  await picture(page, 'graphiql-narrow.png');

  const { scrollWidth, clientWidth } = await widths(page);
  assert.equal(scrollWidth, clientWidth);
  const [upper, lower] = [await editor.boundingBox(), await result.boundingBox()];
  for (const { x, width, height } of [upper, lower]) {
    assert.ok(width >= 340 && height >= 200 && x >= 0 && x + width <= 390, JSON.stringify([upper, lower]));
  }
  assert.ok(upper.y + upper.height <= lower.y && lower.y + lower.height <= 844, JSON.stringify([upper, lower]));

  // The panel of the sidebar covers neither: the page scrolls.
  await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
  await page.getByRole('link', { name: 'Subscription', exact: true }).click();
  await execute(page);
  await until('the subscription has stopped', async () => (await subscribers(origin)) === 0);
  clean();
});

test('GraphiQL: its workers, formatter and documentation are there', async (t) => {
  const origin = await graphiql(t);
  if (!origin) return;
  const { page, requests, clean } = await open(t, origin, { colorScheme: 'dark' });
  const write = (text) =>
    page.evaluate((query) => {
      const models = globalThis.__MONACO.editor.getModels();
      models.find(({ uri }) => uri.path.endsWith('operation.graphql')).setValue(query);
    }, text);
  const editor = page.locator('.graphiql-query-editor .view-lines');
  await editor.waitFor();

  // The worker underlines errors, and needs the schema for that.
  await write('{ noSuchField }');
  await page.locator('.graphiql-query-editor .squiggly-error').first().waitFor();
  for (const name of ['editor', 'graphql']) {
    assert.ok(requests.some((url) => url.includes(`/${name}.worker-`)), `the worker "${name}" is loaded`);
  }

  await write('{stats{published}}');
  await page.locator('.graphiql-query-editor .squiggly-error').first().waitFor({ state: 'detached' });
  await page.getByRole('button', { name: /^Prettify/ }).click();
  await until('formatted', async () => (await editor.innerText()).includes('\n'));

  await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
  await page.getByRole('link', { name: 'Subscription', exact: true }).click();
  await page.getByText('The messages of a topic, or of all topics').first().waitFor();
  await picture(page, 'graphiql-dark.png');
  clean();
});

for (const colorScheme of ['light', 'dark']) {
  test(`the small page, ${colorScheme}: queries, mutations and subscriptions work, from this server alone`, async (t) => {
    const origin = await start(t);
    const { page, clean } = await openOwn(t, origin, { colorScheme });
    await page.getByText('Publish, subscribe and query').waitFor();
    const results = page.getByRole('log');
    const run = async (example) => {
      await page.getByLabel('Example').selectOption(example);
      await page.getByRole('button', { name: 'Run' }).click();
    };

    // The first example is there when the page opens, and shows something at once.
    await page.getByRole('button', { name: 'Run' }).click();
    await results.getByText('"totalCount": 0').waitFor();

    await run('Subscribe to a topic');
    await until('a subscription', async () => (await subscribers(origin)) === 1);
    await publish(origin, 'orders.us', { order: 'from outside' });
    await results.getByText('from outside').waitFor();

    // This runs beside the subscription, which receives the message.
    await run('Publish a message');
    await results.getByText('"cursor"').waitFor();
    await results.getByText('"order": 1001').waitFor();
    await run('See what is there');
    await results.getByText('"totalCount": 2').waitFor();
    await page.getByLabel('Document').fill('{ noSuchField }');
    await page.getByLabel('Document').press('Control+Enter');
    await results.locator('.bad').getByText('noSuchField').waitFor();
    await page.getByLabel('Variables').fill('{');
    await page.getByRole('button', { name: 'Run' }).click();
    await results.getByText('Not JSON').waitFor();
    await picture(page, `page-${colorScheme}.png`);

    const stop = page.getByRole('button', { name: 'Stop subscription Subscribe #2' });
    await stop.click();
    await until('no subscription', async () => (await subscribers(origin)) === 0);
    await stop.waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Clear' }).click();
    assert.equal(await results.innerText(), '');
    assert.deepEqual(await page.getByLabel('Running operations').locator('li').count(), 0);
    clean();
  });
}

test('the small page resumes a subscription after its last message when the connection breaks, and shows gaps', async (t) => {
  const origin = await start(t);
  const { origin: between, cut, mend } = await proxy(t, origin);
  await createTopic(origin, 'orders.short', 2);
  const { page } = await openOwn(t, between);
  const results = page.getByRole('log');
  const numbers = async () => {
    const texts = await results.locator('pre').allInnerTexts();
    return texts.flatMap((text) => text.match(/"n": (\d+)/)?.[1] ?? []).map(Number).reverse();
  };
  await page.getByLabel('Example').selectOption('Subscribe to a topic');
  await page.getByRole('button', { name: 'Run' }).click();
  await page.getByText('1 live').waitFor();
  await publish(origin, 'orders.eu', { n: 1 });
  await results.getByText('"n": 1').waitFor();

  cut();
  await page.getByText('Reconnecting').waitFor();
  await results.getByText('The connection broke').waitFor();
  for (let n = 2; n <= 4; n++) await publish(origin, 'orders.eu', { n });
  for (let n = 5; n <= 9; n++) await publish(origin, 'orders.short', { n });
  mend();
  await page.getByText('1 live').waitFor();
  await results.getByText('"n": 9').waitFor();
  await publish(origin, 'orders.eu', { n: 10 });
  await results.getByText('"n": 10').waitFor();
  // Two of the five are kept. Everything else came, in order, once; the history was not replayed again.
  assert.deepEqual(await numbers(), [1, 2, 3, 4, 8, 9, 10]);
  await results.locator('.gap').getByText('Gap in orders.short: 3 messages were missed (offsets 1 to 3)').waitFor();
  await picture(page, 'page-resumed.png');

  // A mutation is not sent again, because it may have been executed.
  cut();
  await page.getByText('Reconnecting').waitFor();
  await page.getByLabel('Example').selectOption('Publish a message');
  await page.getByRole('button', { name: 'Run' }).click();
  await results.locator('.bad').getByText('No result came').waitFor();
  mend();
  await page.getByText('1 live').waitFor();
  await page.getByRole('button', { name: /^Stop subscription/ }).click();
  await until('no subscription', async () => (await subscribers(origin)) === 0);
});

test('the page on a narrow screen needs no scrolling to the side, and nothing covers anything', async (t) => {
  const origin = await start(t);
  const { page, clean } = await openOwn(t, origin, { viewport: { width: 360, height: 740 } });
  await page.getByRole('button', { name: 'Run' }).waitFor();
  const { scrollWidth, clientWidth } = await widths(page);
  assert.equal(scrollWidth, clientWidth);
  const boxes = [page.getByLabel('Document'), page.getByLabel('Variables'), page.getByRole('button', { name: 'Run' }), page.locator('#keys'), page.getByText('Results', { exact: true }), page.getByRole('log')];
  const outlines = await Promise.all(boxes.map((box) => box.boundingBox()));
  for (let i = 1; i < outlines.length; i++) {
    assert.ok(outlines[i - 1].y + outlines[i - 1].height <= outlines[i].y, JSON.stringify(outlines));
  }
  await picture(page, 'page-narrow.png');
  clean();
});

test('the answers have the headers that keep the page to itself', async (t) => {
  const origin = await start(t);
  const page = await fetch(`${origin}/graphql`, { headers: asBrowser });
  const policy = page.headers.get('content-security-policy');
  for (const part of ["default-src 'none'", "script-src 'self';", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(part), `${part} in ${policy}`);
  }
  assert.ok(!policy.includes('unsafe-eval'));
  assert.equal(page.headers.get('referrer-policy'), 'no-referrer');
  assert.equal(page.headers.get('x-content-type-options'), 'nosniff');
  assert.equal(page.headers.get('vary'), 'accept, accept-encoding');

  const again = await fetch(`${origin}/graphql`, { headers: { ...asBrowser, 'if-none-match': page.headers.get('etag') } });
  assert.equal(again.status, 304);

  const html = await page.text();
  const assets = [...html.matchAll(/(?:src|href)="(graphql\/assets\/[^"]+)"/g)].map(([, address]) => address);
  assert.ok(assets.length >= 2);
  for (const address of assets) {
    const asset = await fetch(`${origin}/${address}`);
    assert.equal(asset.status, 200, address);
    assert.equal(asset.headers.get('x-content-type-options'), 'nosniff');
    const hashed = /-[A-Z0-9]{8}\./.test(address);
    assert.equal(asset.headers.get('cache-control').includes('immutable'), hashed, address);
    const unpacked = await asset.text();
    const plain = await fetch(`${origin}/${address}`, { headers: { 'accept-encoding': 'identity' } });
    assert.equal(plain.headers.get('content-encoding'), null);
    assert.equal(await plain.text(), unpacked, address);
  }
  assert.equal((await fetch(`${origin}/graphql/assets/no-such-file.js`)).status, 404);
});
