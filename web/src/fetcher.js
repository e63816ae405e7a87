// Sends GraphiQL's operations to this server, with the credential of the session.

import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { Kind, OperationTypeNode, parse } from 'graphql';
import { createClient } from 'graphql-ws';
import { authorized, hasCredential, isRefused, unauthenticated, withCredential } from './session.js';

// The page's own URL is correct behind any proxy, whatever prefix the proxy adds.
export const endpoint = new URL(window.location.pathname, window.location.href);
const socket = new URL(endpoint);
socket.protocol = endpoint.protocol === 'https:' ? 'wss:' : 'ws:';

/** So many results of a subscription stay on the page. */
const KEPT = 100;

/** Begins a subscription. Each has its own socket, because its headers are the payload of `connection_init`. */
function subscribe(request, headers) {
  // The client would try again after a refusal, too, with the same credential.
  const shouldRetry = (event) => !isRefused(event);
  return createClient({ url: socket.href, connectionParams: headers, shouldRetry }).iterate(request);
}

/** The error as GraphiQL can show it. */
const shown = (error) =>
  error instanceof CloseEvent ? new Error(`The WebSocket was closed: ${error.code} ${error.reason}`.trim()) : error;

/** Why the server refused the subscription, if it was for the credential. */
const refusal = (error) => unauthenticated(error) ?? (isRefused(error) ? 'The server refused the connection.' : undefined);

/**
 * GraphiQL shows the newest result in place of the one before it. What came before would be gone from the screen, so each
 * result that GraphiQL gets is the list of what has come. It is no generator: one that waits for its next result cannot be
 * stopped.
 */
class Listed {
  #session;
  #open;
  #asks;
  #results;
  /** The credential with which it was opened. */
  #credential = '';
  #newestFirst = [];
  // Shows at once that the subscription waits.
  #received = -1;
  #ended = false;
  #forget;

  /** `open` begins the subscription. `asks` says whether the person is asked to sign in if the server refuses that. */
  constructor(session, open, asks) {
    this.#session = session;
    this.#open = open;
    this.#asks = asks;
    // What was subscribed to with a credential ends with it.
    this.#forget = session.subscribe(() => {
      if (this.#credential && !session.credential) this.return();
    });
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async next() {
    this.#received += 1;
    if (this.#received > 0) {
      const { done, value } = await this.#result();
      if (done) return this.return();
      this.#newestFirst.unshift(value);
      this.#newestFirst.length = Math.min(this.#newestFirst.length, KEPT);
    }
    return { done: this.#ended, value: { received: this.#received, newestFirst: this.#newestFirst } };
  }

  /** The next result. A refusal asks the person to sign in; before the first result, the subscription then begins again. */
  async #result() {
    while (!this.#ended) {
      this.#credential = this.#session.credential;
      try {
        this.#results ??= this.#open();
        return await this.#results.next();
      } catch (error) {
        const message = refusal(error);
        if (message === undefined || !this.#asks) throw shown(error);
        const answer = this.#session.ask(message, this.#credential);
        // What came after the last result would be lost without a word.
        if (this.#received > 1 || !(await answer)) throw shown(error);
        this.#results = undefined;
      }
    }
    return { done: true };
  }

  async return() {
    this.#ended = true;
    this.#forget();
    await this.#results?.return();
    return { done: true, value: undefined };
  }
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
