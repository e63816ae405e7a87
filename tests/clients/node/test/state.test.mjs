// A dashboard: it begins with the state, is cut at random while values change fast, and in the end shows exactly what the server
// has. Each stock client comes back in its own way.

import { EventSource } from 'eventsource';
import { createClient as createSseClient } from 'graphql-sse';
import { createClient as createWsClient } from 'graphql-ws';
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import WebSocket from 'ws';
import { consume } from '../../../../clients/typescript/dist/index.js';
import { options as graphqlWsOptions } from '../lib/graphql-ws.mjs';
import { Proxy, Server } from '../lib/server.mjs';
import { after, until } from '../lib/wait.mjs';

const KEYS = 2_000;
const UPDATES = 6_000;
const BATCH = 100;
const CUTS = 4;
const LONG = 60_000;

const QUERY = (args) => `subscription { messages(topic: "prices", state: true${args}) { key data offset cursor removed } }`;

/** What a page shows. */
class Dashboard {
  values = new Map();
  gaps = [];
  markers = 0;
  #newest = 0;
  /** The keys of the state that comes, where it comes again. */
  #coming;

  message({ key, data, offset, removed }) {
    // A client that sends its operation again gets the state again: what does not come until the marker is gone.
    if (offset <= this.#newest) this.#coming ??= new Set();
    this.#newest = Math.max(this.#newest, offset);
    this.#coming?.add(key);
    const known = this.values.get(key);
    if (known && known.offset > offset) return;
    if (removed) this.values.delete(key);
    else this.values.set(key, { data, offset });
  }

  complete() {
    this.markers += 1;
    for (const key of this.#coming ? [...this.values.keys()] : []) if (!this.#coming.has(key)) this.values.delete(key);
    this.#coming = undefined;
  }

  result({ data, errors, extensions }) {
    assert.equal(errors, undefined);
    if (extensions?.gap) this.gaps.push(extensions.gap);
    if (data?.messages) this.message(data.messages);
    if (extensions?.state) this.complete();
  }
}

const CLIENTS = {
  // It sends the same operation again, and the server knows where its consumer was.
  'graphql-ws': (t, at, dashboard) => {
    const client = createWsClient(graphqlWsOptions(WebSocket, at.ws));
    after(t, () => client.dispose());
    const sink = { next: (result) => dashboard.result(result), error: () => {}, complete: () => {} };
    client.subscribe({ query: QUERY(', consumer: "dashboard"') }, sink);
  },
  // It sends the same operation again, and gets the state again.
  'graphql-sse': (t, at, dashboard) => {
    let isOver = false;
    const begin = () => {
      const retry = () => new Promise((resolve) => setTimeout(resolve, 20));
      const client = createSseClient({ url: at.http, retryAttempts: 1_000, retry });
      // A cut between two results ends this client: users create a new one.
      const again = () => {
        client.dispose();
        if (!isOver) begin();
      };
      client.subscribe({ query: QUERY('') }, { next: (result) => dashboard.result(result), error: again, complete: () => {} });
    };
    begin();
    after(t, () => (isOver = true));
  },
  // It says where it was.
  EventSource: (t, at, dashboard) => {
    const source = new EventSource(`${at.origin}/topics/prices/messages?state=true`);
    after(t, () => source.close());
    source.addEventListener('message', ({ data }) => dashboard.message(JSON.parse(data)));
    source.addEventListener('gap', ({ data }) => dashboard.gaps.push(JSON.parse(data)));
    source.addEventListener('state', ({ data, lastEventId }) => {
      assert.equal(lastEventId, JSON.parse(data).cursor);
      dashboard.complete();
    });
  },
  'clients/typescript over websocket': package_('websocket'),
  'clients/typescript over event-stream': package_('event-stream'),
};

function package_(transport) {
  return (t, at, dashboard) => {
    const stop = new AbortController();
    let last = 0;
    const done = consume({
      url: at.origin,
      topic: 'prices',
      state: true,
      transport,
      WebSocket,
      EventSource,
      maxWaiting: 10 * KEYS,
      onMessage: (message) => {
        assert.ok(message.offset > last, 'it came twice');
        last = message.offset;
        dashboard.message(message);
      },
      onGap: (gap) => dashboard.gaps.push(gap),
      onState: () => dashboard.complete(),
      signal: stop.signal,
    });
    after(t, async () => {
      stop.abort();
      await done;
      assert.equal(dashboard.markers, 1);
    });
  };
}

async function publish(server, values) {
  // Nothing in the place of data removes the key.
  const item = ([key, data]) => ({ topic: 'prices', key: `k${key}`, ...(data === undefined ? { remove: true } : { data: { data, pad: 'x'.repeat(100) } }) });
  const body = JSON.stringify(values.map(item));
  const response = await fetch(`${server.origin}/publish`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
  assert.equal(response.status, 200);
}

/** The server's state, by pages. */
async function stateOf(server) {
  const state = new Map();
  for (let next = ''; next !== null; ) {
    const response = await fetch(`${server.origin}/topics/prices/state?limit=700${next && `&after=${next}`}`);
    const page = await response.json();
    for (const { key, data, offset } of page.messages) state.set(key, { data, offset });
    next = page.next;
  }
  return state;
}

describe('a dashboard', { concurrency: 2 }, () => {
  const cases = Object.entries(CLIENTS).flatMap(([name, begin]) => ['HISTORY', 'LATEST_PER_KEY'].map((retention) => [name, begin, retention]));
  for (const [name, begin, retention] of cases) {
    test(`${name}, ${retention}`, { timeout: 120_000 }, async (t) => {
      const server = await Server.start(t, { MAX_MESSAGES_PER_TOPIC: '50000' });
      const created = await fetch(`${server.origin}/topics`, { method: 'POST', body: JSON.stringify({ name: 'prices', retention }) });
      assert.equal(created.status, 201);
      const keys = Array.from({ length: KEYS }, (_, key) => key);
      for (let first = 0; first < KEYS; first += BATCH) await publish(server, keys.slice(first, first + BATCH).map((key) => [key, 0]));
      const proxy = await Proxy.start(t, server);
      Object.assign(proxy, { cutsLeft: CUTS, spared: 20_000, more: 500_000 });
      const dashboard = new Dashboard();
      begin(t, proxy, dashboard);
      let seed = proxy.seed;
      const random = () => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31);
      for (let count = 1; count <= UPDATES; count += BATCH) {
        await publish(server, Array.from({ length: BATCH }, (_, index) => [random() % KEYS, index % 10 === 0 ? undefined : count + index]));
      }
      // The rest of the cuts come in quiet times.
      proxy.cutsLeft = 0;
      proxy.cut();
      await publish(server, [[0, 'last']]);
      const truth = await stateOf(server);
      assert.ok(truth.size > KEYS / 2 && truth.size < KEYS, `${truth.size} keys`);
      const differs = () => [...truth].filter(([key, { offset }]) => dashboard.values.get(key)?.offset !== offset).length;
      const isSame = () => dashboard.values.size === truth.size && differs() === 0;
      await until(() => `the same state (SEED=${proxy.seed}): ${differs()} values differ, gaps ${JSON.stringify(dashboard.gaps)}`, isSame, LONG);
      assert.equal(dashboard.values.get('k0').data.data, 'last');
      // Where the newest of each key is kept, a client that comes back is told what was replaced meanwhile, and loses no value by it.
      assert.deepEqual(dashboard.gaps.filter(({ reason }) => retention === 'HISTORY' || reason !== 'COMPACTED'), []);
      assert.ok(proxy.cuts > 0);
    });
  }
});
