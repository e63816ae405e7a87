// graphql-ws with the options that its documentation recommends for a client that stays connected.

export const options = (WebSocket, url) => ({
  url,
  webSocketImpl: WebSocket,
  retryAttempts: 1_000,
  shouldRetry: () => true,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 20)),
});

export function graphqlWs(createClient, WebSocket, url, more = {}) {
  const client = createClient({ ...options(WebSocket, url), ...more });
  return {
    run: ({ text, name }, variables) =>
      new Promise((resolve, reject) => {
        let result;
        client.subscribe({ query: text, operationName: name, variables }, {
          next: (next) => (result = next),
          error: (error) => (Array.isArray(error) ? resolve({ errors: error }) : reject(error)),
          complete: () => resolve(result),
        });
      }),
    subscribe: ({ text, name }, variables, sink) =>
      client.subscribe({ query: text, operationName: name, variables }, {
        next: sink.next,
        error: (error) => sink.end(Array.isArray(error) ? error : [error]),
        complete: () => sink.end(),
      }),
    close: () => client.dispose(),
  };
}
