// NATS servers with JetStream, on free ports of 127.0.0.1.

import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { TOP } from './server.mjs';
import { after, until, within } from './wait.mjs';

/** The project's other tests use this version, too. */
const VERSION = '2.15.1';

/** How long servers may take to elect a leader: an election takes 4 to 9 s, and a second one may be needed. */
export const AGREE = 40_000;

/** Returns a port that nobody listens on. */
export async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Returns whether something accepts connections there. */
export const listens = (port) =>
  new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });

// When the other end of its input is closed, which also happens if the test is killed, the program ends and its
// directory is removed.
const KEPT = `exec 3<&0
"$@" </dev/null 3<&- & child=$!
{ read -r _ <&3; kill -KILL $child; } 2>/dev/null & watch=$!
wait $child
echo "exit $?" >"$DIRECTORY/ended"
wait $watch
rm -rf "$DIRECTORY"`;

/** A program with its own directory. Both end with the test `t`, or with the test's process. */
export class Program {
  #directory;

  /** `command` builds the command line from the directory. */
  static start(t, name, command) {
    const program = new Program();
    const directory = (program.#directory = mkdtempSync(path.join(os.tmpdir(), `pub-sub-${name}-`)));
    const log = openSync(path.join(directory, 'log'), 'a');
    const env = { PATH: process.env.PATH, DIRECTORY: directory };
    const child = spawn('sh', ['-c', KEPT, 'sh', ...command(directory)], { env, stdio: ['pipe', log, log] });
    closeSync(log);
    const gone = new Promise((resolve) => child.on('close', resolve));
    program.stop = async () => {
      child.stdin.end();
      await within(`the end of ${name}`, gone);
    };
    after(t, program.stop);
    return program;
  }

  #read(name) {
    const file = path.join(this.#directory, name);
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  get log() {
    return this.#read('log');
  }

  /** Fails if the program has ended by itself. */
  runs() {
    const ended = this.#read('ended');
    if (ended) throw new Error(`it has ended (${ended.trim()}): ${this.log.slice(-3_000)}`);
  }
}

function binary() {
  const file = path.join(TOP, 'target', 'tools', 'nats-server', VERSION, 'nats-server');
  if (!existsSync(file)) throw new Error(`there is no nats-server ${VERSION} for the tests of the clustered engine: run \`make nats-server\``);
  return file;
}

/** A single node, or the nodes of a cluster. */
export class Nats {
  /** Returns the nodes' addresses for clients. */
  get urls() {
    return this.nodes.map(({ port }) => `nats://127.0.0.1:${port}`);
  }

  /** Starts `count` nodes one after the other, and waits until they report that they are healthy. */
  static async start(t, count = 1) {
    const routes = [];
    for (let index = 0; index < count; index++) routes.push(await freePort());
    const nodes = [];
    for (const [index, route] of routes.entries()) {
      const cluster = ['--cluster_name', 'test', '--cluster', `nats://127.0.0.1:${route}`];
      const others = ['--routes', routes.map((port) => `nats://127.0.0.1:${port}`).join(',')];
      const args = (directory) => ['--jetstream', '--store_dir', path.join(directory, 'store'), '--name', `n${index + 1}`, ...(count > 1 ? [...cluster, ...others] : [])];
      nodes.push(await Nats.node(t, args));
    }
    return Nats.agreed(nodes);
  }

  /** Starts a node, whose arguments are built from its directory, and waits until it accepts connections: nodes of old
   * versions that start at the same instant do not always find each other. */
  static async node(t, args) {
    const [port, monitor] = [await freePort(), await freePort()];
    const file = binary();
    const program = Program.start(t, 'nats', (directory) => {
      mkdirSync(path.join(directory, 'store'));
      // If an argument is given twice, the last one counts.
      return [file, ...args(directory), '--addr', '127.0.0.1', '--port', `${port}`, '--http_port', `${monitor}`];
    });
    const node = { program, port, monitor };
    await until('nats-server listens', async () => (program.runs(), await listens(port)));
    return node;
  }

  /** Waits until the nodes have caught up with each other. */
  static async agreed(nodes) {
    const nats = new Nats();
    nats.nodes = nodes;
    let seen;
    const healthy = async ({ program, monitor }) => {
      program.runs();
      const answer = await fetch(`http://127.0.0.1:${monitor}/healthz`).catch(() => null);
      seen = await answer?.text();
      return answer?.status === 200;
    };
    for (const node of nodes) await until(() => `nats-server is healthy: ${seen}`, () => healthy(node), AGREE);
    return nats;
  }
}
