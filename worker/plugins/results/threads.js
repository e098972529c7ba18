// Queries what Artillery's threads have counted. Mounted as /opt/loadtest/artillery-plugin-loadtest-results/threads.js
//
// Artillery's threads report a period of 10 s after it ends (lib/core/ssms.js). The main thread requests all that they have
// counted on SIGTERM, and for live results.
'use strict';

const { BroadcastChannel, threadId } = require('node:worker_threads');
const { watchLoad, WorkerLoad } = require('./load.js');
const { emptyMeasurements, merge, toNumber, Totals } = require('./measurements.js');

const CHANNEL = 'loadtest-results';
const QUERY_TIMEOUT_MS = 1000;
// The limit of Artillery's own store.
const MAX_NAME_LENGTH = 1024;

/** What the main thread knows of Artillery's threads. */
class Threads {
  constructor() {
    // The threads that have loaded this plugin, each with the number of the last query that it answered.
    this.answered = new Map();
    this.measurements = new Map();
    // How long each thread took for its last answer, in ms.
    this.costs = new Map();
    this.invalid = new Set();
    this.load = new WorkerLoad();
    this.loops = new Map();
    this.lastQuery = 0;
    this.waiting = new Set();
    this.channel = new BroadcastChannel(CHANNEL);
    this.channel.onmessage = ({ data }) => this.receive(data);
    this.channel.unref();
  }

  get count() {
    return this.answered.size;
  }

  receive(data) {
    const { thread } = data;
    if (data.isReady) this.answered.set(thread, 0);
    if (data.plan !== undefined) this.load.plans.set(thread, data.plan);
    if (data.load) this.load.states.set(thread, data.load);
    if (data.loop) this.loops.set(thread, data.loop);
    if (data.invalidName !== undefined) this.invalid.add(data.invalidName);
    if (data.cost !== undefined) this.costs.set(thread, data.cost);
    if (!data.measurements) return;
    this.measurements.set(thread, data.measurements);
    this.answered.set(thread, data.query);
    for (const check of this.waiting) check();
  }

  /** Queries the threads. Resolves to whether all threads have answered in time. */
  async query() {
    if (this.count === 0) return false;
    this.lastQuery += 1;
    const query = this.lastQuery;
    const isComplete = () => [...this.answered.values()].every((answered) => answered >= query);
    await new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.waiting.delete(check);
        resolve();
      };
      const check = () => isComplete() && end();
      const timer = setTimeout(end, QUERY_TIMEOUT_MS);
      this.waiting.add(check);
      this.channel.postMessage({ query });
    });
    return isComplete();
  }

  /** The sum of what each thread answered last. */
  lastKnown() {
    return [...this.measurements.values()].reduce(merge, emptyMeasurements());
  }
}

/**
 * Counts in each of Artillery's threads what its metrics store, an `SSMS`, receives. The store receives numbers only: it would
 * append a text to the sum, and one NaN would replace the sum of all threads. The main thread is sent the names of metrics with
 * other values.
 */
function watchStore(script, options) {
  const store = global.artillery?.__SSMS?.prototype;
  if (typeof store?.incr !== 'function') return;
  const channel = new BroadcastChannel(CHANNEL);
  const { arrive, sendState } = watchLoad(script, options, (message) => channel.postMessage(message));
  const totals = new Totals();
  const count = {
    incr: (name, number, time) => totals.addCounter(name, number, time),
    histogram: (name, number) => totals.addToHistogram(name, number),
  };
  const invalid = new Set();
  for (const method of ['incr', 'histogram'].filter((name) => typeof store[name] === 'function')) {
    const original = store[method];
    store[method] = function (name, value, time, ...rest) {
      if (name === 'vusers.created' || name === 'vusers.skipped') arrive();
      const number = toNumber(value);
      if (number !== undefined) {
        const at = time || Date.now();
        original.call(this, name, number, at, ...rest);
        count[method](name.length > MAX_NAME_LENGTH ? name.slice(0, MAX_NAME_LENGTH) : name, number, at);
        return;
      }
      if (!invalid.has(name)) channel.postMessage({ thread: threadId, invalidName: `${name}` });
      invalid.add(name);
    };
  }
  channel.onmessage = ({ data: { query } }) => {
    if (query === undefined) return;
    try {
      const started = performance.now();
      sendState();
      channel.postMessage({ thread: threadId, query, measurements: totals.measurements });
      channel.postMessage({ thread: threadId, cost: performance.now() - started });
    } catch {
      // Without an answer the main thread uses what it knows.
    }
  };
  channel.unref();
  channel.postMessage({ thread: threadId, isReady: true });
}

module.exports = { Threads, watchStore };
