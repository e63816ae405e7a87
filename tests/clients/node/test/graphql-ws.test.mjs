// Tests npm graphql-ws, the reference client of graphql-transport-ws.

import { createClient } from 'graphql-ws';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import WebSocket from 'ws';
import { scenarios } from '../lib/scenarios.mjs';
import { graphqlWs, options } from '../lib/graphql-ws.mjs';
import { Server } from '../lib/server.mjs';
import { after, Inbox } from '../lib/wait.mjs';

scenarios('graphql-ws', ({ ws }) => graphqlWs(createClient, WebSocket, ws));
scenarios('graphql-ws at /graphql/ws', ({ ws }) => graphqlWs(createClient, WebSocket, `${ws}/ws`, { lazy: false }), { reconnects: false });

test('graphql-ws: a subscription with extensions.ack is acknowledged by a ping with its position', { timeout: 60_000 }, async (t) => {
  const server = await Server.start(t);
  const { cursor } = await server.publish('news', 1);
  const [pings, results] = [new Inbox(), new Inbox()];
  const on = { ping: (received, payload) => received && pings.push(payload) };
  const client = createClient({ ...options(WebSocket, server.ws), on });
  after(t, () => client.dispose());
  const sink = { next: (result) => results.push(result), error: (error) => results.push({ error }), complete: () => {} };
  const query = 'subscription { messages(topic: "news", consumer: "tab-1") { data } }';
  client.subscribe({ query, extensions: { ack: 'mine' } }, sink);
  const consumer = { name: 'tab-1', resumed: false, cursor };
  assert.deepEqual(await pings.next('the acknowledgement'), { ack: 'mine', cursor, consumer });
  // The subscription is live from there on. The client has responded to the ping, and the connection stays open.
  await server.publish('news', 2);
  assert.equal((await results.next('the message')).data.messages.data, 2);
});
