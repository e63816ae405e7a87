// GraphiQL for this server: it uses the page's own endpoint, and its tabs show what the service does.

import 'graphiql/style.css';
import './main.css';
import './workers.js';
import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { GraphiQL } from 'graphiql';
import { Kind, OperationTypeNode, parse } from 'graphql';
import { createRoot } from 'react-dom/client';
import { examples } from './examples.js';

// The page's own URL is correct behind any proxy, whatever prefix the proxy adds.
const endpoint = new URL(window.location.pathname, window.location.href);
const socket = new URL(endpoint);
socket.protocol = endpoint.protocol === 'https:' ? 'wss:' : 'ws:';

const ask = createGraphiQLFetcher({
  url: endpoint.href,
  // Each subscription has its own socket, because the Headers pane is sent as the payload of `connection_init`.
  subscriptionUrl: socket.href,
  enableIncrementalDelivery: false,
});

/** So many results of a subscription stay on the page. */
const KEPT = 100;

/**
 * GraphiQL shows the newest result in place of the one before it. What came before would be gone from the screen, so each
 * result that GraphiQL gets is the list of what has come. It is no generator: one that waits for its next result cannot be
 * stopped.
 */
function listed(results) {
  const iterator = results[Symbol.asyncIterator]();
  const newestFirst = [];
  // Shows at once that the subscription waits.
  let received = -1;
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    async next() {
      received += 1;
      if (received > 0) {
        const { done, value } = await iterator.next();
        if (done) return { done, value };
        newestFirst.unshift(value);
        newestFirst.length = Math.min(newestFirst.length, KEPT);
      }
      return { done: false, value: { received, newestFirst } };
    },
    return: (value) => iterator.return(value),
  };
}

/**
 * GraphiQL parses a document only 100 ms after it changed. An operation that is run sooner would be sent with the name
 * and the transport of the previous document, so it is parsed again here.
 */
async function fetcher(request, options) {
  let documentAST;
  try {
    documentAST = parse(request.query);
  } catch {
    // The server's error says what is wrong with the document.
    return ask(request, options);
  }
  const operations = documentAST.definitions.filter(({ kind }) => kind === Kind.OPERATION_DEFINITION);
  const operationName = operations.length === 1 ? operations[0].name?.value : request.operationName;
  const result = await ask({ ...request, operationName }, { ...options, documentAST });
  const operation = operations.find(({ name }) => name?.value === operationName) ?? operations[0];
  const subscribes = operation?.operation === OperationTypeNode.SUBSCRIPTION;
  return subscribes && Symbol.asyncIterator in result ? listed(result) : result;
}

createRoot(document.getElementById('graphiql')).render(
  <GraphiQL fetcher={fetcher} defaultTabs={examples} shouldPersistHeaders={false} schemaDescription={false}>
    <GraphiQL.Logo>
      pub<em>-</em>sub
    </GraphiQL.Logo>
  </GraphiQL>,
);
