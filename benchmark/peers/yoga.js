// GraphQL Yoga with its own publish and subscribe, and graphql-ws as its documentation shows.

import { createServer } from "node:http";
import { createPubSub, createSchema, createYoga } from "graphql-yoga";
import { useServer } from "graphql-ws/use/ws";
import { WebSocketServer } from "ws";
import { messages, typeDefs } from "./schema.js";
import { acceptPublisher, listen } from "./publisher.js";

const make = messages();
const pubSub = createPubSub();
const publish = (topic, data) => {
  const message = make(topic, data);
  pubSub.publish(topic, message);
  return message;
};
const resolvers = {
  Mutation: { publish: (_, { topic, data }) => publish(topic, data) },
  Subscription: {
    messages: { subscribe: (_, { topic }) => pubSub.subscribe(topic), resolve: (message) => message },
  },
};
const yoga = createYoga({ schema: createSchema({ typeDefs, resolvers }), logging: false });
const server = createServer(yoga);
const sockets = new WebSocketServer({ noServer: true });
useServer(
  {
    execute: (args) => args.rootValue.execute(args),
    subscribe: (args) => args.rootValue.subscribe(args),
    onSubscribe: async (context, _id, params) => {
      const { schema, execute, subscribe, contextFactory, parse, validate } = yoga.getEnveloped({
        ...context,
        req: context.extra.request,
        socket: context.extra.socket,
        params,
      });
      const args = {
        schema,
        operationName: params.operationName,
        document: parse(params.query),
        variableValues: params.variables,
        contextValue: await contextFactory(),
        rootValue: { execute, subscribe },
      };
      const errors = validate(args.schema, args.document);
      return errors.length ? errors : args;
    },
  },
  sockets,
);
acceptPublisher(server, publish, sockets);
listen(server);
