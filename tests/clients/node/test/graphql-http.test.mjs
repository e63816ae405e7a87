// Runs the audits of npm graphql-http for GraphQL over HTTP: every MUST and SHOULD, and every MAY that it knows.

import { serverAudits } from 'graphql-http';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Server } from '../lib/server.mjs';

test('audits of GraphQL over HTTP', { timeout: 60_000 }, async (t) => {
  const server = await Server.start(t);
  const audits = serverAudits({ url: server.http, fetchFn: fetch });
  assert.ok(audits.length >= 60, `only ${audits.length} audits`);
  for (const audit of audits) {
    await t.test(`${audit.id} ${audit.name}`, async (t) => {
      const result = await audit.fn();
      if (result.status === 'ok') return;
      if (audit.name.startsWith('MAY')) return t.diagnostic(`${result.status}: ${result.reason}`);
      assert.fail(`${result.status}: ${result.reason}`);
    });
  }
});
