// Preloaded into a worker whose files come from several volumes, or whose processor is TypeScript, which Artillery
// compiles into a folder beside it: puts them together in one folder that can be written to.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { isMainThread } = require('node:worker_threads');

/**
 * Puts all that is in some folders into another: links, but copies of the files of ConfigMaps, which are links
 * themselves; a module loaded by such a link would look for others where the link ends.
 * Throws where two folders have something of the same name.
 */
function gather(folders, into) {
  const from = new Map();
  for (const folder of folders) {
    // The kubelet keeps the files of a ConfigMap in folders whose names begin with two dots.
    for (const name of fs.readdirSync(folder).filter((n) => !n.startsWith('..'))) {
      if (from.has(name)) {
        const places = `${from.get(name)} and ${folder}`;
        throw new Error(`both ${places} have a file ${name}: files beside a test script need names of their own`);
      }
      from.set(name, folder);
      const [source, target] = [path.join(folder, name), path.join(into, name)];
      if (fs.lstatSync(source).isSymbolicLink() && fs.statSync(source).isFile()) fs.copyFileSync(source, target);
      else fs.symlinkSync(source, target);
    }
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
