// Each test has its own pub-sub server.

import { spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
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

/** Starts a server, which ends with the test `t`, and returns its origin. */
export async function start(t) {
  const env = { PATH: process.env.PATH, HOST: '127.0.0.1', PORT: '0', LOG: 'info' };
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
  return `http://127.0.0.1:${port}`;
}

/** Publishes from outside the browser. */
export async function publish(origin, topic, data) {
  const response = await fetch(`${origin}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
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
  const response = await fetch(`${origin}/graphql?query={stats{subscribers}}`);
  return (await response.json()).data.stats.subscribers;
}
