// Gives Artillery as many threads as its pod has CPUs. Preloaded: NODE_OPTIONS=--require=/opt/loadtest/cpus.cjs
//
// Artillery starts one thread less than os.cpus() has entries (lib/platform/local/index.js, lib/launch-platform.js before
// 2.0.20), and these are the host's. Versions since 2.0.20 read WORKERS and do not use it, so it is heeded here.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const { syncBuiltinESMExports } = require('node:module');

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

const limit = cpuLimit();
const hostCpus = os.cpus;
os.cpus = function cpus() {
  const all = hostCpus();
  const length = threadCount(process.env, limit, all.length) + 1;
  return Array.from({ length }, (_, index) => all[index] ?? structuredClone(all[0] ?? SOME_CPU));
};
// For those who import { cpus } from 'node:os'.
syncBuiltinESMExports();

module.exports = { cpuLimit, threadCount };
