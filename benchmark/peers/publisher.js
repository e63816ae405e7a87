// What the peers share: a WebSocket at /ws over which the load client publishes, and saying where the server listens.

import { WebSocketServer } from "ws";

/// Calls `publish(topic, data)` for each frame {"type":"publish","topic":…,"data":…} at /ws. Other upgrades go to those who have
/// listened for upgrades so far, and to `others`.
export function acceptPublisher(server, publish, others) {
  const sockets = new WebSocketServer({ noServer: true });
  sockets.on("connection", (socket) => {
    socket.on("message", (text) => {
      const { topic, data } = JSON.parse(text);
      publish(topic, data);
    });
  });
  const listeners = server.listeners("upgrade");
  server.removeAllListeners("upgrade");
  server.on("upgrade", (request, socket, head) => {
    const isPublisher = request.url === "/ws";
    const target = isPublisher ? sockets : others;
    target?.handleUpgrade(request, socket, head, (opened) => target.emit("connection", opened, request));
    if (!isPublisher) listeners.forEach((listener) => listener.call(server, request, socket, head));
  });
}

export function listen(server) {
  server.listen(0, "127.0.0.1", () => announce(server));
}

export function announce(server) {
  console.log(`listening on 127.0.0.1:${server.address().port}`);
}
