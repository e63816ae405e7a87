// GraphiQL for this server: it uses the page's own endpoint, and its tabs show what the service does.

import 'graphiql/style.css';
import './main.css';
import './workers.js';
import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { GraphiQL } from 'graphiql';
import { Kind, parse } from 'graphql';
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

/**
 * GraphiQL parses a document only 100 ms after it changed. An operation that is run sooner would be sent with the name
 * and the transport of the previous document, so it is parsed again here.
 */
function fetcher(request, options) {
  let documentAST;
  try {
    documentAST = parse(request.query);
  } catch {
    // The server's error says what is wrong with the document.
    return ask(request, options);
  }
  const operations = documentAST.definitions.filter(({ kind }) => kind === Kind.OPERATION_DEFINITION);
  const operationName = operations.length === 1 ? operations[0].name?.value : request.operationName;
  return ask({ ...request, operationName }, { ...options, documentAST });
}

createRoot(document.getElementById('graphiql')).render(
  <GraphiQL fetcher={fetcher} defaultTabs={examples} shouldPersistHeaders={false} schemaDescription={false}>
    <GraphiQL.Logo>
      pub<em>-</em>sub
    </GraphiQL.Logo>
  </GraphiQL>,
);
