import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import { ARTILLERY_RUN, NO_ARTILLERY } from './helpers.mjs';

const { mergeFolders } = createRequire(import.meta.url)('../preload/files.cjs');

const root = fs.mkdtempSync(path.join(os.tmpdir(), 'files-'));
let [maps, claim, data] = [];
let tests = 0;
beforeEach(() => {
  tests += 1;
  [maps, claim, data] = ['config-maps', 'claim', 'data'].map((name) => path.join(root, String(tests), name));
  for (const folder of [maps, claim, data]) fs.mkdirSync(folder, { recursive: true });
});
after(() => fs.rmSync(root, { recursive: true }));

function write(folder, files) {
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), text);
  }
}

// As the kubelet mounts ConfigMaps: each file is a link through `..data`.
function mount(files) {
  write(path.join(maps, '..2026'), files);
  fs.symlinkSync('..2026', path.join(maps, '..data'));
  for (const name of Object.keys(files)) fs.symlinkSync(path.join('..data', name), path.join(maps, name));
}

/** What an entry of /data is: a copy with its content, a link with its target, or a folder. */
function at(name) {
  const [file, entry] = [path.join(data, name), fs.lstatSync(path.join(data, name), { throwIfNoEntry: false })];
  if (!entry) return 'nothing';
  if (entry.isSymbolicLink()) return `link to ${path.relative(path.dirname(data), fs.readlinkSync(file))}`;
  return entry.isDirectory() ? 'folder' : `copy: ${fs.readFileSync(file, 'utf8')}`;
}

const requireInData = (name) => {
  const { stdout, stderr } = spawnSync(process.execPath, ['-p', `require(${JSON.stringify(path.join(data, name))})`], { encoding: 'utf8' });
  return stdout.trim() || stderr;
};

test('code is copied, folders are created, and everything else is linked', () => {
  mount({ 'test-script.yaml': 'script', 'words.js': 'words', plain: 'plain' });
  write(claim, {
    'people.csv': 'people', 'main.ts': 'main', 'package.json': '{}', 'lib/a.mjs': 'a', 'lib/deep/b.cjs': 'b', 'lib/deep/rows.csv': 'rows',
    'dist/main.js': 'compiled', 'node_modules/m/index.js': 'm', 'lib/node_modules/n/index.js': 'n', '.git/hooks/x.js': 'x',
  });
  fs.mkdirSync(path.join(claim, 'empty'));
  mergeFolders([maps, claim], data);
  const expected = {
    'test-script.yaml': 'copy: script', 'words.js': 'copy: words', plain: 'copy: plain',
    'people.csv': 'link to claim/people.csv', 'main.ts': 'copy: main', 'package.json': 'link to claim/package.json',
    lib: 'folder', 'lib/a.mjs': 'copy: a', 'lib/deep': 'folder', 'lib/deep/b.cjs': 'copy: b', 'lib/deep/rows.csv': 'link to claim/lib/deep/rows.csv',
    dist: 'folder', 'dist/main.js': 'copy: compiled', empty: 'folder',
    node_modules: 'link to claim/node_modules', 'lib/node_modules': 'link to claim/lib/node_modules', '.git': 'link to claim/.git',
    '..data': 'nothing', '..2026': 'nothing',
  };
  assert.deepEqual(Object.fromEntries(Object.keys(expected).map((name) => [name, at(name)])), expected);
});

test('two entries of the same name are an error that names both folders', () => {
  mount({ 'rows.csv': '1' });
  write(claim, { 'rows.csv': '2' });
  assert.throws(() => mergeFolders([maps, claim], data), ({ message }) => message ===
    `File rows.csv exists in both ${maps} and ${claim}. Rename one of them: the files of a test need unique names.`);
});

test('code in a volume can import code from ConfigMaps, from its own folders, and npm modules', () => {
  mount({ 'words.js': "module.exports = 'word';" });
  write(claim, {
    'main.js': "module.exports = [require('./words'), require('./lib/a')].join();",
    'lib/a.js': "module.exports = [require('../words'), require('m'), require('./b.json')].join();",
    'lib/b.json': '"b"',
    // As pnpm installs them: only the link's target finds its dependencies.
    'node_modules/.pnpm/m/node_modules/m/index.js': "module.exports = require('n');",
    'node_modules/.pnpm/m/node_modules/n/index.js': "module.exports = 'module';",
  });
  fs.symlinkSync('.pnpm/m/node_modules/m', path.join(claim, 'node_modules/m'));
  mergeFolders([maps, claim], data);
  assert.equal(requireInData('main.js'), 'word,word,module,b');
});

test('links in a volume stay links, unless their target is code', () => {
  write(claim, { 'lib/a.js': 'a', 'large.csv': 'x'.repeat(2 ** 20 + 1) });
  for (const [name, to] of [['b.js', 'lib/a.js'], ['other', 'lib'], ['lib/up', '..'], ['gone.js', 'nowhere'], ['round', 'round'], ['rows.csv', 'large.csv']]) {
    fs.symlinkSync(to, path.join(claim, name));
  }
  mergeFolders([claim], data);
  assert.deepEqual(['b.js', 'other', 'lib/up', 'gone.js', 'round', 'rows.csv'].map(at), [
    'copy: a', 'link to claim/other', 'link to claim/lib/up', 'link to claim/gone.js', 'link to claim/round', 'link to claim/rows.csv']);
  assert.equal(fs.readFileSync(path.join(data, 'other/a.js'), 'utf8'), 'a');
});

test('a copy is writable and keeps the executable bits', () => {
  write(claim, { 'dist/a.js': 'a' });
  fs.chmodSync(path.join(claim, 'dist/a.js'), 0o555);
  mergeFolders([claim], data);
  assert.equal(fs.statSync(path.join(data, 'dist/a.js')).mode & 0o777, 0o755);
});

test('a large volume is copied up to a number of bytes and entries, and linked beyond', () => {
  write(claim, { 'a.js': '12345', 'b.js': '12345', 'c.js': '1', 'small/x.js': '', 'small/deep/y.js': '', 'wide/1': '', 'wide/2': '', 'wide/3': '' });
  mergeFolders([claim], data, { maxBytes: 8, maxEntries: 4 });
  const isCopy = (name) => at(name).startsWith('copy');
  assert.deepEqual(['a.js', 'b.js', 'c.js', 'small/x.js', 'small/deep/y.js'].map(isCopy).filter(Boolean).length, 4);
  assert.deepEqual([at('small'), at('small/deep'), at('wide')], ['folder', 'folder', 'link to claim/wide']);
});

test('unreadable files and folders are linked', { skip: process.getuid() === 0 && 'root can read all files' }, () => {
  write(claim, { 'lost+found/x': '', 'a.js': '', 'secret.js': '' });
  const closed = ['lost+found', 'secret.js'].map((name) => path.join(claim, name));
  closed.forEach((file) => fs.chmodSync(file, 0));
  mergeFolders([claim], data);
  closed.forEach((file) => fs.chmodSync(file, 0o755));
  assert.deepEqual(['lost+found', 'secret.js', 'a.js'].map(at), ['link to claim/lost+found', 'link to claim/secret.js', 'copy: ']);
});

describe('with Artillery', { skip: NO_ARTILLERY }, () => {
  test('a TypeScript processor in a read-only folder of a volume is compiled and runs', () => {
    mount({ 'words.ts': "export const word = 'compiled-in-place';" });
    write(claim, {
      'load.json': JSON.stringify({
        config: { target: 'http://127.0.0.1:9', phases: [{ duration: 1, arrivalCount: 1 }], processor: './scripts/processor.ts' },
        scenarios: [{ flow: [{ function: 'print' }] }],
      }),
      'scripts/processor.ts': "import { word } from '../words';\nexport function print(_c: unknown, _e: unknown, done: () => void) { console.log(word); done(); }\n",
      'scripts/dist/processor.js': 'old',
    });
    const closed = ['scripts/dist/processor.js', 'scripts/dist', 'scripts', '.'].map((name) => path.join(claim, name));
    closed.forEach((file) => fs.chmodSync(file, 0o555));
    mergeFolders([maps, claim], data);
    const environment = { ...process.env, HOME: root, ARTILLERY_DISABLE_TELEMETRY: 'true', WORKERS: '1' };
    const { status, stdout, stderr } = spawnSync(process.execPath, [...ARTILLERY_RUN, path.join(data, 'load.json')],
      { encoding: 'utf8', env: environment });
    assert.equal(status, 0, stdout + stderr);
    assert.match(stdout, /^compiled-in-place$/m);
    closed.forEach((file) => fs.chmodSync(file, 0o755));
    assert.equal(fs.readFileSync(path.join(claim, 'scripts/dist/processor.js'), 'utf8'), 'old');
  });
});
