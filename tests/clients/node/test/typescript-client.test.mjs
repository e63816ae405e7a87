// Tests clients/typescript, as it is built for publication: every message once and in order, whatever breaks, and gaps told.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { consume, publish, PubSubError } from '../../../../clients/typescript/dist/index.js';
import { guarded } from '../lib/access.mjs';
import { Proxy, Server, TOP } from '../lib/server.mjs';
import { after, Inbox, until, within } from '../lib/wait.mjs';

const PACKAGE = path.join(TOP, 'clients/typescript');
const run = promisify(execFile);

const options = { timeout: 120_000 };
const LONG = 60_000;
const TRANSPORTS = ['websocket', 'event-stream'];

/** Consumes until the end of the test, and keeps what came. */
class Consumer {
  events = new Inbox();
  errors = [];
  statuses = [];
  #abort = new AbortController();

  constructor(t, at, more = {}) {
    this.done = consume({
      url: at.origin,
      topic: 'orders',
      WebSocket,
      EventSource,
      onMessage: (message) => this.events.push({ message }),
      onGap: (gap) => this.events.push({ gap }),
      onError: (error) => this.errors.push(error),
      onStatus: (status) => this.statuses.push(status),
      signal: this.#abort.signal,
      ...more,
    });
    // A test that wants the error waits for it. Until then it is nobody's.
    this.done.catch(() => {});
    after(t, () => this.stop().catch(() => {}));
  }

  get data() {
    return this.events.items.flatMap(({ message }) => (message ? [message.data] : []));
  }

  get gaps() {
    return this.events.items.flatMap(({ gap }) => (gap ? [gap] : []));
  }

  stop() {
    this.#abort.abort();
    return within('the end of consume', this.done);
  }

  live() {
    return until('the subscription is live', () => this.statuses.at(-1) === 'live');
  }

  has(count, deadline) {
    return until(() => `${count} messages: ${JSON.stringify(this.data)}, ${this.errors}`, () => this.data.length >= count, deadline);
  }
}

/** Cuts the connections through a proxy, and lets no other through until it no longer refuses. */
function apart(proxy) {
  proxy.refuses = true;
  proxy.cut();
}

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

/** Starts a server that keeps everything in a directory, which goes with the test. */
async function durable(t, env = {}) {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-client-'));
  after(t, () => rmSync(directory, { recursive: true, force: true }));
  return Server.start(t, { ENGINE: 'disk', DATA_DIR: directory, ...env });
}

/** The code of the error with which `consume` ends. */
const codeOf = (consumer) => within('the end', consumer.done.then(() => assert.fail('it ended without an error'), ({ code }) => code));

for (const transport of TRANSPORTS) {
  describe(`clients/typescript over ${transport}`, { concurrency: 2 }, () => {
    for (const consumer of ['till-1', undefined]) {
      test(`the server is killed and started again, ${consumer ? 'as a consumer' : 'by cursor'}: every message once, in order`, options, async (t) => {
        const server = await durable(t);
        const TOTAL = 120;
        const consumed = new Consumer(t, server, {
          transport,
          consumer,
          onMessage: async (message) => {
            // Some take longer, so that messages wait while the server goes.
            if (message.offset % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 15));
            consumed.events.push({ message });
          },
        });
        await consumed.live();
        const publisher = (async () => {
          for (const i of numbers(1, TOTAL)) await publish({ url: server.origin, topic: 'orders', data: i, id: `m-${i}` });
        })();
        for (const count of [20, 50, 90]) {
          await consumed.has(count, LONG);
          await server.restart();
        }
        await within('the publisher', publisher, LONG);
        await consumed.has(TOTAL, LONG);
        assert.deepEqual(consumed.data, numbers(1, TOTAL));
        assert.deepEqual(consumed.gaps, []);
        assert.ok(consumed.errors.some(({ code }) => code === 'CONNECTION_LOST'), 'nothing broke');
        await consumed.stop();
        if (consumer) assert.equal((await server.consumers('orders'))[0].positions[0].offset, TOTAL);
      });
    }

    test('what is gone meanwhile is a gap in its place', options, async (t) => {
      const server = await Server.start(t, { MAX_MESSAGES_PER_TOPIC: '5' });
      const proxy = await Proxy.start(t, server);
      const consumed = new Consumer(t, proxy, { transport, last: 5 });
      await consumed.live();
      await server.publish('orders', 1);
      await consumed.has(1);
      apart(proxy);
      await server.publishNumbers('orders', 20);
      proxy.refuses = false;
      await consumed.has(6, LONG);
      assert.deepEqual(consumed.data, [1, ...numbers(16, 20)]);
      assert.deepEqual(consumed.events.items[1], { gap: { topic: 'orders', missed: 15, fromOffset: 2, toOffset: 16, reason: 'EXPIRED' } });
      assert.equal(consumed.gaps.length, 1);
    });

    for (const consumer of ['till-1', undefined]) {
      test(`a server that forgot everything says so, ${consumer ? 'to a consumer' : 'by cursor'}`, options, async (t) => {
        const server = await Server.start(t);
        const consumed = new Consumer(t, server, { transport, consumer });
        await consumed.live();
        for (const i of [1, 2]) await server.publish('orders', i);
        await consumed.has(2);
        await server.restart();
        for (const i of [3, 4]) await server.publish('orders', i);
        await consumed.has(4, LONG);
        assert.deepEqual(consumed.data, [1, 2, 3, 4]);
        assert.deepEqual(consumed.events.items.map(({ gap }) => gap?.reason), [undefined, undefined, 'NEW_EPOCH', undefined, undefined]);
        // It is told once, also if the connection breaks again, and the position is one of the new epoch.
        await server.publish('orders', 5);
        await consumed.has(5);
        assert.equal(consumed.gaps.length, 1);
      });
    }

    test('a handler that fails ends it, and its message comes again', options, async (t) => {
      const server = await Server.start(t);
      await server.publishNumbers('orders', 5);
      const failing = new Consumer(t, server, {
        transport,
        consumer: 'till-1',
        last: 5,
        onMessage: ({ data }) => {
          if (data === 3) throw new Error('no paper');
        },
      });
      await assert.rejects(within('the end', failing.done), /no paper/);
      assert.equal((await server.consumers('orders'))[0].positions[0].offset, 2);
      await server.subscribers('orders', 0);
      const next = new Consumer(t, server, { transport, consumer: 'till-1' });
      await next.has(3);
      assert.deepEqual(next.data, [3, 4, 5]);
    });

    test('when it is stopped, the running handler ends and is acknowledged', options, async (t) => {
      const server = await Server.start(t);
      await server.publishNumbers('orders', 3);
      let release;
      const begun = new Inbox();
      const consumed = new Consumer(t, server, {
        transport,
        consumer: 'till-1',
        last: 3,
        onMessage: (message) => {
          begun.push(message);
          return new Promise((resolve) => (release = resolve));
        },
      });
      await begun.next();
      const stopped = consumed.stop();
      release();
      await stopped;
      assert.equal((await server.consumers('orders'))[0].positions[0].offset, 1);
      assert.equal(begun.items.length, 1);
      await server.subscribers('orders', 0);
    });

    test('a slow handler: a bounded number of messages waits, and none is lost', options, async (t) => {
      const server = await Server.start(t);
      await server.publishNumbers('orders', 100);
      const slow = new Consumer(t, server, {
        transport,
        last: 100,
        maxWaiting: 30,
        onMessage: async (message) => {
          await new Promise((resolve) => setTimeout(resolve, 1));
          slow.events.push({ message });
        },
      });
      await slow.has(100, LONG);
      assert.deepEqual(slow.data, numbers(1, 100));
      assert.ok(slow.statuses.filter((status) => status === 'connecting').length > 2, 'it never stopped reading');
      assert.deepEqual(slow.errors, []);
    });

    test('a newer one takes over, and a deleted topic ends it', options, async (t) => {
      const server = await Server.start(t);
      const one = new Consumer(t, server, { transport, consumer: 'till-1' });
      await one.live();
      const other = new Consumer(t, server, { transport, consumer: 'till-1' });
      assert.equal(await codeOf(one), 'CONSUMER_TAKEN_OVER');
      await other.live();
      await server.deleteTopic('orders');
      assert.equal(await codeOf(other), 'TOPIC_DELETED');
    });

    test('a connection that breaks before the first message loses nothing', options, async (t) => {
      const server = await Server.start(t);
      await server.publish('orders', 'before');
      const proxy = await Proxy.start(t, server);
      const consumed = new Consumer(t, proxy, { transport });
      await consumed.live();
      await server.subscribers('orders', 1);
      apart(proxy);
      await server.publish('orders', 'while it was cut');
      proxy.refuses = false;
      await consumed.has(1, LONG);
      await server.publish('orders', 'later');
      await consumed.has(2);
      assert.deepEqual(consumed.data, ['while it was cut', 'later']);
      assert.deepEqual(consumed.gaps, []);
    });

    test('a pattern with a filter', options, async (t) => {
      const server = await Server.start(t);
      const proxy = await Proxy.start(t, server);
      const consumed = new Consumer(t, proxy, { transport, topic: 'orders.*', filter: { field: 'total', gte: 10 } });
      await consumed.live();
      await server.publish('orders.eu', { total: 5 });
      const headers = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' };
      const { cursor } = await publish({ url: server.origin, topic: 'orders.us', data: { total: 10 }, key: 'k', id: 'first', headers });
      await consumed.has(1);
      const { patternCursor, publishedAt, ...message } = consumed.events.items[0].message;
      assert.deepEqual(message, { id: cursor, messageId: 'first', topic: 'orders.us', data: { total: 10 }, key: 'k', headers, removed: false, offset: 1, cursor });
      assert.match(patternCursor, /^p/);
      assert.ok(Date.parse(publishedAt) > 0);
      apart(proxy);
      await server.publish('orders.new', { total: 11 });
      proxy.refuses = false;
      await consumed.has(2, LONG);
      assert.deepEqual(consumed.events.items.map(({ message }) => message?.topic), ['orders.us', 'orders.new']);
    });

    test('a pattern whose connection breaks before the first message: what may be missing is told', options, async (t) => {
      const server = await Server.start(t);
      const proxy = await Proxy.start(t, server);
      const consumed = new Consumer(t, proxy, { transport, topic: 'orders.*' });
      await consumed.live();
      apart(proxy);
      await server.publish('orders.eu', 1);
      proxy.refuses = false;
      if (transport === 'websocket') {
        await consumed.has(1, LONG);
        assert.deepEqual(consumed.gaps, []);
      } else {
        // An event stream does not show where a pattern begins.
        const { gap } = await consumed.events.next('the gap');
        assert.deepEqual([gap.reason, gap.missed, gap.topic], ['UNKNOWN_POSITION', null, 'orders.*']);
      }
    });

    test('what the server refuses ends it with the server’s code', options, async (t) => {
      const server = await Server.start(t);
      assert.match(await codeOf(new Consumer(t, server, { transport, topic: '$reserved' })), /^(INVALID_TOPIC|BAD_REQUEST)$/);
      const closed = await guarded(t);
      assert.equal(await codeOf(new Consumer(t, closed, { transport })), 'UNAUTHENTICATED');
    });
  });
}

describe('clients/typescript: credentials', { concurrency: 2 }, () => {
  test('a token that expires is replaced by a fresh one, and nothing is lost', options, async (t) => {
    const server = await guarded(t);
    let asked = 0;
    const token = () => {
      asked += 1;
      return server.fresh(2);
    };
    const consumed = new Consumer(t, server, { topic: 'news', token });
    await consumed.live();
    const { offset } = await publish({ url: server.origin, topic: 'news', data: 1, token });
    assert.equal(offset, 1);
    await consumed.has(1);
    // The stream ends with the token.
    await until('another connection', () => consumed.errors.some(({ code }) => code === 'UNAUTHENTICATED'));
    await publish({ url: server.origin, topic: 'news', data: 2, token });
    await consumed.has(2);
    assert.deepEqual(consumed.data, [1, 2]);
    assert.ok(asked >= 4, `${asked}`);
  });

  test('fresh tokens that are refused end it', options, async (t) => {
    const server = await guarded(t);
    const token = () => 'not a token';
    assert.equal(await codeOf(new Consumer(t, server, { topic: 'news', token })), 'UNAUTHENTICATED');
    await assert.rejects(publish({ url: server.origin, topic: 'news', data: 1, token }), { code: 'UNAUTHENTICATED' });
  });

  test('what the principal may not do ends it', options, async (t) => {
    const server = await guarded(t);
    assert.equal(await codeOf(new Consumer(t, server, { topic: 'secrets', token: server.credentials['a token'] })), 'FORBIDDEN');
    await assert.rejects(publish({ url: server.origin, topic: 'secrets', data: 1, token: server.credentials['a token'] }), { code: 'FORBIDDEN' });
  });
});

describe('clients/typescript: publish', { concurrency: 2 }, () => {
  test('a response that is lost: the message is stored once', options, async (t) => {
    const server = await Server.start(t);
    const proxy = await Proxy.start(t, server);
    Object.assign(proxy, { cutsLeft: 2, spared: 0, more: 0 });
    const publication = await publish({ url: proxy.origin, topic: 'orders', data: { total: 1 }, expectedOffset: 0, key: 'k' });
    assert.equal(proxy.cuts, 2);
    assert.deepEqual([publication.offset, publication.duplicate], [1, true]);
    assert.equal((await server.topic('orders')).messages, 1);
    const page = await (await fetch(`${server.origin}/topics/orders/messages`)).json();
    assert.deepEqual([page.messages[0].id, page.messages[0].cursor, page.messages[0].key], [publication.messageId, publication.cursor, 'k']);
  });

  test('a server that is started later', options, async (t) => {
    const server = await durable(t);
    await server.kill();
    const published = publish({ url: server.origin, topic: 'orders', data: 1, id: 'first' });
    await server.restart();
    assert.equal((await within('the publication', published)).duplicate, false);
    assert.equal((await publish({ url: server.origin, topic: 'orders', data: 1, id: 'first' })).duplicate, true);
  });

  test('a rate makes it wait', options, async (t) => {
    const server = await Server.start(t, { MAX_PUBLISH_RATE: '5' });
    const offsets = [];
    for (const i of numbers(1, 8)) offsets.push((await publish({ url: server.origin, topic: 'orders', data: i })).offset);
    assert.deepEqual(offsets, numbers(1, 8));
  });

  test('what cannot succeed is an error at once, and trying again ends', options, async (t) => {
    const server = await Server.start(t);
    await assert.rejects(publish({ url: server.origin, topic: 'a.*', data: 1 }), (error) => error instanceof PubSubError && error.code === 'INVALID_TOPIC' && !error.isTransient);
    await assert.rejects(publish({ url: server.origin, topic: 'orders', data: 'x'.repeat(5_000_000) }), { code: 'PAYLOAD_TOO_LARGE' });
    await assert.rejects(publish({ url: `${server.origin}/nowhere`, topic: 'orders', data: 1 }), { code: 'NOT_FOUND' });
    await publish({ url: server.origin, topic: 'orders', data: 1 });
    await assert.rejects(publish({ url: server.origin, topic: 'orders', data: 1, expectedOffset: 7 }), { code: 'CONFLICT' });
    await server.kill();
    await assert.rejects(publish({ url: server.origin, topic: 'orders', data: 1, retryForMs: 300 }), { code: 'CONNECTION_LOST' });
    const abort = new AbortController();
    const published = publish({ url: server.origin, topic: 'orders', data: 1, signal: abort.signal });
    abort.abort(new Error('enough'));
    await assert.rejects(within('the end', published), /enough/);
  });
});

describe('clients/typescript: the package', { concurrency: 2 }, () => {
  test('it has what it should, and the version of the server', options, async () => {
    const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: PACKAGE });
    const [{ files, version }] = JSON.parse(stdout);
    const names = files.map(({ path }) => path);
    for (const name of ['LICENSE', 'README.md', 'package.json', 'dist/index.js', 'dist/index.d.ts', 'src/index.ts']) assert.ok(names.includes(name), name);
    assert.deepEqual(names.filter((name) => !/^(dist|src)\/|^(LICENSE|README\.md|package\.json)$/.test(name)), []);
    const read = (name) => readFileSync(path.join(TOP, name), 'utf8');
    assert.equal(version, read('Cargo.toml').match(/^version = "(.*)"$/m)[1]);
    assert.equal(read('clients/typescript/LICENSE'), read('LICENSE'));
  });

  test('the examples that use it compile, with strict types', options, async (t) => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-examples-'));
    after(t, () => rmSync(folder, { recursive: true }));
    const examples = ['clients/typescript/README.md', 'docs/recipes.md'].flatMap((name) => {
      const blocks = readFileSync(path.join(TOP, name), 'utf8').split('```ts\n').slice(1);
      return blocks.map((block) => block.split('```')[0]).filter((text) => text.includes("from 'pub-sub-client'"));
    });
    assert.ok(examples.length >= 5, `${examples.length} examples`);
    for (const [index, text] of examples.entries()) writeFileSync(path.join(folder, `example-${index}.ts`), text);
    // Node's own types and those of ws are not installed here.
    writeFileSync(path.join(folder, 'ws.d.ts'), "declare module 'ws';\n");
    const compilerOptions = {
      strict: true, noEmit: true, target: 'es2022', module: 'esnext', moduleResolution: 'bundler', moduleDetection: 'force', types: [],
      paths: { 'pub-sub-client': [path.join(PACKAGE, 'dist/index.d.ts')] },
    };
    writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
    const tsc = path.join(PACKAGE, 'node_modules/.bin/tsc');
    await run(process.execPath, [tsc, '-p', folder]).catch(({ stdout }) => assert.fail(stdout));
  });
});
