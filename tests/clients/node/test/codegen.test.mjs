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
import { parse as parseYaml } from 'yaml';
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

test('the chat example maps every scalar in the same way', () => {
  const scalars = (name) => parseYaml(readFileSync(path.join(TOP, name), 'utf8')).config.scalars;
  assert.deepEqual(scalars('examples/chat/codegen.yml'), scalars('clients/codegen.yml'));
  assert.deepEqual(Object.keys(scalars('clients/codegen.yml')).sort(), Object.values(schema.getTypeMap()).filter((type) => type.constructor.name === 'GraphQLScalarType' && !['String', 'Int', 'Float', 'Boolean', 'ID'].includes(type.name)).map(({ name }) => name).sort());
});

const USE = `import type { ResultOf, VariablesOf } from '@graphql-typed-document-node/core';
import type { Message, Publication } from '${path.join(TOP, 'clients/typescript/dist/index.js')}';
import type { GapReason } from './gql/graphql';
import { Messages, Publish, Topic } from './operations';
import { Messages as PackageMessages, Publish as PackagePublish } from './documented';

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

// The package's own types are written by hand, with comments. They fit what its operations return.
export const message = ({ messages }: ResultOf<typeof PackageMessages>): Message | null | undefined => messages;
export const publication = ({ publish }: ResultOf<typeof PackagePublish>): Publication => publish;

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

/** A module of operations. */
const source = (operations) =>
  ["import { graphql } from './gql';", ...operations.map(({ name, text }) => `export const ${name} = graphql(\`${text}\`);`)].join('\n\n');

const named = ({ text }) => ({ name: parse(text).definitions[0].name.value, text });

test('the operations of all documents, of clients/typescript and of these tests are valid, and tsc compiles their types', { timeout: 240_000 }, async (t) => {
  const documented = documentedOperations();
  assert.ok(documented.length >= 18, `only ${documented.length} operations were found`);
  const invalid = documented.filter(({ text }) => validate(schema, parse(text)).length > 0);
  // This one shows how an operation is refused.
  assert.deepEqual(invalid.map(({ text }) => text.replace(/\s+/g, ' ').replace(/^query \w+ /, '')), ['{ nothing }']);
  const valid = documented.filter((operation) => !invalid.includes(operation)).map(named);
  // The names of operations are unique in a project.
  const own = Object.values(OPERATIONS).map(({ name, text }) => ({ name, text: text.replace(name, `Tested${name}`) }));
  const types = await compile(t, { 'operations.ts': source(own), 'documented.ts': source(valid), 'use.ts': USE });
  assert.equal(types.match(/^export const \w+Document = /gm).length, valid.length + own.length);
  // A scalar that is not mapped would be `any`.
  assert.doesNotMatch(types, /\bany\b(?! )/);
});
