// An Artillery plugin that divides the load of one test among workers. Together they send what one worker would have sent.
// Mounted as /opt/loadtest/artillery-plugin-loadtest-divide/index.js and enabled by environment variables:
//
//   ARTILLERY_PLUGIN_PATH=/opt/loadtest
//   ARTILLERY_PLUGINS={"loadtest-divide":{"scope":"artillery-plugin-"}}
//   LOADTEST_WORKERS        the number of workers; the load is not divided if this is unset or 1
//   JOB_COMPLETION_INDEX    the index of this worker, from 0
//
// The virtual users that one worker would create are numbered across all phases. Worker i of N creates every Nth virtual
// user, starting with number i, and divides them among its threads in the same way. Each virtual user arrives at the same
// time, and gets the same row of a sequential payload, as with one worker.
//
// The main thread divides the phases, because only there the script is complete: Artillery sends each thread its part in a
// `prepare` message (lib/platform/local/artillery-worker-local.js). In a thread, each phase has its own `mode`, which
// schedules the arrivals (see Mode).
'use strict';

const path = require('node:path');
const { EventEmitter } = require('node:events');
const { isMainThread, Worker } = require('node:worker_threads');
const { arrivalTimes, MODE, parsePhase, scheduleOf, SHARE_OPTION, totalCount } = require('../lib/phases.js');

const milliseconds = (seconds) => `${seconds * 1000}ms`;

/** The number of items for a slot, if `total` items are dealt to the slots in turn and the first item has number `first`. */
function share(total, { index, of }, first = 0) {
  const below = (end) => Math.max(0, Math.ceil((end - index) / of));
  return below(first + total) - below(first);
}

/** The slot of a thread among all threads of all workers. Undefined if only `max` slots exist and none is left for it. */
function slot({ worker, workers, thread, threads }, max = Infinity) {
  const usedWorkers = Math.min(workers, max);
  if (worker >= usedWorkers) return undefined;
  const usedThreads = max === Infinity ? threads : Math.min(threads, share(max, { index: worker, of: usedWorkers }));
  if (thread >= usedThreads) return undefined;
  return { index: worker + usedWorkers * thread, of: usedWorkers * usedThreads };
}

/** A thread's share of a phase whose first virtual user has the number `first`, with the schedule of its arrivals. */
function sharePhase(phase, load, place, first) {
  const { arrivalCount, arrivalRate, rampTo, maxVusers, ...rest } = phase;
  const { seconds, segments, max, rate } = load;
  const idle = { phase: { ...rest, pause: milliseconds(seconds) } };
  const own = slot(place, max);
  if (!own) return idle;
  if (maxVusers !== undefined) rest.maxVusers = share(Math.ceil(Number(maxVusers)), own);
  if (rate) return { phase: { ...rest, arrivalRate: rate / own.of } };

  const count = share(totalCount(segments), own, first);
  if (count === 0) return idle;
  const skip = (own.index + own.of - (first % own.of)) % own.of;
  const schedule = { segments, skip, of: own.of, first: first + skip, count, length: seconds * 1000 };
  return { phase: { ...rest, duration: milliseconds(seconds), arrivalRate: count / seconds }, schedule };
}

/** A thread's share of the phases, with their schedules. After a random phase the numbers of virtual users are unknown. */
function dividePhases(phases, place, mode) {
  const divided = { phases: [], schedules: [], isRandom: false };
  let first = 0;
  for (const [index, phase] of phases.entries()) {
    // lib/dist.js drops all other phases.
    if (!(phase.rampTo || phase.arrivalRate || phase.arrivalCount || phase.pause)) continue;
    // If Artillery accepted a value that this plugin cannot parse, each worker would send the whole load of the phase.
    const load = parsePhase(phase, mode, `Cannot divide the load: config.phases[${index}]`);
    const own = load.isIdle ? { phase } : sharePhase(phase, load, place, first);
    if (load.rate) divided.isRandom = true;
    first += totalCount(load.segments ?? []);
    if (own.schedule) own.phase.mode = `${MODE}-${divided.schedules.push(own.schedule) - 1}`;
    divided.phases.push(own.phase);
  }
  return divided;
}

/** Every `of`th row, starting with row `index`. If there are fewer rows than slots, one row that other slots use too. */
function shareRows(rows, { index, of }) {
  return index < rows.length ? rows.filter((_, row) => row % of === index) : rows.slice(index % rows.length).slice(0, 1);
}

/** A thread's share of a payload. A payload that each virtual user gets as a whole is not divided (lib/core/readers.js). */
function dividePayload(spec, { worker, workers, thread, threads }) {
  if (!Array.isArray(spec.data) || isWhole(spec)) return spec;
  const rowsOfWorker = shareRows(spec.data, { index: worker, of: workers });
  return { ...spec, data: shareRows(rowsOfWorker, { index: thread, of: threads }) };
}

const isWhole = ({ loadAll, name, order }) => loadAll === true && name !== undefined && order === undefined;

/** A thread's `prepare` message, with the thread's share of the load instead of the load that Artillery gave it. */
function divideMessage(message, { phases, mode }, { worker, workers }) {
  const { script, payload, options } = message.opts;
  // A thread reads a TypeScript script again, but takes the phases from here.
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
      // The structured clone keeps the identity of objects: in the thread, `numbered` holds the objects of the payload.
      options: { ...options, [SHARE_OPTION]: { schedules, numbered } },
      payload: rows,
      script: script.__phases ? { ...script, __phases: own } : { ...script, config: { ...script.config, phases: own } },
    },
  };
}

/** Emits the arrivals of a schedule, with the interface of a process of the npm package `arrivals`. */
class Arrivals extends EventEmitter {
  constructor(schedule) {
    super();
    this.times = arrivalTimes(schedule);
    this.length = schedule.length;
  }

  start() {
    this.startedAt = performance.now();
    this.next = this.times.next();
    this.emitDue();
  }

  emitDue() {
    const elapsed = performance.now() - this.startedAt;
    for (; !this.next.done && this.next.value <= elapsed; this.next = this.times.next()) this.emit('arrival');
    const remaining = (this.next.done ? this.length : this.next.value) - elapsed;
    if (this.next.done && remaining <= 0) this.emit('finished');
    else setTimeout(() => this.emitDue(), Math.max(0, remaining));
  }
}

/**
 * Replaces the name of a phase's mode. When a phase starts, Artillery looks up the mode in the npm package `arrivals`
 * (lib/core/phases.js, createArrivalRate). A plugin cannot access that package if Artillery is bundled, so the mode is
 * added to the prototype of all objects for this one lookup.
 */
class Mode {
  constructor(schedule) {
    this.schedule = schedule;
  }

  toString() {
    const process = () => new Arrivals(Mode.schedules[this.schedule]);
    const getOnce = () => {
      delete Object.prototype[MODE];
      return { process };
    };
    Object.defineProperty(Object.prototype, MODE, { configurable: true, get: getOnce });
    return MODE;
  }
}

/** The numbers of a thread's virtual users, in order of arrival. */
function* userNumbers(schedules) {
  for (const { first, of, count } of schedules) {
    for (let own = 0; own < count; own += 1) yield first + own * of;
  }
}

/** Replaces Artillery's reader (lib/core/readers.js): each virtual user gets the row of its number. */
function readRowsByNumber(spec, schedules, readsBeforeUsers) {
  const users = userNumbers(schedules);
  let reads = 0;
  const reader = (rows) => {
    const row = reads < readsBeforeUsers ? reads : readsBeforeUsers + users.next().value;
    reads += 1;
    return rows[row % rows.length];
  };
  Object.defineProperty(spec, 'reader', { get: () => reader, set() {} });
}

/** The index of this worker and the number of workers. */
function workerFromEnv(env) {
  const workers = Number(env.LOADTEST_WORKERS || 1);
  if (workers === 1) return { worker: 0, workers };
  const worker = Number(env.JOB_COMPLETION_INDEX || NaN);
  // A worker without a valid index would send the whole load.
  if (!Number.isInteger(workers) || !Number.isInteger(worker) || worker < 0 || worker >= workers) {
    throw new Error(`Invalid JOB_COMPLETION_INDEX ${env.JOB_COMPLETION_INDEX} for ${env.LOADTEST_WORKERS} workers.\
 Expected an integer from 0 to LOADTEST_WORKERS - 1.`);
  }
  return { worker, workers };
}

function logShare(payload, { worker, workers }) {
  if (workers === 1) return;
  const name = `Load test worker ${worker + 1} of ${workers}`;
  const specs = (Array.isArray(payload) ? payload : []).filter((spec) => Array.isArray(spec.data) && !isWhole(spec));
  const shares = specs.map(({ data, path: file }) => {
    const base = path.basename(file);
    if (data.length < workers) console.error(`${name}: ${base} has only ${data.length} rows. Some workers use the same rows.`);
    return `, ${shareRows(data, { index: worker, of: workers }).length} of ${data.length} rows of ${base}`;
  });
  console.log(`${name}: 1 of ${workers} virtual users${shares.join('')}`);
}

/**
 * Rounds up fractional rates, which Artillery would reject when it divides the phases among its threads (lib/dist.js,
 * distribute). Artillery reads the `real` phases for that; a plugin gets a copy. Returns a function that restores them.
 */
function roundUpRates(phases, real) {
  const isFraction = ({ arrivalRate, rampTo }) => !rampTo && arrivalRate > 0 && !Number.isInteger(Number(arrivalRate));
  const index = phases.findIndex(isFraction);
  if (index < 0) return () => {};
  if (!Array.isArray(real)) {
    throw new Error(`config.phases[${index}].arrivalRate is ${phases[index].arrivalRate}, but this version of Artillery\
 accepts only whole numbers. Use arrivalCount in this phase, or a newer version of Artillery.`);
  }
  const fractions = real.filter(isFraction).map((phase) => [phase, phase.arrivalRate]);
  for (const [phase, rate] of fractions) phase.arrivalRate = Math.ceil(rate);
  return () => fractions.forEach(([phase, rate]) => { phase.arrivalRate = rate; });
}

class Plugin {
  constructor(script, _events, options) {
    const place = workerFromEnv(process.env);
    if (isMainThread) divideMessages(script.config, place);
    else applyShare(script, options);
  }
}

function divideMessages({ phases, mode, payload }, place) {
  // Reports invalid phases before any load is sent.
  dividePhases(phases, { ...place, thread: 0, threads: 1 }, mode);
  const restore = roundUpRates(phases, global.artillery?.testInfo?.metadata?.testConfig?.phases);
  logShare(payload, place);
  const { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (message, ...others) {
    if (message?.command !== 'prepare') return postMessage.call(this, message, ...others);
    restore();
    return postMessage.call(this, divideMessage(message, { phases, mode }, place), ...others);
  };
}

function applyShare({ config, scenarios }, options) {
  const own = options?.[SHARE_OPTION];
  if (!own) {
    throw new Error('This thread received no share of the divided load. This version of Artillery does not support load: Divide.');
  }
  Mode.schedules = own.schedules;
  for (const phase of config.phases) {
    const schedule = own.schedules.indexOf(scheduleOf(phase, own.schedules));
    if (schedule >= 0) phase.mode = new Mode(schedule);
  }
  // Artillery reads one row for each scenario with a weight, because a weight may refer to it (lib/core/runner.js, runScenario).
  const weights = (scenarios ?? []).filter(({ weight }) => weight !== undefined).length;
  for (const spec of own.numbered) readRowsByNumber(spec, own.schedules, weights);
}

module.exports = {
  Plugin,
  LEGACY_METRICS_FORMAT: false,
  // For the tests.
  Arrivals, dividePayload, dividePhases, Mode, roundUpRates, share, slot, userNumbers, workerFromEnv,
};
