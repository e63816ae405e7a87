// Validates the tabs that GraphiQL opens with against the schema.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { buildSchema, getOperationAST, getVariableValues, parse, specifiedRules, validate } from 'graphql';

const read = (file) => readFileSync(new URL(file, import.meta.url), 'utf8');
const schema = buildSchema(read('../../schema.graphql'));
const files = readdirSync(new URL('../src/graphiql/examples/', import.meta.url));

for (const file of files.filter((name) => name.endsWith('.graphql'))) {
  test(file, () => {
    const document = parse(read(`../src/graphiql/examples/${file}`));
    assert.deepEqual(validate(schema, document, specifiedRules), []);
    const operation = getOperationAST(document);
    assert.ok(operation?.name, 'exactly one operation, with a name for its tab');
    const variables = file.replace('.graphql', '.json');
    const given = files.includes(variables) ? JSON.parse(read(`../src/graphiql/examples/${variables}`)) : {};
    const { errors } = getVariableValues(schema, operation.variableDefinitions ?? [], given);
    assert.equal(errors, undefined);
  });
}
