// A server that lets in who has a key, and keys that a test can withdraw.

import { createHash } from 'node:crypto';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** A key that may do everything, by `pub-sub key`'s rule for hashes. */
const entry = (key, index) => `[[key]]
name = "key-${index}"
hash = "sha256:${createHash('sha256').update(key).digest('hex')}"
publish = [">"]
subscribe = [">"]
manage = [">"]
stats = true
`;

/**
 * The settings of a server with these keys. `keep` replaces them; the server notices that within seconds. The tests' own
 * requests use `API_KEY`, which stays.
 */
export function access(t, ...keys) {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'pub-sub-access-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = path.join(directory, 'access.toml');
  const keep = (...those) => {
    writeFileSync(`${file}.new`, those.map(entry).join('\n'));
    renameSync(`${file}.new`, file);
  };
  keep(...keys);
  return { settings: { API_KEY: 'the-administrator-of-this-test', ACCESS_FILE: file }, keep };
}
