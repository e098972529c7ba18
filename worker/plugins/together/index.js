// Starts the load of all workers of a test at the same time, however long each worker takes to load. The file is mounted as
// /opt/loadtest/artillery-plugin-loadtest-together/index.js and used twice: as an Artillery plugin, and as a preload, so that
// it answers the probes of the kubelet from the first moments of the process. Both are enabled by environment variables:
//
//   NODE_OPTIONS=--require=/opt/loadtest/artillery-plugin-loadtest-together/index.js
//   ARTILLERY_PLUGIN_PATH=/opt/loadtest
//   ARTILLERY_PLUGINS={"loadtest-together":{"scope":"artillery-plugin-"}}
//   LOADTEST_START_FILE      a file that will contain the start time, such as 2026-11-25T10:00:00.123Z. It is empty or
//                            missing until then. The worker does not wait if this variable is unset
//   LOADTEST_PORT            the port of the HTTP server (lib/server.js). GET /ready is answered with 200 once this worker is
//                            ready to start, GET /started once it has read the start time. Until then the response is held
//                            back, so a probe waits instead of failing
//   LOADTEST_START_TIMEOUT   seconds after the start of the process; a worker without a start time exits then
//   LOADTEST_WORKERS, JOB_COMPLETION_INDEX    the number of workers and the index of this one; used in log lines only
//
// Artillery sends each of its threads a `prepare` message, which loads the script. When all threads are prepared, it sends
// each a `run` message (lib/platform/local/index.js and artillery-worker-local.js; lib/launch-platform.js before 2.0.20).
// The main thread defers the `run` messages until the start time. So a worker is ready after its `before` hook, whose
// requests are not synchronized, and phases, report periods and durations count from the start time. Artillery waits for its
// threads without a timeout.
//
// For other code in the main thread, `global.loadtestStart` has these times in ms since 1970, by the clock of this worker:
//   receivedAt    when the worker read the start time
//   startTime     the start time
//   startedAt     when the worker started its load; undefined until then
'use strict';

const fs = require('node:fs');
const { setTimeout: sleep } = require('node:timers/promises');
const { isMainThread, Worker } = require('node:worker_threads');
const { sharedServer } = require('../lib/server.js');

const POLL_MS = 50;
// The clock may be set while the worker sleeps.
const MAX_SLEEP_MS = 1000;
// Delays the log line, because all workers of a node start at the same moment and logging would compete with the load.
const LOG_DELAY_MS = 300;
const MAX_TIMER_MS = 2 ** 31 - 1;
// The main module of Artillery's process. Other programs of an image's entry point, such as npx, are preloaded too.
const ARTILLERY_MAIN = /(^|\/)artillery(\/bin\/run)?(\.[cm]?js)?$/;
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

/** The start time in ms since 1970. Undefined for an empty text. Throws for any other text that is not a timestamp. */
function parseStartTime(text) {
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  const time = TIMESTAMP.test(trimmed) ? Date.parse(trimmed) : NaN;
  if (Number.isNaN(time)) throw new Error(`expected an RFC 3339 timestamp, found ${JSON.stringify(trimmed.slice(0, 100))}`);
  return time;
}

function readFile(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return '';
    throw error;
  }
}

/** The name of this worker in log lines. */
function workerName({ LOADTEST_WORKERS: workers, JOB_COMPLETION_INDEX: index }) {
  return workers && index ? `Load test worker ${Number(index) + 1} of ${workers}` : 'This load test worker';
}

/** The responses to the kubelet's probes, and the time limit for the start time. */
class Probes {
  constructor({ server, timeoutMs, name, exit = (code) => process.exit(code) }) {
    Object.assign(this, { server, timeoutMs, name, exit, isOpen: false });
    // The responses that wait for each state. Undefined once the state is reached.
    this.held = { '/ready': new Set(), '/started': new Set() };
  }

  /** Opens the port and starts the time limit. Neither keeps the process alive. */
  open() {
    if (this.isOpen) return;
    this.isOpen = true;
    for (const path of Object.keys(this.held)) {
      this.server.route(path, (response) => this.respond(path, response), { isProbe: true });
    }
    this.server.onFailure((error) => {
      console.error(`${this.name} cannot report that it is ready: ${error.message}. No other process of the pod may use this port.`);
      this.exit(1);
    });
    this.server.open();
    if (this.timeoutMs === undefined) return;
    const remaining = this.timeoutMs - performance.now();
    this.timer = setTimeout(() => this.timeOut(), Math.min(Math.max(remaining, 0), MAX_TIMER_MS));
    this.timer.unref();
  }

  respond(path, response) {
    const held = this.held[path];
    if (!held) {
      response.send(200, path.slice(1));
      return;
    }
    held.add(response);
    response.onClose(() => held.delete(response));
  }

  /** Answers the probes of a path, now and from now on. */
  reach(path) {
    const held = this.held[path];
    this.held[path] = undefined;
    for (const response of held ?? []) response.send(200, path.slice(1));
  }

  /** Ends the time limit. */
  stopTimer() {
    clearTimeout(this.timer);
  }

  timeOut() {
    const seconds = Math.round(this.timeoutMs / 1000);
    console.error(`No start time arrived within ${seconds}s: the operator or the LoadTest is gone. The load was not sent.`);
    this.exit(1);
  }
}

/** The probes of this process. Undefined if this worker does not wait for a start time. */
const probes = isMainThread && process.env.LOADTEST_START_FILE ? sharedProbes(process.env) : undefined;

function sharedProbes(env) {
  // Artillery can load a second instance of this file besides the preload.
  const key = Symbol.for('loadtest.probes');
  globalThis[key] ??= new Probes({
    server: sharedServer(env),
    timeoutMs: env.LOADTEST_START_TIMEOUT ? Number(env.LOADTEST_START_TIMEOUT) * 1000 : undefined,
    name: workerName(env),
  });
  return globalThis[key];
}

if (probes && ARTILLERY_MAIN.test(process.argv[1] ?? '')) probes.open();

class Plugin {
  constructor() {
    if (!probes) return;
    // The preload has opened them already, unless the image runs Artillery in another way.
    probes.open();
    deferRun(new StartBarrier({ file: process.env.LOADTEST_START_FILE, probes, name: probes.name }));
  }
}

/** Defers the `run` messages to Artillery's threads until the start time, and then sends all of them. */
function deferRun(barrier) {
  const { postMessage } = Worker.prototype;
  const threads = new Set();
  const deferred = [];
  Worker.prototype.postMessage = function (...message) {
    const command = message[0]?.command;
    // Threads that are not Artillery's may have a command of the same name.
    if (command === 'prepare') threads.add(this);
    if (command !== 'run' || !threads.has(this) || barrier.released) return postMessage.apply(this, message);
    deferred.push(() => postMessage.apply(this, message));
    // Artillery sends the next `run` only after the previous thread reported `running`. This report stands for the real one,
    // which has no listener any more when it arrives.
    process.nextTick(() => this.emit('message', { event: 'running', id: this.threadId, ts: Date.now() }));
    if (deferred.length === threads.size) barrier.wait(() => deferred.forEach((send) => send()));
    return undefined;
  };
  // On SIGTERM the `after` hook may run past the start time, and the load must not start then.
  global.artillery?.ext?.({ ext: 'beforeExit', method: async () => barrier.cancel() });
}

class StartBarrier {
  constructor({ file, probes, name }) {
    Object.assign(this, { file, probes, name, released: false, cancelled: false });
  }

  cancel() {
    this.cancelled = true;
    this.probes.stopTimer();
  }

  async wait(start) {
    this.probes.reach('/ready');
    console.log(`${this.name} is ready and waits for the start time`);
    const startTime = await this.readStartTime();
    if (this.cancelled) return;
    this.probes.stopTimer();
    global.loadtestStart = { receivedAt: Date.now(), startTime, startedAt: undefined };
    this.probes.reach('/started');
    for (;;) {
      if (this.cancelled) return;
      const remaining = startTime - Date.now();
      if (remaining <= 0) break;
      await sleep(Math.min(remaining, MAX_SLEEP_MS));
    }
    this.released = true;
    start();
    const startedAt = Date.now();
    global.loadtestStart.startedAt = startedAt;
    await sleep(LOG_DELAY_MS);
    console.log(`${this.name} started its load ${startedAt - startTime} ms after the start time ${new Date(startTime).toISOString()}`);
  }

  async readStartTime() {
    for (let warned = false; !this.cancelled; await sleep(POLL_MS)) {
      try {
        const startTime = parseStartTime(readFile(this.file));
        if (startTime !== undefined) return startTime;
      } catch (error) {
        if (!warned) console.error(`${this.name} cannot read the start time from ${this.file}: ${error.message}. It keeps trying.`);
        warned = true;
      }
    }
    return undefined;
  }
}

module.exports = { Plugin, LEGACY_METRICS_FORMAT: false, parseStartTime, workerName };
