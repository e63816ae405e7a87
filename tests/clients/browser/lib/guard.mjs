// Stands in front of a server and lets in who has the key, as a server with access rules does.

import http from 'node:http';
import net from 'node:net';

const REFUSAL = { code: 'UNAUTHENTICATED', message: 'this key is not known here' };

/** The close frame of a refused `connection_init`. */
const FORBIDDEN = Buffer.from([0x88, 11, 4403 >> 8, 4403 & 0xff, ...Buffer.from('Forbidden')]);

/** The text of the first frame of a client, once it has come whole; it is masked and short. */
function firstText(bytes) {
  if (bytes.length < 6) return undefined;
  const short = bytes[1] & 0x7f;
  const start = short === 126 ? 4 : 2;
  const length = short === 126 ? bytes.readUInt16BE(2) : short;
  if (bytes.length < start + 4 + length) return undefined;
  const mask = bytes.subarray(start, start + 4);
  return bytes.subarray(start + 4, start + 4 + length).map((byte, at) => byte ^ mask[at % 4]).toString();
}

/**
 * Starts it, for the test `t`. `keys` may be changed while it runs. `urls` has what was asked for, and `sockets` counts the
 * WebSockets that were let in.
 */
export async function guard(t, origin, keys) {
  const { hostname, port } = new URL(origin);
  const seen = { urls: [], sockets: 0, streams: new Set() };
  const lets = (authorization) => keys.has(/^Bearer (.*)$/.exec(authorization ?? '')?.[1]);
  const forward = (request, response) => {
    seen.urls.push(request.url);
    if (request.method === 'POST' && !lets(request.headers.authorization)) {
      response.writeHead(401, { 'content-type': 'application/json', 'www-authenticate': 'Bearer' });
      const errors = [{ message: REFUSAL.message, extensions: { code: REFUSAL.code } }];
      response.end(JSON.stringify(request.url.startsWith('/graphql') ? { errors } : { error: REFUSAL }));
      return;
    }
    const { method, url, headers } = request;
    const upstream = http.request({ hostname, port, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    upstream.on('error', () => response.destroy());
    response.on('close', () => upstream.destroy());
    if (headers.accept === 'text/event-stream') {
      seen.streams.add(response);
      response.on('close', () => seen.streams.delete(response));
    }
    request.pipe(upstream);
  };
  const upgrade = (request, client, first) => {
    const upstream = net.connect(Number(port), hostname);
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
    const lines = Object.entries(request.headers).map(([name, value]) => `${name}: ${value}\r\n`);
    upstream.write(`GET ${request.url} HTTP/1.1\r\n${lines.join('')}\r\n`);
    upstream.pipe(client);
    let held = first;
    const look = (bytes) => {
      held = Buffer.concat([held, bytes]);
      const text = firstText(held);
      if (text === undefined) return;
      client.off('data', look);
      if (lets(JSON.parse(text).payload?.Authorization)) {
        seen.sockets += 1;
        upstream.write(held);
        client.pipe(upstream);
      } else {
        upstream.unpipe(client);
        client.end(FORBIDDEN);
      }
    };
    client.on('data', look);
  };
  const server = http.createServer(forward).on('upgrade', upgrade);
  await new Promise((resolve) => server.listen(0, hostname, resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { origin: `http://${hostname}:${server.address().port}`, seen };
}
