// npm graphql-ws: the reference client of graphql-transport-ws.

import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { scenarios } from '../lib/scenarios.mjs';
import { graphqlWs } from '../lib/graphql-ws.mjs';

scenarios('graphql-ws', ({ ws }) => graphqlWs(createClient, WebSocket, ws));
scenarios('graphql-ws at /graphql/ws', ({ ws }) => graphqlWs(createClient, WebSocket, `${ws}/ws`, { lazy: false }), { reconnects: false });
