// Tests compose.yaml without containers: its files run unchanged as processes, and only the addresses are replaced.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { createClient as createSse } from 'graphql-sse';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { parse } from 'yaml';
import { request } from '../lib/again.mjs';
import { Endpoint } from '../lib/endpoint.mjs';
import { options as retrying } from '../lib/graphql-ws.mjs';
import { AGREE, Nats, Program, freePort, listens } from '../lib/nats.mjs';
import { MESSAGES, PUBLISH, TOPIC } from '../lib/operations.mjs';
import { RawRequest } from '../lib/raw-http.mjs';
import { binary, Proxy, Server, TOP } from '../lib/server.mjs';
import { after, Inbox, until, within } from '../lib/wait.mjs';

const run = promisify(execFile);
const options = { timeout: 120_000 };
const INSTANCES = ['pub-sub-1', 'pub-sub-2'];
const NODES = ['nats-1', 'nats-2', 'nats-3'];

/** Returns the path of a file of the project. */
const file = (name) => path.join(TOP, name);
const read = (name) => readFileSync(file(name), 'utf8');
const compose = parse(read('compose.yaml'), { merge: true });

/** Replaces `name:port` everywhere, and the wildcard addresses of a container. */
function rewritten(text, addresses, replaced = {}) {
  for (const [name, port] of Object.entries(addresses)) {
    assert.ok(text.includes(name), `${name} is not in it:\n${text}`);
    text = text.replaceAll(name, `127.0.0.1:${port}`);
  }
  for (const [from, to] of Object.entries(replaced)) {
    assert.ok(text.includes(from), `${from} is not in it:\n${text}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

async function haproxy(...args) {
  try {
    return await run('haproxy', args);
  } catch (error) {
    if (error.code === 'ENOENT') throw new Error('the tests of compose.yaml need haproxy: install it, or let tests/clients/run.sh do it');
    throw error;
  }
}

/** The proxy in front of these instances. */
class Front extends Endpoint {
  static async start(t, servers) {
    await haproxy('-v');
    const front = new Front();
    front.port = await freePort();
    const backends = Object.fromEntries(servers.map(({ port }, index) => [`${INSTANCES[index]}:8080`, port]));
    const text = rewritten(read('deploy/haproxy.cfg'), backends, { 'bind :8080': `bind 127.0.0.1:${front.port}` });
    front.#program = Program.start(t, 'haproxy', (directory) => {
      writeFileSync(path.join(directory, 'haproxy.cfg'), text);
      return ['haproxy', '-f', path.join(directory, 'haproxy.cfg')];
    });
    await until('haproxy listens', async () => (front.#program.runs(), await listens(front.port)));
    return front;
  }

  #program;

  get log() {
    return this.#program.log;
  }

  /** Waits until this is the last result of an instance's health check. HAProxy starts with UP and does not log it. */
  async until(instance, state) {
    const words = () => [...this.log.matchAll(new RegExp(`Server pub-sub/${instance} is (UP|DOWN)[^\n]*`, 'g'))];
    await until(() => `${instance} is ${state}; the log: ${this.log.slice(-2_000)}`, () => (words().at(-1)?.[1] ?? 'UP') === state);
    return words().at(-1)?.[0];
  }

  /** Returns which instances responded to the requests of this path, in order. */
  answered(path) {
    const lines = this.log.split('\n').filter((line) => line.includes(` ${path} HTTP/`));
    return lines.map((line) => line.match(/ (?:pub-sub|unready)\/(\S+) /)[1]);
  }
}

/** Returns the settings of an instance that uses these nodes. */
const settings = ({ environment }, ports) => {
  const addresses = Object.fromEntries(NODES.map((name, index) => [`${name}:4222`, ports[index]]));
  return { ...environment, NATS_URL: rewritten(environment.NATS_URL, addresses) };
};

/** Runs a container's health check with its port replaced; fails if the check does not succeed. */
async function healthy({ healthcheck }, port) {
  const [how, program, ...args] = healthcheck.test;
  assert.equal(how, 'CMD');
  if (program === '/usr/local/bin/pub-sub') return run(binary(), args, { env: { HOST: '127.0.0.1', PORT: `${port}` } });
  assert.equal(program, 'wget');
  const address = new URL(args.at(-1));
  address.port = port;
  assert.equal((await fetch(address)).status, 200);
}

const publish = async (at, topic, data, id = randomUUID()) => (await request(at, PUBLISH, { topic, data, id })).publish;

describe('compose.yaml', { concurrency: false }, () => {
  test('its parts fit together', options, async () => {
    const { services, volumes } = compose;
    assert.deepEqual(Object.keys(services).sort(), [...NODES, 'proxy', ...INSTANCES].sort());
    for (const [name, service] of Object.entries(services)) {
      for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
        assert.ok(services[other], `${name} depends on ${other}`);
        assert.equal(condition, 'service_healthy');
      }
      assert.ok(service.healthcheck.test.length > 1, `${name} has no health check`);
      for (const volume of service.volumes ?? []) {
        const [source] = volume.split(':');
        if (source.startsWith('./')) read(source);
        else assert.ok(source in volumes, `${name} has a volume ${source}`);
      }
    }
    const stores = NODES.map((name) => services[name].volumes.find((volume) => volume.endsWith(':/data')));
    assert.equal(new Set(stores).size, NODES.length, 'two nodes share a store');
    assert.deepEqual(Object.entries(services).flatMap(([name, { ports }]) => (ports ? [name] : [])), ['proxy']);
    const [, version] = services['nats-1'].image.match(/^nats:2\.(\d+)/);
    assert.ok(version >= 11, 'pub-sub needs a newer NATS');
  });

  test('every variable of an instance is a setting, and its value one that is taken', options, async () => {
    for (const name of INSTANCES) {
      const { environment } = compose.services[name];
      const { stdout } = await run(binary(), ['config'], { env: { PATH: process.env.PATH, ...environment } });
      const known = Object.fromEntries(stdout.trim().split('\n').map((line) => line.split(' = ')));
      for (const [variable, value] of Object.entries(environment)) {
        assert.equal(known[variable.toLowerCase()], JSON.stringify(value), `${name}: ${variable}`);
      }
    }
    // A container that is killed before it has drained would lose what is in flight.
    const seconds = (text) => Number(text.match(/^(\d+)s$/)[1]);
    const { environment, stop_grace_period: grace } = compose.services[INSTANCES[0]];
    assert.ok(seconds(grace) > seconds(environment.DRAIN_TIMEOUT) + 5);
  });

  test('the proxy takes its configuration, where the names cannot be resolved, too', options, async () => {
    const { stderr } = await haproxy('-c', '-f', file('deploy/haproxy.cfg'));
    assert.doesNotMatch(stderr, /ALERT/);
    const others = stderr.split('\n').filter((line) => line.includes('[WARNING]') && !line.includes('could not resolve address'));
    assert.deepEqual(others, []);
  });

  test('NATS nodes, instances and proxy, as they stand in the files', options, async (t) => {
    const routes = Object.fromEntries(await Promise.all(NODES.map(async (name) => [`${name}:6222`, await freePort()])));
    const nodes = [];
    for (const name of NODES) {
      const node = await Nats.node(t, (directory) => {
        const replaced = {
          '"0.0.0.0:6222"': `"127.0.0.1:${routes[`${name}:6222`]}"`,
          '"/data"': `"${directory}/store"`,
          $NATS_NAME: compose.services[name].environment.NATS_NAME,
        };
        writeFileSync(path.join(directory, 'nats.conf'), rewritten(read('deploy/nats.conf'), routes, replaced));
        const [flag] = compose.services[name].command;
        return [flag, path.join(directory, 'nats.conf')];
      });
      nodes.push(node);
    }
    await Nats.agreed(nodes);
    const ports = nodes.map(({ port }) => port);
    const servers = [];
    for (const name of INSTANCES) servers.push(await Server.start(t, settings(compose.services[name], ports), AGREE));
    for (const server of servers) await server.ready();
    const front = await Front.start(t, servers);
    for (const name of INSTANCES) await front.until(name, 'UP');

    await t.test('the health checks say that all is well', options, async () => {
      for (const [index, name] of NODES.entries()) await healthy(compose.services[name], nodes[index].monitor);
      for (const [index, name] of INSTANCES.entries()) await healthy(compose.services[name], servers[index].port);
      await healthy(compose.services.proxy, front.port);
      await assert.rejects(healthy(compose.services[INSTANCES[0]], await freePort()));
    });

    await t.test('a query by curl', options, async () => {
      await publish(front, 'news', 1);
      // The instance that gets this request may not be the one that got the previous one.
      for (const server of servers) await until('it is everywhere', async () => (await server.topic('news'))?.messages === 1);
      const query = JSON.stringify({ query: '{ topic(name: "news") { messageCount } }' });
      const { stdout } = await run('curl', ['-sS', '--fail', front.http, '-H', 'Content-Type: application/json', '-d', query]);
      assert.deepEqual(JSON.parse(stdout), { data: { topic: { messageCount: 1 } } });
    });

    await t.test('everything is stored three times', options, async () => {
      const answer = await (await fetch(`http://127.0.0.1:${nodes[0].monitor}/jsz?streams=true&config=true`)).json();
      const streams = answer.account_details.flatMap(({ stream_detail }) => stream_detail);
      assert.ok(streams.length >= 3);
      for (const { name, config } of streams) assert.equal(config.num_replicas, 3, name);
    });

    await t.test('an event stream comes event by event', options, async (t) => {
      const stream = await RawRequest.send(t, front.port, { method: 'GET', path: '/topics/ticks/messages', headers: { accept: 'text/event-stream' } });
      assert.equal(stream.status, 200);
      // Each message is published when the one before has arrived, so a proxy that buffers delays or blocks the test.
      const waits = [];
      for (let i = 1; i <= 11; i++) {
        await publish(front, 'ticks', { i });
        const published = performance.now();
        assert.deepEqual(JSON.parse((await stream.event()).data).data, { i });
        waits.push(performance.now() - published);
      }
      const median = waits.sort((a, b) => a - b)[5];
      t.diagnostic(`an event comes ${median.toFixed(1)} ms after the publisher's answer`);
      assert.ok(median < 100, `half of the events take ${median} ms`);
    });

    await t.test('graphql-sse with single connection: a stream and its requests meet in one instance', options, async (t) => {
      for (let i = 1; i <= 6; i++) {
        const client = createSse({ url: front.http, singleConnection: true, retryAttempts: 0 });
        after(t, () => client.dispose());
        const got = new Inbox();
        const told = { next: (result) => got.push(result), error: (error) => got.push({ error }), complete: () => {} };
        client.subscribe({ query: MESSAGES.text, variables: { topic: 'news', last: 1 } }, told);
        const first = await got.next();
        assert.equal(first.data?.messages.data, 1, JSON.stringify(first.error?.message ?? first));
      }
      const reservations = front.log.split('\n').filter((line) => line.includes('"PUT /graphql HTTP/'));
      const instances = new Set(reservations.map((line) => line.match(/ pub-sub\/(\S+) /)[1]));
      assert.deepEqual([...instances].sort(), INSTANCES, 'all streams were in one instance, which proves nothing');
      // This is the other way to send a token.
      for (let i = 1; i <= 4; i++) {
        const token = await (await RawRequest.send(t, front.port, { method: 'PUT' })).text();
        const stream = await RawRequest.send(t, front.port, { method: 'GET', path: `/graphql?token=${token}`, headers: { accept: 'text/event-stream' } });
        assert.equal(stream.status, 200, stream.body);
      }
    });

    await t.test('an instance that stops: sockets and streams go on with the other', options, async (t) => {
      const topic = 'orders';
      const raw = [];
      for (let i = 0; i < 4; i++) {
        const socket = new WebSocket(`ws://127.0.0.1:${front.port}/ws`);
        after(t, () => socket.terminate());
        const frames = new Inbox();
        const here = { frames };
        socket.on('message', (text) => frames.push(JSON.parse(text)));
        socket.on('close', (code) => (here.code = code));
        await within('the handshake', new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject)));
        socket.send(JSON.stringify({ type: 'subscribe', topic }));
        assert.equal((await frames.next()).type, 'ack');
        raw.push(here);
      }
      const sockets = [];
      for (let i = 0; i < 4; i++) {
        const client = createClient({ ...retrying(WebSocket, front.ws), lazy: false });
        after(t, () => client.dispose());
        const results = new Inbox();
        const told = { next: (result) => results.push(result), error: (error) => results.push({ error }), complete: () => results.push({ ended: true }) };
        client.subscribe({ query: MESSAGES.text, variables: { topic, consumer: `tab-${i}` } }, told);
        sockets.push(results);
      }
      const count = async () => (await Promise.all(servers.map((server) => server.topic(topic)))).map((seen) => seen?.subscribers ?? 0);
      await until('both instances have their share', async () => (await count()).every((subscribers) => subscribers === 4));
      const takes = async (data) => {
        for (const results of sockets) {
          // Messages that an instance sent before its connection ended may arrive once more.
          for (;;) {
            const result = await results.next(`message ${data}`);
            assert.ok(result.data, JSON.stringify(result));
            if (result.data.messages.data === data) break;
            assert.ok(result.data.messages.data < data, JSON.stringify(result));
          }
        }
      };
      await publish(front, topic, 1);
      await takes(1);
      for (const { frames } of raw) assert.equal((await frames.next()).data, 1);

      const stopped = servers[0].kill('SIGTERM');
      // An instance that is stopping refuses requests that it has not begun, and the repeated request goes to the other
      // one.
      for (let i = 2; i <= 30; i++) await publish(front, topic, i, `m-${i}`);
      assert.equal(await within('the end', stopped), 0);
      for (let i = 2; i <= 30; i++) await takes(i);
      await front.until(INSTANCES[0], 'DOWN');
      // No client of /ws reconnects by itself; the close code says that it may.
      const codes = raw.map(({ code }) => code).filter((code) => code !== undefined);
      assert.deepEqual(codes, [1001, 1001]);

      // The instance that is back has the fewest connections.
      await servers[0].restart();
      await servers[0].ready();
      await front.until(INSTANCES[0], 'UP');
      for (let i = 0; i < 4; i++) assert.equal((await fetch(`${front.origin}/health?again`)).status, 200);
      await until('the proxy has logged them', () => front.answered('/health?again').length === 4);
      assert.deepEqual([...new Set(front.answered('/health?again'))], [INSTANCES[0]]);
    });

    await t.test('a NATS node that goes: two of three are enough', options, async (t) => {
      const client = createClient({ ...retrying(WebSocket, front.ws), lazy: false });
      after(t, () => client.dispose());
      const got = new Inbox();
      const told = { next: (result) => got.push(result), error: (error) => got.push({ error }), complete: () => got.push({ ended: true }) };
      client.subscribe({ query: MESSAGES.text, variables: { topic: 'bills', consumer: 'till-1' } }, told);
      await until('it is subscribed', async () => (await servers[0].topic('bills')) && (await servers[0].consumers('bills')).length === 1);
      for (let i = 1; i <= 20; i++) {
        if (i === 5) await nodes[0].program.stop();
        await publish(front, 'bills', i, `bill-${i}`);
      }
      let newest = 0;
      while (newest < 20) {
        const result = await got.next(`message ${newest + 1}`);
        const message = result.data?.messages;
        assert.ok(message && !message.gap && message.data <= newest + 1, JSON.stringify(result));
        newest = Math.max(newest, message.data);
      }
    });
  });

  test('an instance that is cut off from NATS gets nothing new; with both cut off they answer for themselves', options, async (t) => {
    const nats = await Nats.start(t);
    const ways = INSTANCES.map(() => ({ port: nats.nodes[0].port }));
    const wires = [];
    const servers = [];
    for (const [index, name] of INSTANCES.entries()) {
      wires.push(await Proxy.start(t, ways[index]));
      servers.push(await Server.start(t, { ...compose.services[name].environment, NATS_URL: `nats://127.0.0.1:${wires[index].port}` }, AGREE));
    }
    const front = await Front.start(t, servers);
    const cut = (index) => {
      // Nobody listens there.
      ways[index].port = 1;
      wires[index].cut();
    };
    for (const name of INSTANCES) await front.until(name, 'UP');
    await publish(front, 'news', 1);
    for (const server of servers) await until('it is everywhere', async () => (await server.topic('news'))?.messages === 1);

    cut(0);
    assert.match(await front.until(INSTANCES[0], 'DOWN'), /503/);
    for (let i = 0; i < 6; i++) assert.equal((await request(front, TOPIC, { name: 'news' })).topic.messageCount, 1);
    for (let i = 0; i < 6; i++) assert.equal((await fetch(`${front.origin}/health?cut`)).status, 200);
    await until('the proxy has logged them', () => front.answered('/health?cut').length === 6);
    assert.deepEqual([...new Set(front.answered('/health?cut'))], [INSTANCES[1]]);
    await publish(front, 'news', 2);

    cut(1);
    await front.until(INSTANCES[1], 'DOWN');
    const page = await (await fetch(`${front.origin}/topics/news/messages?last=1`)).json();
    assert.equal(page.messages.length, 1);
    const response = await fetch(`${front.origin}/publish`, { method: 'POST', body: JSON.stringify({ topic: 'news', data: 3 }) });
    assert.equal(response.status, 503);
    assert.ok(Number(response.headers.get('retry-after')) >= 1);
    assert.equal((await response.json()).error.code, 'UNAVAILABLE');

    for (const way of ways) way.port = nats.nodes[0].port;
    for (const name of INSTANCES) await front.until(name, 'UP');
    assert.equal((await publish(front, 'news', 3)).offset, 3);
  });

  test('who asks is said truly', options, async (t) => {
    // A stand-in for an instance shows what arrives there.
    const seen = new Inbox();
    const stand = createServer((request, response) => {
      if (request.url !== '/health/ready') seen.push(request.headers);
      response.end('{}');
    });
    await new Promise((resolve) => stand.listen(0, '127.0.0.1', resolve));
    after(t, () => new Promise((resolve) => (stand.close(resolve), stand.closeAllConnections())));
    const at = { port: stand.address().port };
    const front = await Front.start(t, [at, at]);
    await fetch(`${front.origin}/stats`, { headers: { 'x-forwarded-for': '192.0.2.1', forwarded: 'for=192.0.2.1' } });
    const headers = await seen.next();
    assert.equal(headers['x-forwarded-for'], '127.0.0.1');
    assert.equal(headers.forwarded, undefined);
  });
});

test('deploy/compose.access.yaml: both instances take the key of the secret, and nothing without it', options, async (t) => {
  const { services, secrets } = parse(read('deploy/compose.access.yaml'), { merge: true });
  assert.deepEqual(Object.keys(services), INSTANCES);
  assert.deepEqual(Object.keys(secrets), ['api_key']);
  const directory = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-secret-'));
  after(t, () => rmSync(directory, { recursive: true }));
  const secret = path.join(directory, 'api_key');
  // As `openssl rand` writes it, with the end of the line.
  writeFileSync(secret, 'the-key\n');
  for (const { environment, secrets: mounted } of Object.values(services)) {
    assert.deepEqual(mounted, ['api_key']);
    const { API_KEY_FILE, ...rest } = environment;
    assert.equal(API_KEY_FILE, '/run/secrets/api_key');
    const server = await Server.start(t, { ...rest, API_KEY_FILE: secret });
    const status = async (headers) => (await fetch(`${server.origin}/topics`, { headers })).status;
    assert.equal(await status({}), 401);
    assert.equal(await status({ authorization: 'Bearer the-key' }), 200);
    assert.equal((await fetch(`${server.origin}/health/ready`)).status, 200);
  }
});
