// Each test has its own pub-sub server, and a connection to it that can be cut.

import { spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Endpoint } from './endpoint.mjs';
import { after, DEADLINE, until } from './wait.mjs';

export const TOP = fileURLToPath(new URL('../../../../', import.meta.url));

/** The binary under test: PUB_SUB_BIN, or the newer of the two builds. */
export function binary() {
  if (process.env.PUB_SUB_BIN) return path.resolve(process.env.PUB_SUB_BIN);
  const built = ['release', 'debug'].map((profile) => path.join(TOP, 'target', profile, 'pub-sub')).filter(existsSync);
  built.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
  if (!built.length) throw new Error('no pub-sub binary: set PUB_SUB_BIN or run `cargo build`');
  return built[0];
}

/** A running pub-sub server. It ends with the test `t`. */
export class Server extends Endpoint {
  #child;
  #env;
  #deadline;
  log = '';

  /** `deadline` is how long the server may take to listen; some engines wait for other servers. */
  static async start(t, env = {}, deadline = DEADLINE) {
    const server = new Server();
    server.#env = env;
    server.#deadline = deadline;
    await server.#launch(0);
    after(t, () => server.kill());
    return server;
  }

  async #launch(port) {
    const env = { PATH: process.env.PATH, HOST: '127.0.0.1', MAX_PUBLISH_RATE: '0', LOG: 'info', ...this.#env, PORT: `${port}` };
    const child = spawn(binary(), [], { env, stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    child.stderr.setEncoding('utf8');
    let said = '';
    let ended;
    child.stderr.on('data', (text) => {
      said += text;
      this.log += text;
    });
    child.on('error', (error) => (ended = error.message));
    child.on('exit', (code, signal) => (ended ??= `exit ${code ?? signal}`));
    const listening = () => {
      if (ended) throw new Error(`pub-sub did not start (${ended}): ${said}`);
      return said.match(/listening addr="?127\.0\.0\.1:(\d+)/);
    };
    this.port = Number((await until('pub-sub listens', listening, this.#deadline))[1]);
  }

  /** Waits until the server reports that it is ready. */
  ready() {
    const isReady = async () => (await fetch(`${this.origin}/health/ready`).catch(() => null))?.status === 200;
    return until('pub-sub is ready', isReady, this.#deadline);
  }

  /** Kills the process by pid and waits until it is gone. Returns its exit code, or null if the signal ended it. */
  async kill(signal = 'SIGKILL') {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    process.kill(child.pid, signal);
    return gone;
  }

  /** Stops the server (with SIGKILL unless another signal is given) and starts it again on the same port. */
  async restart(signal = 'SIGKILL') {
    await this.kill(signal);
    await this.#launch(this.port);
  }

  /** Sends a request over REST, with the server's `API_KEY` if it has one. */
  #ask(path, { headers, ...more } = {}) {
    const { API_KEY } = this.#env;
    return fetch(`${this.origin}${path}`, { ...more, headers: { ...headers, ...(API_KEY && { authorization: `Bearer ${API_KEY}` }) } });
  }

  #post(path, body) {
    return this.#ask(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
  }

  /** Publishes over REST, whatever transport the test is about. */
  async publish(topic, data, more = {}) {
    const response = await this.#post('/publish', JSON.stringify({ topic, data, ...more }));
    const answer = await response.json();
    if (!response.ok) throw new Error(`publish: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** Publishes the numbers from 1 to `last` in one request. */
  async publishNumbers(topic, last) {
    const body = JSON.stringify(Array.from({ length: last }, (_, index) => ({ topic, data: index + 1 })));
    const response = await this.#post('/publish', body);
    const { results } = await response.json();
    if (!response.ok || results.some(({ error }) => error)) throw new Error(`publish: ${JSON.stringify(results)}`);
  }

  async topic(name) {
    const response = await this.#ask(`/topics/${encodeURIComponent(name)}`);
    return response.ok ? response.json() : null;
  }

  async deleteTopic(name) {
    const response = await this.#ask(`/topics/${encodeURIComponent(name)}`, { method: 'DELETE' });
    if (!response.ok) throw new Error(`delete ${name}: ${response.status}`);
  }

  async consumers(topic) {
    const response = await this.#ask(`/topics/${encodeURIComponent(topic)}/consumers`);
    return (await response.json()).consumers;
  }

  /** Waits until the topic has this many live subscriptions. */
  subscribers(topic, count, deadline = DEADLINE) {
    const has = async () => ((await this.topic(topic))?.subscribers ?? 0) === count;
    return until(`${topic} has ${count} subscriber(s)`, has, deadline);
  }
}

/**
 * A TCP proxy in front of a server. While there are cuts left, it cuts each connection after a random number of bytes
 * from the server, also within a frame. `cut()` cuts all open connections.
 */
export class Proxy extends Endpoint {
  #server;
  #target;
  #sockets = new Set();
  #random;
  cutsLeft = 0;
  /** The number of bytes from the server that every connection receives before a cut, and how many more it may be. */
  spared = 100;
  more = 3_000;
  /** Whether new connections are closed at once, as if there were no server. */
  refuses = false;
  cuts = 0;
  accepted = 0;
  onCut = () => {};

  static async start(t, target, seed = Number(process.env.SEED ?? Date.now() % 1e6)) {
    const proxy = new Proxy();
    proxy.#target = target;
    proxy.seed = seed;
    proxy.#random = random(seed);
    proxy.#server = net.createServer((client) => proxy.#accept(client));
    await new Promise((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    proxy.port = proxy.#server.address().port;
    after(t, () => {
      proxy.cut();
      return new Promise((resolve) => proxy.#server.close(resolve));
    });
    t.diagnostic(`SEED=${seed}`);
    return proxy;
  }

  #accept(client) {
    if (this.refuses) return client.destroy();
    this.accepted += 1;
    const upstream = net.connect(this.#target.port, '127.0.0.1');
    const pair = { client, upstream };
    this.#sockets.add(pair);
    const end = () => {
      this.#sockets.delete(pair);
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) socket.setNoDelay(true).on('error', end).on('close', end);
    client.on('data', (bytes) => upstream.write(bytes));
    let budget = this.cutsLeft > 0 ? this.spared + Math.floor(this.#random() * this.more) : Infinity;
    upstream.on('data', (bytes) => {
      if (bytes.length < budget) {
        budget -= bytes.length;
        client.write(bytes);
        return;
      }
      if (client.destroyed) return;
      this.cutsLeft -= 1;
      const rest = bytes.subarray(0, budget);
      budget = 0;
      upstream.destroy();
      // The bytes that were let through arrive; then the connection breaks in the middle of a message.
      client.write(rest, () => this.#end(pair));
    });
  }

  #end({ client, upstream }) {
    this.cuts += 1;
    this.onCut();
    client.destroy();
    upstream.destroy();
  }

  /** Cuts every open connection. */
  cut() {
    for (const pair of this.#sockets) this.#end(pair);
  }

  get open() {
    return this.#sockets.size;
  }
}

/** Mulberry32 is small, takes a seed, and is good enough to choose where to cut. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
