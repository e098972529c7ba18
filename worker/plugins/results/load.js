// Compares the load that a worker sent with its plan. Mounted as /opt/loadtest/artillery-plugin-loadtest-results/load.js
//
// Each thread has a `ThreadLoad`: the plan of its phases (lib/phases.js) and the arrivals of its virtual users. An arrival is
// that of a virtual user which Artillery creates or, because of maxVusers, skips. Arrivals have no numbers, so the nth arrival
// is compared with the nth planned one. The main thread merges what the threads report in a `WorkerLoad`.
//
// The planned time of an arrival counts from the start of the load, so a phase that starts late makes all its arrivals late. A
// virtual user that arrives early has no delay. The arrivals of a Poisson process have no planned times and no delays. It ends
// at its first arrival after its duration, which is random too, so the plan of the next phase counts from the actual end. A
// process that takes longer than MAX_EXTRA_GAPS of its mean gaps is late, because chance does not explain that.
'use strict';

const { parentPort, threadId } = require('node:worker_threads');
const { arrivalTimes, countDue, planThread, SHARE_OPTION } = require('../lib/phases.js');
const { EventLoop } = require('./generator.js');

// The base of the bins of Artillery's sketches: lib/core/ssms.js.
const LOG_GAMMA = Math.log(1.01 / 0.99);
const MAX_EXTRA_GAPS = 10;

// The resolution that halves the number of bins this often: 8 %.
const DELAY_FOLDS = 3;

const middleOf = (bin) => (2 * Math.exp(bin * LOG_GAMMA)) / (1 + Math.exp(LOG_GAMMA));

/** Delays in whole ms, with the fields and bins of a sketch. */
class Delays {
  constructor() {
    Object.assign(this, { count: 0, min: Infinity, max: -Infinity, sum: 0, zeros: 0, positive: new Map(), negative: new Map() });
  }

  add(ms) {
    this.count += 1;
    this.sum += ms;
    if (ms < this.min) this.min = ms;
    if (ms > this.max) this.max = ms;
    this.addToBin(ms, 1);
  }

  addToBin(ms, n) {
    if (n === 0) return;
    const bin = ms > 0 ? Math.ceil(Math.log(ms) / LOG_GAMMA) : undefined;
    if (bin === undefined) this.zeros += n;
    else this.positive.set(bin, (this.positive.get(bin) ?? 0) + n);
  }

  /** Adds other delays, each of them `offset` ms longer. */
  merge({ count, min, max, sum, zeros, positive }, offset) {
    this.count += count;
    this.sum += sum + count * offset;
    this.min = Math.min(this.min, min + offset);
    this.max = Math.max(this.max, max + offset);
    this.addToBin(offset, zeros);
    for (const [bin, n] of positive) this.addToBin(middleOf(bin) + offset, n);
  }
}

/** The arrivals of one thread, compared with its plan. All methods are called by the thread's hooks, in order. */
class ThreadLoad {
  /** `plan` is that of `planThread`. `now` returns the time in ms of a clock that is never set. */
  constructor(plan, now = () => performance.now()) {
    Object.assign(this, { plan, now, delays: new Delays() });
    // The phase whose planned arrivals are next. Its last arrivals may come after the start of later phases.
    Object.assign(this, { index: 0, times: plan.length > 0 ? arrivalTimes(plan[0]) : [].values(), offset: 0 });
    Object.assign(this, { started: 0, startedAt: undefined, phaseStartedAt: undefined, lastAt: undefined, isDone: false });
    // By how many ms a Poisson process is longer than its duration: first the expected value, then the actual one.
    this.extras = plan.map(({ rate }) => (rate ? 1000 / rate : 0));
  }

  startPhase() {
    this.phaseStartedAt = this.now();
    if (this.startedAt === undefined) {
      this.startedAt = this.phaseStartedAt;
      this.startTime = Date.now();
    }
    this.started += 1;
  }

  completePhase() {
    this.lastAt = this.now();
    const { rate, length } = this.plan[this.started - 1] ?? {};
    if (rate) {
      const extra = this.lastAt - this.phaseStartedAt - length;
      this.extras[this.started - 1] = Math.min(Math.max(0, extra), (MAX_EXTRA_GAPS * 1000) / rate);
    }
    if (this.started === this.plan.length) this.isDone = true;
  }

  /** The end of all phases. Artillery does not report the end of a phase with an `arrivalCount` of 0. */
  complete() {
    this.lastAt ??= this.now();
    this.isDone = true;
  }

  arrive() {
    this.lastAt = this.now();
    let next = this.times.next();
    while (next.done && this.index + 1 < this.started && this.index + 1 < this.plan.length) {
      this.offset += this.plan[this.index].length + this.extras[this.index];
      this.index += 1;
      this.times = arrivalTimes(this.plan[this.index]);
      next = this.times.next();
    }
    // Arrivals of a Poisson process are not planned.
    if (next.done || this.startedAt === undefined) return;
    this.delays.add(Math.max(0, Math.round(this.lastAt - this.startedAt - this.offset - next.value)));
  }

  /** What the main thread needs of this thread. Can be cloned. */
  state() {
    const { startTime, startedAt, lastAt, isDone, extras, delays } = this;
    return { startTime, endTime: isDone ? startTime + Math.max(0, lastAt - startedAt) : undefined, extras, delays: { ...delays } };
  }
}

/**
 * Observes the load of this thread. Sends the main thread the plan, and a state with each report of Artillery. Returns the
 * functions `arrive`, for each virtual user, and `sendState`. No function throws an error, because that would affect the test.
 */
function watchLoad(script, options, send) {
  const safely = (action) => {
    try {
      action?.();
    } catch {
      // The main thread writes what it knows.
    }
  };
  const loop = new EventLoop();
  let load;
  const arrive = () => safely(() => load?.arrive());
  const sendState = () => safely(() => load && send({ thread: threadId, load: load.state(), loop: loop.measure() }));
  // Other plugins, which are constructed after this one, may change the phases.
  queueMicrotask(() => safely(() => {
    const { phases, mode } = script?.config ?? {};
    const plan = Array.isArray(phases) ? planThread(phases, mode, options?.[SHARE_OPTION]?.schedules) : undefined;
    load = new ThreadLoad(plan ?? []);
    send({ thread: threadId, plan: plan ?? null });
  }));
  const handlers = {
    phaseStarted() {
      if (load.started === 0) loop.start();
      load.startPhase();
    },
    phaseCompleted() {
      load.completePhase();
      if (load.isDone) loop.stop();
    },
    stats: sendState,
    done() {
      load.complete();
      loop.stop();
      sendState();
    },
  };
  // Artillery's thread reports to its main thread through this port (lib/platform/local/worker.js).
  const { postMessage } = parentPort;
  parentPort.postMessage = function (message, ...rest) {
    if (load && Object.hasOwn(handlers, message?.event)) safely(handlers[message.event]);
    return postMessage.call(this, message, ...rest);
  };
  return { arrive, sendState };
}

/** The load of a worker, from the plans and states of its threads. */
class WorkerLoad {
  constructor() {
    this.plans = new Map();
    this.states = new Map();
  }

  /**
   * The keys `load` and `delay` of a snapshot (see index.js) whose counters end at `time`, in ms since 1970. `start` is the
   * time of the synchronized start; without it the load starts with the first phase of a thread. Empty if a plan is unknown.
   */
  measure({ time, start, isFinal }) {
    const plans = [...this.plans];
    const states = [...this.states.values()].filter(({ startTime }) => startTime !== undefined);
    if (states.length === 0 || plans.some(([, plan]) => !plan)) return {};
    const firstStart = Math.min(...states.map(({ startTime }) => startTime));
    const base = Math.min(start ?? Infinity, firstStart);
    const totals = { planned: 0, due: 0, random: 0, plannedMs: 0 };
    for (const [thread, plan] of plans) {
      const extras = this.states.get(thread)?.extras ?? [];
      let offset = 0;
      plan.forEach((phase, index) => {
        totals.planned += phase.count;
        if (phase.rate) totals.random += phase.count;
        totals.due += countDue(phase, time - base - offset);
        offset += phase.length + (extras[index] ?? 0);
      });
      totals.plannedMs = Math.max(totals.plannedMs, offset);
    }
    const isDone = states.length === plans.length && states.every(({ endTime }) => endTime !== undefined);
    const end = isDone ? Math.max(...states.map(({ endTime }) => endTime)) : time;
    const delays = new Delays();
    for (const state of states) delays.merge(state.delays, Math.round(state.startTime - base));
    const { planned, due, random, plannedMs } = totals;
    const load = [planned, isFinal ? planned : due, plannedMs, Math.max(0, end - base), random].map(Math.round);
    return { load, delays: delays.count > 0 ? delays : undefined };
  }
}

module.exports = { DELAY_FOLDS, Delays, ThreadLoad, watchLoad, WorkerLoad };
