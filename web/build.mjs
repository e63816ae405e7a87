// Bundles GraphiQL into dist/: index.html, and assets/ with everything that the page loads. `build.rs` puts these files
// into the binary. This script reads only files in web/, so that a container can run it alone.

import { build } from 'esbuild';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

process.chdir(fileURLToPath(new URL('.', import.meta.url)));
const ASSETS = 'dist/assets';
rmSync('dist', { recursive: true, force: true });
mkdirSync(ASSETS, { recursive: true });

/** The options of both bundles. Names contain a hash of the content, so that browsers may cache the files forever. */
const common = {
  bundle: true,
  minify: true,
  metafile: true,
  target: 'es2022',
  outdir: ASSETS,
  entryNames: '[name]-[hash]',
  chunkNames: '[name]-[hash]',
  assetNames: '[name]-[hash]',
  define: { 'process.env.NODE_ENV': '"production"' },
  // The notices of all packages are in one file (below).
  legalComments: 'none',
  logLevel: 'warning',
};

/** GraphiQL's stylesheet contains Monaco's. The styles that Monaco's modules import would be duplicates. */
const monacoStylesOnce = {
  name: 'monaco-styles-once',
  setup: ({ onLoad }) => onLoad({ filter: /monaco-editor[\\/]esm[\\/].*\.css$/ }, () => ({ contents: '', loader: 'empty' })),
};

/** Returns the name of the file that a bundle has for an entry. */
function output({ metafile }, entry, extension = '.js') {
  const found = Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint === entry);
  if (!found) throw new Error(`${entry}: not in the bundle`);
  const name = extension === '.css' ? found[1].cssBundle : found[0];
  return path.basename(name);
}

const WORKERS = {
  EDITOR_WORKER: 'node_modules/monaco-editor/esm/vs/editor/editor.worker.js',
  GRAPHQL_WORKER: 'node_modules/monaco-graphql/esm/graphql.worker.js',
  JSON_WORKER: 'node_modules/monaco-editor/esm/vs/language/json/json.worker.js',
};
const workers = await build({ ...common, entryPoints: Object.values(WORKERS), format: 'iife' });
const workerNames = Object.entries(WORKERS).map(([name, entry]) => [name, JSON.stringify(output(workers, entry))]);

const main = await build({
  ...common,
  entryPoints: ['src/main.jsx'],
  format: 'esm',
  splitting: true,
  jsx: 'automatic',
  loader: { '.graphql': 'text' },
  plugins: [monacoStylesOnce],
  // GraphiQL imports prettier's parsers by old names, which are CommonJS modules. A dynamic import of these has no named
  // exports.
  alias: { 'prettier/parser-babel': 'prettier/plugins/babel', 'prettier/parser-graphql': 'prettier/plugins/graphql' },
  define: { ...common.define, ...Object.fromEntries(workerNames) },
});

/** Returns the folder of the package that a bundled module belongs to. */
const packageOf = (module) => module.match(/^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0];

/** Collects the licences of all bundled packages, which require that they are distributed with the code. */
function notices(...bundles) {
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
writeFileSync(`${ASSETS}/licences.txt`, notices(workers, main));

const page = readFileSync('src/index.html', 'utf8')
  .replace('%SCRIPT%', output(main, 'src/main.jsx'))
  .replace('%STYLE%', output(main, 'src/main.jsx', '.css'));

for (const file of readdirSync(ASSETS)) {
  const bytes = readFileSync(`${ASSETS}/${file}`);
  const packed = gzipSync(bytes, { level: 9 });
  if (packed.length < bytes.length) writeFileSync(`${ASSETS}/${file}.gz`, packed);
}
// This file is written last: without it, `build.rs` considers the build unfinished.
writeFileSync('dist/index.html', page);

const size = (suffix) => readdirSync(ASSETS).filter(suffix).reduce((sum, file) => sum + readFileSync(`${ASSETS}/${file}`).length, 0);
const kib = (bytes) => `${Math.round(bytes / 1024)} KiB`;
console.log(`dist/: ${kib(size((file) => !file.endsWith('.gz')))}, ${kib(size((file) => file.endsWith('.gz')))} as gzip`);
