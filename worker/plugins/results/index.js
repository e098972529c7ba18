// An Artillery plugin that writes the measurements of its worker into the container's termination message, where the operator
// reads them. This needs no network, no token and no permission, and works after an OOM kill.
// Mounted as /opt/loadtest/artillery-plugin-loadtest-results/index.js and enabled by environment variables:
//
//   ARTILLERY_PLUGIN_PATH=/opt/loadtest
//   ARTILLERY_PLUGINS={"loadtest-results":{"scope":"artillery-plugin-"}}
//   LOADTEST_RESULTS_LIMIT    the room for the message, in bytes. The kubelet cuts off what is longer
//
// The last line of the message is `loadtest.v1 `, followed by base64 of zlib (whose Adler-32 is the checksum) of this JSON:
//   final       true if the test ran to its end; otherwise the snapshot is partial
//   dropped     [histograms, counters]: the number of metrics that did not fit
//   lost        the names of dropped metrics that results or thresholds need; `*` if any may be missing
//   invalid     the names of metrics that were dropped because a value is not a number, at most 20; `*` if results or thresholds
//               need others
//   errors      the sum of the dropped `errors.*`
//   start       when the load of this worker started, in ms since 1970 by its clock: when the main thread received the first
//               `phaseStarted` of a thread. This is some ms late. The time at which the threads were started would be too
//               early, especially on a busy machine
//   first, last when the first and the last counter was incremented, in ms since 1970
//   load        [planned, due, plannedMs, actualMs, random], see load.js. Missing if the phases cannot be read
//                 planned    the virtual users that all threads of this worker should create in the whole script
//                 due        those that should have arrived when the counters of this snapshot end; all in a final snapshot
//                 plannedMs  how long the phases take by plan
//                 actualMs   how long they have taken in the slowest thread: until the last arrival and the end of the last
//                            phase, or until the counters of this snapshot end
//                 random     the part of `planned` that is the expected number of arrivals of Poisson processes
//   delay       the differences between the actual and the planned arrivals of virtual users, created or skipped, in ms, as a
//               histogram with 3 folds. Missing without such arrivals
//   generator   [threads, utilization, loopDelay, throttled, periods, throttledMs, cpuMs, cpuLimit, memory, memoryLimit], see
//               generator.js. null where unknown
//                 utilization  of the event loop of the busiest thread while its phases ran, per mille
//                 loopDelay    p99 of the event-loop delay of the worst thread, in ms
//                 throttled, periods, throttledMs  of the CPU limit of the container, since the start of the load
//                 cpuMs        CPU time of the process since the start of the load
//                 cpuLimit     in millicores
//                 memory, memoryLimit  of the container, in MiB; `memory` is the peak
//   counters    {name: sum}
//   histograms  {name: [folds, min, max, sum, zeros, positive bins, negative bins]}, of a DDSketch. Bins are
//               [first key, n, n, ...], where each n is the difference between the count of a key and that of the key before,
//               because differences compress best
// Counters and histograms are in the order of their importance, so that the operator can read the most important ones of a
// message that was cut all the same, for example because more containers were injected into the pod than expected.
// `encode` defines how a snapshot that does not fit is reduced. The lines before the snapshot are the end of the log of a
// worker that failed: Kubernetes falls back to the log only if the termination message is empty.
'use strict';

const fs = require('node:fs');
const zlib = require('node:zlib');
const { BroadcastChannel, isMainThread } = require('node:worker_threads');
const { Generator } = require('./generator.js');
const { DELAY_FOLDS, watchLoad, WorkerLoad } = require('./load.js');

const PREFIX = 'loadtest.v1 ';
// The limit of the kubelet for a pod with up to three containers (kubernetes, `MaxContainerTerminationMessageLength`).
const MAX_BYTES = 4096;
const MAX_LOG_BYTES = 1024;
const MAX_ENTRIES = 2000;
const MAX_INVALID_NAMES = 20;
const MAX_INVALID_NAME_LENGTH = 200;
const ZLIB = { level: 9, memLevel: 9, strategy: zlib.constants.Z_FILTERED };
// Each fold doubles the relative error of a sketch: 1 %, 2 %, 4 %.
const MAX_FOLDS = 2;
// Success, SIGINT and SIGTERM: the end of the log does not explain these.
const EXPECTED_EXIT_CODES = [0, 130, 143];
// The exit code that Artillery's plugins ensure and expect suggest, and the counter of the plugin expect.
const CONDITIONS_NOT_MET = 21;
const FAILED_EXPECTATIONS = 'plugins.expect.failed';

const MAIN_HISTOGRAMS = ['http.response_time', 'vusers.session_length', 'socketio.response_time', 'browser.page.dominteractive'];
const CORE = /^(vusers\.(created|completed|failed|skipped)|http\.(requests|responses)|browser\.http_requests)$/;
const NEXT = /^(http\.codes|websocket|socketio)\.|^plugins\.expect\.failed$/;
const BUILT_IN = /^(http|vusers|browser)\./;

const emptyMeasurements = () => ({
  start: undefined, first: undefined, last: undefined, counters: new Map(), histograms: new Map(), invalid: new Set(),
});

// The measurements of one `stats` or `done` event of Artillery. A metric with a value that is not a number is `invalid`: Artillery
// appends a text to the sum, so that the sum of "3" and "3" is "033".
function fromStats({ counters, histograms, firstCounterAt, lastCounterAt }) {
  const bins = ({ bins, offset }) => new Map(bins.map((n, i) => [i + offset, n]).filter(([, n]) => n > 0));
  const all = { ...emptyMeasurements(), first: firstCounterAt || undefined, last: lastCounterAt || undefined };
  for (const [name, value] of Object.entries(counters ?? {})) {
    if (Number.isFinite(value)) all.counters.set(name, value);
    else all.invalid.add(name);
  }
  for (const [name, { min, max, sum, zeroCount, store, negativeStore }] of Object.entries(histograms ?? {})) {
    // An empty histogram has the minimum Infinity.
    const isEmpty = min === Infinity && max === -Infinity && sum === 0;
    if (isEmpty || [min, max, sum, zeroCount].every(Number.isFinite)) {
      all.histograms.set(name, { min, max, sum, zeros: zeroCount, positive: bins(store), negative: bins(negativeStore) });
    } else {
      all.invalid.add(name);
    }
  }
  return all;
}

// A value that a script counts, as a number: numbers in texts are common, because headers are texts. Undefined if it is none.
function toNumber(value) {
  const isNumeric = ['number', 'bigint', 'boolean'].includes(typeof value) || (typeof value === 'string' && value.trim() !== '');
  const number = isNumeric ? Number(value) : NaN;
  return Number.isFinite(number) ? number : undefined;
}

// DDSketch's own merge would lose the negative bins.
function merge(into, other) {
  const earliest = (a, b) => (b === undefined || a < b ? a : b);
  const latest = (a, b) => (b === undefined || a > b ? a : b);
  const addTo = (map, [key, n]) => map.set(key, (map.get(key) ?? 0) + n);
  for (const name of other.invalid) into.invalid.add(name);
  into.start = earliest(into.start, other.start);
  into.first = earliest(into.first, other.first);
  into.last = latest(into.last, other.last);
  for (const counter of other.counters) addTo(into.counters, counter);
  for (const [name, h] of other.histograms) {
    const known = into.histograms.get(name);
    if (!known) {
      into.histograms.set(name, { ...h, positive: new Map(h.positive), negative: new Map(h.negative) });
      continue;
    }
    known.min = Math.min(known.min, h.min);
    known.max = Math.max(known.max, h.max);
    known.sum += h.sum;
    known.zeros += h.zeros;
    for (const bin of h.positive) addTo(known.positive, bin);
    for (const bin of h.negative) addTo(known.negative, bin);
  }
  return into;
}

// Bins in the format above. A fold merges the keys 2k-1 and 2k into k, which is the bin of a sketch with the square of gamma.
function binsOf(map, folds) {
  const folded = new Map();
  for (const [key, n] of map) {
    const at = Math.ceil(key / 2 ** folds);
    folded.set(at, (folded.get(at) ?? 0) + n);
  }
  if (folded.size === 0) return [];
  const keys = [...folded.keys()];
  const [first, last] = [Math.min(...keys), Math.max(...keys)];
  const list = [first];
  for (let key = first; key <= last; key += 1) list.push((folded.get(key) ?? 0) - (folded.get(key - 1) ?? 0));
  return list;
}

// The priority of a metric; metrics with a higher rank are dropped first. `keep` is the text of all thresholds.
function rank(name, isHistogram, keep) {
  if (!isHistogram && CORE.test(name)) return 0;
  if (!isHistogram && NEXT.test(name)) return NEXT_RANK;
  const main = MAIN_HISTOGRAMS.indexOf(name);
  if (isHistogram && main >= 0) return 2 + main / 10;
  if (keep.includes(name)) return 3;
  if (!isHistogram && name.startsWith('errors.')) return 4;
  const kind = name.startsWith('plugins.') ? 2 : BUILT_IN.test(name) ? 0 : 1;
  return (isHistogram ? 8 : 5) + kind;
}
const NEXT_RANK = 1;
const IMPORTANT = 3;

// Encodes measurements as one line of at most `room` bytes. If they do not fit, they are reduced in this order:
// 1. Histograms other than the main ones are folded once, then twice.
// 2. Main histograms are folded once, then twice.
// 3. Metrics are dropped: histograms of plugins (including those of endpoints), custom histograms, other histograms of
//    Artillery; counters of plugins, custom counters, other counters of Artillery; kinds of errors (their sum is kept);
//    metrics in thresholds; main histograms, http.response_time last. Among equals, those with fewer values are dropped first.
// `folds` is the initial number of folds of all histograms. Invalid metrics are named and not encoded. `load`, `delay` and
// `generator` are omitted if counters of the first two ranks would be dropped for them.
function encode(all, { final = false, keep = '', room = MAX_BYTES, folds = 0 } = {}) {
  const size = ({ positive, negative, zeros }) => [...positive.values(), ...negative.values()].reduce((a, b) => a + b, zeros);
  const invalid = new Set(all.invalid);
  // Sums can exceed the largest number.
  for (const [name, value] of all.counters) if (!Number.isFinite(value)) invalid.add(name);
  for (const [name, { sum }] of all.histograms) if (!Number.isFinite(sum)) invalid.add(name);
  const namesOfInvalid = invalidNames(invalid, keep);
  const valid = (map) => [...map].filter(([name]) => !invalid.has(name));
  const entries = [
    ...valid(all.counters).map(([name, value]) => ({ name, value, size: value, rank: rank(name, false, keep) })),
    ...valid(all.histograms).map(([name, h]) => ({ name, h, size: size(h), rank: rank(name, true, keep) })),
  ].sort((a, b) => a.rank - b.rank || b.size - a.size || (a.name < b.name ? -1 : 1));

  const { load, delays, generator } = all;
  const encodeHistogram = (h, folds) => [folds, h.min, h.max, h.sum, h.zeros, binsOf(h.positive, folds), binsOf(h.negative, folds)];
  const line = (kept, foldsOfMain, foldsOfOthers) => {
    const [some, dropped] = [entries.slice(0, kept), entries.slice(kept)];
    const histogram = ({ name, rank, h }) => {
      const folds = rank <= IMPORTANT ? foldsOfMain : foldsOfOthers;
      return [name, encodeHistogram(h, folds)];
    };
    const snapshot = {};
    if (final) snapshot.final = true;
    if (dropped.length > 0) {
      const histograms = dropped.filter((e) => e.h).length;
      const errors = dropped.filter((e) => !e.h && e.name.startsWith('errors.')).reduce((sum, e) => sum + e.value, 0);
      const lost = dropped.filter((e) => e.rank <= IMPORTANT).map((e) => e.name);
      snapshot.dropped = [histograms, dropped.length - histograms];
      if (lost.length > 0) snapshot.lost = kept > 0 ? lost : ['*'];
      if (errors > 0) snapshot.errors = errors;
    }
    if (invalid.size > 0) snapshot.invalid = namesOfInvalid;
    snapshot.start = all.start;
    snapshot.first = all.first;
    snapshot.last = all.last;
    if (load) snapshot.load = load;
    if (delays) snapshot.delay = encodeHistogram(delays, DELAY_FOLDS);
    if (generator) snapshot.generator = generator;
    snapshot.counters = Object.fromEntries(some.filter((e) => !e.h).map((e) => [e.name, e.value]));
    snapshot.histograms = Object.fromEntries(some.filter((e) => e.h).map(histogram));
    return PREFIX + zlib.deflateSync(JSON.stringify(snapshot), ZLIB).toString('base64');
  };

  if (entries.length <= MAX_ENTRIES) {
    for (const [main, others] of [[folds, folds], [0, 1], [0, MAX_FOLDS], [1, MAX_FOLDS]]) {
      const text = line(entries.length, main, others);
      if (text.length <= room) return text;
    }
  }
  let [fits, tooMany] = [0, Math.min(entries.length, MAX_ENTRIES) + 1];
  while (tooMany - fits > 1) {
    const middle = (fits + tooMany) >> 1;
    if (line(middle, MAX_FOLDS, MAX_FOLDS).length <= room) fits = middle;
    else tooMany = middle;
  }
  const hasExtras = load || delays || generator;
  if (hasExtras && fits < entries.filter((entry) => entry.rank <= NEXT_RANK).length) {
    return encode({ ...all, load: undefined, delays: undefined, generator: undefined }, { final, keep, room, folds });
  }
  return line(fits, MAX_FOLDS, MAX_FOLDS);
}

// The names of invalid metrics, the most important ones first. `*` stands for those that results or thresholds need, if not all
// fit.
function invalidNames(invalid, keep) {
  const rankOf = (name) => Math.min(rank(name, false, keep), rank(name, true, keep));
  const names = [...invalid].map((name) => [name, rankOf(name)]).sort(([, a], [, b]) => a - b);
  const fits = ([name], i) => i < MAX_INVALID_NAMES && name.length <= MAX_INVALID_NAME_LENGTH;
  const listed = names.filter(fits).map(([name]) => name);
  return names.some((one, i) => !fits(one, i) && one[1] <= IMPORTANT) ? [...listed, '*'] : listed;
}

// The end of a process's output, without blank lines and without the lines of Artillery's reports.
function logTail(output, maxBytes = MAX_LOG_BYTES) {
  const lines = output.split('\n').map((l) => l.trimEnd()).filter((l) => /[\p{L}\p{N}]/u.test(l) && !/\.{3,} \S+$/.test(l));
  // No line of the log may be read as a snapshot.
  const log = Buffer.from(lines.filter((l) => !l.startsWith('loadtest.v')).join('\n'));
  const start = Math.max(0, log.length - maxBytes);
  // The cut may be within a character.
  return log.subarray(start).toString().replace(/^\uFFFD+/, '');
}

// In Artillery's main thread: collects the measurements of the threads and writes them.
class Collector {
  constructor(script, events) {
    const { config = {} } = script ?? {};
    const own = config.plugins?.['loadtest-results'];
    this.path = process.env.LOADTEST_TERMINATION_LOG || '/dev/termination-log';
    this.limit = Number(process.env.LOADTEST_RESULTS_LIMIT) || MAX_BYTES;
    // The metrics in thresholds have priority if not all metrics fit.
    this.keep = JSON.stringify([config.ensure, config.plugins?.ensure, own?.keep]);
    this.hasOwnEnsure = Boolean(config.ensure ?? config.plugins?.ensure) && !process.env.ARTILLERY_DISABLE_ENSURE;
    this.reported = emptyMeasurements();
    this.start = undefined;
    this.final = false;
    this.interrupted = false;
    this.output = '';
    this.threads = new Threads();
    this.generator = new Generator();
    // When the counters that were reported last end, in ms since 1970.
    this.reportedUntil = undefined;

    // The time at which the thread sent this event is not passed on.
    events.once('phaseStarted', (phase) => {
      this.start = phase.startTime;
      this.generator.start();
    });
    events.on('stats', (stats) => this.safely(async () => {
      merge(this.reported, fromStats(stats));
      this.reportedUntil = Math.min(Number(stats.period) + PERIOD_MS, Date.now());
      await this.save();
    }));
    events.on('done', (stats) => this.safely(() => {
      this.final = true;
      this.reportedUntil = Date.now();
      this.write(fromStats(stats));
    }));
    // Artillery awaits this before each exit. In some versions the test continues meanwhile.
    global.artillery?.ext?.({ ext: 'beforeExit', method: () => this.safely(async () => {
      this.interrupted = !this.final;
      await this.save();
      // A thread may have reported an invalid metric after the test.
      if (this.final && this.threads.invalid.size > this.writtenInvalid) this.write(this.written);
      this.leaveVerdictToOperator();
    }) });
    this.recordOutput();
    process.once('exit', (code) => this.safely(() => {
      const log = () => logTail(this.output, Math.min(MAX_LOG_BYTES, this.limit / 4));
      if (!EXPECTED_EXIT_CODES.includes(code)) this.write(this.written, log());
    }));
  }

  async save() {
    const flushed = this.interrupted ? await this.threads.flushThreads() : undefined;
    if (flushed) this.reportedUntil = Date.now();
    if (!this.final) this.write(flushed ?? this.reported);
  }

  // The operator counts the failed expectations of all workers. With the exit code of one worker, others would be stopped early.
  leaveVerdictToOperator() {
    const isReported = this.final && this.isSaved && this.written.counters.get(FAILED_EXPECTATIONS) > 0;
    if (isReported && !this.hasOwnEnsure && global.artillery.suggestedExitCode === CONDITIONS_NOT_MET) {
      global.artillery.suggestedExitCode = 0;
    }
  }

  recordOutput() {
    const record = (text) => { this.output = (this.output + text).slice(-8192); };
    for (const stream of [process.stdout, process.stderr]) {
      const write = stream.write;
      stream.write = function (chunk, ...rest) {
        record(typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString());
        return write.call(this, chunk, ...rest);
      };
    }
    // Node prints an uncaught exception without process.stderr.
    process.on('uncaughtExceptionMonitor', (error) => record(`${error?.stack ?? error}\n`));
  }

  write(measurements, log = '') {
    // If the message is empty, Kubernetes shows the log instead.
    if (!measurements || (measurements.counters.size === 0 && measurements.histograms.size === 0)) return;
    this.written = measurements;
    this.writtenInvalid = this.threads.invalid.size;
    const prefix = log && `${log}\n`;
    const room = this.limit - Buffer.byteLength(prefix);
    const invalid = new Set([...measurements.invalid, ...this.threads.invalid]);
    const all = { ...measurements, ...this.accountForLoad(), start: this.start, invalid };
    const line = encode(all, { final: this.final, keep: this.keep, room });
    // Synchronous, because it also runs while the process exits.
    fs.writeFileSync(this.path, prefix + line);
    this.isSaved = true;
  }

  // `load`, `delays` and `generator`. Without them, after an error, there are still results.
  accountForLoad() {
    try {
      const { load, loops, count } = this.threads;
      const { startTime, receivedAt } = global.loadtestStart ?? {};
      // A start time that the operator sent too late, or by another clock, is not a delay of this worker.
      const start = startTime === undefined ? undefined : Math.max(startTime, receivedAt);
      const time = this.reportedUntil || Date.now();
      return { ...load.measure({ time, start, isFinal: this.final }), generator: this.generator.measure(count, [...loops.values()]) };
    } catch {
      return {};
    }
  }

  // An error in this plugin must not affect the test.
  async safely(action) {
    try {
      await action();
    } catch (error) {
      if (!this.warned) {
        console.error(`loadtest-results: Cannot save the results of this worker: ${error.message}. The test is not affected.`);
      }
      this.warned = true;
    }
  }
}

// Artillery's threads report a period of 10 s after it ends (lib/core/ssms.js). On SIGTERM the main thread requests all that
// they have counted.
const CHANNEL = 'loadtest-results';
const READY = 'ready';
const FLUSH = 'flush';
const FLUSH_TIMEOUT_MS = 1000;
const PERIOD_MS = 10_000;

class Threads {
  constructor() {
    this.count = 0;
    this.responses = [];
    this.invalid = new Set();
    this.load = new WorkerLoad();
    this.loops = new Map();
    this.completed = undefined;
    this.channel = new BroadcastChannel(CHANNEL);
    this.channel.onmessage = ({ data }) => {
      if (data === READY) this.count += 1;
      if (data?.plan !== undefined) this.load.plans.set(data.thread, data.plan);
      if (data?.load) this.load.states.set(data.thread, data.load);
      if (data?.loop) this.loops.set(data.thread, data.loop);
      if (data?.invalidName !== undefined) this.invalid.add(data.invalidName);
      if (data?.counters) this.responses.push(data);
      if (this.responses.length === this.count) this.completed?.();
    };
    this.channel.unref();
  }

  // The measurements of all threads. Undefined if a thread does not respond in time.
  async flushThreads() {
    if (this.count === 0) return undefined;
    this.responses = [];
    this.channel.postMessage(FLUSH);
    await new Promise((resolve) => {
      this.completed = resolve;
      setTimeout(resolve, FLUSH_TIMEOUT_MS);
    });
    return this.responses.length === this.count ? this.responses.reduce(merge, emptyMeasurements()) : undefined;
  }
}

// In each of Artillery's threads. The first use of the thread's metrics store, an `SSMS`, gives access to it. The store receives
// numbers only: it would append a text to the sum, and one NaN would replace the sum of all threads. The main thread is sent the
// names of metrics with other values.
function watchStore(script, options) {
  const store = global.artillery?.__SSMS?.prototype;
  if (typeof store?.incr !== 'function') return;
  const channel = new BroadcastChannel(CHANNEL);
  const { arrive, sendState } = watchLoad(script, options, (message) => channel.postMessage(message));
  let metrics;
  const invalid = new Set();
  for (const method of ['incr', 'histogram'].filter((name) => typeof store[name] === 'function')) {
    const original = store[method];
    store[method] = function (name, value, ...rest) {
      metrics ??= this;
      if (name === 'vusers.created' || name === 'vusers.skipped') arrive();
      const number = toNumber(value);
      if (number !== undefined) return original.call(this, name, number, ...rest);
      if (!invalid.has(name)) channel.postMessage({ invalidName: `${name}` });
      invalid.add(name);
      return undefined;
    };
  }
  channel.onmessage = ({ data }) => {
    if (data !== FLUSH) return;
    try {
      sendState();
      channel.postMessage(metrics ? readStore(metrics) : emptyMeasurements());
    } catch {
      // Without a response the main thread writes what was reported before.
    }
  };
  channel.unref();
  channel.postMessage(READY);
}

// All measurements of a store: the periods that it has aggregated, and what was counted since. The store is not changed.
function readStore(metrics) {
  const since = Object.assign(Object.create(Object.getPrototypeOf(metrics)), {
    _counters: [...metrics._counters],
    _histograms: [...metrics._histograms],
    _aggregatedCounters: {},
    _aggregatedHistograms: {},
    _aggregatedRates: {},
    _counterEarliestMeasurementByPeriod: {},
    _counterLastMeasurementByPeriod: {},
    _histogramEarliestMeasurementByPeriod: {},
    _histogramLastMeasurementByPeriod: {},
  });
  since._aggregateCounters(Infinity);
  since._aggregateHistograms(Infinity);
  const periods = [metrics, since].flatMap((store) => store.getBucketIds().map((id) => store.getMetrics(id)));
  return periods.map(fromStats).reduce(merge, emptyMeasurements());
}

class Plugin {
  constructor(script, events, options) {
    if (isMainThread) this.collector = new Collector(script, events);
    else watchStore(script, options);
  }
}

module.exports = { Plugin, LEGACY_METRICS_FORMAT: false, emptyMeasurements, encode, fromStats, logTail, merge };
