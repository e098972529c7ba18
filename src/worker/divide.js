// Shares one load test out over workers: what they do together is what one would have done alone. An Artillery plugin,
// mounted as /opt/loadtest/artillery-plugin-loadtest-divide/index.js and switched on by environment:
//
//   ARTILLERY_PLUGIN_PATH=/opt/loadtest
//   ARTILLERY_PLUGINS={"loadtest-divide":{"scope":"artillery-plugin-"}}
//   LOADTEST_WORKERS        how many workers there are; nothing is shared out where it is unset or 1
//   JOB_COMPLETION_INDEX    which of them this is, from 0
//
// The virtual users that one worker would make are numbered through all phases, and so are the rows of each payload. Of
// both, worker i of N has every Nth from i on, and its threads share those in the same way. So virtual user k has row k.
//
// The phases are shared out in the main thread, where the script is whole: Artillery hands each thread its part in a
// `prepare` message (lib/platform/local/artillery-worker-local.js).
'use strict';

const path = require('node:path');
const { isMainThread, Worker } = require('node:worker_threads');

const DIVIDED = 'loadtestDivided';

// Source: the npm package `ms`.
const UNITS = [
  [/^(ms|msecs?|milliseconds?)?$/i, 0.001],
  [/^(s|secs?|seconds?)$/i, 1],
  [/^(m|mins?|minutes?)$/i, 60],
  [/^(h|hrs?|hours?)$/i, 3600],
  [/^(d|days?)$/i, 86_400],
  [/^(w|weeks?)$/i, 604_800],
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
  if (length === 1) return [(to + from) / 2];
  return Array.from({ length: Math.ceil(length) }, (_, second) => ((to - from) / (length - 1)) * second + from);
}

/** How many come in each second, one every `tick` milliseconds. Source: the npm package `arrivals`, UniformProcess. */
function uniform(tick, length) {
  const until = (end) => Math.floor((Math.min(end, length) * 1000 * 1000) / Math.floor(tick * 1000));
  return Array.from({ length: Math.ceil(length) }, (_, second) => until(second + 1) - until(second));
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** A phase of `length` seconds that makes so many virtual users in each of them; from and to are what the ramp is. */
function everySecond(counts, length, from, to) {
  // Artillery rounds down and adds one for the first few workers; `worker` says when this is one of them (see Extra).
  const extra = ramp(from, to, length).map((rate, second) => counts[second] - Math.floor(rate));
  if (extra.some((one) => one !== 0 && one !== 1)) return undefined;
  return { arrivalRate: from, rampTo: to, duration: milliseconds(length), worker: extra, totalWorkers: 1 };
}

/** A phase of `length` seconds that makes `count` virtual users, evenly. */
function evenly(count, length) {
  // Artillery counts in whole microseconds and makes as many as fit, so half of one is added to be sure of the last.
  const tick = Math.max(1, Math.round((length * 1e6) / count));
  return { arrivalCount: count, duration: milliseconds((count * tick + 0.5) / 1e6) };
}

/** What is to be known of a phase to share it out. Undefined where it stays as it is: a pause, or what Artillery refuses. */
function read(phase, mode) {
  const number = (value) => (value === undefined ? undefined : Number(value));
  const [count, rate, to, most = Infinity] =
    [phase.arrivalCount, phase.arrivalRate, phase.rampTo, phase.maxVusers].map(number);
  // In the order of lib/core/phases.js.
  if (phase.pause !== undefined || !(most >= 0)) return undefined;
  if (count !== undefined) {
    const length = seconds(phase.duration);
    return count > 0 && length > 0 ? { length, most, counts: uniform((length * 1000) / count, length) } : undefined;
  }
  if (to !== undefined) {
    const [from, length] = [rate ?? 0, phase.duration === undefined ? 1 : seconds(phase.duration)];
    if (!(from >= 0 && to >= 0 && length > 0)) return undefined;
    return { length, most, from, to, counts: ramp(from, to, length).map((raw) => Math.floor(raw) + Math.round(raw % 1)) };
  }
  if (!(rate > 0)) return undefined;
  const length = seconds(phase.duration);
  if ((phase.mode ?? mode ?? 'uniform') === 'uniform' && length > 0) {
    return { length, most, counts: uniform(1000 / rate, length) };
  }
  // A Poisson process lasts until an arrival is late: not for long, if each has one a second.
  return { length, most: Math.min(most, Math.max(1, Math.floor(rate))), rate };
}

/** A thread's part of a phase, whose first virtual user is number `before`. */
function part(phase, asked, place, before) {
  const { arrivalCount, arrivalRate, rampTo, maxVusers, ...rest } = phase;
  const { length, counts, from, to, rate } = asked;
  const rests = { ...rest, pause: milliseconds(to === undefined ? length : Math.ceil(length)) };
  const own = seat(place, asked.most);
  if (!own) return rests;
  if (maxVusers !== undefined) rest.maxVusers = share(Number(maxVusers), own);
  if (rate) return { ...rest, arrivalRate: rate / own.of };

  let first = before;
  const mine = counts.map((count) => {
    first += count;
    return share(count, own, first - count);
  });
  const all = sum(mine);
  if (all === 0) return rests;
  // Where there is less than one a second, each has its own second: evenly, all workers' would come at the same time.
  const isRare = all < length && Number.isInteger(length);
  const ramped = to !== undefined ? [from / own.of, to / own.of] : isRare ? [0, 0] : undefined;
  return { ...rest, ...((ramped && everySecond(mine, length, ...ramped)) ?? evenly(all, length)) };
}

/** A thread's part of the phases. */
function dividePhases(phases, place, mode) {
  let before = 0;
  // lib/dist.js leaves the others out.
  return phases.filter((phase) => phase.rampTo || phase.arrivalRate || phase.arrivalCount || phase.pause).map((phase) => {
    const asked = read(phase, mode);
    if (!asked) return phase;
    const own = part(phase, asked, place, before);
    before += sum(asked.counts ?? []);
    return own;
  });
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
  const { script, payload } = message.opts;
  // A script in TypeScript is read anew by the thread, but for its phases.
  const [{ worker: number, totalWorkers: threads }] = script.__phases ?? script.config.phases;
  const place = { worker, workers, thread: number - 1, threads };
  const own = dividePhases(phases, place, mode);
  return {
    ...message,
    opts: {
      ...message.opts,
      options: { ...message.opts.options, [DIVIDED]: true },
      payload: Array.isArray(payload) ? payload.map((spec) => dividePayload(spec, place)) : payload,
      script: script.__phases ? { ...script, __phases: own } : { ...script, config: { ...script.config, phases: own } },
    },
  };
}

/**
 * Stands for the number of a worker in a ramp. Artillery asks whether one more virtual user is due to this worker by
 * comparing with it, once for each second and in order (lib/core/phases.js, createRamp).
 */
class Extra {
  constructor(extra) {
    this.extra = extra;
    this.second = 0;
  }

  valueOf() {
    const due = this.extra[this.second % this.extra.length] > 0;
    this.second += 1;
    return due ? 0 : Infinity;
  }
}

/** Which worker this is. Undefined where the test has only one. */
function readPlace(env) {
  const workers = Number(env.LOADTEST_WORKERS || 1);
  const worker = Number(env.JOB_COMPLETION_INDEX || NaN);
  if (workers === 1) return undefined;
  // It would run the whole test, which is worse than none.
  if (!Number.isInteger(workers) || !Number.isInteger(worker) || worker < 0 || worker >= workers) {
    throw new Error(`no such worker: ${env.JOB_COMPLETION_INDEX} of ${env.LOADTEST_WORKERS}, counted from 0`);
  }
  return { worker, workers };
}

function tell(payload, { worker, workers }) {
  const name = `Load test worker ${worker + 1} of ${workers}`;
  const rows = (Array.isArray(payload) ? payload : []).filter((spec) => Array.isArray(spec.data) && !isWhole(spec));
  const shares = rows.map(({ data, path: file }) => {
    const rowsOf = `${data.length} rows of ${path.basename(file)}`;
    if (data.length < workers) console.error(`${name}: only ${rowsOf}, so workers share them`);
    return `, ${deal(data, { index: worker, of: workers }).length} of ${rowsOf}`;
  });
  console.log(`${name}: 1 of ${workers} virtual users${shares.join('')}`);
}

class Plugin {
  constructor(script, _events, options) {
    const place = readPlace(process.env);
    if (place && isMainThread) divideMessages(script.config, place);
    else if (place) takePart(script.config, options);
  }
}

function divideMessages({ phases, mode, payload }, place) {
  tell(payload, place);
  const { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (message, ...others) {
    const own = message?.command === 'prepare' ? prepared(message, { phases, mode }, place) : message;
    return postMessage.call(this, own, ...others);
  };
}

function takePart({ phases }, options) {
  if (!options?.[DIVIDED]) throw new Error('this version of Artillery starts its threads in a way that is not known');
  for (const phase of phases) {
    if (Array.isArray(phase.worker)) phase.worker = new Extra(phase.worker);
  }
}

module.exports = {
  Plugin,
  LEGACY_METRICS_FORMAT: false,
  // For the tests.
  dividePayload, dividePhases, Extra, readPlace, seat, seconds, share,
};
