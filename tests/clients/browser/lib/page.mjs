// The pages at /graphql, as tests use them.

import assert from 'node:assert/strict';
import path from 'node:path';
import { open, until } from './browser.mjs';
import { start, TOP } from './server.mjs';

export const asBrowser = { accept: 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8' };

/** Whether this binary was built with GraphiQL. */
export async function hasGraphiql(origin) {
  const page = await fetch(`${origin}/graphql`, { headers: asBrowser });
  return (await page.text()).includes('<title>pub-sub: GraphiQL</title>');
}

/** Starts a server whose page is GraphiQL, and skips the test where there is none. */
export async function graphiql(t, settings = {}) {
  const origin = await start(t, settings);
  if (await hasGraphiql(origin)) return origin;
  assert.ok(!process.env.CI, 'this binary has no GraphiQL: run `make web`, then build it again');
  t.skip('this binary has no GraphiQL');
  return undefined;
}

/** Returns the text of GraphiQL's response pane. */
export async function response(page) {
  const text = await page.locator('.graphiql-response .view-lines').innerText();
  return text.replaceAll('\u00a0', ' ');
}

export const shows = (page, text) => until(`${text} in the response`, async () => (await response(page)).includes(text));
export const execute = (page) => page.locator('.graphiql-execute-button').click();

/** The width of the page's content, and that of the window: a wider content has to be scrolled to the side. */
export const widths = (page) =>
  page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return { scrollWidth, clientWidth };
  });

/** Opens a tab and runs it as soon as it is visible, which is before GraphiQL has parsed its document. */
export async function run(page, name) {
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

/**
 * The page of a binary without GraphiQL. If this binary has GraphiQL, the page's files are served in its place.
 */
export async function openOwn(t, origin, options = {}) {
  if (!(await hasGraphiql(origin))) return open(t, origin, options);
  const sources = path.join(TOP, 'src/pages');
  const policy = `default-src 'none'; script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'self'; img-src data:; connect-src 'self'`;
  const files = { '/graphql': 'graphql.html', '/graphql/assets/page.css': 'graphql/page.css', '/graphql/assets/page.js': 'graphql/page.js', '/graphql/assets/sign-in.js': 'graphql/sign-in.js' };
  const overlay = async (context) => {
    // Chromium does not treat a page that did not come over the network as local to this machine.
    await context.grantPermissions(['local-network-access']);
    for (const [address, file] of Object.entries(files)) {
      const answer = { path: path.join(sources, file), headers: { 'content-security-policy': policy } };
      // The page's own requests go to the address of the document, too.
      const serve = (route) => (route.request().method() === 'GET' ? route.fulfill(answer) : route.continue());
      await context.route(`${origin}${address}`, serve);
    }
  };
  return open(t, origin, options, overlay);
}
