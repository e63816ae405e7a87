// Each test has its own pub-sub server.

import { spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const TOP = fileURLToPath(new URL('../../../../', import.meta.url));

/** The binary under test: PUB_SUB_BIN, or the newer of the two builds. */
export function binary() {
  if (process.env.PUB_SUB_BIN) return path.resolve(process.env.PUB_SUB_BIN);
  const built = ['release', 'debug'].map((profile) => path.join(TOP, 'target', profile, 'pub-sub')).filter(existsSync);
  built.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
  if (!built.length) throw new Error('no pub-sub binary: set PUB_SUB_BIN or run `cargo build`');
  return built[0];
}

/** The header that the tests' own requests to a server need. */
const credentials = new Map();

/** Starts a server, which ends with the test `t` at the latest. Returns its origin, and what ends it. */
export async function launch(t, settings = {}) {
  const env = { PATH: process.env.PATH, HOST: '127.0.0.1', PORT: '0', LOG: 'info', ...settings };
  const child = spawn(binary(), [], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  const gone = new Promise((resolve) => child.once('close', resolve));
  const stop = async () => {
    child.kill('SIGKILL');
    await gone;
  };
  t.after(stop);
  let said = '';
  child.stderr.setEncoding('utf8');
  const port = await new Promise((resolve, reject) => {
    child.stderr.on('data', (text) => {
      said += text;
      const address = said.match(/listening addr="?127\.0\.0\.1:(\d+)/);
      if (address) resolve(address[1]);
    });
    child.on('error', reject);
    child.on('exit', (code, signal) => reject(new Error(`pub-sub did not start (${code ?? signal}): ${said}`)));
  });
  const origin = `http://127.0.0.1:${port}`;
  if (settings.API_KEY) credentials.set(origin, { authorization: `Bearer ${settings.API_KEY}` });
  return { origin, stop };
}

/** Starts a server, which ends with the test `t`, and returns its origin. */
export const start = async (t, settings) => (await launch(t, settings)).origin;

/**
 * Puts a proxy in front of a server. `cut` breaks all its connections and refuses new ones until `mend`.
 */
export async function proxy(t, origin) {
  const { hostname, port } = new URL(origin);
  const sockets = new Set();
  let down = false;
  const server = net.createServer((client) => {
    if (down) return client.destroy();
    const upstream = net.connect(Number(port), hostname);
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      sockets.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, hostname, resolve));
  const breakAll = () => sockets.forEach((socket) => socket.destroy());
  t.after(() => {
    server.close();
    breakAll();
  });
  const cut = () => {
    down = true;
    breakAll();
  };
  return { origin: `http://${hostname}:${server.address().port}`, cut, mend: () => (down = false) };
}

/** Executes an operation from outside the browser, and returns its data. */
export async function execute(origin, query, variables = {}) {
  const headers = { 'content-type': 'application/json', ...credentials.get(origin) };
  const response = await fetch(`${origin}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query, variables }) });
  const { data, errors } = await response.json();
  if (errors) throw new Error(JSON.stringify(errors));
  return data;
}

/** Creates a topic with its own bounds. */
export const createTopic = (origin, name, maxMessages, maxPublishRate) =>
  execute(
    origin,
    'mutation ($name: String!, $maxMessages: Int, $maxPublishRate: Int) { createTopic(name: $name, maxMessages: $maxMessages, maxPublishRate: $maxPublishRate) { name } }',
    { name, maxMessages, maxPublishRate },
  );

/** Publishes from outside the browser. Returns where the message stands. */
export async function publishAt(origin, topic, data) {
  const query = 'mutation ($topic: String!, $data: JSON!) { publish(topic: $topic, data: $data) { offset cursor } }';
  return (await execute(origin, query, { topic, data })).publish;
}

/** Publishes from outside the browser. Returns the offset. */
export const publish = async (origin, topic, data) => (await publishAt(origin, topic, data)).offset;

/** Publishes many messages from outside the browser, with one request for each 500. */
export async function publishMany(origin, topic, number, make) {
  const query = 'mutation ($messages: [PublishInput!]!) { publishMany(messages: $messages) { error { message } } }';
  for (let from = 0; from < number; from += 500) {
    const messages = Array.from({ length: Math.min(500, number - from) }, (_, index) => ({ topic, data: make(from + index) }));
    const { publishMany: results } = await execute(origin, query, { messages });
    const refused = results.find(({ error }) => error);
    if (refused) throw new Error(refused.error.message);
  }
}

/** Returns the number of live subscriptions. */
export async function subscribers(origin) {
  const response = await fetch(`${origin}/graphql?query={stats{subscribers}}`, { headers: credentials.get(origin) });
  return (await response.json()).data.stats.subscribers;
}
