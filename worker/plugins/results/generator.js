// Measures whether a worker had the resources to send its load: the event loops of its threads, its CPU time and memory, and
// the limits of its container. Mounted as /opt/loadtest/artillery-plugin-loadtest-results/generator.js
'use strict';

const fs = require('node:fs');
const { monitorEventLoopDelay, performance } = require('node:perf_hooks');

// In ms. A longer interval costs less, and delays far below it do not matter.
const LOOP_DELAY_RESOLUTION = 20;
const MIB = 2 ** 20;
// Without a limit, cgroup v1 has the largest multiple of the page size that fits into 63 bits.
const MAX_MEMORY_LIMIT = 2 ** 60;

/** The words of a file. Empty if it cannot be read. */
function readWords(file) {
  try {
    return fs.readFileSync(file, 'utf8').trim().split(/\s+/);
  } catch {
    return [];
  }
}

const toNumber = (word) => (/^\d+$/.test(word ?? '') ? Number(word) : null);

/**
 * The figures of the container's cgroup, v2 or else v1: {periods, throttled, throttledMs, cpuMs} since the start of the container,
 * cpuLimit in millicores, memory (the peak) and memoryLimit in MiB. Null where unknown or unlimited.
 */
function readCgroup(root = '/sys/fs/cgroup') {
  const isV2 = fs.existsSync(`${root}/cgroup.controllers`);
  const first = (name) => readWords(`${root}/${name}`)[0];
  const words = readWords(`${root}/${isV2 ? 'cpu.stat' : 'cpu/cpu.stat'}`);
  const stat = (name) => (words.includes(name) ? toNumber(words[words.indexOf(name) + 1]) : null);
  const [throttledTime, perMs] = isV2 ? [stat('throttled_usec'), 1e3] : [stat('throttled_time'), 1e6];
  const [quota, period] = isV2 ? readWords(`${root}/cpu.max`) : ['quota', 'period'].map((name) => first(`cpu/cpu.cfs_${name}_us`));
  const [usage, usagePerMs] = isV2 ? [stat('usage_usec'), 1e3] : [toNumber(first('cpuacct/cpuacct.usage')), 1e6];
  const cpuLimit = (toNumber(quota) * 1000) / toNumber(period);
  const memory = toNumber(isV2 ? first('memory.peak') ?? first('memory.current') : first('memory/memory.max_usage_in_bytes'));
  const memoryLimit = toNumber(isV2 ? first('memory.max') : first('memory/memory.limit_in_bytes'));
  return {
    periods: stat('nr_periods'),
    throttled: stat('nr_throttled'),
    throttledMs: throttledTime === null ? null : throttledTime / perMs,
    // The root of all cgroups has no quota. Its usage is that of the machine.
    cpuMs: usage === null || quota === undefined ? null : usage / usagePerMs,
    cpuLimit: cpuLimit > 0 && Number.isFinite(cpuLimit) ? Math.round(cpuLimit) : null,
    memory: memory === null ? null : Math.round(memory / MIB),
    memoryLimit: memoryLimit > 0 && memoryLimit < MAX_MEMORY_LIMIT ? Math.round(memoryLimit / MIB) : null,
  };
}

/** The event loop of one thread while its load runs. */
class EventLoop {
  start() {
    this.histogram = monitorEventLoopDelay({ resolution: LOOP_DELAY_RESOLUTION });
    this.histogram.enable();
    this.before = performance.eventLoopUtilization();
  }

  /** Ends the measurement with the load: the thread is idle while it waits for its last virtual users. */
  stop() {
    this.stopped ??= this.measure();
    this.histogram?.disable();
  }

  /** {utilization, loopDelay}: from 0 to 1, and p99 in ms. */
  measure() {
    if (this.stopped || !this.before) return this.stopped;
    const { utilization } = performance.eventLoopUtilization(this.before);
    const p99 = this.histogram.percentile(99) / 1e6 - LOOP_DELAY_RESOLUTION;
    return { utilization, loopDelay: this.histogram.count > 0 ? Math.max(0, p99) : null };
  }
}

/** The resources of a worker, measured in its main thread. */
class Generator {
  constructor(root) {
    this.root = root;
  }

  start() {
    this.before = { cgroup: readCgroup(this.root), cpu: process.cpuUsage() };
  }

  /** The key `generator` of a snapshot (see index.js). `loops` is what the threads measured of their event loops. */
  measure(threads, loops) {
    const { periods, throttled, throttledMs, cpuMs, cpuLimit, memory, memoryLimit } = readCgroup(this.root);
    const since = (value, name) => (value === null || !this.before ? null : value - this.before.cgroup[name]);
    const max = (values) => (values.length > 0 ? Math.max(...values) : null);
    const { user, system } = process.cpuUsage(this.before?.cpu);
    const values = [
      threads,
      max(loops.map(({ utilization }) => utilization * 1000)),
      max(loops.map(({ loopDelay }) => loopDelay).filter((delay) => delay !== null)),
      since(throttled, 'throttled'), since(periods, 'periods'), since(throttledMs, 'throttledMs'),
      // A browser has processes of its own.
      since(cpuMs, 'cpuMs') ?? (this.before ? (user + system) / 1000 : null),
      cpuLimit, memory, memoryLimit,
    ];
    return values.map((value) => (value === null ? null : Math.round(value)));
  }
}

module.exports = { EventLoop, Generator, readCgroup };
