// Servers that let in whoever has a key or a token, and the credentials for them.

import { createHash, createHmac, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Server } from './server.mjs';
import { after } from './wait.mjs';

const API_KEY = 'the-administrator-of-this-test';
const JWT_SECRET = randomBytes(32).toString('hex');

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Returns a token (HS256) for the principal `sub`, which is valid for `seconds`. */
export function token(sub, claim, seconds = 3_600) {
  const exp = Math.floor(Date.now() / 1_000) + seconds;
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub, exp, pubsub: claim })}`;
  return `${signed}.${createHmac('sha256', JWT_SECRET).update(signed).digest('base64url')}`;
}

/** What the tests' clients may do. */
const RIGHTS = { publish: ['news'], subscribe: ['news', 'orders.>'], manage: ['news'], stats: false };

/** A key in an access file, as `pub-sub key` would print it. */
const entry = (name, key) => `[[key]]
name = "${name}"
hash = "sha256:${createHash('sha256').update(key).digest('hex')}"
${Object.entries(RIGHTS).map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join('\n')}
`;

/**
 * Starts a server with all kinds of credentials. `credentials` has one of each by name, `write` changes the keys of the
 * access file, and `fresh` makes a token for `alice`.
 */
export async function guarded(t, env = {}) {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-access-'));
  const ACCESS_FILE = path.join(directory, 'access.toml');
  const write = (keys) => writeFileSync(ACCESS_FILE, Object.entries(keys).map(([name, key]) => entry(name, key)).join('\n'));
  const billing = randomBytes(16).toString('hex');
  write({ billing });
  const server = await Server.start(t, { API_KEY, ACCESS_FILE, JWT_SECRET, JWT_LEEWAY: '0s', ...env });
  after(t, () => rmSync(directory, { recursive: true }));
  const fresh = (seconds) => token('alice', RIGHTS, seconds);
  const credentials = { 'API_KEY': API_KEY, 'a key of ACCESS_FILE': billing, 'a token': fresh() };
  return Object.assign(server, { credentials, write, fresh });
}

export const bearer = (credential) => ({ Authorization: `Bearer ${credential}` });
