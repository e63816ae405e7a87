// Writes src/console/generated.ts: the types of the console's operations, made from `schema.graphql` by GraphQL Code
// Generator, with the text of each operation. `npm test` fails if the file is not what this would write.

import { codegen } from '@graphql-codegen/core';
import * as documentNode from '@graphql-codegen/typed-document-node';
import * as operationTypes from '@graphql-codegen/typescript-operations';
import { parse } from 'graphql';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
export const FILE = here('src/console/generated.ts');

export async function generate() {
  const folder = here('src/console/operations/');
  const files = readdirSync(folder).sort();
  const documents = files.map((name) => {
    const location = folder + name;
    return { location: name, document: parse(readFileSync(location, 'utf8'), { noLocation: true }) };
  });
  return codegen({
    filename: FILE,
    schema: parse(readFileSync(here('../schema.graphql'), 'utf8')),
    documents,
    plugins: [{ note: {} }, { types: {} }, { documents: {} }],
    pluginMap: {
      note: { plugin: () => '// Written by `npm run generate` from schema.graphql and operations/.\n' },
      types: operationTypes,
      documents: documentNode,
    },
    config: {
      documentMode: 'string',
      skipTypename: true,
      enumType: 'string-literal',
      useTypeImports: true,
      avoidOptionals: { inputValue: false },
      scalars: {
        JSON: 'unknown',
        Cursor: 'string',
        DateTime: 'string',
        Headers: 'Record<string, string>',
        // The page compares 64-bit numbers and shows them. Up to 2^53 they are exact.
        Long: 'number',
      },
    },
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(FILE, await generate());
