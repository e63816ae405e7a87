// The parts of the console that need no page.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { load } from './lib/load.mjs';

const [words, routes, shell, samples, { waitOf }, { MAX_HELD, MAX_ROWS, Tail }, { headersIn }] = await Promise.all(
  ['words.ts', 'routes.ts', 'shell.ts', 'samples.ts', 'line.ts', 'tail.ts', 'headers.ts'].map(load),
);

test('numbers and times as people read them', () => {
  assert.equal(words.counted(1, 'message'), '1 message');
  assert.equal(words.counted(1_234, 'message'), '1,234 messages');
  assert.deepEqual([null, 0, 0.25, 12, 1_234.5].map((value) => words.rate(value)), ['–', '0', '0.3', '12.0', '1,235']);
  assert.equal(words.rate(12, true), '≈ 12.0');
  assert.deepEqual([0, 1_023, 1_536, 5e9].map(words.bytes), ['0 B', '1,023 B', '1.5 KiB', '4.7 GiB']);
  assert.deepEqual([-1, 59, 60, 3_700, 90_000].map(words.span), ['0 s', '59 s', '1 min', '1 h 1 min', '1 d 1 h']);
  const time = '2026-11-28T05:00:00.000Z';
  assert.equal(words.ago(time, Date.parse(time) - 5_000), 'just now');
  assert.equal(words.ago(time, Date.parse(time) + 5_000), '5 s ago');
  assert.match(words.clock(time), /^\d\d:\d\d:00\.000$/);
});

test('a gap in words', () => {
  const gap = (missed, fromOffset, toOffset, reason = 'EXPIRED') => ({ missed, fromOffset, toOffset, reason });
  assert.equal(words.missedIn(gap(1, 5, 5)), '1 message missed');
  assert.equal(words.offsetsOf(gap(1, 5, 5)), 'offset 5');
  assert.equal(words.offsetsOf(gap(3, 5, 7)), 'offsets 5 to 7');
  assert.equal(words.missedIn(gap(null, 5, 7)), 'An unknown number of messages was missed');
  assert.equal(words.missedIn(gap(0, 1, 0, 'NEW_EPOCH')), 'Another epoch of the topic begins here');
  assert.equal(words.offsetsOf(gap(0, 1, 0, 'NEW_EPOCH')), '');
  assert.equal(words.reasonOf(gap(1, 1, 1, 'A_LATER_REASON')), 'A_LATER_REASON');
});

test('headers, one a line', () => {
  assert.equal(headersIn(' \n\n'), null);
  assert.deepEqual(headersIn('a: 1\n\n  b:x: y \nc:'), { a: '1', b: 'x: y', c: '' });
  assert.deepEqual(Object.keys(headersIn('__proto__: 1')), ['__proto__']);
  assert.throws(() => headersIn('a: 1\nno colon'), /Line 2 of the headers/);
  assert.throws(() => headersIn(': 1'), /Line 1 of the headers/);
  assert.throws(() => headersIn('a: 1\na: 2'), /“a” stands there twice/);
});

test('errors in plain words', () => {
  assert.equal(words.explained('FORBIDDEN', 'no right to publish to "a"'), 'Your key or token does not allow this. No right to publish to "a".');
  assert.equal(words.explained('RATE_LIMITED', 'too fast', 12.3), 'Too fast. Try again in 13 ms.');
  assert.equal(words.explained('CONFLICT', 'it exists.'), 'It exists.');
});

test('every name of a topic has an address', () => {
  for (const name of ['orders', 'a/b', '#', 'ä ö', '100%', "it's", 'a?b=c']) {
    assert.deepEqual(routes.routeOf(routes.addressOf(name)), { page: 'topic', name });
  }
  for (const hash of ['', '#', '#/', '#/topics/', '#/other']) assert.deepEqual(routes.routeOf(hash), { page: 'topics' });
  assert.deepEqual(routes.routeOf('#/topics/100%'), { page: 'topic', name: '100%' });
});

test('the command publishes what it says, whatever the topic is called', () => {
  const endpoint = new URL('http://127.0.0.1:1/prefix/graphql');
  for (const topic of ['news', "it's", '"; rm -rf /tmp/none; $(date) `date`']) {
    const command = shell.publishCommand(endpoint, topic, true).replace(/^curl/, 'printf "%s\\n"');
    const [, address, , key, , body] = execFileSync('sh', ['-c', command], { env: { ...process.env, KEY: 'k' } }).toString().split('\n');
    assert.equal(address, 'http://127.0.0.1:1/prefix/publish');
    assert.equal(key, 'Authorization: Bearer k');
    assert.deepEqual(JSON.parse(body), { topic, data: { hello: 'world' } });
  }
});

test('attempts to connect have growing, bounded, different waits', () => {
  assert.deepEqual([0, 1, 2, 10, 1_000].map((attempt) => waitOf(attempt, 1)), [500, 1_000, 2_000, 10_000, 10_000]);
  assert.equal(waitOf(10, 0), 5_000);
});

test('a rate is what a number grew by, and begins again with the topic', () => {
  const rate = new samples.Rate();
  assert.equal(rate.mean(), null);
  for (let second = 0; second <= 10; second += 1) rate.read(1_000 * second, 'a', 20 * second);
  assert.equal(rate.mean(), 20);
  assert.deepEqual(rate.series.values.slice(0, 3), [null, 20, 20]);
  // An answer that came together with the one before it says nothing.
  rate.read(10_001, 'a', 900);
  assert.equal(rate.mean(), 20);
  rate.read(11_000, 'b', 3);
  assert.equal(rate.mean(), null);
  rate.read(12_000, 'b', 5);
  assert.equal(rate.mean(), 2);
  // A server that was restarted counts from the beginning.
  rate.read(13_000, 'b', 0);
  assert.equal(rate.mean(), null);
  // Nothing is known of a time in which nothing was read.
  rate.read(14_000, 'b', 10);
  rate.read(60_000, 'b', 500);
  assert.equal(rate.mean(), null);
});

test('a plot has holes where nothing was read, and a bound', () => {
  const series = new samples.Series();
  series.push(1_000, 1);
  series.push(2_000, 2);
  series.push(60_000, 3);
  assert.deepEqual(series.times, [1, 2, 3, 60]);
  assert.deepEqual(series.values, [1, 2, null, 3]);
  for (let second = 61; second < 1_000; second += 1) series.push(1_000 * second, second);
  assert.deepEqual([series.times.length, series.times.at(-1)], [samples.KEPT, 999]);
});

test('how dense offsets are is read from messages that follow each other', () => {
  const message = (offset, previous) => ({ offset, cursor: `c${offset}`, previous: previous && `c${previous}` });
  assert.equal(samples.density([]), 1);
  assert.equal(samples.density([message(7, 6), message(8, 7), message(9, 8)]), 1);
  // A clustered engine: other topics have the numbers between.
  assert.equal(samples.density([message(10, 1), message(20, 10), message(30, 20)]), 0.1);
  // Messages between which others stood say nothing.
  assert.equal(samples.density([message(10, 9), message(90, 89)]), 1);
});

const delivered = (offset, data = offset) => ({
  messageId: `m${offset}`,
  headers: null,
  key: null,
  offset,
  cursor: `c${offset}`,
  publishedAt: '2026-11-28T05:00:00.000Z',
  data,
});

test('a tail shows what came in order, with gaps in their places', () => {
  const tail = new Tail();
  tail.message(delivered(1));
  tail.gap({ missed: 3, fromOffset: 2, toOffset: 4, reason: 'EXPIRED' });
  tail.message(delivered(5));
  tail.gap({ missed: null, fromOffset: 6, toOffset: 9, reason: 'EXPIRED' });
  assert.deepEqual(tail.rows.map(({ kind }) => kind), ['message', 'gap', 'message', 'gap']);
  assert.deepEqual([tail.received, tail.missed, tail.gaps, tail.isExact], [2, 3, 2, false]);
});

test('a tail is bounded, in rows and in characters', () => {
  const tail = new Tail();
  for (let offset = 1; offset <= 10_000; offset += 1) {
    tail.message(delivered(offset));
    assert.ok(tail.rows.length <= MAX_ROWS + 200);
  }
  assert.equal(tail.rows.at(-1).message.offset, 10_000);
  assert.equal(tail.rows[0].message.offset, tail.departed + 1);
  const large = new Tail();
  for (let offset = 1; offset <= 30; offset += 1) large.message(delivered(offset, 'x'.repeat(1_000_000)));
  assert.ok(large.rows.length <= 8, `${large.rows.length}`);
  assert.equal(large.rows.at(-1).message.offset, 30);
});

test('a held tail keeps what comes, up to a bound, and shows it when it goes on', () => {
  const tail = new Tail();
  tail.message(delivered(1));
  tail.hold();
  let offset = 1;
  while (!tail.isFull) tail.message(delivered((offset += 1)));
  assert.equal(tail.held.length, MAX_HELD);
  assert.equal(tail.rows.length, 1);
  tail.release();
  assert.deepEqual([tail.rows.length, tail.held.length, tail.isFull], [1 + MAX_HELD, 0, false]);
  tail.hold();
  for (let n = 0; n < 5; n += 1) tail.message(delivered(n, 'x'.repeat(1_000_000)));
  assert.ok(tail.isFull);
});
