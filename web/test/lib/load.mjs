// Loads a module of the console, which is TypeScript, as the bundler does.

import { build } from 'esbuild';
import { fileURLToPath } from 'node:url';

export async function load(name) {
  const entry = fileURLToPath(new URL(`../../src/console/${name}`, import.meta.url));
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, format: 'esm', write: false, logLevel: 'warning' });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString('base64')}`);
}
