// npm graphql-sse in both of its modes.

import { createClient } from 'graphql-sse';
import { scenarios } from '../lib/scenarios.mjs';

const make =
  (more) =>
  ({ http }) => {
    const client = createClient({ ...more, url: http, retryAttempts: 1_000, retry: () => new Promise((resolve) => setTimeout(resolve, 20)) });
    return {
      run: ({ text, name }, variables) =>
        new Promise((resolve, reject) => {
          let result;
          client.subscribe({ query: text, operationName: name, variables }, {
            next: (next) => (result = next),
            error: reject,
            complete: () => resolve(result),
          });
        }),
      subscribe: ({ text, name }, variables, sink) =>
        client.subscribe({ query: text, operationName: name, variables }, {
          next: sink.next,
          error: (error) => sink.end([error]),
          complete: () => sink.end(),
        }),
      close: () => client.dispose(),
    };
  };

// Nothing comes back on an HTTP stream, so the server cannot know what a cut swallowed: AUTO is for sockets.
scenarios('graphql-sse', make({}), { auto: false });
scenarios('graphql-sse, single connection', make({ singleConnection: true }), { auto: false });
