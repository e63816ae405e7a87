// npm ws: each message is serialised once and sent to every subscriber of its topic.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { messages } from "./schema.js";
import { listen } from "./publisher.js";

const server = createServer();
const topics = new Map();
const make = messages();
new WebSocketServer({ server, path: "/ws" }).on("connection", (socket) => {
  socket.on("message", (text) => {
    const { type, topic, data } = JSON.parse(text);
    if (!topics.has(topic)) topics.set(topic, new Set());
    const subscribers = topics.get(topic);
    if (type === "subscribe") {
      subscribers.add(socket);
      socket.on("close", () => subscribers.delete(socket));
      socket.send(JSON.stringify({ type: "ack", topic, status: "ok" }));
    } else {
      const event = JSON.stringify({ type: "event", ...make(topic, data), ts: new Date().toISOString() });
      for (const subscriber of subscribers) subscriber.send(event);
    }
  });
});
listen(server);
