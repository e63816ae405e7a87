// Puts the page into dist/. With `serve`, serves it at http://localhost:3000/ and builds it again for each request.

import { context } from 'esbuild';
import { copyFileSync, mkdirSync } from 'node:fs';

mkdirSync('dist', { recursive: true });
copyFileSync('src/index.html', 'dist/index.html');
const build = await context({
  entryPoints: ['src/main.tsx', 'src/style.css'],
  outdir: 'dist',
  bundle: true,
  format: 'esm',
  jsx: 'automatic',
  minify: true,
  sourcemap: true,
  define: { 'process.env.NODE_ENV': '"production"' },
});
if (process.argv[2] === 'serve') {
  const { port } = await build.serve({ servedir: 'dist', port: 3000, host: 'localhost' });
  console.log(`http://localhost:${port}/`);
} else {
  await build.rebuild();
  await build.dispose();
}
