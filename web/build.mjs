// Bundles the two pages into dist/: the console (console.html, and console/ with everything that it loads), and GraphiQL
// (graphql.html and graphql/). `build.rs` puts these files into the binary. This script reads only files in web/, so that a
// container can run it alone.

import { build } from 'esbuild';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

process.chdir(fileURLToPath(new URL('.', import.meta.url)));
rmSync('dist', { recursive: true, force: true });

/** The options of all bundles. Names contain a hash of the content, so that browsers may cache the files forever. */
const common = {
  bundle: true,
  minify: true,
  metafile: true,
  target: 'es2022',
  entryNames: '[name]-[hash]',
  chunkNames: '[name]-[hash]',
  assetNames: '[name]-[hash]',
  define: { 'process.env.NODE_ENV': '"production"' },
  // The notices of all packages are in one file (below).
  legalComments: 'none',
  logLevel: 'warning',
};

/** Returns the name of the file that a bundle has for an entry. */
function output({ metafile }, entry, extension = '.js') {
  const found = Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint === entry);
  if (!found) throw new Error(`${entry}: not in the bundle`);
  const name = extension === '.css' ? found[1].cssBundle : found[0];
  return path.basename(name);
}

/** Returns the folder of the package that a bundled module belongs to. */
const packageOf = (module) => module.match(/^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0];

/** Collects the licences of all bundled packages, which require that they are distributed with the code. */
function notices(bundles) {
  const modules = bundles.flatMap(({ metafile }) => Object.keys(metafile.inputs));
  const folders = [...new Set(modules.map(packageOf).filter(Boolean))].sort();
  const texts = folders.map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8'));
    const files = readdirSync(folder).filter((file) => /^(licen[cs]e|notice|thirdpartynotices)/i.test(file)).sort();
    const licences = files.map((file) => readFileSync(`${folder}/${file}`, 'utf8').trim());
    return `${name} ${version} (${license})\n\n${licences.join('\n\n')}`.trim();
  });
  return `${texts.join(`\n\n${'-'.repeat(80)}\n\n`)}\n`;
}

const kib = (bytes) => `${Math.round(bytes / 1024)} KiB`;

/** Finishes a page whose script and styles the last of these bundles has: notices, compressed files, the document. */
function finish(page, source, entry, bundles) {
  const folder = `dist/${page}`;
  writeFileSync(`${folder}/licences.txt`, notices(bundles));
  const sizes = { plain: 0, gzip: 0 };
  for (const file of readdirSync(folder)) {
    const bytes = readFileSync(`${folder}/${file}`);
    const packed = gzipSync(bytes, { level: 9 });
    if (packed.length < bytes.length) writeFileSync(`${folder}/${file}.gz`, packed);
    if (file === 'licences.txt') continue;
    sizes.plain += bytes.length;
    sizes.gzip += Math.min(packed.length, bytes.length);
  }
  const document = readFileSync(source, 'utf8')
    .replace('%SCRIPT%', output(bundles.at(-1), entry))
    .replace('%STYLE%', output(bundles.at(-1), entry, '.css'));
  console.log(`dist/${page}: ${kib(sizes.plain)}, ${kib(sizes.gzip)} as gzip`);
  return document;
}

async function graphiql() {
  const outdir = 'dist/graphql';
  mkdirSync(outdir, { recursive: true });
  const WORKERS = {
    EDITOR_WORKER: 'node_modules/monaco-editor/esm/vs/editor/editor.worker.js',
    GRAPHQL_WORKER: 'node_modules/monaco-graphql/esm/graphql.worker.js',
    JSON_WORKER: 'node_modules/monaco-editor/esm/vs/language/json/json.worker.js',
  };
  const workers = await build({ ...common, outdir, entryPoints: Object.values(WORKERS), format: 'iife' });
  const workerNames = Object.entries(WORKERS).map(([name, entry]) => [name, JSON.stringify(output(workers, entry))]);
  /** GraphiQL's stylesheet contains Monaco's. The styles that Monaco's modules import would be duplicates. */
  const monacoStylesOnce = {
    name: 'monaco-styles-once',
    setup: ({ onLoad }) => onLoad({ filter: /monaco-editor[\\/]esm[\\/].*\.css$/ }, () => ({ contents: '', loader: 'empty' })),
  };
  const main = await build({
    ...common,
    outdir,
    entryPoints: ['src/graphiql/main.jsx'],
    format: 'esm',
    splitting: true,
    jsx: 'automatic',
    jsxImportSource: 'react',
    loader: { '.graphql': 'text' },
    plugins: [monacoStylesOnce],
    // GraphiQL imports prettier's parsers by old names, which are CommonJS modules. A dynamic import of these has no named
    // exports.
    alias: { 'prettier/parser-babel': 'prettier/plugins/babel', 'prettier/parser-graphql': 'prettier/plugins/graphql' },
    define: { ...common.define, ...Object.fromEntries(workerNames) },
  });
  return finish('graphql', 'src/graphiql/index.html', 'src/graphiql/main.jsx', [workers, main]);
}

async function consolePage() {
  const outdir = 'dist/console';
  mkdirSync(outdir, { recursive: true });
  const main = await build({
    ...common,
    outdir,
    entryPoints: ['src/console/main.tsx'],
    format: 'esm',
    jsx: 'automatic',
    jsxImportSource: 'preact',
  });
  return finish('console', 'src/console/index.html', 'src/console/main.tsx', [main]);
}

// The documents are written last: without them, `build.rs` considers the build unfinished.
const [first, second] = await Promise.all([graphiql(), consolePage()]);
writeFileSync('dist/graphql.html', first);
writeFileSync('dist/console.html', second);
