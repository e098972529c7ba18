// Gives Artillery as many threads as its pod has CPUs, and does not let it run without a plugin that it needs. Preloaded:
// NODE_OPTIONS=--require=/opt/loadtest/cpus.cjs
//
// Artillery starts one thread less than os.cpus() has entries (lib/platform/local/index.js, lib/launch-platform.js before
// 2.0.20), and these are the host's. Versions since 2.0.20 read WORKERS and do not use it, so it is heeded here.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { syncBuiltinESMExports } = require('node:module');
const { isMainThread } = require('node:worker_threads');

const SOME_CPU = { model: 'unknown', speed: 0, times: { user: 0, nice: 0, sys: 0, idle: 0, irq: 0 } };
const MOST_THREADS = 1024;

function words(file) {
  try {
    return fs.readFileSync(file, 'utf8').trim().split(/\s+/);
  } catch {
    return [];
  }
}

/** The CPU limit of this container, in CPUs: cgroup v2, else v1. Undefined where there is none. */
function cpuLimit(root = '/sys/fs/cgroup') {
  const [quota, period] = [
    words(`${root}/cpu.max`),
    ['quota', 'period'].map((what) => words(`${root}/cpu/cpu.cfs_${what}_us`)[0]),
  ].find(([first]) => first) ?? [];
  const cpus = Number(quota) / Number(period);
  return cpus > 0 && Number.isFinite(cpus) ? cpus : undefined;
}

/** How many threads Artillery is to start: WORKERS as lib/cmds/run.js reads it, else the limit, else the request. */
function threadCount(env, limit, hostCpus) {
  if (env.WORKERS) {
    return Math.min(Math.max(1, Number.parseInt(env.WORKERS, 10) || 1), MOST_THREADS);
  }
  const request = Number(env.LOADTEST_CPU_REQUEST_MILLIS) / 1000;
  return Math.max(1, Math.min(Math.ceil(limit ?? (request || 1)), hostCpus));
}

// What a worker would do without a plugin that a variable of the operator is for: Artillery only warns of one that is missing.
const NEEDED = [
  { variable: 'LOADTEST_DIVIDE', plugin: 'loadtest-divide', otherwise: 'send the load of all workers' },
  { variable: 'LOADTEST_START_FILE', plugin: 'loadtest-together', otherwise: 'not wait for the others' },
];

/** Why Artillery would run without a plugin that is needed (lib/load-plugins.js). Undefined where it would not. */
function pluginFault(env) {
  const needed = NEEDED.filter(({ variable }) => env[variable]);
  const folders = (env.ARTILLERY_PLUGIN_PATH ?? '').split(':').filter(Boolean);
  for (const { plugin, otherwise } of needed) {
    const without = `without its plugin ${plugin} this worker would ${otherwise}, and`;
    const { scope = 'artillery-plugin-' } = pluginsOf(env)[plugin] ?? { scope: null };
    if (scope !== 'artillery-plugin-') return `${without} the variable ARTILLERY_PLUGINS does not have it`;
    if (!folders.some((folder) => fs.existsSync(path.join(folder, `artillery-plugin-${plugin}`)))) {
      return `${without} it is in no folder of the variable ARTILLERY_PLUGIN_PATH`;
    }
  }
  return undefined;
}

function pluginsOf({ ARTILLERY_PLUGINS: text }) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

const fault = isMainThread ? pluginFault(process.env) : undefined;
if (fault) {
  console.error(`Error: ${fault}: let nothing in the worker's image or its entry point set it anew`);
  process.exit(1);
}

const limit = cpuLimit();
const hostCpus = os.cpus;
os.cpus = function cpus() {
  const all = hostCpus();
  const length = threadCount(process.env, limit, all.length) + 1;
  return Array.from({ length }, (_, index) => all[index] ?? structuredClone(all[0] ?? SOME_CPU));
};
// For those who import { cpus } from 'node:os'.
syncBuiltinESMExports();

module.exports = { cpuLimit, pluginFault, threadCount };
