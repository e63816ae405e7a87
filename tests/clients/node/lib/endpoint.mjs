/** Whatever listens on a `port` of this machine and is, or leads to, a pub-sub. */
export class Endpoint {
  get origin() {
    return `http://127.0.0.1:${this.port}`;
  }

  get http() {
    return `${this.origin}/graphql`;
  }

  get ws() {
    return `ws://127.0.0.1:${this.port}/graphql`;
  }
}
