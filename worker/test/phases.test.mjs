import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, test } from 'node:test';
import { NO_ARTILLERY, PHASES } from './helpers.mjs';
import { importArtillery, runPhases } from './virtual-clock.mjs';

const require = createRequire(import.meta.url);
const { countDue, parseSeconds, planThread } = require('../plugins/lib/phases.js');
const { dividePhases } = require('../plugins/divide/index.js');
// The operator's unit tests read the same fixtures, so that `expectedDuration` agrees with the plan.
const fixture = (name) => JSON.parse(fs.readFileSync(path.join(import.meta.dirname, 'fixtures', name)));
const DURATIONS = fixture('durations.json');

const SIZES = [1, 2, 3, 7, 16];
const sum = (all) => all.reduce((total, number) => total + number, 0);

test('durations are parsed as in the table of cases', () => {
  for (const { input, seconds } of DURATIONS) assert.equal(parseSeconds(input), seconds ?? undefined, JSON.stringify(input));
  for (const input of [undefined, {}, NaN]) assert.equal(parseSeconds(input), undefined);
});

test('a plan is unknown if Artillery would not run or never end its phases', () => {
  const good = { duration: 2, arrivalRate: 3 };
  const bad = [
    { duration: 'soon', arrivalRate: 3 }, { duration: 1.5, arrivalRate: 3 }, { arrivalRate: 3 }, { duration: '-3', arrivalRate: 3 },
    { duration: 1, arrivalRate: 0.5 }, { duration: 2, arrivalRate: 'x' }, { duration: 2, arrivalCount: 'x' }, { pause: '{' },
    { pause: 1, duration: 'soon' }, { duration: 2, arrivalRate: 3, mode: 'burst' }, { duration: 'soon', arrivalCount: '0' },
  ];
  assert.equal(planThread([good]).length, 1);
  for (const phase of bad) assert.equal(planThread([good, phase]), undefined, JSON.stringify(phase));
});

test('virtual users are due one after another, until all of them are', () => {
  const [phase] = planThread([{ duration: 2, arrivalRate: 4 }]);
  assert.deepEqual([-5, 0, 249, 250, 999, 1000, 2000, 9e9].map((elapsed) => countDue(phase, elapsed)), [0, 0, 0, 1, 3, 4, 8, 8]);
  const third = { ...phase, skip: 1, of: 3, count: 3 };
  assert.deepEqual([0, 499, 500, 1249, 1250, 2000].map((elapsed) => countDue(third, elapsed)), [0, 0, 1, 1, 2, 3]);
  const [random] = planThread([{ duration: 2, arrivalRate: 4, mode: 'poisson' }]);
  assert.deepEqual([-1, 500, 5000].map((elapsed) => countDue(random, elapsed)), [0, 2, 8]);
});

// Each list of phases is one script.
const SCRIPTS = {
  'phases of the documentation': PHASES.flatMap((phase) => [phase, { pause: 1 }]),
  rates: [{ duration: 3, arrivalRate: 1 }, { duration: '1500ms', arrivalRate: 7 }, { duration: '1m', arrivalRate: '13' }, { duration: 2, arrivalRate: 333 }],
  'ramps up': [{ duration: 9, arrivalRate: 1, rampTo: 20 }, { duration: '2500ms', rampTo: 5 }, { duration: 4, arrivalRate: 3, rampTo: '17' }],
  'ramps down': [{ duration: 9, arrivalRate: 20, rampTo: 1 }, { duration: 26, arrivalRate: 7, rampTo: 0 }, { duration: 30, arrivalRate: 15, rampTo: 0 }],
  'ramps of one second': [{ duration: 1, arrivalRate: 4, rampTo: 9 }, { duration: '1s', rampTo: 60 }, { rampTo: 3 }],
  'ramps by fractions': [{ duration: 10, arrivalRate: 0.5, rampTo: 3.7 }, { duration: 5, arrivalRate: '1.5', rampTo: 2 }],
  counts: [{ duration: 4, arrivalCount: 1 }, { duration: '1.5s', arrivalCount: 7 }, { duration: '137ms', arrivalCount: 3 }, { duration: 5, arrivalCount: 100 }],
  pauses: [{ pause: 2 }, { duration: 2, arrivalRate: 3 }, { pause: '1500ms' }, { arrivalRate: '0', duration: 3 }, { duration: 1, arrivalRate: 20 }, { pause: 1, arrivalRate: 4 }],
  'skipped phases': [{ duration: 5 }, { duration: 5, arrivalRate: 0 }, { duration: 2, arrivalRate: 4 }, { arrivalCount: 0, duration: 4 }, { think: 1 }],
  'a limit of virtual users': [{ duration: 2, arrivalRate: 10, maxVusers: 5 }, { duration: 3, arrivalRate: 2, rampTo: 8, maxVusers: 1 }],
  'a phase without virtual users at first': [{ arrivalCount: '0', duration: 3 }, { duration: 2, arrivalRate: 5 }],
  'no phases': [{ duration: 1, arrivalCount: 1 }],
};

describe('in Artillery', { skip: NO_ARTILLERY }, async () => {
  const divideWork = NO_ARTILLERY ? undefined : await importArtillery('artillery/dist/lib/dist.js', 'artillery/lib/dist.js');
  const silently = (action) => {
    const { log } = console;
    console.log = () => {};
    try {
      return action();
    } finally {
      console.log = log;
    }
  };
  // The phases of the threads of one worker that runs the whole script.
  const threadPhases = (phases, threads) => {
    const script = { config: { phases: structuredClone(phases) }, scenarios: [] };
    return silently(() => divideWork(script, threads)).map(({ config }) => config.phases);
  };
  // Asserts that a thread does what its plan says. Returns the number of its virtual users.
  async function assertPlan(phases, schedules, about) {
    const plan = planThread(structuredClone(phases), undefined, schedules);
    assert.ok(plan, about);
    const { arrivals, load } = await runPhases(phases, plan, { schedules });
    assert.equal(arrivals, sum(plan.map(({ count }) => count)), about);
    assert.equal(load.delays.count, arrivals, about);
    // Artillery's ramps drift by about 1 ms per second.
    assert.ok(arrivals === 0 || load.delays.max <= 60, `${about}: delayed by ${load.delays.max} ms`);
    const [plannedMs, actualMs] = [sum(plan.map(({ length }) => length)), load.lastAt - load.startedAt];
    assert.ok(Math.abs(plannedMs - actualMs) <= 60, `${about}: ${actualMs} ms instead of ${plannedMs} ms`);
    return arrivals;
  }

  test('the table of durations is what Artillery parses', async () => {
    const createPhaser = await importArtillery('artillery/dist/lib/core/phases.js', 'artillery/lib/core/phases.js', '@artilleryio/int-core/lib/phases.js');
    for (const { input, seconds } of DURATIONS) {
      const phase = { duration: input, arrivalCount: 1 };
      const parse = () => createPhaser([phase]);
      if (seconds === null) assert.throws(parse, undefined, JSON.stringify(input));
      else parse();
      if (seconds !== null) assert.ok(phase.duration === seconds, `${JSON.stringify(input)}: ${phase.duration}`);
    }
  });

  for (const { phases, seconds } of fixture('phases.json')) {
    test(`${JSON.stringify(phases)} take ${seconds === null ? 'an unknown time' : `${seconds} s`}`, async () => {
      const [own] = threadPhases(phases, 1);
      const plan = planThread(structuredClone(own));
      if (seconds === null) return assert.equal(plan, undefined);
      const plannedMs = sum(plan.map(({ length }) => length));
      assert.ok(Math.abs(plannedMs - seconds * 1000) < 1, `${plannedMs} ms`);
      if (seconds > 3600) return undefined;
      const { load } = await runPhases(own, plan);
      const actualMs = load.lastAt - load.startedAt;
      assert.ok(Math.abs(actualMs - plannedMs) < 40, `${actualMs} ms`);
    });
  }

  for (const [name, phases] of Object.entries(SCRIPTS)) {
    test(`as many virtual users arrive as planned, on time, in each thread of a worker: ${name}`, async () => {
      for (const threads of SIZES) {
        const all = threadPhases(phases, threads);
        for (const [thread, own] of all.entries()) await assertPlan(own, [], `thread ${thread + 1} of ${threads}`);
      }
    });

    test(`as many virtual users arrive as planned, on time, in workers that divide the load: ${name}`, async () => {
      const totals = [];
      for (const workers of SIZES) {
        let total = 0;
        for (let worker = 0; worker < workers; worker += 1) {
          const threads = 1 + (worker % 2);
          for (let thread = 0; thread < threads; thread += 1) {
            const { phases: own, schedules } = dividePhases(phases, { worker, workers, thread, threads });
            total += await assertPlan(own, schedules, `thread ${thread + 1} of worker ${worker + 1} of ${workers}`);
          }
        }
        totals.push(total);
      }
      assert.ok(totals.every((total) => total === totals[0] && total > 0), String(totals));
    });
  }

  test('a Poisson process has an expected number of virtual users, and does not delay the next phase', async () => {
    const phases = [{ duration: 30, arrivalRate: 20, mode: 'poisson' }, { duration: 3, arrivalRate: 10 }, { duration: 8, arrivalRate: 1, mode: 'poisson' }];
    const plan = planThread(phases);
    assert.deepEqual(plan.map(({ count }) => count), [600, 30, 8]);
    const { arrivals, load } = await runPhases(phases, plan);
    // Six standard deviations.
    assert.ok(Math.abs(arrivals - 638) < 6 * Math.sqrt(608), `${arrivals}`);
    assert.deepEqual([load.delays.count, load.delays.max <= 60], [30, true], `${load.delays.max}`);
  });
});
