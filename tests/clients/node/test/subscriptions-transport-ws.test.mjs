// Tests npm subscriptions-transport-ws with the legacy `graphql-ws` subprotocol, which old apps still use.

import { SubscriptionClient } from 'subscriptions-transport-ws';
import WebSocket from 'ws';
import { scenarios } from '../lib/scenarios.mjs';

scenarios('subscriptions-transport-ws', ({ ws }) => {
  const client = new SubscriptionClient(ws, { reconnect: true, reconnectionAttempts: 1_000, minTimeout: 2_000 }, WebSocket);
  // The client waits for seconds between tries, and has no setting for a shorter time.
  client.maxConnectTimeGenerator.duration = () => 2_000;
  client.backoff.duration = () => 20;
  client.onError(() => {});
  return {
    run: ({ text, name }, variables) =>
      new Promise((resolve, reject) => {
        let result;
        client.request({ query: text, operationName: name, variables }).subscribe({
          next: (next) => (result = next),
          error: (error) => (error?.extensions ? resolve({ errors: [error] }) : reject(error)),
          complete: () => resolve(result),
        });
      }),
    subscribe: ({ text, name }, variables, sink) => {
      const running = client.request({ query: text, operationName: name, variables }).subscribe({
        next: sink.next,
        error: (error) => sink.end([error]),
        complete: () => sink.end(),
      });
      return () => running.unsubscribe();
    },
    close: () => {
      // Closing the client between two connections leaves its timers running.
      client.reconnect = false;
      client.close(true);
      client.clearTryReconnectTimeout();
      client.clearMaxConnectTimeout();
      client.clearCheckConnectionInterval();
    },
  };
}, {
  // If the connection is cut while the client reconnects, between its start and the server's ack, the client forgets
  // its operations. A server cannot prevent that.
  spared: 400,
});
