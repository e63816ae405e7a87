// Runs the audits of npm graphql-http for GraphQL over HTTP: every MUST and SHOULD, and every MAY that it knows, except those
// that the release of November 2026 changed: 422 where the drafts had 400, and the same statuses in both media types.

import { serverAudits } from 'graphql-http';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Server } from '../lib/server.mjs';

const CHANGED = new Set(['572B', 'FDE2', '7B9B', '74FF', '86EE']);

test('audits of GraphQL over HTTP', { timeout: 60_000 }, async (t) => {
  const server = await Server.start(t);
  const audits = serverAudits({ url: server.http, fetchFn: fetch });
  assert.ok(audits.length >= 60, `only ${audits.length} audits`);
  for (const audit of audits) {
    await t.test(`${audit.id} ${audit.name}`, async (t) => {
      const result = await audit.fn();
      if (result.status === 'ok') return;
      if (CHANGED.has(audit.id)) {
        const { status } = result.response ?? {};
        return assert.equal(status, ['572B', 'FDE2'].includes(audit.id) ? 400 : 422, result.reason);
      }
      if (audit.name.startsWith('MAY')) return t.diagnostic(`${result.status}: ${result.reason}`);
      assert.fail(`${result.status}: ${result.reason}`);
    });
  }
});
