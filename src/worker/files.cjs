// Preloaded into a worker whose files come from several volumes, or whose processor is TypeScript, which Artillery
// compiles into a folder beside it: puts them together in one folder that can be written to.
//
// Code is copied, as a module that is a link looks for others where the link ends. Folders are made, so that `dist` and what
// Artillery compiles can be in them. All else is linked, so that a volume may hold more than fits on the node.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { isMainThread } = require('node:worker_threads');

const CODE = /\.[cm]?[jt]sx?$/i;
// The files of ConfigMaps are links themselves, so any small link is taken for one, as code may have any name.
const MOST_CONFIG_MAP_BYTES = 2 ** 20;
// In these modules find each other where they are.
const LINKED_FOLDERS = new Set(['node_modules', '.git']);
// What is beyond is linked as it is, so that a worker soon starts.
const MOST_CODE_BYTES = 64 * 2 ** 20;
const MOST_ENTRIES = 20_000;

/**
 * Puts all that is in some folders into another. Throws where two folders have something of the same name.
 */
function gather(folders, into, { mostBytes = MOST_CODE_BYTES, mostEntries = MOST_ENTRIES } = {}) {
  const from = new Map();
  const left = { bytes: mostBytes, entries: mostEntries };
  const within = [];
  for (const folder of folders) {
    // The kubelet keeps the files of a ConfigMap in folders whose names begin with two dots.
    for (const entry of fs.readdirSync(folder, { withFileTypes: true }).filter(({ name }) => !name.startsWith('..'))) {
      const { name } = entry;
      if (from.has(name)) {
        const places = `${from.get(name)} and ${folder}`;
        throw new Error(`both ${places} have a file ${name}: files beside a test script need names of their own`);
      }
      from.set(name, folder);
      within.push(...put(entry, folder, into, left));
    }
  }
  // The folders that are less deep first: they are the likelier to matter.
  for (const { source, target } of within) {
    const entries = entriesOf(source, left.entries);
    if (!entries) {
      fs.symlinkSync(source, target);
      continue;
    }
    left.entries -= entries.length;
    fs.mkdirSync(target);
    for (const entry of entries) within.push(...put(entry, source, target, left));
  }
}

/** Puts an entry of a folder into another, or tells what is to be done for one that is a folder. */
function put(entry, folder, into, left) {
  const [source, target] = [path.join(folder, entry.name), path.join(into, entry.name)];
  if (entry.isDirectory() && !LINKED_FOLDERS.has(entry.name)) return [{ source, target }];
  if (!copied(entry, source, target, left)) fs.symlinkSync(source, target);
  return [];
}

/** Copies a file of code, or one that may be a ConfigMap's, if it can. */
function copied(entry, source, target, left) {
  if (!entry.isSymbolicLink() && !(entry.isFile() && CODE.test(entry.name))) return false;
  try {
    const file = fs.statSync(source);
    const isCode = CODE.test(entry.name) || file.size <= MOST_CONFIG_MAP_BYTES;
    if (!file.isFile() || !isCode || file.size > left.bytes) return false;
    fs.copyFileSync(source, target);
    // What Artillery compiles may be to replace it.
    fs.chmodSync(target, file.mode | 0o200);
    left.bytes -= file.size;
    return true;
  } catch {
    // Whoever needs it is told why it cannot be read.
    fs.rmSync(target, { force: true });
    return false;
  }
}

/** What is in a folder. Undefined where that is too much, or may not be read, as `lost+found`. */
function entriesOf(folder, most) {
  let opened;
  try {
    opened = fs.opendirSync(folder);
    const entries = [];
    for (let entry = opened.readSync(); entry; entry = opened.readSync()) {
      if (entries.push(entry) > most) return undefined;
    }
    return entries;
  } catch {
    return undefined;
  } finally {
    opened?.closeSync();
  }
}

const folders = process.env.LOADTEST_FILES;
if (folders && isMainThread) {
  // Once: processes that Artillery starts have the same environment.
  delete process.env.LOADTEST_FILES;
  try {
    gather(folders.split(':'), '/data');
  } catch (error) {
    console.error(`Error: ${error.message}`);
    process.exit(1);
  }
}

module.exports = { gather };
