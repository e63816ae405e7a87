// GraphiQL for this server: its own endpoint for everything, and tabs that show what the service does.

import 'graphiql/style.css';
import './main.css';
import './workers.js';
import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { GraphiQL } from 'graphiql';
import { Kind, parse } from 'graphql';
import { createRoot } from 'react-dom/client';
import { examples } from './examples.js';

// The page's own address: it is right behind any proxy, whatever prefix that adds.
const endpoint = new URL(window.location.pathname, window.location.href);
const socket = new URL(endpoint);
socket.protocol = endpoint.protocol === 'https:' ? 'wss:' : 'ws:';

const ask = createGraphiQLFetcher({
  url: endpoint.href,
  // A socket for each subscription, so that the Headers pane reaches it: it goes as `connection_init`'s payload.
  subscriptionUrl: socket.href,
  enableIncrementalDelivery: false,
});

/**
 * GraphiQL looks at a document only 100 ms after it changed. What is run sooner would go out under the name, and by the
 * transport, of the document before: so it is looked at once more here.
 */
function fetcher(request, options) {
  let documentAST;
  try {
    documentAST = parse(request.query);
  } catch {
    // The server says what is wrong with it.
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
