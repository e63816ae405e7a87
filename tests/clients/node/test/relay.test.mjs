// Tests relay-runtime with the output of relay-compiler for tagged documents and schema.graphql. Its environment and
// store use a network layer of fetch and graphql-ws, as in Relay's guide.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient } from 'graphql-ws';
import relay from 'relay-runtime';
import WebSocket from 'ws';
import { options } from '../lib/graphql-ws.mjs';
import * as all from '../lib/operations.mjs';
import { compile } from '../lib/relay.mjs';
import { scenarios } from '../lib/scenarios.mjs';

const { commitMutation, Environment, fetchQuery, Network, Observable, RecordSource, requestSubscription, Store } = relay;
const { INVALID, ...OPERATIONS } = all;

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
