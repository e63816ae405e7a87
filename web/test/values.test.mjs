// The state that the console shows: which values it keeps.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './lib/load.mjs';

const { MAX_CHARACTERS, MAX_KEYS, Values } = await load('values.ts');

const message = (key, offset, more = {}) => ({ messageId: `m${offset}`, key, data: offset, offset, cursor: `c${offset}`, publishedAt: '', ...more });
const shown = (values, first = 0, end = 100) => values.slice(first, end).map(({ key, text }) => [key, text]);

test('the newest value of each key is kept, in the order of keys', () => {
  const values = new Values();
  for (const [index, key] of ['b', 'a', null, 'c', 'a'].entries()) values.message(message(key, index + 1));
  assert.deepEqual(shown(values), [['a', '5'], ['b', '1'], ['c', '4']]);
  values.message(message('b', 6, { data: null, removed: true }));
  values.message(message('d', 7));
  assert.deepEqual(shown(values, 1, 3), [['c', '4'], ['d', '7']]);
  assert.equal(values.size, 3);
  assert.deepEqual([values.isComplete, values.isUnsure], [false, false]);
  values.complete();
  values.gap({ missed: 1, fromOffset: 8, toOffset: 8, reason: 'EXPIRED' });
  assert.deepEqual([values.isComplete, values.isUnsure], [true, true]);
});

test('what does not fit is not kept', () => {
  const values = new Values();
  for (let offset = 1; offset <= MAX_KEYS + 1; offset += 1) values.message(message(`k${offset}`, offset));
  assert.deepEqual([values.size, values.isCut], [MAX_KEYS, true]);
  values.message(message('k1', MAX_KEYS + 2, { data: 'x'.repeat(10_000) }));
  const [[key, text]] = shown(values, 0, 1);
  assert.deepEqual([key, text.length], ['k1', MAX_CHARACTERS]);
});
