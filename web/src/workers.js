/* global EDITOR_WORKER, GRAPHQL_WORKER, JSON_WORKER */
// The editors' workers as files of this server: the page's content security policy lets no others run. `build.mjs` fills
// the names in.

const FILES = { json: JSON_WORKER, graphql: GRAPHQL_WORKER };

globalThis.MonacoEnvironment = {
  getWorker: (_id, label) => new Worker(new URL(FILES[label] ?? EDITOR_WORKER, import.meta.url), { name: label }),
};
