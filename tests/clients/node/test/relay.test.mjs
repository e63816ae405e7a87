// relay-runtime: its environment and store over a network layer of fetch and graphql-ws, as Relay's guide writes it.

import { parse } from 'graphql';
import { createClient } from 'graphql-ws';
import relay from 'relay-runtime';
import WebSocket from 'ws';
import { options } from '../lib/graphql-ws.mjs';
import { scenarios } from '../lib/scenarios.mjs';

const { commitMutation, Environment, fetchQuery, Network, Observable, RecordSource, requestSubscription, Store } = relay;

/** What relay-compiler makes of an operation, for the few shapes used here. */
const TYPES = { topic: 'Topic', createTopic: 'Topic', publish: 'Publication', messages: 'Message', gap: 'Gap' };
const compiled = new Map();
function artifact({ kind, name, text }) {
  if (compiled.has(text)) return compiled.get(text);
  const [definition] = parse(text).definitions;
  const value = (argument) => ({ kind: 'Variable', name: argument.name.value, variableName: argument.value.name.value });
  const selections = (set) =>
    set.selections.map((field) => {
      const args = field.arguments.length ? field.arguments.map(value) : null;
      const common = { alias: null, args, name: field.name.value, storageKey: null };
      if (!field.selectionSet) return { ...common, kind: 'ScalarField' };
      const concreteType = TYPES[field.name.value];
      return { ...common, concreteType, kind: 'LinkedField', plural: false, selections: selections(field.selectionSet) };
    });
  const argumentDefinitions = definition.variableDefinitions.map(({ variable }) => ({
    defaultValue: null,
    kind: 'LocalArgument',
    name: variable.name.value,
  }));
  const fields = selections(definition.selectionSet);
  const type = { query: 'Query', mutation: 'Mutation', subscription: 'Subscription' }[kind];
  const made = {
    fragment: { argumentDefinitions, kind: 'Fragment', metadata: null, name, selections: fields, type, abstractKey: null },
    kind: 'Request',
    operation: { argumentDefinitions, kind: 'Operation', name, selections: fields },
    params: { cacheID: name, id: null, metadata: {}, name, operationKind: kind, text },
  };
  compiled.set(text, made);
  return made;
}

scenarios(
  'relay-runtime',
  ({ http, ws }) => {
    const socket = createClient(options(WebSocket, ws));
    // The store gives data only: what stands beside it is noted where the network layer sees it.
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
            const message = result.data?.messages;
            if (message) beside.set(message.cursor, result.extensions);
            sink.next(result);
          },
          error: (error) => sink.error(Object.assign(new Error('refused'), { errors: error })),
          complete: () => sink.complete(),
        }),
      );
    const environment = new Environment({ network: Network.create(fetcher, subscriber), store: new Store(new RecordSource()) });
    const failure = (error) => ({ errors: error.source?.errors ?? answer?.errors ?? [error] });
    return {
      run: ({ kind, ...operation }, variables) => {
        const node = artifact({ kind, ...operation });
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
      subscribe: (operation, variables, sink) => {
        const running = requestSubscription(environment, {
          subscription: artifact(operation),
          variables,
          onNext: (data) => sink.next({ data, extensions: beside.get(data.messages.cursor) }),
          onError: (error) => sink.end(error.source?.errors ?? error.errors ?? [error]),
          onCompleted: () => sink.end(),
        });
        return () => running.dispose();
      },
      close: () => socket.dispose(),
    };
  },
  // relay-compiler would not let it pass.
  { invalid: false },
);
