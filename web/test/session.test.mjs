// Signing in, without a page.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authorized, check, credentialIn, isRefused, messageIn, Session, signInWith, unauthenticated, withCredential } from '../src/session.js';

/** A storage of one tab. */
function storage() {
  const kept = new Map();
  return {
    kept,
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => kept.set(key, value),
    removeItem: (key) => kept.delete(key),
  };
}

const refusal = (message) => Response.json({ error: { code: 'UNAUTHENTICATED', message } }, { status: 401 });

/** A server that takes one key, and the credentials that it was sent. */
function server(key) {
  const seen = [];
  const fetch = async (url, { headers }) => {
    seen.push(headers.Authorization ?? headers.authorization);
    return seen.at(-1) === `Bearer ${key}` ? Response.json({ data: 1 }) : refusal('sign in');
  };
  return { fetch, seen };
}

test('a credential is kept for this tab until one signs out', () => {
  const tab = storage();
  const session = new Session(tab);
  assert.deepEqual(session.headers, {});
  session.signIn('abc');
  assert.deepEqual(session.headers, { Authorization: 'Bearer abc' });
  assert.deepEqual(new Session(tab).headers, { Authorization: 'Bearer abc' });
  session.signOut();
  assert.deepEqual(session.headers, {});
  assert.equal(tab.kept.size, 0);
  // Without a storage it is in memory.
  const forgetful = new Session(null);
  forgetful.signIn('abc');
  assert.equal(forgetful.credential, 'abc');
});

test('a 401 asks once, and every request is then sent again', async () => {
  const session = new Session(storage());
  const { fetch, seen } = server('right');
  let asked = 0;
  session.subscribe(() => (asked += session.state.message === null ? 0 : 1));
  const responses = Promise.all([1, 2].map(() => authorized(session, fetch)('/graphql', { headers: { a: '1' } })));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(session.state.message, 'sign in');
  session.signIn('right');
  assert.deepEqual((await responses).map(({ status }) => status), [200, 200]);
  assert.deepEqual(seen, [undefined, undefined, 'Bearer right', 'Bearer right']);
  assert.equal(session.state.message, null);
  assert.ok(asked > 0);
});

test('a request that was refused for an older credential is sent again without a question', async () => {
  const session = new Session(storage());
  session.signIn('new');
  assert.equal(await session.ask('sign in', 'old'), true);
  assert.equal(session.state.message, null);
});

test('whoever does not want to sign in gets the refusal', async () => {
  const session = new Session(storage());
  const { fetch } = server('right');
  const response = authorized(session, fetch)('/graphql', { headers: {} });
  await new Promise((resolve) => setImmediate(resolve));
  session.dismiss();
  assert.equal((await response).status, 401);
  assert.equal(await messageIn(await response), 'sign in');
});

test('the Headers pane goes before the session', async () => {
  const session = new Session(storage());
  session.signIn('right');
  for (const name of ['authorization', 'Authorization', 'X-API-Key', 'apiKey', 'token']) {
    assert.deepEqual(withCredential(session, { [name]: 'other' }), { [name]: 'other' });
  }
  assert.deepEqual(withCredential(session, { a: '1' }), { a: '1', Authorization: 'Bearer right' });
  const { fetch, seen } = server('right');
  const response = await authorized(session, fetch)('/graphql', { headers: { authorization: 'Bearer wrong' } });
  assert.equal(response.status, 401);
  assert.deepEqual(seen, ['Bearer wrong']);
  assert.equal(session.state.message, null);
});

test('what people paste', () => {
  for (const text of ['abc', ' abc\n', 'Bearer abc', 'Authorization: bearer  abc']) assert.equal(credentialIn(text), 'abc');
  for (const text of ['', ' ', 'a b', 'schlüssel', 'a\nb']) assert.equal(credentialIn(text), '', text);
});

test('refusals are known by their codes', () => {
  assert.ok(isRefused({ code: 4403, reason: 'Forbidden' }) && isRefused({ code: 4401 }));
  assert.ok(!isRefused({ code: 1006 }) && !isRefused(new Error('no')) && !isRefused(undefined));
  const errors = [{ message: 'no' }, { message: 'sign in', extensions: { code: 'UNAUTHENTICATED' } }];
  assert.equal(unauthenticated(errors), 'sign in');
  assert.equal(unauthenticated([{ message: 'no', extensions: { code: 'FORBIDDEN' } }]), undefined);
  assert.equal(unauthenticated(undefined), undefined);
});

test('a credential is checked before it is kept', async () => {
  const { fetch } = server('right');
  assert.equal(await check('right', '/graphql', fetch), '');
  assert.equal(await check('wrong', '/graphql', fetch), 'sign in');
  assert.equal(await check('x', '/graphql', () => Promise.reject(new TypeError('failed'))), 'The server cannot be reached.');
  assert.equal(await messageIn(new Response('<p>', { status: 502 })), 'The server responded with the status 502.');
  const graphql = Response.json({ errors: [{ message: 'expired', extensions: { code: 'UNAUTHENTICATED' } }] });
  assert.equal(await messageIn(graphql), 'expired');
});

test('one signs in with what the server takes, unless one has given up meanwhile', async () => {
  const taken = async () => new Response('{}');
  const session = new Session(null);
  void session.ask('who is it?');
  assert.match(await signInWith(session, 'two words', '/graphql', taken), /without spaces/);
  const refused = async () => new Response('{"errors":[{"message":"sign in"}]}', { status: 401 });
  assert.equal(await signInWith(session, 'wrong', '/graphql', refused), 'sign in');
  assert.equal(session.credential, '');
  assert.equal(await signInWith(session, ' Bearer right ', '/graphql', taken), '');
  assert.deepEqual(session.state, { credential: 'right', message: null });
  void session.ask('again?');
  const slow = async () => {
    session.dismiss();
    return new Response('{}');
  };
  assert.equal(await signInWith(session, 'other', '/graphql', slow), null);
  assert.equal(session.credential, 'right');
});
