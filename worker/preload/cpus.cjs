// Limits Artillery's threads to the CPUs of the pod, and stops a worker from running without a plugin that it requires.
// Preloaded by NODE_OPTIONS=--require=/opt/loadtest/cpus.cjs
//
// Artillery starts one thread fewer than os.cpus() has entries (lib/platform/local/index.js; lib/launch-platform.js before
// 2.0.20), and os.cpus() lists the CPUs of the host. Since 2.0.20 Artillery reads WORKERS but ignores it, so it is applied
// here.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { syncBuiltinESMExports } = require('node:module');
const { isMainThread } = require('node:worker_threads');

const PLACEHOLDER_CPU = { model: 'unknown', speed: 0, times: { user: 0, nice: 0, sys: 0, idle: 0, irq: 0 } };
const MAX_THREADS = 1024;

function readWords(file) {
  try {
    return fs.readFileSync(file, 'utf8').trim().split(/\s+/);
  } catch {
    return [];
  }
}

/** The CPU limit of this container in CPUs, from cgroup v2 or else v1. Undefined without a limit. */
function cpuLimit(root = '/sys/fs/cgroup') {
  const [quota, period] = [
    readWords(`${root}/cpu.max`),
    ['quota', 'period'].map((name) => readWords(`${root}/cpu/cpu.cfs_${name}_us`)[0]),
  ].find(([first]) => first) ?? [];
  const cpus = Number(quota) / Number(period);
  return cpus > 0 && Number.isFinite(cpus) ? cpus : undefined;
}

/** The number of threads for Artillery: WORKERS as lib/cmds/run.js parses it, else the CPU limit, else the CPU request. */
function threadCount(env, limit, hostCpus) {
  if (env.WORKERS) {
    return Math.min(Math.max(1, Number.parseInt(env.WORKERS, 10) || 1), MAX_THREADS);
  }
  const request = Number(env.LOADTEST_CPU_REQUEST_MILLIS) / 1000;
  return Math.max(1, Math.min(Math.ceil(limit ?? (request || 1)), hostCpus));
}

// The plugins that the operator's variables require. Artillery itself only warns about a missing plugin.
const REQUIRED_PLUGINS = [
  { variable: 'LOADTEST_DIVIDE', plugin: 'loadtest-divide', consequence: 'send the load of all workers' },
  { variable: 'LOADTEST_START_FILE', plugin: 'loadtest-together', consequence: 'not wait for the other workers' },
];

/** Why Artillery would not load a required plugin (lib/load-plugins.js). Undefined if it loads all of them. */
function missingPlugin(env) {
  const required = REQUIRED_PLUGINS.filter(({ variable }) => env[variable]);
  const folders = (env.ARTILLERY_PLUGIN_PATH ?? '').split(':').filter(Boolean);
  const message = (plugin, problem, consequence, variable) =>
    `Plugin ${plugin} ${problem} ${variable}. Without it this worker would ${consequence}.\
 Do not set ${variable} in the worker's image or entry point.`;
  for (const { plugin, consequence } of required) {
    const { scope = 'artillery-plugin-' } = pluginsFromEnv(env)[plugin] ?? { scope: null };
    if (scope !== 'artillery-plugin-') return message(plugin, 'is not enabled in', consequence, 'ARTILLERY_PLUGINS');
    if (!folders.some((folder) => fs.existsSync(path.join(folder, `artillery-plugin-${plugin}`)))) {
      return message(plugin, 'is not in a folder of', consequence, 'ARTILLERY_PLUGIN_PATH');
    }
  }
  return undefined;
}

function pluginsFromEnv({ ARTILLERY_PLUGINS: text }) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

const problem = isMainThread ? missingPlugin(process.env) : undefined;
if (problem) {
  console.error(`Error: ${problem}`);
  process.exit(1);
}

const limit = cpuLimit();
const hostCpus = os.cpus;
os.cpus = function cpus() {
  const all = hostCpus();
  const length = threadCount(process.env, limit, all.length) + 1;
  return Array.from({ length }, (_, index) => all[index] ?? structuredClone(all[0] ?? PLACEHOLDER_CPU));
};
// Updates the bindings of modules that import { cpus } from 'node:os'.
syncBuiltinESMExports();

module.exports = { cpuLimit, missingPlugin, threadCount };
