// Runs graphql-codegen on schema.graphql with clients/codegen.yml, as a project does that copies the two files. tsc compiles
// the result together with code that uses it.

import { execFile } from 'node:child_process';
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { buildSchema, parse, printSchema, validate } from 'graphql';
import { documentedOperations } from '../lib/documents.mjs';
import * as all from '../lib/operations.mjs';
import { TOP } from '../lib/server.mjs';

const { INVALID, ...OPERATIONS } = all;
const SCHEMA = path.join(TOP, 'schema.graphql');
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

/** Makes a project with these sources, generates the types of its operations, and compiles it. */
async function compile(t, sources) {
  const folder = mkdtempSync(path.join(tmpdir(), 'pub-sub-codegen-'));
  t.after(() => rmSync(folder, { recursive: true }));
  symlinkSync(MODULES, path.join(folder, 'node_modules'));
  copyFileSync(SCHEMA, path.join(folder, 'schema.graphql'));
  copyFileSync(path.join(TOP, 'clients/codegen.yml'), path.join(folder, 'codegen.yml'));
  mkdirSync(path.join(folder, 'src'));
  for (const [name, text] of Object.entries(sources)) writeFileSync(path.join(folder, 'src', name), text);
  await run(folder, 'graphql-codegen', '--config', 'codegen.yml');
  const flags = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler'];
  await run(folder, 'tsc', ...flags, ...Object.keys(sources).map((name) => path.join('src', name)));
  return readFileSync(path.join(folder, 'src/gql/graphql.ts'), 'utf8');
}

const schema = buildSchema(readFileSync(SCHEMA, 'utf8'));

test('graphql-js builds the schema, and the operations are valid on it', () => {
  for (const { text } of Object.values(OPERATIONS)) assert.deepEqual(validate(schema, parse(text)), []);
  assert.ok(printSchema(schema).length > 1_000);
});

test('graphql-codegen writes types that tsc compiles', { timeout: 240_000 }, async (t) => {
  const documents = Object.values(OPERATIONS).map(({ name, text }) => `export const ${name} = graphql(\`${text}\`);`);
  const operations = ["import { graphql } from './gql';", ...documents].join('\n\n');
  const use = `import type { ResultOf, VariablesOf } from '@graphql-typed-document-node/core';
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
export const large: VariablesOf<typeof Publish> = { topic: 'news', data: 1, expectedOffset: '9007199254740993' };

// @ts-expect-error a gap may take the place of a message
export const always = ({ messages }: ResultOf<typeof Messages>): string => messages.cursor;
// @ts-expect-error the topic is required
export const without: VariablesOf<typeof Messages> = { last: 3 };
// @ts-expect-error this mode does not exist
export const unknown: VariablesOf<typeof Messages> = { topic: 'news', ack: 'SOMETIMES' };
// @ts-expect-error the topic may not exist
export const never = ({ topic }: ResultOf<typeof Topic>): number => topic.messageCount;
// @ts-expect-error a cursor is text
export const number: VariablesOf<typeof Messages> = { topic: 'news', after: 1 };
// @ts-expect-error data may be anything, so that it cannot be used before it is checked
export const field = ({ messages }: ResultOf<typeof Messages>): unknown => messages?.data.total;
`;
  await compile(t, { 'operations.ts': operations, 'use.ts': use });
});

test('the operations of README.md and docs/ are valid, and tsc compiles their types', { timeout: 240_000 }, async (t) => {
  const operations = documentedOperations();
  assert.ok(operations.length >= 12, `only ${operations.length} operations were found`);
  const invalid = operations.filter(({ text }) => validate(schema, parse(text)).length > 0);
  // This one shows how an operation is refused.
  assert.deepEqual(invalid.map(({ text }) => text.replace(/\s+/g, ' ')), [`query ${parse(invalid[0].text).definitions[0].name.value} { nothing }`]);
  const valid = operations.filter((operation) => !invalid.includes(operation));
  const documents = valid.map(({ at, text }, index) => `// ${at}\nexport const Operation${index} = graphql(\`${text}\`);`);
  const types = await compile(t, { 'operations.ts': ["import { graphql } from './gql';", ...documents].join('\n\n') });
  assert.equal(types.match(/^export const \w+Document = /gm).length, valid.length);
  // A scalar that is not mapped would be `any`.
  assert.doesNotMatch(types, /\bany\b(?! )/);
});
