// socket.io: a room for each topic.

import { createServer } from "node:http";
import { Server } from "socket.io";
import { messages } from "./schema.js";
import { listen } from "./publisher.js";

const server = createServer();
const make = messages();
const io = new Server(server, { transports: ["websocket"] });
io.on("connection", (socket) => {
  socket.on("subscribe", (topic) => {
    socket.join(topic);
    socket.emit("subscribed", topic);
  });
  socket.on("publish", (topic, data) => {
    io.to(topic).emit("message", { ...make(topic, data), ts: new Date().toISOString() });
  });
});
listen(server);
