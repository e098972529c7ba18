// Merges the files of several volumes into the writable folder /data. Preloaded into workers whose files come from more than
// one volume, and into workers with a TypeScript processor, which Artillery compiles into a folder next to it.
//
// Code is copied, because Node resolves the imports of a linked module from the link's target. Folders are created, so that
// `dist` and compiled files can be written to them. Everything else is linked, so that a volume may hold more than fits on
// the node.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { isMainThread } = require('node:worker_threads');

const CODE = /\.[cm]?[jt]sx?$/i;
// The files of a ConfigMap are links, and code in it may have any name. So the target of any link up to this size is copied.
const MAX_CONFIG_MAP_BYTES = 2 ** 20;
// Modules in these folders find each other without a copy.
const LINKED_FOLDERS = new Set(['node_modules', '.git']);
// Files and folders beyond these limits are linked, which keeps the start of the worker short.
const MAX_CODE_BYTES = 64 * 2 ** 20;
const MAX_ENTRIES = 20_000;

/** Merges the contents of `folders` into one folder. Throws if two folders have an entry of the same name. */
function mergeFolders(folders, into, { maxBytes = MAX_CODE_BYTES, maxEntries = MAX_ENTRIES } = {}) {
  const origins = new Map();
  const budget = { bytes: maxBytes, entries: maxEntries };
  const queue = [];
  for (const folder of folders) {
    // The kubelet keeps the files of a ConfigMap in folders whose names start with two dots.
    for (const entry of fs.readdirSync(folder, { withFileTypes: true }).filter(({ name }) => !name.startsWith('..'))) {
      const { name } = entry;
      if (origins.has(name)) {
        throw new Error(`File ${name} exists in both ${origins.get(name)} and ${folder}.\
 Rename one of them: the files of a test need unique names.`);
      }
      origins.set(name, folder);
      queue.push(...addEntry(entry, folder, into, budget));
    }
  }
  // Breadth first: top-level folders are the most likely to hold code, so they use the budget first.
  for (const { source, target } of queue) {
    const entries = readEntries(source, budget.entries);
    if (!entries) {
      fs.symlinkSync(source, target);
      continue;
    }
    budget.entries -= entries.length;
    fs.mkdirSync(target);
    for (const entry of entries) queue.push(...addEntry(entry, source, target, budget));
  }
}

/** Copies or links an entry into a folder. Returns a folder that is still to merge instead. */
function addEntry(entry, folder, into, budget) {
  const [source, target] = [path.join(folder, entry.name), path.join(into, entry.name)];
  if (entry.isDirectory() && !LINKED_FOLDERS.has(entry.name)) return [{ source, target }];
  if (!copyCode(entry, source, target, budget)) fs.symlinkSync(source, target);
  return [];
}

/** Copies an entry if it is code, or may be a file of a ConfigMap. Returns whether it was copied. */
function copyCode(entry, source, target, budget) {
  if (!entry.isSymbolicLink() && !(entry.isFile() && CODE.test(entry.name))) return false;
  try {
    const file = fs.statSync(source);
    const isCode = CODE.test(entry.name) || file.size <= MAX_CONFIG_MAP_BYTES;
    if (!file.isFile() || !isCode || file.size > budget.bytes) return false;
    fs.copyFileSync(source, target);
    // Artillery may overwrite it with a compiled file.
    fs.chmodSync(target, file.mode | 0o200);
    budget.bytes -= file.size;
    return true;
  } catch {
    // The link that replaces the copy gives the error to whoever reads it.
    fs.rmSync(target, { force: true });
    return false;
  }
}

/** The entries of a folder. Undefined if there are more than `max`, or if it is not readable, such as `lost+found`. */
function readEntries(folder, max) {
  let opened;
  try {
    opened = fs.opendirSync(folder);
    const entries = [];
    for (let entry = opened.readSync(); entry; entry = opened.readSync()) {
      if (entries.push(entry) > max) return undefined;
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
  // Child processes of Artillery inherit the environment and must not merge again.
  delete process.env.LOADTEST_FILES;
  try {
    mergeFolders(folders.split(':'), '/data');
  } catch (error) {
    console.error(`Error: ${error.message}`);
    process.exit(1);
  }
}

module.exports = { mergeFolders };
