// Every page of the console in light, in dark and on a phone: what axe finds, what does not fit, and pictures for people.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { assertAccessible } from '../lib/accessible.mjs';
import { close, picture } from '../lib/browser.mjs';
import { LOOKS, openConsole, rowsOf } from '../lib/console.mjs';
import { widths } from '../lib/page.mjs';
import { createTopic, publish, publishAt, start } from '../lib/server.mjs';

after(close);

for (const [look, options] of LOOKS) {
  test(`every page: ${look}`, async (t) => {
    const origin = await start(t);
    const opened = await openConsole(t, origin, '#/', options);
    if (!opened) return;
    const { page, clean } = opened;
    const check = async (name) => {
      const { scrollWidth, clientWidth } = await widths(page);
      assert.equal(scrollWidth, clientWidth, `${name} fits`);
      await picture(page, `console-${name}-${look}.png`);
      await assertAccessible(page, name);
    };
    await page.getByText('No topics yet').waitFor();
    await check('empty');

    await createTopic(origin, 'orders.eu', 20, 0);
    await createTopic(origin, `a.long.name.${'segment.'.repeat(12)}end`, 1_000, 0);
    const { cursor } = await publishAt(origin, 'orders.eu', { order: 0 });
    for (let order = 1; order <= 30; order += 1) await publish(origin, 'orders.eu', { order, text: 'long '.repeat(40) });
    await page.getByText(/20 (of|\/) 20/).filter({ visible: true }).first().waitFor();
    await check('topics');
    await page.getByRole('button', { name: 'New topic' }).click();
    await check('new-topic');
    await page.keyboard.press('Escape');

    await page.getByRole('link', { name: 'orders.eu' }).click();
    await rowsOf(page).getByText('"order":30').waitFor();
    // Whoever uses a screen reader goes on from the heading.
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'orders.eu');
    await page.getByRole('button', { name: 'Replay…' }).click();
    await page.getByLabel('After a cursor').check();
    await page.getByLabel('Cursor', { exact: true }).fill(cursor);
    await check('replay');
    await page.keyboard.press('Enter');
    await rowsOf(page).getByText('"order":30').waitFor();
    await page.getByRole('listbox').focus();
    await page.keyboard.press('Home');
    await rowsOf(page).getByText('Gap: 10 messages missed').waitFor();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await page.getByRole('region', { name: 'Message 12' }).waitFor();
    await page.getByText('State: the newest value of each key').click();
    await page.getByText('No keys', { exact: true }).waitFor();
    await check('topic');
    if (options.isMobile) {
      const small = await page.locator('button:visible').evaluateAll((all) =>
        all.map((one) => [one.textContent, one.getBoundingClientRect().height]).filter(([, height]) => height < 44),
      );
      assert.deepEqual(small, [], 'large enough for fingers');
    }

    await page.goto(`${origin}/#/topics/nothing`);
    await page.getByText('There is no topic “nothing”').waitFor();
    await check('missing');
    clean();
  });
}
