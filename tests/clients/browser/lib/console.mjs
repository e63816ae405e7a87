// The console at `/`, as tests use it.

import assert from 'node:assert/strict';
import { open } from './browser.mjs';
import { asBrowser } from './page.mjs';

/** Whether this binary was built with the console. */
async function hasConsole(origin) {
  const page = await fetch(`${origin}/`, { headers: asBrowser });
  return (await page.text()).includes('<div id="console">');
}

/** Opens the console at a fragment, and skips the test where there is none. */
export async function openConsole(t, origin, fragment = '#/', options = {}) {
  if (await hasConsole(origin)) return open(t, origin, { path: `/${fragment}`, ...options });
  assert.ok(!process.env.CI, 'this binary has no console: run `make web`, then build it again');
  t.skip('this binary has no console');
  return undefined;
}

/** The rows of the tail that are in the document, as text. */
export const rowsOf = (page) => page.getByRole('listbox').getByRole('option');

/** The looks in which each page is tested. */
export const LOOKS = [
  ['light', { colorScheme: 'light' }],
  ['dark', { colorScheme: 'dark' }],
  ['phone', { colorScheme: 'light', viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }],
];
