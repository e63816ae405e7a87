/** Something that listens on a `port` of this machine, and is a pub-sub server or forwards to one. */
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
