// Mercurius with its own subscriptions.

import Fastify from "fastify";
import mercurius from "mercurius";
import { messages, typeDefs } from "./schema.js";
import { acceptPublisher, announce } from "./publisher.js";

const make = messages();
const app = Fastify();
const publish = (topic, data) => {
  const message = make(topic, data);
  app.graphql.pubsub.publish({ topic, payload: { messages: message } });
  return message;
};
const resolvers = {
  Mutation: { publish: (_, { topic, data }) => publish(topic, data) },
  Subscription: { messages: { subscribe: (_, { topic }, { pubsub }) => pubsub.subscribe(topic) } },
};
app.register(mercurius, { schema: typeDefs, resolvers, jit: 1, subscription: { fullWsTransport: true } });
await app.listen({ port: 0, host: "127.0.0.1" });
acceptPublisher(app.server, publish);
announce(app.server);
