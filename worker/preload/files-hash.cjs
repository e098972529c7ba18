// Stops a worker whose test files are not those with which the test started: a ConfigMap can change while a worker still waits
// for its node, and one test runs one script. Preloaded before Artillery reads the script, with these variables:
//
//   LOADTEST_FILES_HASH           the hash of the files when the test started
//   LOADTEST_FILES_HASH_FOLDER    the folder in which they are mounted
//   LOADTEST_FILES_HASH_SOURCE    where they come from, for the message
//
// The hash of a file consists of two 32-bit FNV-1a hashes of its name, a zero byte and its content. The hashes of all files are
// added, modulo 2^32, so their order does not matter. The operator computes the same (`crates/script/src/files_hash.rs`).
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { isMainThread } = require('node:worker_threads');

const OFFSET_BASES = [0x811c9dc5, 0x9747b28c];
const PRIME = 0x01000193;

/** The two hashes of bytes, continuing from these hashes. One pass for both takes half of the time of two. */
function fnv1a(bytes, [first, second]) {
  for (let i = 0; i < bytes.length; i += 1) {
    first = Math.imul(first ^ bytes[i], PRIME);
    second = Math.imul(second ^ bytes[i], PRIME);
  }
  return [first, second];
}

/** The hash of files, each given as [name, content]. */
function filesHash(files) {
  let sums = [0, 0];
  for (const [name, content] of files) {
    const hashes = fnv1a(content, fnv1a(Buffer.from(`${name}\0`), OFFSET_BASES));
    sums = sums.map((sum, i) => (sum + hashes[i]) >>> 0);
  }
  return sums.map((sum) => sum.toString(16).padStart(8, '0')).join('');
}

/** The files of a mounted volume. The kubelet keeps them in folders whose names start with two dots, and links to them. */
function readFiles(folder) {
  const names = fs.readdirSync(folder).filter((name) => !name.startsWith('..'));
  const files = names.map((name) => [name, path.join(folder, name)]).filter(([, file]) => fs.statSync(file).isFile());
  return files.map(([name, file]) => [name, fs.readFileSync(file)]);
}

/** Why this worker must not run its files. Undefined if they are those with which the test started. */
function filesProblem({ LOADTEST_FILES_HASH: expected, LOADTEST_FILES_HASH_FOLDER: folder, LOADTEST_FILES_HASH_SOURCE: source }) {
  try {
    if (filesHash(readFiles(folder)) === expected) return undefined;
  } catch (error) {
    return `Cannot read the test files: ${error.message}`;
  }
  return `The test files changed after the test had started (${source}): this worker does not run them.`;
}

if (process.env.LOADTEST_FILES_HASH && isMainThread) {
  const problem = filesProblem(process.env);
  // Child processes of Artillery inherit the environment. The files may change while the test runs.
  delete process.env.LOADTEST_FILES_HASH;
  if (problem) {
    console.error(`Error: ${problem}`);
    process.exit(1);
  }
}

module.exports = { filesHash, filesProblem };
