// Runs Artillery's own phases in a virtual time, so that long phases take a moment and nothing depends on the load of the machine.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { ARTILLERY } from './helpers.mjs';

const require = createRequire(import.meta.url);
const { scheduleOf } = require('../plugins/lib/phases.js');
const { ThreadLoad } = require('../plugins/results/load.js');
const { Mode } = require('../plugins/divide/index.js');

// The virtual time that the next turn of the event loop takes, in ms.
const TURN = 0.2;

/** Imports the first module of Artillery that exists: its paths differ between versions. */
export async function importArtillery(...places) {
  const module = await import(pathToFileURL(places.map((place) => path.join(ARTILLERY, place)).find((file) => fs.existsSync(file))));
  return module.default;
}

class Clock {
  constructor() {
    this.now = 1_000_000;
    this.timers = [];
  }

  // Timers are in order, and most new ones are among the first.
  add(ms, action) {
    const timer = { at: this.now + ms, action, unref: () => timer };
    let index = this.timers.findIndex(({ at }) => at > timer.at);
    if (index < 0) index = this.timers.length;
    this.timers.splice(index, 0, timer);
    return timer;
  }

  remove(timer) {
    const index = this.timers.indexOf(timer);
    if (index >= 0) this.timers.splice(index, 1);
  }

  /** Replaces the timers and clocks of this process. Returns a function that restores them. */
  install() {
    const hrtime = (since = [0, 0]) => {
      const ns = Math.round(this.now * 1e6) - since[0] * 1e9 - since[1];
      return [Math.floor(ns / 1e9), ns % 1e9];
    };
    const replaced = [
      [globalThis, 'setTimeout', (action, ms, ...args) => this.add(Math.max(1, ms || 0), () => action(...args))],
      [globalThis, 'setImmediate', (action, ...args) => this.add(TURN, () => action(...args))],
      [globalThis, 'clearTimeout', (timer) => this.remove(timer)],
      [globalThis, 'clearImmediate', (timer) => this.remove(timer)],
      [process, 'hrtime', hrtime],
      [performance, 'now', () => this.now],
      [Date, 'now', () => Math.round(this.now)],
    ].map(([object, name, value]) => {
      const original = Object.getOwnPropertyDescriptor(object, name);
      Object.defineProperty(object, name, { value, configurable: true, writable: true });
      return () => (original ? Object.defineProperty(object, name, original) : delete object[name]);
    });
    return () => replaced.forEach((restore) => restore());
  }

  /** Runs all timers, and what waits for them. */
  async run() {
    for (let timer = this.timers.shift(); timer; timer = this.timers.shift()) {
      this.now = Math.max(this.now, timer.at);
      timer.action();
      for (let turn = 0; turn < 4; turn += 1) await undefined;
    }
  }
}

/**
 * Runs the phases of one thread with Artillery's lib/core/phases.js, and counts its arrivals with a ThreadLoad. `onArrival` is
 * called with the clock at each arrival, and may advance `clock.now`. Returns {arrivals, load, elapsed}.
 */
export async function runPhases(phases, plan, { schedules = [], onArrival = () => {} } = {}) {
  const createPhaser = await importArtillery('artillery/dist/lib/core/phases.js', 'artillery/lib/core/phases.js', '@artilleryio/int-core/lib/phases.js');
  const clock = new Clock();
  const load = new ThreadLoad(plan, () => clock.now);
  const specs = structuredClone(phases);
  Mode.schedules = schedules;
  for (const spec of specs) {
    const schedule = schedules.indexOf(scheduleOf(spec, schedules));
    if (schedule >= 0) spec.mode = new Mode(schedule);
  }
  const restore = clock.install();
  try {
    let arrivals = 0;
    const phaser = createPhaser(specs);
    phaser.on('arrival', () => {
      arrivals += 1;
      onArrival(clock);
      load.arrive();
    });
    phaser.on('phaseStarted', () => load.startPhase());
    phaser.on('phaseCompleted', () => load.completePhase());
    phaser.on('done', () => load.complete());
    const startedAt = clock.now;
    phaser.run();
    await clock.run();
    return { arrivals, load, elapsed: clock.now - startedAt };
  } finally {
    restore();
  }
}
