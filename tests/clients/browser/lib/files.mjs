// A server of files, for pages that do not come from pub-sub.

import { readFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.map': 'application/json' };

/** Serves files by their names under an address, or texts, until the test ends. Returns its origin. */
export async function serveFiles(t, find) {
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    try {
      const found = find(pathname);
      const body = found.text ?? readFileSync(found.file);
      response.writeHead(200, { 'content-type': TYPES[path.extname(pathname)] ?? TYPES['.html'] }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}
