// Makes all workers of a load test begin at one instant, however long each of them takes to load. An Artillery plugin,
// mounted as /opt/loadtest/artillery-plugin-loadtest-together/index.js and switched on by environment:
//
//   ARTILLERY_PLUGIN_PATH=/opt/loadtest
//   ARTILLERY_PLUGINS={"loadtest-together":{"scope":"artillery-plugin-"}}
//   LOADTEST_START_FILE     a file that will hold the instant, such as 2026-11-25T10:00:00.123Z; until then it is empty or
//                           missing. Nobody waits where this is unset
//   LOADTEST_READY_PORT     a TCP port that accepts connections from when this worker could begin
//   LOADTEST_INFORMED_PORT  another, that accepts them from when it knows the instant
//   LOADTEST_WORKERS, JOB_COMPLETION_INDEX    how many workers there are and which of them this is; only to be told
//
// Artillery has each of its threads load the script and all that it needs (`prepare`), and when all have, has them begin
// one by one (`run`; lib/platform/local/index.js and artillery-worker-local.js, lib/launch-platform.js before 2.0.20).
// These last messages are held back in the main thread. So a worker is ready after its `before` hook, whose requests come
// when they come, and phases, periods and durations count from the instant. Artillery waits for its threads without limit,
// and its timers that run by then only look for results, of which there are none.
'use strict';

const fs = require('node:fs');
const net = require('node:net');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const { isMainThread, Worker } = require('node:worker_threads');

const POLL_MS = 50;
// A clock may be set while this worker sleeps.
const MOST_SLEEP_MS = 1000;
// So long only the load runs: all workers of a node begin at the same moment, and what they print takes its processors.
const QUIET_MS = 300;
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

/** The instant that a text is, in ms since 1970. Undefined where there is none yet. Throws where it is something else. */
function readInstant(text) {
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  const instant = INSTANT.test(trimmed) ? Date.parse(trimmed) : NaN;
  if (Number.isNaN(instant)) throw new Error(`no instant: ${JSON.stringify(trimmed.slice(0, 100))}`);
  return instant;
}

function readFile(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return '';
    throw error;
  }
}

function readPort(name, { [name]: text }) {
  const port = Number(text || NaN);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new Error(`${name} is no port: ${text}`);
  return port;
}

/** What people know this worker by. */
function nameOf({ LOADTEST_WORKERS: workers, JOB_COMPLETION_INDEX: index }) {
  return workers && index ? `Load test worker ${Number(index) + 1} of ${workers}` : 'This load test worker';
}

class Plugin {
  constructor() {
    const { env } = process;
    const file = env.LOADTEST_START_FILE;
    if (!file || !isMainThread) return;
    const ports = { readyPort: readPort('LOADTEST_READY_PORT', env), informedPort: readPort('LOADTEST_INFORMED_PORT', env) };
    holdBack(new Start({ file, ...ports, name: nameOf(env) }));
  }
}

/** Keeps Artillery's threads from beginning until the start, and has all of them begin then. */
function holdBack(start) {
  const { postMessage } = Worker.prototype;
  const threads = new Set();
  const held = [];
  Worker.prototype.postMessage = function (...message) {
    const command = message[0]?.command;
    // Others' threads may know commands of the same name.
    if (command === 'prepare') threads.add(this);
    if (command !== 'run' || !threads.has(this) || start.hasCome) return postMessage.apply(this, message);
    held.push(() => postMessage.apply(this, message));
    // Artillery sends a thread's message when the one before says that it is running, and looks for that every 50 ms only.
    // Nobody listens any more when it really does.
    process.nextTick(() => this.emit('message', { event: 'running', id: this.threadId, ts: Date.now() }));
    if (held.length === threads.size) start.wait(() => held.forEach((send) => send()));
    return undefined;
  };
  // The `after` hook may still take its time then.
  global.artillery?.ext?.({ ext: 'beforeExit', method: async () => start.giveUp() });
}

class Start {
  constructor({ file, readyPort, informedPort, name }) {
    Object.assign(this, { file, readyPort, informedPort, name, hasCome: false, givenUp: false });
  }

  giveUp() {
    this.givenUp = true;
  }

  async wait(begin) {
    await this.listen(this.readyPort, (error) => {
      console.error(`${this.name} cannot tell that it is ready: ${error.message}`);
      process.exit(1);
    });
    console.log(`${this.name} is ready and waits for the others`);
    const instant = await this.read();
    // It begins all the same.
    this.listen(this.informedPort, (error) => console.error(`${this.name} cannot tell that it will begin: ${error.message}`));
    for (;;) {
      if (this.givenUp) return;
      const left = instant - Date.now();
      if (left <= 0) break;
      await sleep(Math.min(left, MOST_SLEEP_MS));
    }
    this.hasCome = true;
    begin();
    const late = Date.now() - instant;
    await sleep(QUIET_MS);
    console.log(`${this.name} begins, ${late} ms after ${new Date(instant).toISOString()}`);
  }

  /** Tells the kubelet something by its `tcpSocket` probe. */
  async listen(port, failed) {
    const server = net.createServer((socket) => socket.destroy());
    server.on('error', () => {});
    server.unref();
    server.listen(port);
    await once(server, 'listening').catch(failed);
  }

  async read() {
    for (let complained = false; !this.givenUp; await sleep(POLL_MS)) {
      try {
        const instant = readInstant(readFile(this.file));
        if (instant !== undefined) return instant;
      } catch (error) {
        if (!complained) console.error(`${this.name} waits on, as ${this.file} cannot be read: ${error.message}`);
        complained = true;
      }
    }
    return undefined;
  }
}

module.exports = { Plugin, LEGACY_METRICS_FORMAT: false, nameOf, readInstant, readPort };
