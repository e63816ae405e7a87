/* global EDITOR_WORKER, GRAPHQL_WORKER, JSON_WORKER */
// The workers of the editors are files of this server, because the page's content security policy allows no others.
// `build.mjs` fills in their names.

const FILES = { json: JSON_WORKER, graphql: GRAPHQL_WORKER };

globalThis.MonacoEnvironment = {
  getWorker: (_id, label) => new Worker(new URL(FILES[label] ?? EDITOR_WORKER, import.meta.url), { name: label }),
};
