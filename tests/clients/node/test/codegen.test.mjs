// graphql-codegen on schema.graphql, its types compiled by tsc against code that uses them.

import { codegen } from '@graphql-codegen/core';
import * as typescript from '@graphql-codegen/typescript';
import * as operations from '@graphql-codegen/typescript-operations';
import { execFileSync } from 'node:child_process';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { buildSchema, parse, printSchema, validate } from 'graphql';
import * as all from '../lib/operations.mjs';
import { binary } from '../lib/server.mjs';

const { INVALID, ...OPERATIONS } = all;

/** The file at the top of the repository; while there is none, what the binary prints. */
function schemaText(t) {
  try {
    return readFileSync(fileURLToPath(new URL('../../../../schema.graphql', import.meta.url)), 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    t.diagnostic('no schema.graphql yet: the schema that the binary prints');
    return execFileSync(binary(), ['schema'], { encoding: 'utf8' });
  }
}

test('graphql-js builds the schema, and the operations are valid on it', (t) => {
  const schema = buildSchema(schemaText(t));
  for (const { text } of Object.values(OPERATIONS)) assert.deepEqual(validate(schema, parse(text)), []);
  assert.ok(printSchema(schema).length > 1_000);
});

test('graphql-codegen writes types that tsc compiles', { timeout: 60_000 }, async (t) => {
  const schema = parse(schemaText(t));
  const code = await codegen({
    schema,
    documents: Object.values(OPERATIONS).map(({ name, text }) => ({ location: `${name}.graphql`, document: parse(text) })),
    filename: 'types.ts',
    config: { scalars: { JSON: 'unknown', DateTime: 'string', Cursor: 'string', Long: { input: 'number | string', output: 'number' } } },
    plugins: [{ typescript: {} }, { operations: {} }],
    pluginMap: { typescript, operations },
  });
  const folder = mkdtempSync(path.join(tmpdir(), 'pub-sub-codegen-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(path.join(folder, 'types.ts'), code);
  writeFileSync(
    path.join(folder, 'use.ts'),
    `import type { AckMode, GapReason, Message, MessagesSubscription, MessagesSubscriptionVariables, PublishMutation } from './types';

export const variables: MessagesSubscriptionVariables = { topic: 'news', last: 3, consumer: 'tab-1', ack: 'EXPLICIT' as AckMode };

export function read(result: MessagesSubscription, published: PublishMutation): [unknown, number, string, GapReason | undefined] {
  const { data, offset, cursor, gap } = result.messages;
  const same: Message['cursor'] = published.publish.cursor;
  return [data, offset, cursor ?? same, gap?.reason];
}

// @ts-expect-error a topic is needed
export const wrong: MessagesSubscriptionVariables = { last: 3 };
`,
  );
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  const flags = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext'];
  try {
    execFileSync(process.execPath, [tsc, ...flags, 'use.ts', 'types.ts'], { cwd: folder, encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    assert.fail(error.stdout || error.message);
  }
});
