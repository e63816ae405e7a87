// GraphiQL for this server: its own endpoint for everything, and tabs that show what the service does.

import 'graphiql/style.css';
import './main.css';
import './workers.js';
import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { GraphiQL } from 'graphiql';
import { createRoot } from 'react-dom/client';
import { examples } from './examples.js';

// The page's own address: it is right behind any proxy, whatever prefix that adds.
const endpoint = new URL(window.location.pathname, window.location.href);
const socket = new URL(endpoint);
socket.protocol = endpoint.protocol === 'https:' ? 'wss:' : 'ws:';

const fetcher = createGraphiQLFetcher({
  url: endpoint.href,
  // A socket for each subscription, so that the Headers pane reaches it: it goes as `connection_init`'s payload.
  subscriptionUrl: socket.href,
  enableIncrementalDelivery: false,
});

createRoot(document.getElementById('graphiql')).render(
  <GraphiQL fetcher={fetcher} defaultTabs={examples} shouldPersistHeaders={false} schemaDescription={false}>
    <GraphiQL.Logo>
      pub<em>-</em>sub
    </GraphiQL.Logo>
  </GraphiQL>,
);
