import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { source } from './helpers.mjs';
import filesHashPreload from '../preload/files-hash.cjs';

const { filesHash, filesProblem } = filesHashPreload;

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'files-hash-'));
after(() => fs.rmSync(directory, { recursive: true }));

/** Mounts files as the kubelet does: each is a link through `..data`, which is a link to a folder with a timestamp. */
function mount(name, files) {
  const folder = path.join(directory, name);
  fs.mkdirSync(path.join(folder, '..2026_11_27_10_00_00.1'), { recursive: true });
  fs.symlinkSync('..2026_11_27_10_00_00.1', path.join(folder, '..data'));
  for (const [file, content] of Object.entries(files)) {
    fs.writeFileSync(path.join(folder, '..data', file), content);
    fs.symlinkSync(path.join('..data', file), path.join(folder, file));
  }
  return folder;
}

// The operator's test reads the same cases (crates/script/src/files_hash.rs).
test('operator and workers compute the same hash', () => {
  const cases = JSON.parse(fs.readFileSync(new URL('fixtures/files-hash.json', import.meta.url), 'utf8'));
  assert.ok(cases.length > 0);
  for (const { name, files, hash } of cases) {
    assert.equal(filesHash(files.map(([file, content]) => [file, Buffer.from(content)])), hash, name);
  }
});

test('the hash of 1 MB takes some milliseconds', (t) => {
  const content = Buffer.alloc(1_000_000, 'a line of text\n');
  filesHash([['warm', content]]);
  const begun = performance.now();
  filesHash([['a', content]]);
  const took = performance.now() - begun;
  t.diagnostic(`${took.toFixed(1)} ms`);
  // Without Math.imul it would take a second.
  assert.ok(took < 200, `${took} ms`);
});

test('the files of a mounted ConfigMap are compared with the hash', () => {
  const files = { 'test-script.yaml': 'config: {}\n', 'rows.csv': '1\n2\n' };
  const env = (folder) => ({
    LOADTEST_FILES_HASH: filesHash(Object.entries(files).map(([name, text]) => [name, Buffer.from(text)])),
    LOADTEST_FILES_HASH_FOLDER: folder,
    LOADTEST_FILES_HASH_SOURCE: 'ConfigMap script',
  });
  const changed = 'The test files changed after the test had started (ConfigMap script): this worker does not run them.';
  assert.equal(filesProblem(env(mount('same', files))), undefined);
  assert.equal(filesProblem(env(mount('edited', { ...files, 'rows.csv': '1\n3\n' }))), changed);
  assert.equal(filesProblem(env(mount('added', { ...files, more: '' }))), changed);
  assert.equal(filesProblem(env(mount('removed', { 'rows.csv': files['rows.csv'] }))), changed);
  assert.match(filesProblem(env(path.join(directory, 'missing'))), /^Cannot read the test files: ENOENT/);
});

test('a worker with other files exits before it runs anything, and its child processes are not checked', () => {
  const folder = mount('run', { a: 'x' });
  const run = (hash) => spawnSync(process.execPath, ['-e', `
    console.log('runs', require('node:child_process').execFileSync(process.execPath, ['-p', 'process.env.LOADTEST_FILES_HASH']).toString());
    new (require('node:worker_threads').Worker)('console.log("thread")', { eval: true });`], {
    encoding: 'utf8',
    env: {
      ...process.env,
      NODE_OPTIONS: `--require=${source('preload/files-hash.cjs')}`,
      LOADTEST_FILES_HASH: hash,
      LOADTEST_FILES_HASH_FOLDER: folder,
      LOADTEST_FILES_HASH_SOURCE: 'ConfigMaps a, b',
    },
  });
  const same = run(filesHash([['a', Buffer.from('x')]]));
  assert.deepEqual([same.status, same.stdout, same.stderr], [0, 'runs undefined\n\nthread\n', '']);
  const other = run('0123456789abcdef');
  assert.equal(other.status, 1);
  assert.equal(other.stdout, '');
  assert.equal(other.stderr, 'Error: The test files changed after the test had started (ConfigMaps a, b): this worker does not run them.\n');
});
