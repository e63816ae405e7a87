// Runs graphql-codegen on schema.graphql with the client preset, as a project sets it up. tsc compiles the result
// together with code that uses it.

import { execFile } from 'node:child_process';
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { buildSchema, parse, printSchema, validate } from 'graphql';
import * as all from '../lib/operations.mjs';

const { INVALID, ...OPERATIONS } = all;
const SCHEMA = fileURLToPath(new URL('../../../../schema.graphql', import.meta.url));
const MODULES = fileURLToPath(new URL('../node_modules', import.meta.url));

/** Runs a package's command. If it fails, its output is the error message. */
async function run(folder, command, ...args) {
  try {
    const env = { PATH: process.env.PATH, HOME: folder, CI: 'true' };
    return await promisify(execFile)(process.execPath, [path.join(MODULES, '.bin', command), ...args], { cwd: folder, env });
  } catch (error) {
    return assert.fail(`${command}: ${error.stdout}${error.stderr || error.message}`);
  }
}

test('graphql-js builds the schema, and the operations are valid on it', () => {
  const schema = buildSchema(readFileSync(SCHEMA, 'utf8'));
  for (const { text } of Object.values(OPERATIONS)) assert.deepEqual(validate(schema, parse(text)), []);
  assert.ok(printSchema(schema).length > 1_000);
});

test('graphql-codegen writes types that tsc compiles', { timeout: 120_000 }, async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'pub-sub-codegen-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const write = (name, text) => writeFileSync(path.join(folder, name), text);
  symlinkSync(MODULES, path.join(folder, 'node_modules'));
  write('codegen.json', JSON.stringify({
    schema: SCHEMA,
    documents: ['operations.ts'],
    generates: { './gql/': { preset: 'client' } },
    config: {
      scalars: { JSON: 'unknown', DateTime: 'string', Cursor: 'string', Long: { input: 'number | string', output: 'number' } },
      strictScalars: true,
    },
  }));
  const documents = Object.values(OPERATIONS).map(({ name, text }) => `export const ${name} = graphql(\`${text}\`);`);
  write('operations.ts', ["import { graphql } from './gql';", ...documents].join('\n\n'));
  write('use.ts', `import type { ResultOf, VariablesOf } from '@graphql-typed-document-node/core';
import type { GapReason } from './gql/graphql';
import { Messages, Publish, Topic } from './operations';

export const variables: VariablesOf<typeof Messages> = { topic: 'news', last: 3, consumer: 'tab-1', ack: 'EXPLICIT' };

export function read(
  { messages }: ResultOf<typeof Messages>,
  { publish }: ResultOf<typeof Publish>,
): [unknown, number, string, GapReason | undefined] {
  const same: string = publish.cursor;
  return [messages?.data, messages?.offset ?? 0, messages?.cursor ?? same, messages?.gap?.reason];
}

export const count = ({ topic }: ResultOf<typeof Topic>): number => topic?.messageCount ?? 0;

// @ts-expect-error a gap may take the place of a message
export const always = ({ messages }: ResultOf<typeof Messages>): string => messages.cursor;
// @ts-expect-error the topic is required
export const without: VariablesOf<typeof Messages> = { last: 3 };
// @ts-expect-error this mode does not exist
export const unknown: VariablesOf<typeof Messages> = { topic: 'news', ack: 'SOMETIMES' };
// @ts-expect-error the topic may not exist
export const never = ({ topic }: ResultOf<typeof Topic>): number => topic.messageCount;
`);
  await run(folder, 'graphql-codegen', '--config', 'codegen.json');
  const flags = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler'];
  await run(folder, 'tsc', ...flags, 'use.ts');
});
