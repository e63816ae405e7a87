// Clients that keep objects by their id, with their stock settings: messages of two topics are two messages, also where their
// publishers gave them the same id.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApolloClient, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { Client, fetchExchange } from '@urql/core';
import { cacheExchange } from '@urql/exchange-graphcache';
import relay from 'relay-runtime';
import { compile } from '../lib/relay.mjs';
import { Server } from '../lib/server.mjs';

const { Environment, fetchQuery, Network, RecordSource, Store } = relay;

const page = 'messages(last: 1) { nodes { id messageId topic data } }';
const BOTH = {
  kind: 'query',
  name: 'Both',
  text: `query Both { one: topic(name: "one") { name ${page} } other: topic(name: "other") { name ${page} } }`,
};
const PUBLISH = {
  kind: 'mutation',
  name: 'Again',
  text: `mutation Again($topic: String!, $data: JSON!) {
  publish(topic: $topic, data: $data, messageId: "same") { id messageId topic }
}`,
};

/** Publishes to two topics under one id with `run`, reads both twice, and looks at what the client shows. */
async function twoTopics(t, make) {
  const server = await Server.start(t);
  const { run, close } = make(server.http);
  t.after(() => close?.());
  const ids = [];
  for (const topic of ['one', 'other']) {
    const { publish } = await run(PUBLISH, { topic, data: `of ${topic}` });
    assert.deepEqual([publish.messageId, publish.topic], ['same', topic]);
    ids.push(publish.id);
  }
  assert.notEqual(ids[0], ids[1]);
  // The second time it comes out of what is kept, if the client keeps it.
  for (let round = 0; round < 2; round++) {
    const data = await run(BOTH, {});
    for (const [at, topic] of ['one', 'other'].entries()) {
      const [{ id, messageId, topic: of, data: content }] = data[topic].messages.nodes;
      assert.deepEqual([id, messageId, of, content], [ids[at], 'same', topic, `of ${topic}`]);
    }
  }
}

test('Apollo Client: InMemoryCache', { timeout: 60_000 }, (t) =>
  twoTopics(t, (uri) => {
    const client = new ApolloClient({ link: new HttpLink({ uri }), cache: new InMemoryCache() });
    return {
      run: async ({ kind, text }, variables) =>
        (await (kind === 'query' ? client.query({ query: gql(text), variables }) : client.mutate({ mutation: gql(text), variables }))).data,
      close: () => client.stop(),
    };
  }));

test('urql: graphcache', { timeout: 60_000 }, (t) =>
  twoTopics(t, (url) => {
    const client = new Client({ url, exchanges: [cacheExchange({}), fetchExchange], preferGetMethod: false });
    return {
      run: async ({ kind, text }, variables) => {
        const { data, error } = await client[kind](text, variables).toPromise();
        assert.equal(error, undefined);
        return data;
      },
    };
  }));

test('Relay: Store', { timeout: 60_000 }, async (t) => {
  const artifacts = await compile([BOTH, PUBLISH]);
  await twoTopics(t, (http) => {
    const fetcher = async ({ text, name }, variables) => {
      const body = JSON.stringify({ query: text, operationName: name, variables });
      return (await fetch(http, { method: 'POST', headers: { 'content-type': 'application/json' }, body })).json();
    };
    const environment = new Environment({ network: Network.create(fetcher), store: new Store(new RecordSource()) });
    return {
      run: ({ kind, name }, variables) =>
        kind === 'query'
          ? fetchQuery(environment, artifacts[name], variables, { fetchPolicy: 'store-or-network' }).toPromise()
          : new Promise((onCompleted, onError) => {
              relay.commitMutation(environment, { mutation: artifacts[name], variables, onCompleted, onError });
            }),
    };
  });
});
