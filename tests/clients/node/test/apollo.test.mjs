// Apollo Client 4: HttpLink (subscriptions as multipart/mixed), and GraphQLWsLink.

import { ApolloClient, ApolloLink, CombinedGraphQLErrors, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { RetryLink } from '@apollo/client/link/retry';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { options } from '../lib/graphql-ws.mjs';
import { scenarios } from '../lib/scenarios.mjs';

// Apollo's link reads the name of the browser.
globalThis.WebSocket = WebSocket;

function driver(link, close) {
  const client = new ApolloClient({
    link,
    cache: new InMemoryCache(),
    defaultOptions: { query: { fetchPolicy: 'no-cache', errorPolicy: 'all' }, mutate: { fetchPolicy: 'no-cache', errorPolicy: 'all' } },
  });
  const result = ({ data, error, extensions }) => {
    if (error && !CombinedGraphQLErrors.is(error)) throw error;
    return { data, errors: error?.errors, extensions };
  };
  return {
    run: async ({ kind, text }, variables) => {
      const document = gql(text);
      return result(
        await (kind === 'query' ? client.query({ query: document, variables }) : client.mutate({ mutation: document, variables })),
      );
    },
    subscribe: ({ text }, variables, sink) => {
      const running = client.subscribe({ query: gql(text), variables, fetchPolicy: 'no-cache', errorPolicy: 'all' }).subscribe({
        next: (next) => (next.error && !CombinedGraphQLErrors.is(next.error) ? sink.end([next.error]) : sink.next(result(next))),
        error: (error) => sink.end(CombinedGraphQLErrors.is(error) ? error.errors : [error]),
        complete: () => sink.end(),
      });
      return () => running.unsubscribe();
    },
    close: async () => {
      client.stop();
      await close?.();
    },
  };
}

const retry = () => new RetryLink({ attempts: () => true, delay: () => 20 });

scenarios(
  'Apollo HttpLink, multipart subscriptions',
  ({ http }) => driver(ApolloLink.from([retry(), new HttpLink({ uri: http })])),
  // A client sends nothing back on an HTTP stream, so the server cannot know what was lost in a cut. AUTO is for
  // WebSockets.
  { auto: false },
);

scenarios('Apollo GraphQLWsLink', ({ ws }) => {
  const client = createClient(options(WebSocket, ws));
  return driver(new GraphQLWsLink(client), () => client.dispose());
});
