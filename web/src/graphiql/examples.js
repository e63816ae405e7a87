// GraphiQL opens with these tabs. `test/examples.test.mjs` checks them against the schema.

import history from './examples/history.graphql';
import publish from './examples/publish.graphql';
import publishVariables from './examples/publish.json';
import subscribe from './examples/subscribe.graphql';
import topics from './examples/topics.graphql';

export const examples = [
  // It has a result on every server, also on a fresh one.
  { query: topics },
  { query: publish, variables: JSON.stringify(publishVariables, null, 2) },
  { query: subscribe },
  { query: history },
];
