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

/** Starts a server, which ends with the test `t`, and returns its origin. */
export async function start(t, settings = {}) {
  const env = { PATH: process.env.PATH, HOST: '127.0.0.1', PORT: '0', LOG: 'info', ...settings };
  const child = spawn(binary(), [], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  const gone = new Promise((resolve) => child.once('close', resolve));
  t.after(async () => {
    child.kill('SIGKILL');
    await gone;
  });
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
  return origin;
}

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

/** Creates a topic with its own bound. */
export async function createTopic(origin, name, maxMessages) {
  const query = `mutation { createTopic(name: "${name}", maxMessages: ${maxMessages}) { name } }`;
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${origin}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query }) });
  if (!response.ok) throw new Error(await response.text());
}

/** Publishes from outside the browser. */
export async function publish(origin, topic, data) {
  const response = await fetch(`${origin}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...credentials.get(origin) },
    body: JSON.stringify({
      query: 'mutation ($topic: String!, $data: JSON!) { publish(topic: $topic, data: $data) { offset } }',
      variables: { topic, data },
    }),
  });
  const { data: published, errors } = await response.json();
  if (errors) throw new Error(JSON.stringify(errors));
  return published.publish.offset;
}

/** Returns the number of live subscriptions. */
export async function subscribers(origin) {
  const response = await fetch(`${origin}/graphql?query={stats{subscribers}}`, { headers: credentials.get(origin) });
  return (await response.json()).data.stats.subscribers;
}
