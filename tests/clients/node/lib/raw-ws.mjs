// A WebSocket without a library, so that every frame can be seen and any frame can be sent.

import { createHash, randomBytes } from 'node:crypto';
import net from 'node:net';
import { after, Inbox, within } from './wait.mjs';

export const TEXT = 1;
export const BINARY = 2;
export const CLOSE = 8;
export const PING = 9;
export const PONG = 10;

export class RawSocket {
  frames = new Inbox();
  #buffer = Buffer.alloc(0);
  /** Whether to respond to pings, as RFC 6455 requires. */
  answersPings = true;
  pings = 0;

  /** Performs the handshake at `path` and offers `protocols`. */
  static async open(t, port, path, protocols = []) {
    const raw = new RawSocket();
    raw.socket = net.connect(port, '127.0.0.1');
    raw.socket.setNoDelay(true);
    raw.socket.on('error', () => {});
    raw.gone = new Promise((resolve) => raw.socket.on('close', resolve));
    after(t, () => raw.socket.destroy());
    const key = randomBytes(16).toString('base64');
    const lines = [
      `GET ${path} HTTP/1.1`,
      `Host: 127.0.0.1:${port}`,
      'Connection: keep-alive, Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${key}`,
      ...(protocols.length ? [`Sec-WebSocket-Protocol: ${protocols.join(', ')}`] : []),
    ];
    raw.socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    const shaken = new Promise((resolve) => (raw.shaken = resolve));
    raw.socket.on('data', (bytes) => raw.#read(bytes));
    await within('the handshake', shaken);
    const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    if (raw.status !== 101 || raw.headers['sec-websocket-accept'] !== accept) throw new Error(`no handshake: ${raw.status}`);
    return raw;
  }

  #read(bytes) {
    this.#buffer = Buffer.concat([this.#buffer, bytes]);
    if (!this.headers) {
      const end = this.#buffer.indexOf('\r\n\r\n');
      if (end < 0) return;
      const [status, ...lines] = this.#buffer.subarray(0, end).toString('latin1').split('\r\n');
      this.#buffer = this.#buffer.subarray(end + 4);
      this.status = Number(status.split(' ')[1]);
      this.headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]));
      this.shaken();
    }
    for (;;) {
      if (this.#buffer.length < 2) return;
      const [first, second] = this.#buffer;
      if (second & 0x80) throw new Error('a server must not mask');
      let [length, start] = [second & 0x7f, 2];
      if (length === 126) [length, start] = [this.#buffer.length < 4 ? Infinity : this.#buffer.readUInt16BE(2), 4];
      else if (length === 127) [length, start] = [this.#buffer.length < 10 ? Infinity : Number(this.#buffer.readBigUInt64BE(2)), 10];
      if (this.#buffer.length < start + length) return;
      const payload = this.#buffer.subarray(start, start + length);
      this.#buffer = this.#buffer.subarray(start + length);
      this.#frame(first & 0x0f, payload);
    }
  }

  #frame(opcode, payload) {
    if (opcode === PING) {
      this.pings += 1;
      if (this.answersPings) this.frame(PONG, payload);
    } else if (opcode === CLOSE) {
      const reason = payload.subarray(2);
      this.frames.push({ close: payload.length ? payload.readUInt16BE(0) : 1005, reason: reason.toString(), bytes: reason.length });
    } else if (opcode === TEXT) {
      this.frames.push(JSON.parse(payload));
    } else {
      this.frames.push({ opcode, payload });
    }
  }

  /** Sends one frame, masked as RFC 6455 requires of a client. */
  frame(opcode, payload = '') {
    const body = Buffer.from(payload);
    const mask = randomBytes(4);
    let head;
    if (body.length < 126) head = Buffer.from([0x80 | opcode, 0x80 | body.length]);
    else if (body.length < 65_536) {
      head = Buffer.from([0x80 | opcode, 0x80 | 126, 0, 0]);
      head.writeUInt16BE(body.length, 2);
    } else {
      head = Buffer.alloc(10);
      head[0] = 0x80 | opcode;
      head[1] = 0x80 | 127;
      head.writeBigUInt64BE(BigInt(body.length), 2);
    }
    this.socket.write(Buffer.concat([head, mask, body.map((byte, index) => byte ^ mask[index % 4])]));
  }

  /** Sends a text message: an object as JSON, or a string unchanged. */
  send(message) {
    this.frame(TEXT, typeof message === 'string' ? message : JSON.stringify(message));
  }

  /** Sends everything that `send` sends in one write, so that the server reads it together. */
  together(send) {
    this.socket.cork();
    send();
    this.socket.uncork();
  }

  next(what) {
    return this.frames.next(what);
  }

  /** Returns the next frame, which must be a close frame. */
  async closed() {
    for (;;) {
      const frame = await this.next('a close');
      if (frame.close) return frame;
    }
  }
}
