// Sends GraphiQL's operations to this server, with the credential of the session.

import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { Kind, OperationTypeNode, parse } from 'graphql';
import { createClient } from 'graphql-ws';
import { Listed } from './listed.js';
import { authorized, hasCredential, isRefused, unauthenticated, withCredential } from '../session.js';

// The page's own URL is correct behind any proxy, whatever prefix the proxy adds.
export const endpoint = new URL(window.location.pathname, window.location.href);
const socket = new URL(endpoint);
socket.protocol = endpoint.protocol === 'https:' ? 'wss:' : 'ws:';

/** Begins a subscription. Each has its own socket, because its headers are the payload of `connection_init`. */
function subscribe(request, headers) {
  // By default the client tries again whenever the socket is closed, after a refusal with the same credential.
  const shouldRetry = (event) => 'reason' in event && !isRefused(event);
  return createClient({ url: socket.href, connectionParams: headers, shouldRetry }).iterate(request);
}

/**
 * GraphiQL's fetcher.
 *
 * GraphiQL parses a document only 100 ms after it changed. An operation that is run sooner would be sent with the name
 * and the transport of the previous document, so it is parsed again here.
 */
export function fetcherFor(session) {
  const send = window.fetch.bind(window);
  // The credential for which the person was asked, and did not sign in. GraphiQL asks for the schema by itself and twice in
  // a row; that asks the person only once.
  let dismissed;
  const fetch = async (url, init) => {
    const isSchema = JSON.parse(init.body).operationName === 'IntrospectionQuery';
    if (isSchema && dismissed === session.credential) {
      return send(url, { ...init, headers: withCredential(session, init.headers) });
    }
    const response = await authorized(session, send)(url, init);
    dismissed = response.status === 401 ? session.credential : undefined;
    return response;
  };
  const ask = createGraphiQLFetcher({ url: endpoint.href, fetch, enableIncrementalDelivery: false });

  return async (request, options = {}) => {
    let documentAST;
    try {
      documentAST = parse(request.query);
    } catch {
      // The server's error says what is wrong with the document.
      return ask(request, options);
    }
    const operations = documentAST.definitions.filter(({ kind }) => kind === Kind.OPERATION_DEFINITION);
    const operationName = operations.length === 1 ? operations[0].name?.value : request.operationName;
    const operation = operations.find(({ name }) => name?.value === operationName) ?? operations[0];
    const named = { ...request, operationName };
    if (operation?.operation === OperationTypeNode.SUBSCRIPTION) {
      const open = () => subscribe(named, withCredential(session, options.headers));
      return new Listed(session, open, !hasCredential(options.headers));
    }
    const used = session.credential;
    const result = await ask(named, { ...options, documentAST });
    const message = unauthenticated(result?.errors);
    // It was executed in part, so it is shown as it is, and not sent again.
    if (message && dismissed !== session.credential && !hasCredential(options.headers)) session.ask(message, used);
    return result;
  };
}
