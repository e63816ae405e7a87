// Stock clients of GraphQL sign in as their documentation says, and go on with fresh credentials.

import { ApolloClient, ApolloLink, CombinedGraphQLErrors, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { SetContextLink } from '@apollo/client/link/context';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient as createSse } from 'graphql-sse';
import { createClient as createWs } from 'graphql-ws';
import relay from 'relay-runtime';
import { SubscriptionClient } from 'subscriptions-transport-ws';
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { pipe, subscribe } from 'wonka';
import WebSocket from 'ws';
import { bearer, guarded } from '../lib/access.mjs';
import { options as wsOptions } from '../lib/graphql-ws.mjs';
import { MESSAGES, PUBLISH, TOPIC } from '../lib/operations.mjs';
import { compile } from '../lib/relay.mjs';
import { after, DEADLINE, Inbox, within } from '../lib/wait.mjs';

// Apollo's link reads the name of the browser.
globalThis.WebSocket = WebSocket;

const options = { timeout: 60_000 };
const artifacts = await compile([TOPIC, PUBLISH, MESSAGES]);

/** Over graphql-ws and graphql-sse alike: the one result of a query or mutation. */
const one = (client, { text }, variables) =>
  new Promise((resolve, reject) => {
    let result;
    client.subscribe({ query: text, variables }, { next: (next) => (result = next), error: reject, complete: () => resolve(result) });
  });

const stream = (client, { text }, variables, inbox) =>
  client.subscribe({ query: text, variables }, {
    next: (result) => inbox.push(result),
    error: (error) => inbox.push({ failed: error }),
    complete: () => inbox.push({ completed: true }),
  });

/**
 * Each client with a credential: `run` resolves to the data of an operation or rejects with `refusal` in its text,
 * `subscribe` puts the data of each result into an inbox.
 */
const CLIENTS = {
  'graphql-ws, connectionParams': (t, { ws }, credential) => {
    const client = createWs({ ...wsOptions(WebSocket, ws), shouldRetry: () => false, connectionParams: bearer(credential) });
    after(t, () => client.dispose());
    return {
      refusal: '4403',
      run: (operation, variables) => one(client, operation, variables).then(({ data }) => data, ({ code, reason }) => { throw new Error(`${code} ${reason}`); }),
      subscribe: (operation, variables, inbox) => stream(client, operation, variables, { push: ({ data }) => inbox.push(data) }),
    };
  },
  'subscriptions-transport-ws, connectionParams': (t, { ws }, credential) => {
    const client = new SubscriptionClient(ws, { connectionParams: bearer(credential), reconnect: false }, WebSocket);
    after(t, () => client.close());
    const refused = new Promise((_, reject) => client.onError((error) => reject(new Error(`refused: ${error.message}`))));
    const failed = new Promise((_, reject) => client.on('connected', (error) => error && reject(new Error(`refused: ${JSON.stringify(error)}`))));
    // An operation on a refused connection never ends in this client.
    for (const promise of [refused, failed]) promise.catch(() => {});
    const ended = new Promise((_, reject) => client.onDisconnected(() => reject(new Error('refused: disconnected'))));
    ended.catch(() => {});
    const start = ({ text }, variables, sink) => client.request({ query: text, variables }).subscribe(sink);
    return {
      refusal: 'refused',
      run: (operation, variables) => {
        const answer = new Promise((resolve, reject) => start(operation, variables, { next: ({ data }) => resolve(data), error: reject }));
        return Promise.race([answer, refused, failed, ended]);
      },
      subscribe: (operation, variables, inbox) => start(operation, variables, { next: ({ data }) => inbox.push(data), error: () => {} }),
    };
  },
  ...Object.fromEntries([false, true].map((singleConnection) => [
    `graphql-sse, headers${singleConnection ? ', single connection' : ''}`,
    (t, { http }, credential) => {
      const client = createSse({ url: http, singleConnection, retryAttempts: 0, headers: () => bearer(credential) });
      after(t, () => client.dispose());
      return {
        refusal: '401',
        run: async (operation, variables) => {
          const { data } = await one(client, operation, variables).catch((error) => {
            throw new Error(`${error.response?.status ?? error}`);
          });
          return data;
        },
        subscribe: (operation, variables, inbox) => stream(client, operation, variables, { push: ({ data }) => inbox.push(data) }),
      };
    },
  ])),
  'Apollo, SetContextLink and GraphQLWsLink': (t, { http, ws }, credential) => {
    const socket = createWs({ ...wsOptions(WebSocket, ws), connectionParams: () => bearer(credential) });
    const authorized = new SetContextLink(({ headers }) => ({ headers: { ...headers, ...bearer(credential) } }));
    const link = ApolloLink.split(
      ({ operationType }) => operationType === 'subscription',
      new GraphQLWsLink(socket),
      authorized.concat(new HttpLink({ uri: http })),
    );
    const client = new ApolloClient({ link, cache: new InMemoryCache() });
    after(t, () => (client.stop(), socket.dispose()));
    return {
      refusal: 'UNAUTHENTICATED',
      run: async ({ kind, text }, variables) => {
        const asked = kind === 'query' ? client.query({ query: gql(text), variables }) : client.mutate({ mutation: gql(text), variables });
        return (await asked.catch((error) => {
          throw CombinedGraphQLErrors.is(error) ? new Error(error.errors[0].extensions.code) : error;
        })).data;
      },
      subscribe: ({ text }, variables, inbox) =>
        client.subscribe({ query: gql(text), variables, fetchPolicy: 'no-cache' }).subscribe({ next: ({ data }) => inbox.push(data) }),
    };
  },
  'Apollo, multipart subscriptions': (t, { http }, credential) => {
    const client = new ApolloClient({ link: new HttpLink({ uri: http, headers: bearer(credential) }), cache: new InMemoryCache() });
    after(t, () => client.stop());
    return {
      refusal: 'UNAUTHENTICATED',
      run: async ({ kind, text }, variables) => {
        const asked = kind === 'query' ? client.query({ query: gql(text), variables }) : client.mutate({ mutation: gql(text), variables });
        return (await asked.catch((error) => {
          throw CombinedGraphQLErrors.is(error) ? new Error(error.errors[0].extensions.code) : error;
        })).data;
      },
      subscribe: ({ text }, variables, inbox) =>
        client.subscribe({ query: gql(text), variables, fetchPolicy: 'no-cache' }).subscribe({ next: ({ data }) => inbox.push(data) }),
    };
  },
  'urql, fetchOptions and graphql-ws': (t, { http, ws }, credential) => {
    const socket = createWs({ ...wsOptions(WebSocket, ws), connectionParams: () => bearer(credential) });
    after(t, () => socket.dispose());
    const forwardSubscription = ({ query, variables }) => ({
      subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
    });
    const exchanges = [fetchExchange, subscriptionExchange({ forwardSubscription })];
    const client = new Client({ url: http, exchanges, preferGetMethod: false, fetchOptions: () => ({ headers: bearer(credential) }) });
    return {
      refusal: 'UNAUTHENTICATED',
      run: async ({ kind, text }, variables) => {
        const { data, error } = await client[kind](text, variables).toPromise();
        if (error) throw new Error(error.graphQLErrors[0]?.extensions.code ?? error.message);
        return data;
      },
      subscribe: ({ text }, variables, inbox) => {
        const { unsubscribe } = pipe(client.subscription(text, variables), subscribe(({ data }) => inbox.push(data)));
        after(t, unsubscribe);
      },
    };
  },
  'Relay, a network layer of fetch and graphql-ws': (t, { http, ws }, credential) => {
    const { commitMutation, Environment, fetchQuery, Network, Observable, RecordSource, requestSubscription, Store } = relay;
    const socket = createWs({ ...wsOptions(WebSocket, ws), connectionParams: () => bearer(credential) });
    after(t, () => socket.dispose());
    const fetcher = async ({ text }, variables) => {
      const headers = { 'content-type': 'application/json', ...bearer(credential) };
      const response = await fetch(http, { method: 'POST', headers, body: JSON.stringify({ query: text, variables }) });
      if (response.status === 401) throw new Error(`401: ${(await response.json()).errors[0].extensions.code}`);
      return response.json();
    };
    const subscriber = ({ text }, variables) => Observable.create((sink) => socket.subscribe({ query: text, variables }, sink));
    const environment = new Environment({ network: Network.create(fetcher, subscriber), store: new Store(new RecordSource()) });
    return {
      refusal: '401: UNAUTHENTICATED',
      run: ({ kind, name }, variables) => {
        if (kind === 'query') return fetchQuery(environment, artifacts[name], variables).toPromise();
        return new Promise((onCompleted, onError) => commitMutation(environment, { mutation: artifacts[name], variables, onCompleted, onError }));
      },
      subscribe: ({ name }, variables, inbox) => {
        requestSubscription(environment, { subscription: artifacts[name], variables, onNext: (data) => inbox.push(data) });
      },
    };
  },
};

for (const [name, connect] of Object.entries(CLIENTS)) {
  describe(name, { concurrency: 2 }, () => {
    for (const kind of ['API_KEY', 'a key of ACCESS_FILE', 'a token']) {
      test(`${kind} signs in`, options, async (t) => {
        const server = await guarded(t);
        await server.publish('news', { n: 1 });
        const client = connect(t, server, server.credentials[kind]);
        assert.equal((await client.run(TOPIC, { name: 'news' })).topic.messageCount, 1);
        assert.equal((await client.run(PUBLISH, { topic: 'news', data: { n: 2 } })).publish.offset, 2);
        const inbox = new Inbox();
        client.subscribe(MESSAGES, { topic: 'news', last: 1 }, inbox);
        assert.deepEqual((await inbox.next('the history')).messages.data, { n: 2 });
        await server.publish('news', { n: 3 });
        assert.deepEqual((await inbox.next('the message')).messages.data, { n: 3 });
      });
    }

    for (const kind of ['a wrong key', 'an expired token']) {
      test(`${kind} is refused`, options, async (t) => {
        const server = await guarded(t);
        const client = connect(t, server, kind === 'a wrong key' ? 'wrong' : server.fresh(-1));
        await assert.rejects(within('a refusal', client.run(TOPIC, { name: 'news' })), ({ message }) => {
          assert.ok(message.includes(client.refusal), message);
          return true;
        });
      });
    }
  });
}

for (const [form, payload] of Object.entries({
  Authorization: bearer,
  apiKey: (apiKey) => ({ apiKey }),
  token: (token) => ({ token }),
})) {
  test(`graphql-ws: connectionParams with ${form}`, options, async (t) => {
    const server = await guarded(t);
    const client = createWs({ ...wsOptions(WebSocket, server.ws), connectionParams: payload(server.credentials['a token']) });
    after(t, () => client.dispose());
    assert.equal((await one(client, PUBLISH, { topic: 'news', data: 1 })).data.publish.offset, 1);
  });
}

test('graphql-ws: connectionParams as a function fetches a fresh token after close 4403', options, async (t) => {
  const server = await guarded(t);
  const closes = [];
  let [token, mustRefresh] = [server.fresh(-1), false];
  // The recipe of graphql-ws for tokens that are refreshed.
  const client = createWs({
    ...wsOptions(WebSocket, server.ws),
    connectionParams: async () => {
      if (mustRefresh) token = server.fresh();
      mustRefresh = false;
      return bearer(token);
    },
    on: {
      closed: ({ code, reason }) => {
        closes.push(`${code} ${reason}`);
        if (code === 4403) mustRefresh = true;
      },
    },
  });
  after(t, () => client.dispose());
  const inbox = new Inbox();
  stream(client, MESSAGES, { topic: 'news', consumer: 'tab-1' }, inbox);
  await server.subscribers('news', 1);
  await server.publish('news', 1);
  assert.equal((await inbox.next()).data.messages.data, 1);
  assert.deepEqual(closes, ['4403 Forbidden: the token has expired']);
});

test('graphql-ws: a token that expires in mid-stream ends the subscription, and nothing is lost with the next one', options, async (t) => {
  const server = await guarded(t);
  const seconds = [3, 3_600];
  const client = createWs({ ...wsOptions(WebSocket, server.ws), connectionParams: () => bearer(server.fresh(seconds.shift())) });
  after(t, () => client.dispose());
  const read = (inbox) => stream(client, MESSAGES, { topic: 'news', consumer: 'tab-1', ack: 'EXPLICIT' }, inbox);
  const first = new Inbox();
  read(first);
  await server.subscribers('news', 1);
  await server.publish('news', 1);
  assert.equal((await first.next()).data.messages.data, 1);
  const { errors } = await within('the end', first.next('the end of the token'), DEADLINE);
  assert.equal(errors[0].extensions.code, 'UNAUTHENTICATED');
  assert.ok((await first.next('the end of the stream')).completed);
  await server.publish('news', 2);
  // The client has closed the idle connection, and signs in again with the next one.
  const second = new Inbox();
  read(second);
  for (const data of [1, 2]) assert.equal((await second.next()).data.messages.data, data);
  assert.deepEqual(seconds, []);
});

test('graphql-ws: a key that is taken out of the access file ends its subscription', options, async (t) => {
  const server = await guarded(t);
  const key = server.credentials['a key of ACCESS_FILE'];
  const client = createWs({ ...wsOptions(WebSocket, server.ws), connectionParams: bearer(key) });
  after(t, () => client.dispose());
  const inbox = new Inbox();
  stream(client, MESSAGES, { topic: 'news' }, inbox);
  await server.subscribers('news', 1);
  server.write({ other: 'another key' });
  const { errors } = await inbox.next('the end of the key');
  assert.equal(errors[0].extensions.code, 'UNAUTHENTICATED');
  await server.subscribers('news', 0);
});

test('graphql-sse: headers as a function go on with a fresh token where the stream ended', options, async (t) => {
  const server = await guarded(t);
  const seconds = [3, 3_600];
  const client = createSse({ url: server.http, retryAttempts: 0, headers: () => bearer(server.fresh(seconds.shift())) });
  after(t, () => client.dispose());
  const first = new Inbox();
  stream(client, MESSAGES, { topic: 'news' }, first);
  await server.subscribers('news', 1);
  await server.publish('news', 1);
  const { cursor } = (await first.next()).data.messages;
  assert.equal((await first.next('the end of the token')).errors[0].extensions.code, 'UNAUTHENTICATED');
  assert.ok((await first.next('the end of the stream')).completed);
  await server.publish('news', 2);
  const second = new Inbox();
  stream(client, MESSAGES, { topic: 'news', after: cursor }, second);
  assert.equal((await second.next()).data.messages.data, 2);
});
