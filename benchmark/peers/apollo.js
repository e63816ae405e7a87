// Apollo Server with graphql-ws and graphql-subscriptions, as its documentation shows.

import { createServer } from "node:http";
import { ApolloServer, HeaderMap } from "@apollo/server";
import { PubSub } from "graphql-subscriptions";
import { useServer } from "graphql-ws/use/ws";
import { makeExecutableSchema } from "@graphql-tools/schema";
import { WebSocketServer } from "ws";
import { messages, typeDefs } from "./schema.js";
import { acceptPublisher, listen } from "./publisher.js";

const make = messages();
const pubSub = new PubSub();
const publish = (topic, data) => {
  const message = make(topic, data);
  pubSub.publish(topic, { messages: message });
  return message;
};
const resolvers = {
  Mutation: { publish: (_, { topic, data }) => publish(topic, data) },
  Subscription: { messages: { subscribe: (_, { topic }) => pubSub.asyncIterableIterator(topic) } },
};
const schema = makeExecutableSchema({ typeDefs, resolvers });
const apollo = new ApolloServer({ schema });
await apollo.start();
const server = createServer(async (request, response) => {
  const body = [];
  for await (const chunk of request) body.push(chunk);
  const headers = new HeaderMap(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
  const result = await apollo.executeHTTPGraphQLRequest({
    httpGraphQLRequest: {
      method: request.method,
      headers,
      search: new URL(request.url, "http://localhost").search,
      body: JSON.parse(Buffer.concat(body)),
    },
    context: async () => ({}),
  });
  for (const [name, value] of result.headers) response.setHeader(name, value);
  response.statusCode = result.status ?? 200;
  const text = Buffer.from(result.body.string);
  response.setHeader("content-length", text.length);
  response.end(text);
});
const sockets = new WebSocketServer({ noServer: true });
useServer({ schema }, sockets);
acceptPublisher(server, publish, sockets);
listen(server);
