// With FEDERATION=true, Apollo's composition joins the subgraph with another one, and Apollo's gateway executes queries
// that span both.

import { composeServices } from '@apollo/composition';
import { ApolloGateway, LocalGraphQLDataSource, RemoteGraphQLDataSource } from '@apollo/gateway';
import { buildSubgraphSchema } from '@apollo/subgraph';
import { execFileSync } from 'node:child_process';
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parse } from 'graphql';
import { binary, Server } from '../lib/server.mjs';
import { after, within } from '../lib/wait.mjs';

const options = { timeout: 60_000 };
const FEDERATED = { FEDERATION: 'true' };

/** Another team's service, which knows who owns a topic and has its own pages. */
const OWNERS = parse(`
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@key", "@shareable"])

  type Topic @key(fields: "name") {
    name: String!
    owner: String
  }

  type PageInfo @shareable {
    hasNextPage: Boolean!
    hasPreviousPage: Boolean!
    startCursor: String
    endCursor: String
  }

  type Query {
    owned(by: String!): [Topic]!
    ownersPage: PageInfo!
  }
`);
const BOOK = { news: 'the desk', orders: 'the shop', gone: 'the shop' };
const resolvers = {
  Topic: { __resolveReference: ({ name }) => ({ name, owner: BOOK[name] ?? null }) },
  Query: {
    owned: (_, { by }) => Object.entries(BOOK).filter(([, owner]) => owner === by).map(([name, owner]) => ({ name, owner })),
    ownersPage: () => ({ hasNextPage: false, hasPreviousPage: false, startCursor: null, endCursor: null }),
  },
};

async function query(server, text, variables) {
  const response = await fetch(server.http, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query: text, variables }),
  });
  return response.json();
}

const served = async (server) => (await query(server, '{ _service { sdl } }')).data._service.sdl;

function compose(sdl, url = 'http://127.0.0.1/graphql') {
  const { errors, hints, supergraphSdl } = composeServices([
    { name: 'pub-sub', url, typeDefs: parse(sdl) },
    { name: 'owners', url: 'http://127.0.0.1/owners', typeDefs: OWNERS },
  ]);
  assert.deepEqual(errors?.map(({ message }) => message) ?? [], []);
  assert.deepEqual(hints.map(({ message }) => message), []);
  return supergraphSdl;
}

describe('federation', { concurrency: false }, () => {
  test('the subgraph that is served composes with another one', options, async (t) => {
    const server = await Server.start(t, FEDERATED);
    const supergraph = compose(await served(server));
    assert.match(supergraph, /type Topic\b[^{]*@join__type\(graph: PUB_SUB, key: "name"\)/);
    assert.match(supergraph, /type Subscription\b/);
  });

  test('what `pub-sub schema` prints is what is served', options, async (t) => {
    const server = await Server.start(t, FEDERATED);
    const printed = execFileSync(binary(), ['schema', '--federation=true'], { encoding: 'utf8' });
    assert.equal(printed.trim(), (await served(server)).trim());
  });

  test('without the setting nothing of it is there', options, async (t) => {
    const server = await Server.start(t);
    for (const text of ['{ _service { sdl } }', '{ _entities(representations: []) { __typename } }']) {
      assert.equal((await query(server, text)).errors[0].extensions.code, 'BAD_REQUEST');
    }
  });

  test('a list of entities: each at its index, null where there is none', options, async (t) => {
    const server = await Server.start(t, FEDERATED);
    await server.publish('news', 1);
    const text = 'query ($r: [_Any!]!) { _entities(representations: $r) { __typename ... on Topic { name messageCount } } }';
    const r = ['gone', 'news', 'a.*', 'news'].map((name) => ({ __typename: 'Topic', name }));
    const found = { __typename: 'Topic', name: 'news', messageCount: 1 };
    assert.deepEqual(await query(server, text, { r }), { data: { _entities: [null, found, null, found] } });
  });

  test('entities weigh as much as they are many', options, async (t) => {
    const server = await Server.start(t, { ...FEDERATED, MAX_COMPLEXITY: '100' });
    const text = 'query ($r: [_Any!]!) { _entities(representations: $r) { ... on Topic { name epoch messageCount } } }';
    const ask = (count) => query(server, text, { r: Array(count).fill({ __typename: 'Topic', name: 'a' }) });
    assert.equal((await ask(25)).data._entities.length, 25);
    assert.equal((await ask(26)).errors[0].extensions.code, 'BAD_REQUEST');
  });

  test('Apollo’s gateway executes queries and mutations that span both', options, async (t) => {
    const server = await Server.start(t, FEDERATED);
    const owners = buildSubgraphSchema({ typeDefs: OWNERS, resolvers });
    const gateway = new ApolloGateway({
      supergraphSdl: compose(await served(server), server.http),
      buildService: ({ name, url }) => (name === 'owners' ? new LocalGraphQLDataSource(owners) : new RemoteGraphQLDataSource({ url })),
    });
    after(t, () => gateway.stop());
    const { schema, executor } = await within('the gateway', gateway.load());
    const kept = new Map();
    const cache = { get: async (key) => kept.get(key), set: async (key, value) => void kept.set(key, value), delete: async (key) => kept.delete(key) };
    let asked = 0;
    const run = async (text, variables = {}) => {
      const document = parse(text);
      const [operation] = document.definitions;
      const { data, errors } = await within('the answer', executor({
        cache,
        context: {},
        document,
        logger: { debug() {}, info() {}, warn() {}, error() {} },
        metrics: {},
        operation,
        operationName: null,
        queryHash: `${(asked += 1)}`,
        request: { query: text, variables },
        schema,
        source: text,
      }));
      // deepEqual never matches objects without a prototype.
      return JSON.parse(JSON.stringify({ data, errors }));
    };

    const publish = 'mutation ($topic: String!, $data: JSON!) { publish(topic: $topic, data: $data) { offset duplicate } }';
    for (const [topic, data] of [['news', { big: 1e21 }], ['orders', 2], ['orders', 3]]) {
      assert.equal((await run(publish, { topic, data })).errors, undefined);
    }
    // The query goes from this service to the other one.
    const topics = await run('{ topics { nodes { name owner messages(last: 1) { nodes { data } } } } ownersPage { hasNextPage } }');
    assert.deepEqual(topics, {
      data: {
        topics: {
          nodes: [
            { name: 'news', owner: 'the desk', messages: { nodes: [{ data: { big: 1e21 } }] } },
            { name: 'orders', owner: 'the shop', messages: { nodes: [{ data: 3 }] } },
          ],
        },
        ownersPage: { hasNextPage: false },
      },
    });
    // And from the other service to this one: topics are found by their names. A topic that only the other service
    // knows is null.
    const owned = await run('{ owned(by: "the shop") { name messageCount } }');
    assert.deepEqual(owned, { data: { owned: [{ name: 'orders', messageCount: 2 }, null] } });
    // An error of this service reaches the client with its code.
    const conflict = await run('mutation { publish(topic: "news", data: 1, expectedOffset: 9) { offset } }');
    assert.equal(conflict.errors[0].extensions.code, 'CONFLICT');
  });
});
