// Runs the README's examples in JavaScript as printed. (tests/it/readme.rs runs those for a shell.)

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { Server, TOP } from '../lib/server.mjs';
import { after, Inbox, until } from '../lib/wait.mjs';

const options = { timeout: 60_000 };
const [atConsole, follow, resume, ...others] = readFileSync(path.join(TOP, 'README.md'), 'utf8')
  .split('```js\n')
  .slice(1)
  .map((block) => block.split('```')[0]);

/** Saves an example as a module, with a server's port in it, and runs it. `printed` has its lines. */
function run(t, example, server) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-readme-'));
  after(t, () => rmSync(folder, { recursive: true }));
  symlinkSync(fileURLToPath(new URL('../node_modules', import.meta.url)), path.join(folder, 'node_modules'));
  writeFileSync(path.join(folder, 'example.mjs'), example.replaceAll('localhost:8080', `127.0.0.1:${server.port}`));
  const child = spawn(process.execPath, ['example.mjs'], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  after(t, () => (child.kill('SIGKILL'), gone));
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text));
  const prints = (text) => until(() => `${JSON.stringify(text)} in ${JSON.stringify(said)}`, () => said.includes(text));
  return { prints, printed: () => said.trim().split('\n') };
}

describe('README.md', { concurrency: 3 }, () => {
  test('it has the three examples', () => assert.deepEqual(others, []));

  test('/ws in a browser’s console', options, async (t) => {
    const server = await Server.start(t);
    const frames = new Inbox();
    let socket;
    class Connection extends WebSocket {
      constructor(address) {
        super(address.replace('localhost:8080', `127.0.0.1:${server.port}`));
        socket = this;
      }
    }
    new Function('WebSocket', 'console', atConsole)(Connection, { log: (text) => frames.push(JSON.parse(text)) });
    after(t, () => socket.terminate());
    const came = [await frames.next(), await frames.next(), await frames.next()];
    assert.deepEqual(came.map(({ type }) => type).sort(), ['ack', 'ack', 'event']);
    assert.equal(came.find(({ type }) => type === 'event').data, 'Hello World!');
  });

  test('graphql-ws', options, async (t) => {
    const server = await Server.start(t);
    const { prints } = run(t, follow, server);
    await server.subscribers('news', 1);
    await server.publish('news', 'Hello World!');
    await prints("{ offset: 1, data: 'Hello World!' }");
  });

  test('a client that loses nothing, across a restart of the server', options, async (t) => {
    const directory = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-readme-'));
    after(t, () => rmSync(directory, { recursive: true, force: true }));
    const server = await Server.start(t, { ENGINE: 'disk', DATA_DIR: directory });
    const { prints, printed } = run(t, resume, server);
    await server.subscribers('news', 1);
    await server.publish('news', 'one');
    await prints('one');
    await until('the acknowledgement', async () => (await server.consumers('news'))[0].positions[0].offset === 1);
    await server.restart();
    await server.publish('news', 'two');
    await prints('two');
    assert.deepEqual(printed(), ['a new consumer: beginning with the last 100', 'one', 'two']);
  });
});
