// Shares one load test out over workers: what they do together is what one would have done alone. An Artillery plugin,
// mounted as /opt/loadtest/artillery-plugin-loadtest-divide/index.js and switched on by environment:
//
//   ARTILLERY_PLUGIN_PATH=/opt/loadtest
//   ARTILLERY_PLUGINS={"loadtest-divide":{"scope":"artillery-plugin-"}}
//   LOADTEST_WORKERS        how many workers there are; nothing is shared out where it is unset or 1
//   JOB_COMPLETION_INDEX    which of them this is, from 0
//
// The virtual users that one worker would make are numbered through all phases, and so are the rows that they get of each
// payload in sequence. Worker i of N has every Nth of them from i on, and its threads share those in the same way. Each comes
// at the instant at which it would with one worker, and has the row that it would have.
//
// The phases are shared out in the main thread, where the script is whole: Artillery hands each thread its part in a
// `prepare` message (lib/platform/local/artillery-worker-local.js). In the thread each phase has a `mode` of its own, which
// has its virtual users come at their instants (see Mode).
'use strict';

const path = require('node:path');
const { EventEmitter } = require('node:events');
const { isMainThread, Worker } = require('node:worker_threads');

const DIVIDED = 'loadtestDivided';
const MODE = 'loadtest-divided';

// Source: the npm package `ms`.
const UNITS = [
  [/^(ms|msecs?|milliseconds?)?$/i, 0.001],
  [/^(s|secs?|seconds?)$/i, 1],
  [/^(m|mins?|minutes?)$/i, 60],
  [/^(h|hrs?|hours?)$/i, 3600],
  [/^(d|days?)$/i, 86_400],
  [/^(w|weeks?)$/i, 604_800],
  [/^(y|yrs?|years?)$/i, 31_557_600],
];

/** A length as lib/core/phases.js reads it, in seconds. NaN where it refuses it. */
function seconds(length) {
  if (Number.isInteger(Number(length))) return Number(length);
  const [, number, unit] = /^(\d*\.?\d+) *([a-z]*)$/i.exec(typeof length === 'string' ? length : '') ?? [];
  return Number(number) * UNITS.find(([name]) => name.test(unit))?.[1];
}

const milliseconds = (length) => `${length * 1000}ms`;

/** How many of `all` things go to a seat, if each goes to the next one and the first is number `first`. */
function share(all, { index, of }, first = 0) {
  const below = (end) => Math.max(0, Math.ceil((end - index) / of));
  return below(first + all) - below(first);
}

/** Where a thread sits among all threads of all workers, if no more than `most` of them may have anything. */
function seat({ worker, workers, thread, threads }, most = Infinity) {
  const workersUsed = Math.min(workers, most);
  if (worker >= workersUsed) return undefined;
  const threadsUsed = most === Infinity ? threads : Math.min(threads, share(most, { index: worker, of: workersUsed }));
  if (thread >= threadsUsed) return undefined;
  return { index: worker + workersUsed * thread, of: workersUsed * threadsUsed };
}

/** What a ramp asks for in each second. Source: lib/core/phases.js, createRamp. */
function ramp(from, to, length) {
  const rates = length === 1
    ? [(to + from) / 2]
    : Array.from({ length: Math.ceil(length) }, (_, second) => ((to - from) / (length - 1)) * second + from);
  // A ramp to 0 may end a little below.
  return rates.map((rate) => Math.max(0, Math.floor(rate) + Math.round(rate % 1)));
}

// The arrivals of a phase are told in beats: from `start` on so many come, one after each `tick`, in milliseconds.

/** Source: lib/core/phases.js, ticker. */
const rampBeats = (counts) => counts.map((count, second) => {
  const tick = Math.min(Math.floor(1000 / count), 1000) || 1000 / count;
  return { start: second * 1000, tick, count };
});

/** Source: the npm package `arrivals`, UniformProcess. */
function uniformBeats(tick, length) {
  const microseconds = Math.max(1, Math.floor(tick * 1000));
  return [{ start: 0, tick: microseconds / 1000, count: Math.floor((length * 1000 * 1000) / microseconds) }];
}

const countOf = (beats) => beats.reduce((all, { count }) => all + count, 0);

/** The instants of every `of`th arrival, after some that are others'. */
function* instants({ beats, others, of }) {
  let next = others;
  for (const { start, tick, count } of beats) {
    for (; next < count; next += of) yield start + (next + 1) * tick;
    next -= count;
  }
}

/** What is to be known of a phase to share it out. Undefined where it stays as it is, as nothing comes in it. */
function read(phase, mode, where) {
  const number = (value) => (value === undefined ? undefined : Number(value));
  const [count, rate, to, most = Infinity] =
    [phase.arrivalCount, phase.arrivalRate, phase.rampTo, phase.maxVusers].map(number);
  // Left to itself, each worker would make all of it, if Artillery takes it.
  const check = (isGood, key, what) => {
    if (isGood) return;
    const fault = phase[key] === undefined ? 'is missing' : `is ${JSON.stringify(phase[key])}, which is no ${what}`;
    throw new Error(`a phase cannot be shared out: ${where}.${key} ${fault}`);
  };
  const checkedLength = () => {
    const length = seconds(phase.duration);
    check(length > 0, 'duration', 'length of time');
    return length;
  };
  // In the order of lib/core/phases.js.
  if (phase.pause !== undefined) return undefined;
  check(most >= 0, 'maxVusers', 'number');
  if (count !== undefined) {
    check(count >= 0, 'arrivalCount', 'number');
    if (count === 0) return undefined;
    const length = checkedLength();
    return { length, most, beats: uniformBeats((length * 1000) / count, length) };
  }
  check(rate === undefined || rate >= 0, 'arrivalRate', 'number');
  if (to !== undefined) {
    check(to >= 0, 'rampTo', 'number');
    const length = phase.duration === undefined ? 1 : checkedLength();
    return { length: Math.ceil(length), most, beats: rampBeats(ramp(rate ?? 0, to, length)) };
  }
  if (rate === 0) return undefined;
  const length = checkedLength();
  if ((phase.mode ?? mode ?? 'uniform') === 'uniform') return { length, most, beats: uniformBeats(1000 / rate, length) };
  // A Poisson process lasts until an arrival is late: not for long, if each has one a second.
  return { length, most: Math.min(most, Math.max(1, Math.floor(rate))), rate };
}

/** A thread's part of a phase, whose first virtual user is number `before`, and when it has its own come. */
function part(phase, asked, place, before) {
  const { arrivalCount, arrivalRate, rampTo, maxVusers, ...rest } = phase;
  const { length, beats, most, rate } = asked;
  const rests = { phase: { ...rest, pause: milliseconds(length) } };
  const own = seat(place, most);
  if (!own) return rests;
  if (maxVusers !== undefined) rest.maxVusers = share(Math.ceil(Number(maxVusers)), own);
  if (rate) return { phase: { ...rest, arrivalRate: rate / own.of } };

  const count = share(countOf(beats), own, before);
  if (count === 0) return rests;
  const others = (own.index + own.of - (before % own.of)) % own.of;
  const schedule = { beats, others, of: own.of, first: before + others, count, length: length * 1000 };
  return { phase: { ...rest, duration: milliseconds(length), arrivalRate: count / length }, schedule };
}

/** A thread's part of the phases, with their schedules. Where something is random, nobody knows a virtual user's number. */
function dividePhases(phases, place, mode) {
  const divided = { phases: [], schedules: [], isRandom: false };
  let before = 0;
  for (const [index, phase] of phases.entries()) {
    // lib/dist.js leaves the others out.
    if (!(phase.rampTo || phase.arrivalRate || phase.arrivalCount || phase.pause)) continue;
    const asked = read(phase, mode, `config.phases[${index}]`);
    const own = asked ? part(phase, asked, place, before) : { phase };
    if (asked?.rate) divided.isRandom = true;
    before += countOf(asked?.beats ?? []);
    if (own.schedule) own.phase.mode = `${MODE}-${divided.schedules.push(own.schedule) - 1}`;
    divided.phases.push(own.phase);
  }
  return divided;
}

/** Every `of`th row from `index` on; where there are too few, one that others have as well. */
function deal(rows, { index, of }) {
  return index < rows.length ? rows.filter((_, row) => row % of === index) : rows.slice(index % rows.length).slice(0, 1);
}

/** A thread's part of a payload. One that each virtual user is to have as a whole stays whole (lib/core/readers.js). */
function dividePayload(spec, { worker, workers, thread, threads }) {
  if (!Array.isArray(spec.data) || isWhole(spec)) return spec;
  return { ...spec, data: deal(deal(spec.data, { index: worker, of: workers }), { index: thread, of: threads }) };
}

const isWhole = ({ loadAll, name, order }) => loadAll === true && name !== undefined && order === undefined;

/** The message that tells a thread what it is to run, with its part of what all workers run. */
function prepared(message, { phases, mode }, { worker, workers }) {
  const { script, payload, options } = message.opts;
  // A script in TypeScript is read anew by the thread, but for its phases.
  const [{ worker: number, totalWorkers: threads }] = script.__phases ?? script.config.phases;
  const place = { worker, workers, thread: number - 1, threads };
  const { phases: own, schedules, isRandom } = dividePhases(phases, place, mode);
  const isNumbered = ({ order }) => order === 'sequence' && !isRandom;
  const rows = Array.isArray(payload) ? payload.map((spec) => (isNumbered(spec) ? spec : dividePayload(spec, place))) : payload;
  const numbered = Array.isArray(rows) ? rows.filter(isNumbered) : [];
  return {
    ...message,
    opts: {
      ...message.opts,
      // The thread has `numbered` as the same objects as in the payload.
      options: { ...options, [DIVIDED]: { schedules, numbered } },
      payload: rows,
      script: script.__phases ? { ...script, __phases: own } : { ...script, config: { ...script.config, phases: own } },
    },
  };
}

/** Has a thread's virtual users come, as a process of the npm package `arrivals` does. */
class Arrivals extends EventEmitter {
  constructor(schedule) {
    super();
    this.instants = instants(schedule);
    this.length = schedule.length;
  }

  start() {
    this.began = performance.now();
    this.next = this.instants.next();
    this.goOn();
  }

  goOn() {
    const passed = performance.now() - this.began;
    for (; !this.next.done && this.next.value <= passed; this.next = this.instants.next()) this.emit('arrival');
    const left = (this.next.done ? this.length : this.next.value) - passed;
    if (this.next.done && left <= 0) this.emit('finished');
    else setTimeout(() => this.goOn(), Math.max(0, left));
  }
}

/**
 * Stands for the name of a phase's mode. When the phase begins, Artillery looks that up in the npm package `arrivals`
 * (lib/core/phases.js, createArrivalRate), of which a plugin gets no hold where Artillery is a bundle. So for this one
 * look-up every object has such a mode.
 */
class Mode {
  constructor(schedule) {
    this.schedule = schedule;
  }

  toString() {
    const process = () => new Arrivals(Mode.schedules[this.schedule]);
    const take = () => {
      delete Object.prototype[MODE];
      return { process };
    };
    Object.defineProperty(Object.prototype, MODE, { configurable: true, get: take });
    return MODE;
  }
}

/** The numbers of a thread's virtual users, in the order in which they come. */
function* numbers(schedules) {
  for (const { first, of, count } of schedules) {
    for (let own = 0; own < count; own += 1) yield first + own * of;
  }
}

/** Gives each virtual user the row of its number, in place of Artillery's reader (lib/core/readers.js). */
function readByNumber(spec, schedules, readBefore) {
  const users = numbers(schedules);
  let read = 0;
  const reader = (rows) => {
    const row = read < readBefore ? read : readBefore + users.next().value;
    read += 1;
    return rows[row % rows.length];
  };
  Object.defineProperty(spec, 'reader', { get: () => reader, set() {} });
}

/** Which worker this is. */
function readPlace(env) {
  const workers = Number(env.LOADTEST_WORKERS || 1);
  if (workers === 1) return { worker: 0, workers };
  const worker = Number(env.JOB_COMPLETION_INDEX || NaN);
  // It would run the whole test, which is worse than none.
  if (!Number.isInteger(workers) || !Number.isInteger(worker) || worker < 0 || worker >= workers) {
    throw new Error(`no such worker: ${env.JOB_COMPLETION_INDEX} of ${env.LOADTEST_WORKERS}, counted from 0`);
  }
  return { worker, workers };
}

function tell(payload, { worker, workers }) {
  if (workers === 1) return;
  const name = `Load test worker ${worker + 1} of ${workers}`;
  const rows = (Array.isArray(payload) ? payload : []).filter((spec) => Array.isArray(spec.data) && !isWhole(spec));
  const shares = rows.map(({ data, path: file }) => {
    const rowsOf = `${data.length} rows of ${path.basename(file)}`;
    if (data.length < workers) console.error(`${name}: only ${rowsOf}, so workers share them`);
    return `, ${deal(data, { index: worker, of: workers }).length} of ${rowsOf}`;
  });
  console.log(`${name}: 1 of ${workers} virtual users${shares.join('')}`);
}

/**
 * Has Artillery share a rate among its threads that it would not take: a fraction (lib/dist.js, distribute). It reads the
 * real phases for that, of which a plugin has a copy. Gives what makes them what they were.
 */
function roundUp(phases, real) {
  const isFraction = ({ arrivalRate, rampTo }) => !rampTo && arrivalRate > 0 && !Number.isInteger(Number(arrivalRate));
  const index = phases.findIndex(isFraction);
  if (index < 0) return () => {};
  if (!Array.isArray(real)) {
    const is = `config.phases[${index}].arrivalRate is ${phases[index].arrivalRate}`;
    throw new Error(`${is}, and this version of Artillery takes no fractions: use arrivalCount there, or a newer version`);
  }
  const fractions = real.filter(isFraction).map((phase) => [phase, phase.arrivalRate]);
  for (const [phase, rate] of fractions) phase.arrivalRate = Math.ceil(rate);
  return () => fractions.forEach(([phase, rate]) => { phase.arrivalRate = rate; });
}

class Plugin {
  constructor(script, _events, options) {
    const place = readPlace(process.env);
    if (isMainThread) divideMessages(script.config, place);
    else takePart(script, options);
  }
}

function divideMessages({ phases, mode, payload }, place) {
  // To find fault before anything runs.
  dividePhases(phases, { ...place, thread: 0, threads: 1 }, mode);
  const restore = roundUp(phases, global.artillery?.testInfo?.metadata?.testConfig?.phases);
  tell(payload, place);
  const { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (message, ...others) {
    if (message?.command !== 'prepare') return postMessage.call(this, message, ...others);
    restore();
    return postMessage.call(this, prepared(message, { phases, mode }, place), ...others);
  };
}

function takePart({ config, scenarios }, options) {
  const own = options?.[DIVIDED];
  if (!own) throw new Error('this version of Artillery starts its threads in a way that is not known');
  Mode.schedules = own.schedules;
  for (const phase of config.phases) {
    const [, schedule] = /^loadtest-divided-(\d+)$/.exec(phase.mode) ?? [];
    if (schedule) phase.mode = new Mode(schedule);
  }
  // Artillery reads a row for each weight, for what a weight may refer to (lib/core/runner.js, runScenario).
  const weights = (scenarios ?? []).filter(({ weight }) => weight !== undefined).length;
  for (const spec of own.numbered) readByNumber(spec, own.schedules, weights);
}

module.exports = {
  Plugin,
  LEGACY_METRICS_FORMAT: false,
  // For the tests.
  Arrivals, dividePayload, dividePhases, instants, Mode, numbers, readPlace, roundUp, seat, seconds, share,
};
