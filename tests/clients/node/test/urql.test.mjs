// Tests urql: fetchExchange, with and without subscriptions over fetch, and subscriptionExchange over graphql-ws and
// graphql-sse.

import { Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient as createSse } from 'graphql-sse';
import { createClient as createWs } from 'graphql-ws';
import { pipe, subscribe } from 'wonka';
import WebSocket from 'ws';
import { options } from '../lib/graphql-ws.mjs';
import { scenarios } from '../lib/scenarios.mjs';

function driver(url, exchanges, close, more = {}) {
  const client = new Client({ url, exchanges, requestPolicy: 'network-only', preferGetMethod: false, ...more });
  const result = ({ data, error, extensions }) => {
    if (error?.networkError) throw error.networkError;
    return { data, errors: error?.graphQLErrors, extensions };
  };
  return {
    run: async ({ kind, text }, variables) => result(await client[kind](text, variables).toPromise()),
    subscribe: ({ text }, variables, sink) => {
      // urql carries errors and extensions over to later results, and reports only that a subscription has ended.
      const next = (operation) => {
        if (operation.error) sink.end(operation.error.networkError ? [operation.error.networkError] : operation.error.graphQLErrors);
        else if (operation.hasNext) sink.next(result(operation));
        else sink.end();
      };
      const { unsubscribe } = pipe(client.subscription(text, variables), subscribe(next));
      return unsubscribe;
    },
    close,
  };
}

const overWs = (client) =>
  subscriptionExchange({
    forwardSubscription: ({ query, variables }) => ({
      subscribe: (sink) => ({ unsubscribe: client.subscribe({ query, variables }, sink) }),
    }),
  });

scenarios('urql fetchExchange and subscriptionExchange with graphql-ws', ({ http, ws }) => {
  const client = createWs(options(WebSocket, ws));
  return driver(http, [fetchExchange, overWs(client)], () => client.dispose());
}, { sticky: true });

scenarios(
  'urql subscriptionExchange with graphql-sse',
  ({ http }) => {
    const client = createSse({ url: http, retryAttempts: 1_000, retry: () => new Promise((resolve) => setTimeout(resolve, 20)) });
    return driver(http, [fetchExchange, overWs(client)], () => client.dispose());
  },
  // A client sends nothing back on an HTTP stream, so the server cannot know what was lost in a cut. AUTO is for
  // WebSockets.
  { auto: false, sticky: true },
);

scenarios('urql fetchExchange with fetchSubscriptions', ({ http }) => driver(http, [fetchExchange], undefined, { fetchSubscriptions: true }), {
  // urql does not retry by itself.
  reconnects: false,
});
