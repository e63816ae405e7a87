// Tests npm ws with /ws: an example as in the README, and the protocol.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import WebSocket from 'ws';
import { Proxy, Server } from '../lib/server.mjs';
import { after, Inbox, until, within } from '../lib/wait.mjs';

const options = { timeout: 60_000 };

/** A raw connection, which parses frames and sends objects. */
async function connect(t, at) {
  const socket = new WebSocket(`ws://127.0.0.1:${at.port}/ws`);
  const frames = new Inbox();
  socket.on('message', (data, binary) => {
    assert.equal(binary, false);
    frames.push(JSON.parse(data));
  });
  const closed = new Promise((resolve) => socket.on('close', (code, reason) => resolve({ code, reason: `${reason}` })));
  socket.on('error', () => {});
  after(t, () => socket.terminate());
  await within('the handshake', new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject)));
  return {
    socket,
    frames,
    closed,
    send: (frame) => socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame)),
    next: (what) => frames.next(what),
    async ask(frame) {
      this.send(frame);
      return frames.next(`the answer to ${JSON.stringify(frame)}`);
    },
  };
}

describe('ws on /ws', { concurrency: false }, () => {
  test('the documented example runs as printed on a fresh server', options, async (t) => {
    const server = await Server.start(t);
    const got = new Inbox();
    // A reader of the documentation pastes this code with another address.
    const ws = new WebSocket(`ws://127.0.0.1:${server.port}/ws`);
    after(t, () => ws.terminate());
    ws.onopen = () => {
      ws.send(JSON.stringify({ type: 'subscribe', topic: 'orders', request_id: 'sub-1', last_n: 5 }));
      ws.send(JSON.stringify({ type: 'publish', topic: 'orders', data: { total: 99.5 }, request_id: 'pub-1' }));
    };
    ws.onmessage = (event) => got.push(JSON.parse(event.data));
    const first = await got.next();
    assert.deepEqual([first.type, first.topic, first.status, first.request_id], ['ack', 'orders', 'ok', 'sub-1']);
    const rest = [await got.next(), await got.next()];
    const ack = rest.find(({ type }) => type === 'ack');
    const event = rest.find(({ type }) => type === 'event');
    assert.equal(ack.request_id, 'pub-1');
    assert.deepEqual(event.data, { total: 99.5 });
    assert.deepEqual([event.id, event.offset, event.cursor], [ack.id, ack.offset, ack.cursor]);
  });

  test('no frame comes unasked before the client’s first', options, async (t) => {
    const server = await Server.start(t);
    const client = await connect(t, server);
    const pong = await client.ask({ type: 'ping' });
    assert.equal(pong.type, 'pong');
    assert.ok(!Number.isNaN(Date.parse(pong.ts)));
  });

  test('history, then live; unsubscribing stops it', options, async (t) => {
    const server = await Server.start(t);
    for (let i = 1; i <= 5; i++) await server.publish('news', { i });
    const client = await connect(t, server);
    assert.equal((await client.ask({ type: 'subscribe', topic: 'news', last_n: 2 })).type, 'ack');
    assert.deepEqual((await client.next()).data, { i: 4 });
    assert.deepEqual((await client.next()).data, { i: 5 });
    await server.publish('news', { i: 6 });
    assert.deepEqual((await client.next()).data, { i: 6 });
    assert.equal((await client.ask({ type: 'subscribe', topic: 'news', request_id: 'again' })).request_id, 'again');
    await server.publish('news', { i: 7 });
    assert.deepEqual((await client.next()).data, { i: 7 });
    assert.equal((await client.ask({ type: 'unsubscribe', topic: 'news' })).type, 'ack');
    await server.subscribers('news', 0);
    await server.publish('news', { i: 8 });
    assert.equal((await client.ask({ type: 'ping' })).type, 'pong');
    assert.equal((await client.ask({ type: 'unsubscribe', topic: 'news' })).type, 'ack');
  });

  test('errors leave the socket open and carry the code', options, async (t) => {
    const server = await Server.start(t);
    const client = await connect(t, server);
    for (const [frame, code] of [
      ['{', 'BAD_REQUEST'],
      [{ type: 'dance' }, 'BAD_REQUEST'],
      [{ type: 'subscribe', request_id: 'r' }, 'BAD_REQUEST'],
      [{ type: 'subscribe', topic: '$x' }, 'INVALID_TOPIC'],
      [{ type: 'publish', topic: 'a.*', data: 1 }, 'INVALID_TOPIC'],
      [{ type: 'subscribe', topic: 'a', last_n: 1, after: 'x' }, 'BAD_REQUEST'],
    ]) {
      const answer = await client.ask(frame);
      assert.equal(answer.type, 'error');
      assert.equal(answer.error.code, code, JSON.stringify(answer));
      assert.equal(answer.request_id, frame.request_id);
    }
    assert.equal((await client.ask({ type: 'ping' })).type, 'pong');
  });

  test('a deleted topic: a notice, and the socket stays open', options, async (t) => {
    const server = await Server.start(t);
    const client = await connect(t, server);
    await client.ask({ type: 'subscribe', topic: 'news' });
    await server.deleteTopic('news');
    const info = await client.next();
    assert.deepEqual([info.type, info.topic, info.msg], ['info', 'news', 'topic_deleted']);
    assert.equal((await client.ask({ type: 'ping' })).type, 'pong');
  });

  test('a taken-over consumer is told', options, async (t) => {
    const server = await Server.start(t);
    const [older, newer] = [await connect(t, server), await connect(t, server)];
    const subscribe = { type: 'subscribe', topic: 'news', consumer: 'tab-1' };
    assert.equal((await older.ask(subscribe)).consumer.resumed, false);
    assert.equal((await newer.ask(subscribe)).consumer.resumed, true);
    const notice = await older.next();
    assert.equal(notice.error?.code, 'CONSUMER_TAKEN_OVER', JSON.stringify(notice));
    await server.publish('news', 1);
    assert.equal((await newer.next()).data, 1);
    assert.equal((await older.ask({ type: 'ping' })).type, 'pong');
  });

  test('orderly stop: the close is answered', options, async (t) => {
    const server = await Server.start(t);
    const client = await connect(t, server);
    await client.ask({ type: 'subscribe', topic: 'news' });
    client.socket.close(1000);
    assert.equal((await within('the close', client.closed)).code, 1000);
    await server.subscribers('news', 0);
  });

  test('a server that stops says 1001', options, async (t) => {
    const server = await Server.start(t);
    const client = await connect(t, server);
    await client.ask({ type: 'subscribe', topic: 'news' });
    await server.kill('SIGTERM');
    assert.equal((await within('the close', client.closed)).code, 1001);
  });

  test('a frame over the limit closes with 1009', options, async (t) => {
    const server = await Server.start(t, { MAX_FRAME_BYTES: '2000' });
    const client = await connect(t, server);
    client.send({ type: 'publish', topic: 'news', data: 'x'.repeat(5_000) });
    assert.equal((await within('the close', client.closed)).code, 1009);
  });

  test('a flood of malformed frames closes with 1008', options, async (t) => {
    const server = await Server.start(t, { MAX_MALFORMED_FRAMES: '5' });
    const client = await connect(t, server);
    for (let i = 0; i < 5; i++) client.send('nonsense');
    assert.equal((await within('the close', client.closed)).code, 1008);
  });

  /** A client as users write it: it reconnects and subscribes as before. */
  const resilient = (t, at, subscribe, onFrame) => {
    let stopped = false;
    let socket;
    const dial = () => {
      socket = new WebSocket(`ws://127.0.0.1:${at.port}/ws`);
      socket.on('open', () => socket.send(JSON.stringify(subscribe())));
      socket.on('message', (data) => onFrame(JSON.parse(data), (frame) => socket.send(JSON.stringify(frame))));
      socket.on('error', () => {});
      socket.on('close', () => !stopped && setTimeout(dial, 20));
    };
    after(t, () => {
      stopped = true;
      socket.terminate();
    });
    dial();
  };

  for (const mode of ['consumer EXPLICIT', 'consumer AUTO', 'cursor']) {
    test(`cut at random points, ${mode}: nothing lost`, options, async (t) => {
      const server = await Server.start(t);
      const proxy = await Proxy.start(t, server);
      const ack = mode.split(' ')[1];
      let [newest, cursor, acked, ackedAtCut, repeats, sent, acks] = [0, undefined, 0, 0, 0, 0, 0];
      let fault;
      proxy.cutsLeft = 10;
      proxy.onCut = () => (ackedAtCut = acked);
      const start = () => {
        const base = { type: 'subscribe', topic: 'orders', request_id: 'sub' };
        if (ack) return { ...base, consumer: 'tab-1', ack };
        return cursor ? { ...base, after: cursor } : { ...base, last_n: 1_000 };
      };
      resilient(t, proxy, start, (frame, send) => {
        if (frame.type === 'ack' && frame.request_id?.startsWith('ack-')) acked = Math.max(acked, Number(frame.request_id.slice(4)));
        if (frame.type === 'ack' && frame.consumer) {
          if (acks > 0 && !frame.consumer.resumed) fault ??= 'not resumed';
          acks += 1;
        }
        if (frame.type === 'error' || frame.type === 'gap') fault ??= JSON.stringify(frame);
        if (frame.type !== 'event') return;
        const { offset } = frame;
        if (offset !== frame.data.i) fault ??= `message ${frame.data.i} at ${offset}`;
        if (offset > newest + 1) fault ??= `lost ${newest + 1} to ${offset - 1}`;
        if (offset <= newest) repeats += 1;
        if (!ack && offset <= newest) fault ??= `${offset} came again`;
        if (ack === 'EXPLICIT' && offset <= ackedAtCut) fault ??= `${offset} came again, acknowledged`;
        newest = Math.max(newest, offset);
        cursor = frame.cursor;
        if (ack === 'EXPLICIT' && offset % 3 === 0) {
          send({ type: 'ack', topic: 'orders', consumer: 'tab-1', cursor, request_id: `ack-${offset}` });
        }
      });
      const check = () => {
        if (fault) throw new Error(`${fault} (SEED=${proxy.seed})`);
        return newest >= sent;
      };
      if (ack) await until('the consumer is known', async () => (await server.topic('orders')) && (await server.consumers('orders')).length === 1);
      while (sent < 60 || proxy.cutsLeft > 0) {
        sent += 1;
        await server.publish('orders', { i: sent, pad: 'x'.repeat(300) });
        await until(() => `messages keep coming (${newest} of ${sent})`, () => (check(), newest >= sent - 12));
      }
      await until(() => `all come (${newest} of ${sent}, SEED=${proxy.seed})`, check);
      assert.ok(proxy.cuts >= 10);
      t.diagnostic(`${proxy.cuts} cuts, ${repeats} repeated of ${sent}`);
    });
  }

  test('server killed and started again: NEW_EPOCH with a cursor, resumed: false with a consumer', options, async (t) => {
    const server = await Server.start(t);
    const { cursor } = await server.publish('news', 1);
    const first = await connect(t, server);
    assert.equal((await first.ask({ type: 'subscribe', topic: 'jobs', consumer: 'tab-1' })).consumer.resumed, false);
    await server.restart();
    await within('the cut', first.closed);
    const client = await connect(t, server);
    assert.equal((await client.ask({ type: 'subscribe', topic: 'jobs', consumer: 'tab-1' })).consumer.resumed, false);
    await client.ask({ type: 'subscribe', topic: 'news', after: cursor });
    await server.publish('news', 2);
    const gap = await client.next();
    assert.deepEqual([gap.type, gap.reason, gap.missed], ['gap', 'NEW_EPOCH', 0]);
    assert.equal((await client.next()).data, 2);
  });
});
