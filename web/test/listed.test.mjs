// Subscriptions that the server refuses, without a server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Listed } from '../src/graphiql/listed.js';
import { Session } from '../src/session.js';

const EXPIRED = { errors: [{ message: 'expired', extensions: { code: 'UNAUTHENTICATED' } }] };

/** The results of one attempt: what is an error is thrown. */
async function* attempt(results) {
  for (const result of results) {
    if (result.data || result.errors) yield result;
    else throw result;
  }
}

/** A subscription whose attempts have these results. `opened` has the credential of each. */
function subscription(session, attempts, asks = true) {
  const opened = [];
  const open = () => {
    opened.push(session.credential);
    return attempt(attempts[opened.length - 1]);
  };
  return { listed: new Listed(session, open, asks), opened };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

for (const refusal of [{ code: 4403, reason: 'Forbidden' }, EXPIRED.errors]) {
  test(`a subscription that is refused begins when one has signed in (${JSON.stringify(refusal)})`, async () => {
    const session = new Session(null);
    const { listed, opened } = subscription(session, [[refusal], [refusal], [{ data: 1 }]]);
    assert.deepEqual((await listed.next()).value, { received: 0, newestFirst: [] });
    const next = listed.next();
    for (const credential of ['wrong', 'right']) {
      await settle();
      assert.notEqual(session.state.message, null);
      session.signIn(credential);
    }
    assert.deepEqual((await next).value, { received: 1, newestFirst: [{ data: 1 }] });
    assert.deepEqual(opened, ['', 'wrong', 'right']);
    assert.equal((await listed.next()).done, true);
  });
}

test('whoever does not want to sign in sees why it was closed', async () => {
  const session = new Session(null);
  const { listed } = subscription(session, [[{ code: 4403, reason: 'Forbidden' }]]);
  await listed.next();
  const next = listed.next();
  await settle();
  session.dismiss();
  await assert.rejects(next, /4403 Forbidden/);
});

test('a subscription whose credential expires shows that, asks, and does not begin again by itself', async () => {
  const session = new Session(null);
  session.signIn('old');
  const { listed, opened } = subscription(session, [[{ data: 1 }, EXPIRED], [{ data: 2 }]]);
  await listed.next();
  await listed.next();
  assert.deepEqual((await listed.next()).value.newestFirst, [EXPIRED, { data: 1 }]);
  assert.equal(session.state.message, 'expired');
  session.signIn('new');
  assert.equal((await listed.next()).done, true);
  assert.deepEqual(opened, ['old']);
});

test('with a credential in the Headers pane nobody is asked', async () => {
  const session = new Session(null);
  const { listed } = subscription(session, [[{ code: 4403, reason: 'Forbidden' }]], false);
  await listed.next();
  await assert.rejects(listed.next(), /4403/);
  assert.equal(session.state.message, null);
});

test('what was subscribed to with a credential ends with it, also while nothing comes', async () => {
  const session = new Session(null);
  session.signIn('key');
  let end;
  const ended = new Promise((resolve) => (end = resolve));
  const results = { next: () => ended, return: async () => end({ done: true }) };
  const listed = new Listed(session, () => results, true);
  await listed.next();
  const next = listed.next();
  await settle();
  session.signOut();
  assert.equal((await next).done, true);
});

test('other errors are the subscription\'s own', async () => {
  const session = new Session(null);
  const { listed } = subscription(session, [[new Error('broken')]]);
  await listed.next();
  await assert.rejects(listed.next(), /broken/);
  assert.equal(session.state.message, null);
});
