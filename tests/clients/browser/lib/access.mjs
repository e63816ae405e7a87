// A server that lets in who has a key, and keys that a test can withdraw.

import { createHash } from 'node:crypto';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const EVERYTHING = 'publish = [">"]\nsubscribe = [">"]\nmanage = [">"]\nstats = true\n';

/** A key and what it may do, by `pub-sub key`'s rule for hashes. */
const entry = ([key, rights], index) => `[[key]]
name = "key-${index}"
hash = "sha256:${createHash('sha256').update(key).digest('hex')}"
${rights}`;

/**
 * The settings of a server with these keys and their rights. `keep` replaces them; the server notices that within seconds.
 * The tests' own requests use `API_KEY`, which stays.
 */
export function accessOf(t, rights) {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-access-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = path.join(directory, 'access.toml');
  const keep = (those) => {
    writeFileSync(`${file}.new`, Object.entries(those).map(entry).join('\n'));
    renameSync(`${file}.new`, file);
  };
  keep(rights);
  return { settings: { API_KEY: 'the-administrator-of-this-test', ACCESS_FILE: file }, keep };
}

/** The same with keys that may do everything. */
export function access(t, ...keys) {
  const all = (those) => Object.fromEntries(those.map((key) => [key, EVERYTHING]));
  const { settings, keep } = accessOf(t, all(keys));
  return { settings, keep: (...those) => keep(all(those)) };
}
