// Uses the page at /graphql as a person does.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { close, open, picture, until } from '../lib/browser.mjs';
import { publish, start, subscribers, TOP } from '../lib/server.mjs';

after(close);

const asBrowser = { accept: 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8' };

/** Whether this binary was built with GraphiQL. */
async function hasGraphiql(origin) {
  const page = await fetch(`${origin}/graphql`, { headers: asBrowser });
  return (await page.text()).includes('<title>pub-sub: GraphiQL</title>');
}

async function graphiql(t) {
  const origin = await start(t);
  if (await hasGraphiql(origin)) return origin;
  assert.ok(!process.env.CI, 'this binary has no GraphiQL: run `make web`, then build it again');
  t.skip('this binary has no GraphiQL');
  return undefined;
}

/** Returns the text of GraphiQL's response pane. */
async function response(page) {
  const text = await page.locator('.graphiql-response .view-lines').innerText();
  return text.replaceAll('\u00a0', ' ');
}

const shows = (page, text) => until(`${text} in the response`, async () => (await response(page)).includes(text));
const execute = (page) => page.locator('.graphiql-execute-button').click();

/** Opens a tab and runs it as soon as it is visible, which is before GraphiQL has parsed its document. */
async function run(page, name) {
  await page.evaluate((operation) => {
    const model = globalThis.__MONACO.editor.getModels().find(({ uri }) => uri.path.endsWith('operation.graphql'));
    const look = () => {
      if (!model.getValue().includes(` ${operation}`)) return requestAnimationFrame(look);
      return document.querySelector('.graphiql-execute-button').click();
    };
    look();
  }, name);
  await page.getByRole('tab', { name, exact: true }).click();
}

test('GraphiQL: queries, mutations and subscriptions work, from this server alone', async (t) => {
  const origin = await graphiql(t);
  if (!origin) return;
  const { page, requests, clean } = await open(t, origin);
  for (const editor of ['query-editor', 'response']) await page.locator(`.graphiql-${editor} .view-lines`).waitFor();

  await run(page, 'Topics');
  await shows(page, '"totalCount": 0');

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
  await picture(page, 'graphiql.png');
  await execute(page);
  await until('the subscription has stopped', async () => (await subscribers(origin)) === 0);

  await run(page, 'History');
  await shows(page, '"number": 1001');
  await shows(page, '"hasNextPage": false');

  assert.ok(requests.some((url) => url.startsWith('ws:')));
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

/**
 * The page of a binary without GraphiQL. If this binary has GraphiQL, the page's files are served in its place.
 */
async function openOwn(t, origin, options = {}) {
  if (!(await hasGraphiql(origin))) return open(t, origin, options);
  const sources = path.join(TOP, 'src/graphql');
  const policy = `default-src 'none'; script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'self'; img-src data:; connect-src 'self'`;
  const files = { '/graphql': 'page.html', '/graphql/assets/page.css': 'page/page.css', '/graphql/assets/page.js': 'page/page.js' };
  const overlay = async (context) => {
    // Chromium does not treat a page that did not come over the network as local to this machine.
    await context.grantPermissions(['local-network-access']);
    for (const [address, file] of Object.entries(files)) {
      const answer = { path: path.join(sources, file), headers: { 'content-security-policy': policy } };
      await context.route(`${origin}${address}`, (route) => route.fulfill(answer));
    }
  };
  return open(t, origin, options, overlay);
}

for (const colorScheme of ['light', 'dark']) {
  test(`the small page, ${colorScheme}: queries, mutations and subscriptions work, from this server alone`, async (t) => {
    const origin = await start(t);
    const { page, clean } = await openOwn(t, origin, { colorScheme });
    await page.getByText('run make web, then build again').waitFor();
    const results = page.getByRole('log');
    const run = async (example) => {
      await page.getByLabel('Example').selectOption(example);
      await page.getByRole('button', { name: 'Run' }).click();
    };

    await run('Subscribe to a topic');
    await until('a subscription', async () => (await subscribers(origin)) === 1);
    await publish(origin, 'orders.us', { order: 'from outside' });
    await results.getByText('from outside').waitFor();

    // This runs beside the subscription, which receives the message.
    await run('Publish a message');
    await results.getByText('"cursor"').waitFor();
    await results.getByText('"order": 1001').waitFor();
    await run('List the topics');
    await results.getByText('"totalCount": 2').waitFor();
    await page.getByLabel('Document').fill('{ noSuchField }');
    await page.getByLabel('Document').press('Control+Enter');
    await results.locator('.bad').getByText('noSuchField').waitFor();
    await page.getByLabel('Variables').fill('{');
    await page.getByRole('button', { name: 'Run' }).click();
    await results.getByText('Not JSON').waitFor();
    await picture(page, `page-${colorScheme}.png`);

    const stop = page.getByRole('button', { name: 'Stop subscription Subscribe #1' });
    await stop.click();
    await until('no subscription', async () => (await subscribers(origin)) === 0);
    await stop.waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Clear' }).click();
    assert.equal(await results.innerText(), '');
    assert.deepEqual(await page.getByLabel('Running operations').locator('li').count(), 0);
    clean();
  });
}

test('the page on a narrow screen needs no scrolling to the side, and nothing covers anything', async (t) => {
  const origin = await start(t);
  const { page, clean } = await openOwn(t, origin, { viewport: { width: 360, height: 740 } });
  await page.getByRole('button', { name: 'Run' }).waitFor();
  const { scrollWidth, clientWidth } = await page.evaluate(() => document.documentElement);
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
