// GraphiQL for this server: it uses the page's own endpoint, and its tabs show what the service does.

import 'graphiql/style.css';
import './main.css';
import './workers.js';
import { GraphiQL } from 'graphiql';
import { createRoot } from 'react-dom/client';
import { examples } from './examples.js';
import { fetcherFor } from './fetcher.js';
import { Session, tabStorage } from '../session.js';
import { SignIn } from './sign-in.jsx';

const session = new Session(tabStorage());
const fetcher = fetcherFor(session);

createRoot(document.getElementById('graphiql')).render(
  <GraphiQL fetcher={fetcher} defaultTabs={examples} shouldPersistHeaders={false} schemaDescription={false}>
    <GraphiQL.Logo>
      pub<em>-</em>sub
    </GraphiQL.Logo>
    <GraphiQL.Toolbar>
      {({ prettify, merge, copy }) => (
        <>
          {prettify}
          {merge}
          {copy}
          <SignIn session={session} />
        </>
      )}
    </GraphiQL.Toolbar>
  </GraphiQL>,
);
