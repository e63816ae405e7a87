// HTTP requests without a library, so that every byte of the response can be seen as it arrives.

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, Inbox, within } from './wait.mjs';

/** One HTTP request. The body is collected as it arrives, and its chunks are decoded. */
export class RawRequest {
  body = '';
  #raw = Buffer.alloc(0);
  #chunks;
  events = new Inbox();
  #seen = 0;

  static async send(t, port, { method = 'POST', path = '/graphql', headers = {}, body = '' }) {
    const request = new RawRequest();
    const socket = (request.socket = net.connect(port, '127.0.0.1'));
    socket.on('error', () => {});
    after(t, () => socket.destroy());
    request.gone = new Promise((resolve) => socket.on('close', resolve));
    request.ended = new Promise((resolve) => (request.end = resolve));
    const all = { host: `127.0.0.1:${port}`, ...headers, ...(body && { 'content-length': Buffer.byteLength(body) }) };
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`);
    socket.write(`${[`${method} ${path} HTTP/1.1`, ...lines].join('\r\n')}\r\n\r\n${body}`);
    const answered = new Promise((resolve) => (request.answered = resolve));
    socket.on('data', (bytes) => request.#read(bytes));
    await within('the answer', answered);
    return request;
  }

  #read(bytes) {
    this.#raw = Buffer.concat([this.#raw, bytes]);
    if (!this.headers) {
      const end = this.#raw.indexOf('\r\n\r\n');
      if (end < 0) return;
      const [status, ...lines] = this.#raw.subarray(0, end).toString('latin1').split('\r\n');
      this.#raw = this.#raw.subarray(end + 4);
      this.status = Number(status.split(' ')[1]);
      this.headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]));
      this.#chunks = this.headers['transfer-encoding'] === 'chunked';
      this.answered();
    }
    if (!this.#chunks) {
      this.body += this.#raw;
      this.#raw = Buffer.alloc(0);
      if (Buffer.byteLength(this.body) >= Number(this.headers['content-length'] ?? Infinity)) this.end();
    }
    while (this.#chunks) {
      const line = this.#raw.indexOf('\r\n');
      if (line < 0) break;
      const length = parseInt(this.#raw.subarray(0, line).toString(), 16);
      if (this.#raw.length < line + 2 + length + 2) break;
      this.body += this.#raw.subarray(line + 2, line + 2 + length).toString();
      this.#raw = this.#raw.subarray(line + 2 + length + 2);
      if (length === 0) {
        this.end();
        break;
      }
    }
    for (let end; (end = this.body.indexOf('\n\n', this.#seen)) >= 0; this.#seen = end + 2) this.events.push(this.body.slice(this.#seen, end));
  }

  /** Returns the lines of the next event that is not a comment, as an object. */
  async event() {
    for (;;) {
      const lines = (await this.events.next('an event')).split('\n').filter((line) => !line.startsWith(':'));
      if (!lines.length) continue;
      return Object.fromEntries(
        lines.map((line) => {
          const colon = line.indexOf(':');
          return [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
        }),
      );
    }
  }

  /** Returns the next event, which must be a result. */
  async result() {
    const { event, data, ...rest } = await this.event();
    assert.equal(event, 'next');
    return { ...JSON.parse(data), ...rest };
  }

  /** Returns the whole body when it has ended. */
  async text() {
    await within('the end of the body', this.ended);
    return this.body;
  }

  /** Checks that the stream ends here: first the `complete` event, then the end of the body. */
  async complete() {
    // A browser drops an event that has no data line.
    assert.deepEqual(await this.event(), { event: 'complete', data: '' });
    await within('the end of the body', this.ended);
    assert.equal(this.events.unread, 0, 'something followed complete');
  }
}
