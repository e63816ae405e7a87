// Runs relay-compiler on tagged documents and schema.graphql.

import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import relayCompiler from 'relay-compiler';

const SCHEMA = fileURLToPath(new URL('../../../../schema.graphql', import.meta.url));

/** Relay requires an operation to be named after its module and its kind. */
const relayName = ({ kind, name }) => `${name}${kind[0].toUpperCase()}${kind.slice(1)}`;

/** Compiles tagged documents, each in its own module, and returns the artifacts by the names of their operations. */
export async function compile(operations) {
  const folder = mkdtempSync(path.join(tmpdir(), 'pub-sub-relay-'));
  try {
    const write = (name, text) => writeFileSync(path.join(folder, name), text);
    mkdirSync(path.join(folder, 'src'));
    mkdirSync(path.join(folder, 'artifacts'));
    write('package.json', '{"type":"module"}');
    write('schema.graphql', readFileSync(SCHEMA));
    write('relay.config.json', JSON.stringify({
      src: './src',
      schema: './schema.graphql',
      language: 'javascript',
      eagerEsModules: true,
      artifactDirectory: './artifacts',
      schemaConfig: { customScalarTypes: { JSON: 'mixed', DateTime: 'string', Cursor: 'string', Long: 'number' } },
    }));
    for (const operation of operations) {
      const { kind, name, text } = operation;
      const renamed = text.replace(`${kind} ${name}`, `${kind} ${relayName(operation)}`);
      write(`src/${name}.js`, `import { graphql } from 'relay-runtime';\n\nexport const document = graphql\`${renamed}\`;\n`);
    }
    const env = { PATH: process.env.PATH, HOME: folder };
    await promisify(execFile)(relayCompiler, ['relay.config.json'], { cwd: folder, env });
    const load = async (operation) => {
      const file = path.join(folder, 'artifacts', `${relayName(operation)}.graphql.js`);
      return [operation.name, (await import(pathToFileURL(file))).default];
    };
    return Object.fromEntries(await Promise.all(operations.map(load)));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
