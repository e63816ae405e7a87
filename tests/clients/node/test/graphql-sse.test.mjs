// Tests npm graphql-sse in both of its modes.

import { createClient } from 'graphql-sse';
import { scenarios } from '../lib/scenarios.mjs';

const AGAIN = 20;

const make =
  (more) =>
  ({ http }) => {
    const fresh = () =>
      createClient({ ...more, url: http, retryAttempts: 1_000, retry: () => new Promise((resolve) => setTimeout(resolve, AGAIN)) });
    let client = fresh();
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
      subscribe: ({ text, name }, variables, sink) => {
        let [stop, stopped] = [() => {}, false];
        const begin = () => {
          stop = client.subscribe({ query: text, operationName: name, variables }, {
            next: sink.next,
            // After most cuts the client retries by itself. If it notices a cut between two results, or inside the
            // response that has the token, it passes on fetch's own error, and every later try of this client is
            // "aborted". A server cannot prevent that: users create a new client and subscribe again.
            error: (error) => {
              if (!(error instanceof TypeError)) return sink.end([error]);
              client.dispose();
              client = fresh();
              if (!stopped) begin();
            },
            complete: () => sink.end(),
          });
        };
        begin();
        return () => {
          stopped = true;
          stop();
        };
      },
      close: () => client.dispose(),
    };
  };

// A client sends nothing back on an HTTP stream, so the server cannot know what was lost in a cut. AUTO is for
// WebSockets.
scenarios('graphql-sse', make({}), { auto: false });
scenarios('graphql-sse, single connection', make({ singleConnection: true }), { auto: false });
