// One address for several instances.

import net from 'node:net';
import { Endpoint } from './endpoint.mjs';
import { after } from './wait.mjs';

/** A TCP proxy that gives each new connection to the next backend that accepts it. */
export class Balancer extends Endpoint {
  #backends;
  #next = 0;
  #sockets = new Set();

  static async start(t, backends) {
    const balancer = new Balancer();
    balancer.#backends = backends;
    const server = net.createServer((client) => balancer.#accept(client));
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    balancer.port = server.address().port;
    after(t, () => {
      for (const socket of balancer.#sockets) socket.destroy();
      return new Promise((resolve) => server.close(resolve));
    });
    return balancer;
  }

  #hold(socket, end) {
    this.#sockets.add(socket);
    socket.setNoDelay(true).on('error', end).on('close', () => (this.#sockets.delete(socket), end()));
  }

  #accept(client) {
    let upstream;
    this.#hold(client, () => (client.destroy(), upstream?.destroy()));
    const knock = (left) => {
      if (left === 0 || client.destroyed) return client.destroy();
      const backend = this.#backends[this.#next++ % this.#backends.length];
      upstream = net.connect(backend.port, '127.0.0.1');
      const refused = () => knock(left - 1);
      upstream.once('error', refused).once('connect', () => {
        upstream.off('error', refused);
        this.#hold(upstream, () => client.destroy());
        client.pipe(upstream).pipe(client);
      });
    };
    knock(this.#backends.length);
  }
}
