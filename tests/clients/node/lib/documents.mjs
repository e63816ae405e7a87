// The GraphQL operations in the code blocks of the project's documents, and in the sources of its TypeScript package.

import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parse, print, visit } from 'graphql';
import { TOP } from './server.mjs';

const inside = (folder, ending) => readdirSync(path.join(TOP, folder)).filter((name) => name.endsWith(ending)).map((name) => `${folder}/${name}`);

/** Returns the files that have operations, by their paths in the project. */
const files = () => ['README.md', ...inside('docs', '.md'), ...inside('clients/typescript', '.md'), ...inside('clients/typescript/src', '.ts')];

/** Returns the text of each code block, with the number of its first line. */
function blocks(file, text) {
  if (!file.endsWith('.md')) return [{ line: 1, text }];
  const found = [];
  let open;
  for (const [index, line] of text.split('\n').entries()) {
    if (!line.trimStart().startsWith('```')) {
      if (open) open.text += `${line}\n`;
    } else if (open) {
      found.push(open);
      open = undefined;
    } else {
      open = { line: index + 2, text: '' };
    }
  }
  return found;
}

/** The ways in which the examples write an operation, each with what decodes it. */
const FORMS = [
  // In a request as JSON, over HTTP and on a WebSocket.
  [/"query":"((?:[^"\\]|\\.)*)"/g, (text) => JSON.parse(`"${text}"`)],
  // As a parameter of curl.
  [/'query=([^']*)'/g, (text) => text],
  // In JavaScript and TypeScript.
  [/`([^`]*)`/g, (text) => text],
  [/'((?:subscription|mutation|query)\b(?!=)[^'\n]*\})'/g, (text) => text],
];

/** How an operation begins, but for a query without this word. */
const BEGINS = /\b(?:subscription|mutation|query)\b *(?:\w+ *)?(?:\([^)]*\) *)?\{/g;

const isOperation = (text) => /^\s*(?:subscription|mutation|query|fragment)\b|^\s*\{\s*\w/.test(text) && !text.includes('${');

/**
 * Returns the operations of all documents as `{ at, text }`. Each has a name, which is made of its place if the example gives
 * it none. Fails if a document has an operation in a form that is not known here.
 */
export function documentedOperations() {
  return files().flatMap((file) => {
    const source = readFileSync(path.join(TOP, file), 'utf8');
    return blocks(file, source).flatMap(({ line, text }) => {
      const at = `${file}:${line}`;
      const found = FORMS.flatMap(([form, decode]) => [...text.matchAll(form)].map(([, inner]) => decode(inner)).filter(isOperation));
      const begun = [...text.matchAll(BEGINS)].length;
      const known = found.reduce((sum, operation) => sum + [...operation.matchAll(BEGINS)].length, 0);
      if (begun !== known) throw new Error(`${at}: ${begun} operations begin there, and ${known} are found`);
      return found.map((operation, index) => ({ at, text: named(operation, `${file.replace(/\W/g, '_')}_${line}_${index + 1}`) }));
    });
  });
}

/** Gives an operation without a name this one: code generators need one. */
function named(text, value) {
  const name = { kind: 'Name', value };
  return print(visit(parse(text), { OperationDefinition: (node) => (node.name ? undefined : { ...node, name }) }));
}
