// An Artillery plugin that leaves what its worker has measured in the container's termination message, from where the
// operator reads it: it needs no network, no token and no right, and outlives an OOM kill.
//
// The message's last line is `loadtest.v1 `, then base64 of zlib (whose Adler-32 is the checksum) of this JSON:
//   final       whether the test ran to its end; without it the snapshot is partial
//   start       when the load of this worker began, by its clock in ms since 1970: when the main thread heard from the first
//               of its threads that a phase has begun. That is some ms too late, but when the threads were told to begin
//               (together.js) would be too early, most of all where the load is late as the machine is busy
//   first, last when the first and the last counter was counted, in ms since 1970
//   counters    {name: sum}
//   histograms  {name: [folds, min, max, sum, zeros, positive bins, negative bins]}, as DDSketch keeps them. Bins are
//               [first key, n, n, ...]: of each key, how much its count differs from that of the key before, which is
//               what gets smallest
//   dropped     [histograms, counters]: how many had no room
//   lost        the names of those dropped that results or thresholds ask for; `*` where anything may be missing
//   errors      the sum of the dropped `errors.*`
// What does not fit is made smaller in the order of `encode`. The lines before are for people: what a worker that failed
// said last, as Kubernetes falls back to the log only if this message is empty.
'use strict';

const fs = require('node:fs');
const zlib = require('node:zlib');
const { BroadcastChannel, isMainThread } = require('node:worker_threads');

const PREFIX = 'loadtest.v1 ';
// What the kubelet reads of a termination message (kubernetes, `MaxContainerTerminationMessageLength`).
const MOST_BYTES = 4096;
const MOST_BYTES_OF_WORDS = 1024;
const MOST_ENTRIES = 2000;
const ZLIB = { level: 9, memLevel: 9, strategy: zlib.constants.Z_FILTERED };
// 1 %, 2 %, 4 %.
const MOST_FOLDS = 2;
// A worker that ended by these was stopped from outside, or had nothing to say.
const QUIET_EXITS = [0, 130, 143];

const MAIN_HISTOGRAMS = ['http.response_time', 'vusers.session_length', 'socketio.response_time', 'browser.page.dominteractive'];
const CORE = /^(vusers\.(created|completed|failed|skipped)|http\.(requests|responses)|browser\.http_requests)$/;
const ENGINES = /^(http\.codes|websocket|socketio)\./;
const ARTILLERYS = /^(http|vusers|browser)\./;

const measured = () => ({ start: undefined, first: undefined, last: undefined, counters: new Map(), histograms: new Map() });

// What one `stats` or `done` of Artillery holds.
function fromStats({ counters, histograms, firstCounterAt, lastCounterAt }) {
  const bins = ({ bins, offset }) => new Map(bins.map((n, i) => [i + offset, n]).filter(([, n]) => n > 0));
  return {
    first: firstCounterAt || undefined,
    last: lastCounterAt || undefined,
    counters: new Map(Object.entries(counters ?? {})),
    histograms: new Map(Object.entries(histograms ?? {}).map(([name, { min, max, sum, zeroCount, store, negativeStore }]) =>
      [name, { min, max, sum, zeros: zeroCount, positive: bins(store), negative: bins(negativeStore) }])),
  };
}

// Not by DDSketch's own merge: it forgets the negative bins.
function merge(into, other) {
  const earliest = (a, b) => (b === undefined || a < b ? a : b);
  const latest = (a, b) => (b === undefined || a > b ? a : b);
  const addTo = (map, [key, n]) => map.set(key, (map.get(key) ?? 0) + n);
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

// Bins as in the format. A fold joins the keys 2k-1 and 2k to k, which is the bin that a sketch with the square of gamma has.
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

// How much a metric matters: the lower, the longer it is kept. `keep` is the text of all thresholds.
function rank(name, isHistogram, keep) {
  if (!isHistogram && CORE.test(name)) return 0;
  if (!isHistogram && ENGINES.test(name)) return 1;
  const main = MAIN_HISTOGRAMS.indexOf(name);
  if (isHistogram && main >= 0) return 2 + main / 10;
  if (keep.includes(name)) return 3;
  if (!isHistogram && name.startsWith('errors.')) return 4;
  const kind = name.startsWith('plugins.') ? 2 : ARTILLERYS.test(name) ? 0 : 1;
  return (isHistogram ? 8 : 5) + kind;
}
const IMPORTANT = 3;

// All as one line of at most `room` bytes. Where it does not fit, in this order: histograms that are not main are folded,
// once, twice; main ones are, once, twice; then metrics are dropped: histograms of plugins (so those of endpoints), custom
// ones, others of Artillery; counters of plugins, custom ones, others of Artillery; kinds of errors (their sum stays); what
// thresholds name; main histograms, http.response_time last. Of equals the one with fewer values goes first. `folds` is
// how often all are folded to begin with.
function encode(all, { final = false, keep = '', room = MOST_BYTES, folds = 0 } = {}) {
  const size = ({ positive, negative, zeros }) => [...positive.values(), ...negative.values()].reduce((a, b) => a + b, zeros);
  const entries = [
    ...[...all.counters].map(([name, value]) => ({ name, value, size: value, rank: rank(name, false, keep) })),
    ...[...all.histograms].map(([name, h]) => ({ name, h, size: size(h), rank: rank(name, true, keep) })),
  ].sort((a, b) => a.rank - b.rank || b.size - a.size || (a.name < b.name ? -1 : 1));

  const line = (kept, foldsOfMain, foldsOfOthers) => {
    const [some, dropped] = [entries.slice(0, kept), entries.slice(kept)];
    const histogram = ({ name, rank, h }) => {
      const folds = rank <= IMPORTANT ? foldsOfMain : foldsOfOthers;
      return [name, [folds, h.min, h.max, h.sum, h.zeros, binsOf(h.positive, folds), binsOf(h.negative, folds)]];
    };
    const snapshot = {
      start: all.start,
      first: all.first,
      last: all.last,
      counters: Object.fromEntries(some.filter((e) => !e.h).map((e) => [e.name, e.value])),
      histograms: Object.fromEntries(some.filter((e) => e.h).map(histogram)),
    };
    if (final) snapshot.final = true;
    if (dropped.length > 0) {
      const histograms = dropped.filter((e) => e.h).length;
      const errors = dropped.filter((e) => !e.h && e.name.startsWith('errors.')).reduce((sum, e) => sum + e.value, 0);
      const lost = dropped.filter((e) => e.rank <= IMPORTANT).map((e) => e.name);
      snapshot.dropped = [histograms, dropped.length - histograms];
      if (lost.length > 0) snapshot.lost = kept > 0 ? lost : ['*'];
      if (errors > 0) snapshot.errors = errors;
    }
    return PREFIX + zlib.deflateSync(JSON.stringify(snapshot), ZLIB).toString('base64');
  };

  if (entries.length <= MOST_ENTRIES) {
    for (const [main, others] of [[folds, folds], [0, 1], [0, MOST_FOLDS], [1, MOST_FOLDS]]) {
      const text = line(entries.length, main, others);
      if (text.length <= room) return text;
    }
  }
  let [fits, tooMany] = [0, Math.min(entries.length, MOST_ENTRIES) + 1];
  while (tooMany - fits > 1) {
    const middle = (fits + tooMany) >> 1;
    if (line(middle, MOST_FOLDS, MOST_FOLDS).length <= room) fits = middle;
    else tooMany = middle;
  }
  return line(fits, MOST_FOLDS, MOST_FOLDS);
}

// What a process says last, without blank lines and without the lines of Artillery's reports.
function lastWords(output) {
  const lines = output.split('\n').map((l) => l.trimEnd()).filter((l) => /[\p{L}\p{N}]/u.test(l) && !/\.{3,} \S+$/.test(l));
  // The first may have been cut, and a line must not pass for a snapshot.
  const words = Buffer.from(lines.filter((l) => !l.startsWith('loadtest.v')).join('\n'));
  const from = Math.max(0, words.length - MOST_BYTES_OF_WORDS);
  return words.subarray(from).toString().replace(/^\uFFFD+/, '');
}

// In Artillery's main thread: gathers what the threads report, and writes it.
class Gatherer {
  constructor(script, events) {
    const { config = {} } = script ?? {};
    const own = config.plugins?.['loadtest-results'];
    this.path = process.env.LOADTEST_TERMINATION_LOG || '/dev/termination-log';
    // The metrics that thresholds name are kept where there is no room for all.
    this.keep = JSON.stringify([config.ensure, config.plugins?.ensure, own?.keep]);
    this.all = measured();
    this.start = undefined;
    this.final = false;
    this.interrupted = false;
    this.output = '';
    this.threads = new Threads();

    // The thread's own time of it does not get here.
    events.once('phaseStarted', (phase) => {
      this.start = phase.startTime;
    });
    events.on('stats', (stats) => this.safely(async () => {
      merge(this.all, fromStats(stats));
      await this.save();
    }));
    events.on('done', (stats) => this.safely(() => {
      this.final = true;
      this.write(fromStats(stats));
    }));
    // Artillery waits for this before it ends, whatever ends it. Of some versions the test goes on even then.
    global.artillery?.ext?.({ ext: 'beforeExit', method: () => this.safely(async () => {
      this.interrupted = !this.final;
      await this.save();
    }) });
    this.listenToOutput();
    process.once('exit', (code) => this.safely(() => {
      if (!QUIET_EXITS.includes(code)) this.write(this.written, lastWords(this.output));
    }));
  }

  async save() {
    const all = this.interrupted ? await this.threads.askAll() : undefined;
    if (!this.final) this.write(all ?? this.all);
  }

  listenToOutput() {
    const remember = (text) => { this.output = (this.output + text).slice(-8192); };
    for (const stream of [process.stdout, process.stderr]) {
      const write = stream.write;
      stream.write = function (chunk, ...rest) {
        remember(typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString());
        return write.call(this, chunk, ...rest);
      };
    }
    // node prints it past process.stderr.
    process.on('uncaughtExceptionMonitor', (error) => remember(`${error?.stack ?? error}\n`));
  }

  write(all, words = '') {
    // An empty message has Kubernetes show the log.
    if (!all || (all.counters.size === 0 && all.histograms.size === 0)) return;
    this.written = all;
    const before = words && `${words}\n`;
    const line = encode({ ...all, start: this.start }, { final: this.final, keep: this.keep, room: MOST_BYTES - Buffer.byteLength(before) });
    // Truncated and written at once.
    fs.writeFileSync(this.path, before + line);
  }

  // Nothing that goes wrong here may disturb the test.
  async safely(action) {
    try {
      await action();
    } catch (error) {
      if (!this.complained) console.error(`loadtest-results: the results of this worker cannot be saved: ${error.message}`);
      this.complained = true;
    }
  }
}

// Artillery's threads report a period of 10 s when it is over. On SIGTERM they are asked for all that they have counted.
const CHANNEL = 'loadtest-results';
const MOST_WAIT_MS = 1000;

class Threads {
  constructor() {
    this.count = 0;
    this.answers = [];
    this.answered = undefined;
    this.channel = new BroadcastChannel(CHANNEL);
    this.channel.onmessage = ({ data }) => {
      if (data === 'here') this.count += 1;
      if (data?.counters) this.answers.push(data);
      if (this.answers.length === this.count) this.answered?.();
    };
    this.channel.unref();
  }

  // What all have counted; nothing if one does not answer.
  async askAll() {
    if (this.count === 0) return undefined;
    this.answers = [];
    this.channel.postMessage('all');
    await new Promise((resolve) => {
      this.answered = resolve;
      setTimeout(resolve, MOST_WAIT_MS);
    });
    return this.answers.length === this.count ? this.answers.reduce(merge, measured()) : undefined;
  }
}

// In each of Artillery's threads: finds the thread's store of metrics, an `SSMS`, by its first use.
function answerForThread() {
  const store = global.artillery?.__SSMS?.prototype;
  const incr = store?.incr;
  if (typeof incr !== 'function') return;
  let metrics;
  store.incr = function (...counted) {
    metrics = this;
    store.incr = incr;
    return incr.apply(this, counted);
  };
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = ({ data }) => {
    if (data !== 'all') return;
    try {
      channel.postMessage(metrics ? allOf(metrics) : measured());
    } catch {
      // Without an answer what was reported before stays.
    }
  };
  channel.unref();
  channel.postMessage('here');
}

// All that a store has, the periods that it has summed up and what came since. The store is left as it is.
function allOf(metrics) {
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
  return periods.map(fromStats).reduce(merge, measured());
}

class Plugin {
  constructor(script, events) {
    if (isMainThread) this.gatherer = new Gatherer(script, events);
    else answerForThread();
  }
}

module.exports = { Plugin, LEGACY_METRICS_FORMAT: false, encode, fromStats, merge, measured, lastWords };
