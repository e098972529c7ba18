// An Artillery plugin that starts the load of all workers of a test at the same time, however long each worker takes to load.
// Mounted as /opt/loadtest/artillery-plugin-loadtest-together/index.js and enabled by environment variables:
//
//   ARTILLERY_PLUGIN_PATH=/opt/loadtest
//   ARTILLERY_PLUGINS={"loadtest-together":{"scope":"artillery-plugin-"}}
//   LOADTEST_START_FILE      a file that will contain the start time, such as 2026-11-25T10:00:00.123Z. It is empty or
//                            missing until then. The worker does not wait if this variable is unset
//   LOADTEST_READY_PORT      a TCP port that accepts connections once this worker is ready to start
//   LOADTEST_START_ACK_PORT  a TCP port that accepts connections once this worker has read the start time
//   LOADTEST_WORKERS, JOB_COMPLETION_INDEX    the number of workers and the index of this one; used in log lines only
//
// Artillery sends each of its threads a `prepare` message, which loads the script. When all threads are prepared, it sends
// each a `run` message (lib/platform/local/index.js and artillery-worker-local.js; lib/launch-platform.js before 2.0.20).
// The main thread defers the `run` messages until the start time. So a worker is ready after its `before` hook, whose
// requests are not synchronized, and phases, report periods and durations count from the start time. Artillery waits for its
// threads without a timeout.
'use strict';

const fs = require('node:fs');
const net = require('node:net');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const { isMainThread, Worker } = require('node:worker_threads');

const POLL_MS = 50;
// The clock may be set while the worker sleeps.
const MAX_SLEEP_MS = 1000;
// Delays the log line, because all workers of a node start at the same moment and logging would compete with the load.
const LOG_DELAY_MS = 300;
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

function portFromEnv(name, { [name]: text }) {
  const port = Number(text || NaN);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new Error(`${name} is ${text}, expected a port number`);
  return port;
}

/** The name of this worker in log lines. */
function workerName({ LOADTEST_WORKERS: workers, JOB_COMPLETION_INDEX: index }) {
  return workers && index ? `Load test worker ${Number(index) + 1} of ${workers}` : 'This load test worker';
}

class Plugin {
  constructor() {
    const { env } = process;
    const file = env.LOADTEST_START_FILE;
    if (!file || !isMainThread) return;
    const ports = { readyPort: portFromEnv('LOADTEST_READY_PORT', env), ackPort: portFromEnv('LOADTEST_START_ACK_PORT', env) };
    deferRun(new StartBarrier({ file, ...ports, name: workerName(env) }));
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
  constructor({ file, readyPort, ackPort, name }) {
    Object.assign(this, { file, readyPort, ackPort, name, released: false, cancelled: false });
  }

  cancel() {
    this.cancelled = true;
  }

  async wait(start) {
    await this.listen(this.readyPort, (error) => {
      console.error(`${this.name} cannot report that it is ready: ${error.message}. No other process of the pod may use this port.`);
      process.exit(1);
    });
    console.log(`${this.name} is ready and waits for the start time`);
    const startTime = await this.readStartTime();
    this.listen(this.ackPort, (error) => {
      console.error(`${this.name} cannot acknowledge the start time: ${error.message}. It starts its load nevertheless.`);
    });
    for (;;) {
      if (this.cancelled) return;
      const remaining = startTime - Date.now();
      if (remaining <= 0) break;
      await sleep(Math.min(remaining, MAX_SLEEP_MS));
    }
    this.released = true;
    start();
    const delay = Date.now() - startTime;
    await sleep(LOG_DELAY_MS);
    console.log(`${this.name} started its load ${delay} ms after the start time ${new Date(startTime).toISOString()}`);
  }

  /** Opens a port for a `tcpSocket` probe of the kubelet. */
  async listen(port, onError) {
    const server = net.createServer((socket) => socket.destroy());
    server.on('error', () => {});
    server.unref();
    server.listen(port);
    await once(server, 'listening').catch(onError);
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

module.exports = { Plugin, LEGACY_METRICS_FORMAT: false, parseStartTime, portFromEnv, workerName };
