// A page in headless Chromium that can reach one server, or those that are named, and nothing else. It records every problem.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { TOP } from './server.mjs';

export const DEADLINE = Number(process.env.DEADLINE ?? 30_000);

const FLAGS = [
  // As root, as in CI, Chromium starts only without its sandbox. The only server that it can reach is ours.
  '--no-sandbox',
  '--disable-dev-shm-usage',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-default-apps',
  '--disable-domain-reliability',
  '--disable-sync',
  '--no-first-run',
  '--no-pings',
  // Requests that do not go through the page, and are therefore not seen below, cannot reach another host either.
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
];

let browser;

/** Closes the browser that `open` started. */
export async function close() {
  await browser?.close();
}

/**
 * Opens a fresh page at `path`. `options` are Playwright's, and `prepare` gets the context before anything is loaded. `clean`
 * fails if the page has done something that it must not do, and lists all of it in order, without what is `expected`. The page
 * may use the servers of the origins `also`, too.
 */
export async function open(t, origin, { path: address = '/graphql', also = [], ...options } = {}, prepare = () => {}) {
  browser ??= await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
  const context = await browser.newContext({ viewport: { width: 1_280, height: 800 }, ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);

  const faults = [];
  t.after(() => faults.forEach((fault) => t.diagnostic(fault)));
  const requests = [];
  const hosts = [origin, ...also].map((one) => new URL(one).host);
  const own = (url) => ['data:', 'blob:'].includes(url.protocol) || hosts.includes(url.host);
  const seen = (url) => {
    requests.push(url);
    if (!own(new URL(url))) faults.push(`asked another host: ${url}`);
  };
  await context.route((url) => !own(url), (route) => route.abort());
  await prepare(context);
  context.on('request', (request) => seen(request.url()));
  context.on('response', (response) => {
    if (response.status() >= 400) faults.push(`${response.status()} of ${response.url()}`);
  });
  page.on('websocket', (socket) => {
    seen(socket.url());
    socket.on('socketerror', (error) => faults.push(`socket: ${error}`));
  });
  page.on('pageerror', (error) => faults.push(`exception: ${error.stack}`));
  // The console reports violations of the content security policy as errors, also those of workers.
  context.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) faults.push(`console ${message.type()}: ${message.text()}`);
  });
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI, sourceFile }) => {
      console.error(`policy: ${violatedDirective} forbids ${blockedURI} in ${sourceFile}`);
    });
  });

  await page.goto(origin + address);
  const clean = (...expected) => assert.deepEqual(faults.filter((fault) => !expected.some((text) => fault.includes(text))), []);
  return { page, requests, clean };
}

/** Saves a screenshot for people, in target/. */
export async function picture(page, name) {
  const folder = path.join(TOP, 'target');
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: path.join(folder, name) });
}

/** Waits until `check` returns something truthy. */
export async function until(what, check) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const answer = await check();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`not within ${DEADLINE} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
