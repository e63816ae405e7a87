// Tests relay-runtime with the output of relay-compiler for tagged documents and schema.graphql. Its environment and
// store use a network layer of fetch and graphql-ws, as in Relay's guide.

import { execFile } from 'node:child_process';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { createClient } from 'graphql-ws';
import relayCompiler from 'relay-compiler';
import relay from 'relay-runtime';
import WebSocket from 'ws';
import { options } from '../lib/graphql-ws.mjs';
import * as all from '../lib/operations.mjs';
import { scenarios } from '../lib/scenarios.mjs';

const { commitMutation, Environment, fetchQuery, Network, Observable, RecordSource, requestSubscription, Store } = relay;
const { INVALID, ...OPERATIONS } = all;
const SCHEMA = fileURLToPath(new URL('../../../../schema.graphql', import.meta.url));

/** Relay requires an operation to be named after its module and its kind. */
const relayName = ({ kind, name }) => `${name}${kind[0].toUpperCase()}${kind.slice(1)}`;

/** Compiles tagged documents, each in its own module, and returns the artifacts by the names of their operations. */
async function compile(operations) {
  const folder = mkdtempSync(path.join(tmpdir(), 'pub-sub-relay-'));
  try {
    const write = (name, text) => writeFileSync(path.join(folder, name), text);
    mkdirSync(path.join(folder, 'src'));
    mkdirSync(path.join(folder, 'artifacts'));
    write('package.json', '{"type":"module"}');
    write('schema.graphql', readFileSync(SCHEMA));
    write('relay.config.json', JSON.stringify({
      src: './src',
      schema: './schema.graphql',
      language: 'javascript',
      eagerEsModules: true,
      artifactDirectory: './artifacts',
      schemaConfig: { customScalarTypes: { JSON: 'mixed', DateTime: 'string', Cursor: 'string', Long: 'number' } },
    }));
    for (const operation of operations) {
      const { kind, name, text } = operation;
      const renamed = text.replace(`${kind} ${name}`, `${kind} ${relayName(operation)}`);
      write(`src/${name}.js`, `import { graphql } from 'relay-runtime';\n\nexport const document = graphql\`${renamed}\`;\n`);
    }
    const env = { PATH: process.env.PATH, HOME: folder };
    await promisify(execFile)(relayCompiler, ['relay.config.json'], { cwd: folder, env });
    const load = async (operation) => {
      const file = path.join(folder, 'artifacts', `${relayName(operation)}.graphql.js`);
      return [operation.name, (await import(pathToFileURL(file))).default];
    };
    return Object.fromEntries(await Promise.all(operations.map(load)));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const artifacts = await compile(Object.values(OPERATIONS));

test('relay-compiler refuses what breaks the schema', async () => {
  await assert.rejects(compile([INVALID]), /nothingOfThisName/);
});

scenarios(
  'relay-runtime',
  ({ http, ws }) => {
    const socket = createClient(options(WebSocket, ws));
    // The store returns only data, so the network layer records the rest of each result.
    const beside = new Map();
    let answer;
    const fetcher = async ({ text, name }, variables) => {
      const response = await fetch(http, {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json, application/json' },
        body: JSON.stringify({ query: text, operationName: name, variables }),
      });
      return (answer = await response.json());
    };
    const subscriber = ({ text, name }, variables) =>
      Observable.create((sink) =>
        socket.subscribe({ query: text, operationName: name, variables }, {
          next: (result) => {
            if (result.data) beside.set(result.data.messages?.cursor, result.extensions);
            sink.next(result);
          },
          error: (error) => sink.error(Object.assign(new Error('refused'), { errors: error })),
          complete: () => sink.complete(),
        }),
      );
    const environment = new Environment({ network: Network.create(fetcher, subscriber), store: new Store(new RecordSource()) });
    const failure = (error) => ({ errors: error.source?.errors ?? answer?.errors ?? [error] });
    return {
      run: ({ kind, name }, variables) => {
        const node = artifacts[name];
        if (kind === 'query') {
          const fetched = fetchQuery(environment, node, variables, { fetchPolicy: 'network-only' }).toPromise();
          return fetched.then((data) => ({ data }), failure);
        }
        return new Promise((resolve) => {
          commitMutation(environment, {
            mutation: node,
            variables,
            onCompleted: (data, errors) => resolve({ data, errors }),
            onError: (error) => resolve(failure(error)),
          });
        });
      },
      subscribe: ({ name }, variables, sink) => {
        const running = requestSubscription(environment, {
          subscription: artifacts[name],
          variables,
          onNext: (data) => sink.next({ data, extensions: beside.get(data.messages?.cursor) }),
          onError: (error) => sink.end(error.source?.errors ?? error.errors ?? [error]),
          onCompleted: () => sink.end(),
        });
        return () => running.dispose();
      },
      close: () => socket.dispose(),
    };
  },
  // relay-compiler rejects it.
  { invalid: false },
);
