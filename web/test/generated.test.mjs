// The types of the console's operations are those of the schema as it is now.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FILE, generate } from '../generate.mjs';

test('generated.ts is what `npm run generate` writes', async () => {
  assert.equal(readFileSync(FILE, 'utf8'), await generate());
});
