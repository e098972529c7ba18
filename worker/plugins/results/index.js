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
//                 cpuMs        CPU time of the container, or else of the process, since the start of the load
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
const { isMainThread } = require('node:worker_threads');
const { Generator } = require('./generator.js');
const { serveLive } = require('./live.js');
const { DELAY_FOLDS } = require('./load.js');
const { emptyMeasurements, fromStats, merge } = require('./measurements.js');
const { Threads, watchStore } = require('./threads.js');

const PREFIX = 'loadtest.v1 ';
// The limit of the kubelet for a pod with up to three containers (kubernetes, `MaxContainerTerminationMessageLength`).
const MAX_BYTES = 4096;
// Of the same line in a response to GET /snapshot.
const MAX_LIVE_BYTES = 64 << 10;
// How often Artillery's threads report (lib/core/ssms.js).
const PERIOD_MS = 10_000;
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
const NEXT = /^(http\.codes|browser\.page\.codes|websocket|socketio)\.|^plugins\.expect\.failed$/;
const BUILT_IN = /^(http|vusers|browser)\./;

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
    serveLive(this, process.env);

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
    const isCurrent = this.interrupted && (await this.threads.query());
    if (isCurrent) this.reportedUntil = Date.now();
    if (!this.final) this.write(isCurrent ? this.threads.lastKnown() : this.reported);
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
    this.writtenSnapshot = this.snapshotOf(measurements, this.reportedUntil);
    const line = encode(this.writtenSnapshot, { final: this.final, keep: this.keep, room });
    // Synchronous, because it also runs while the process exits.
    fs.writeFileSync(this.path, prefix + line);
    this.isSaved = true;
  }

  /** What the threads have answered last, or the final results, for `encode`. Undefined before anything is measured. */
  liveSnapshot() {
    if (this.final) return this.writtenSnapshot;
    const measurements = this.threads.lastKnown();
    const isEmpty = measurements.counters.size === 0 && measurements.histograms.size === 0;
    return isEmpty ? undefined : this.snapshotOf(measurements, Date.now());
  }

  /** The line of a snapshot in a response. */
  encodeLive(snapshot) {
    return encode(snapshot, { final: snapshot.isFinal, keep: this.keep, room: MAX_LIVE_BYTES });
  }

  snapshotOf(measurements, until) {
    const invalid = new Set([...measurements.invalid, ...this.threads.invalid]);
    return { ...measurements, ...this.accountForLoad(until), start: this.start, invalid, isFinal: this.final };
  }

  // `load`, `delays` and `generator`. Without them, after an error, there are still results.
  accountForLoad(until) {
    try {
      const { load, loops, count } = this.threads;
      const { startTime, receivedAt } = global.loadtestStart ?? {};
      // A start time that the operator sent too late, or by another clock, is not a delay of this worker.
      const start = startTime === undefined ? undefined : Math.max(startTime, receivedAt);
      const time = until || Date.now();
      const generator = this.generator.measure(count, [...loops.values()]);
      return { ...load.measure({ time, start, isFinal: this.final }), generator };
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

class Plugin {
  constructor(script, events, options) {
    if (isMainThread) this.collector = new Collector(script, events);
    else watchStore(script, options);
  }
}

module.exports = { Plugin, LEGACY_METRICS_FORMAT: false, emptyMeasurements, encode, fromStats, logTail, merge };
