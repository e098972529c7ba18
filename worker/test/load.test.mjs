import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { decode, EXPECTED, NO_ARTILLERY, pluginsFor, runTest, script, scriptOfPhases, waitUntil } from './helpers.mjs';
import { runPhases } from './virtual-clock.mjs';

const require = createRequire(import.meta.url);
const { planThread } = require('../plugins/lib/phases.js');
const { ThreadLoad, WorkerLoad } = require('../plugins/results/load.js');
const { EventLoop, Generator, readCgroup } = require('../plugins/results/generator.js');

const sum = (all) => all.reduce((total, number) => total + number, 0);

describe('the arrival delay', () => {
  // A thread whose clock the test sets.
  function newThread(phases) {
    const clock = { now: 500 };
    const load = new ThreadLoad(planThread(phases), () => clock.now);
    const at = (ms, method) => {
      clock.now = 500 + ms;
      load[method]();
    };
    return { load, at };
  }

  test('counts from the start of the load, so it includes the delay of the phase', () => {
    const { load, at } = newThread([{ duration: 1, arrivalCount: 2 }, { pause: 1 }, { duration: 1, arrivalRate: 1 }]);
    at(0, 'startPhase');
    at(500, 'arrive');
    at(1003, 'arrive');
    at(1003, 'completePhase');
    at(1003, 'startPhase');
    at(2400, 'completePhase');
    at(2400, 'startPhase');
    at(3400, 'arrive');
    assert.equal(load.state().endTime, undefined);
    at(3401, 'completePhase');
    const { count, min, max, sum: total, zeros } = load.delays;
    assert.deepEqual([count, min, max, total, zeros], [3, 0, 400, 403, 1]);
    assert.equal(load.state().endTime - load.state().startTime, 3401);
  });

  test('of an early virtual user is 0', () => {
    const { load, at } = newThread([{ duration: 1, arrivalCount: 1 }]);
    at(0, 'startPhase');
    at(998, 'arrive');
    assert.deepEqual([load.delays.zeros, load.delays.max], [1, 0]);
  });

  test('of the last virtual user of a ramp that arrives after the start of the next phase is its own', () => {
    const { load, at } = newThread([{ duration: 2, arrivalRate: 1, rampTo: 1 }, { duration: 1, arrivalRate: 1 }]);
    at(0, 'startPhase');
    at(1000, 'arrive');
    at(2000, 'completePhase');
    at(2000, 'startPhase');
    at(2100, 'arrive');
    at(3000, 'arrive');
    assert.deepEqual([load.delays.count, load.delays.sum], [3, 100]);
  });

  test('is not known for a Poisson process, and is that of the start in the phase after it', () => {
    const { load, at } = newThread([{ pause: 1 }, { duration: 2, arrivalRate: 1, mode: 'poisson' }, { duration: 1, arrivalRate: 1 }]);
    at(0, 'startPhase');
    at(1200, 'completePhase');
    at(1200, 'startPhase');
    for (const ms of [1300, 1350, 2000]) at(ms, 'arrive');
    // The process ends with its first arrival after the duration.
    at(4700, 'completePhase');
    at(4700, 'startPhase');
    at(5710, 'arrive');
    assert.deepEqual([load.delays.count, load.delays.max], [1, 210]);
    assert.deepEqual(load.state().extras, [0, 1500, 0]);
  });

  test('after a Poisson process that took longer than by chance includes that time', () => {
    const { load, at } = newThread([{ duration: 2, arrivalRate: 10, mode: 'poisson' }, { duration: 1, arrivalRate: 1 }]);
    at(0, 'startPhase');
    at(9000, 'completePhase');
    at(9000, 'startPhase');
    at(10_000, 'arrive');
    assert.equal(load.delays.max, 6000);
  });

  test('of a blocked thread is that of Artillery, also if the thread catches up', { skip: NO_ARTILLERY }, async () => {
    const phases = [{ duration: 10, arrivalRate: 10 }, { duration: 5, arrivalRate: 2, rampTo: 6 }, { duration: 5, arrivalRate: 4 }];
    let arrivals = 0;
    const onArrival = (clock) => {
      arrivals += 1;
      if (arrivals === 20) clock.now += 3000;
    };
    const { load } = await runPhases(phases, planThread(phases), { onArrival });
    assert.equal(load.delays.count, 140);
    assert.ok(load.delays.max >= 3000 && load.delays.max < 3060, `${load.delays.max}`);
    // The first phase catches up: only the arrivals of 3 s are late.
    const late = 30;
    assert.ok(load.delays.zeros + late <= 140 && load.delays.sum < late * 3000, `${load.delays.sum}`);
  });
});

describe('the load of a worker', () => {
  const PHASES = [{ duration: 2, arrivalRate: 10 }, { duration: 2, arrivalRate: 5, mode: 'poisson' }];
  const delays = { count: 2, min: 0, max: 7, sum: 7, zeros: 1, positive: new Map([[97, 1]]) };

  function newWorker(...states) {
    const worker = new WorkerLoad();
    states.forEach((state, thread) => {
      worker.plans.set(thread, planThread(PHASES));
      worker.states.set(thread, { startTime: 10_000, extras: [0, 200], delays, ...state });
    });
    return worker;
  }

  test('is due by plan while it runs, and as planned at the end', () => {
    const worker = newWorker({}, { startTime: 10_100 });
    const at = (time, isFinal = false) => worker.measure({ time, isFinal }).load;
    assert.deepEqual(at(11_000), [60, 20, 4200, 1000, 20]);
    assert.deepEqual(at(13_000), [60, 50, 4200, 3000, 20]);
    assert.deepEqual(at(9000), [60, 0, 4200, 0, 20]);
    assert.deepEqual(at(13_500, true), [60, 60, 4200, 3500, 20]);
    const ended = newWorker({ endTime: 14_300 }, { startTime: 10_100, endTime: 14_900 });
    assert.deepEqual(ended.measure({ time: 20_000, isFinal: true }).load, [60, 60, 4200, 4900, 20]);
  });

  test('has the delays of all threads, each with the delay of its start', () => {
    const { delays: merged } = newWorker({}, { startTime: 10_100 }).measure({ time: 11_000 });
    assert.deepEqual([merged.count, merged.min, merged.max, merged.sum, merged.zeros], [4, 0, 107, 214, 1]);
    assert.equal(sum([...merged.positive.values()]), 3);
  });

  test('counts from the synchronized start', () => {
    const { load, delays: merged } = newWorker({ endTime: 14_000 }).measure({ time: 20_000, start: 9000, isFinal: true });
    assert.deepEqual([load[3], merged.min, merged.max], [5000, 1000, 1007]);
    // The clock may have been set since.
    assert.equal(newWorker({ endTime: 14_000 }).measure({ time: 20_000, start: 11_000, isFinal: true }).load[3], 4000);
  });

  test('is unknown if the plan of a thread is unknown, or no phase has started', () => {
    const worker = newWorker({}, {});
    worker.plans.set(1, null);
    assert.deepEqual(worker.measure({ time: 11_000 }), {});
    assert.deepEqual(newWorker({ startTime: undefined }).measure({ time: 11_000 }), {});
    assert.deepEqual(new WorkerLoad().measure({ time: 11_000 }), {});
  });

  test('has no delays if no virtual user was planned at a time', () => {
    const empty = { count: 0, min: Infinity, max: -Infinity, sum: 0, zeros: 0, positive: new Map() };
    assert.equal(newWorker({ delays: empty }).measure({ time: 11_000 }).delays, undefined);
  });
});

describe('the resources of a worker', () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'cgroup-'));
  after(() => fs.rmSync(root, { recursive: true }));
  function newCgroup(files) {
    const folder = fs.mkdtempSync(path.join(root, 'root-'));
    for (const [name, text] of Object.entries(files)) {
      fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
      fs.writeFileSync(path.join(folder, name), text);
    }
    return folder;
  }
  const V2 = {
    'cgroup.controllers': 'cpu memory\n',
    'cpu.stat': 'usage_usec 900\nuser_usec 800\nsystem_usec 100\nnr_periods 323\nnr_throttled 315\nthrottled_usec 41230567\n',
    'cpu.max': '30000 100000\n', 'memory.max': '268435456\n', 'memory.peak': '199229440\n', 'memory.current': '1048576\n',
  };
  const V1 = {
    'cpu/cpu.stat': 'nr_periods 323\nnr_throttled 315\nthrottled_time 41230567000\n',
    'cpu/cpu.cfs_quota_us': '30000\n', 'cpu/cpu.cfs_period_us': '100000\n', 'cpuacct/cpuacct.usage': '900000\n',
    'memory/memory.limit_in_bytes': '268435456\n', 'memory/memory.max_usage_in_bytes': '199229440\n',
  };
  const FIGURES = { periods: 323, throttled: 315, throttledMs: 41230.567, cpuMs: 0.9, cpuLimit: 300, memory: 190, memoryLimit: 256 };
  const UNKNOWN = { periods: null, throttled: null, throttledMs: null, cpuMs: null, cpuLimit: null, memory: null, memoryLimit: null };

  test('are read from cgroup v2 and v1', () => {
    assert.deepEqual(readCgroup(newCgroup(V2)), FIGURES);
    assert.deepEqual(readCgroup(newCgroup(V1)), FIGURES);
  });

  test('have no limits where the container has none', () => {
    const { cpuLimit, memoryLimit } = readCgroup(newCgroup({ ...V2, 'cpu.max': 'max 100000\n', 'memory.max': 'max\n' }));
    assert.deepEqual([cpuLimit, memoryLimit], [null, null]);
    const v1 = readCgroup(newCgroup({ ...V1, 'cpu/cpu.cfs_quota_us': '-1\n', 'memory/memory.limit_in_bytes': '9223372036854771712\n' }));
    assert.deepEqual([v1.cpuLimit, v1.memoryLimit], [null, null]);
  });

  test('are null where the kernel does not report them', () => {
    assert.deepEqual(readCgroup(newCgroup({})), UNKNOWN);
    assert.deepEqual(readCgroup(newCgroup({ 'cgroup.controllers': '', 'cpu.stat': 'usage_usec 900\n', 'cpu/cpu.stat': V1['cpu/cpu.stat'] })), UNKNOWN);
    const { 'memory.peak': _, ...old } = V2;
    assert.equal(readCgroup(newCgroup(old)).memory, 1, 'kernels before 5.19 have no memory.peak');
  });

  test('count from the start of the load', () => {
    const stat = (usage, rest) => `usage_usec ${usage}\n${rest}`;
    const folder = newCgroup({ ...V2, 'cpu.stat': stat(2_000_000, 'nr_periods 300\nnr_throttled 300\nthrottled_usec 40000000\n') });
    const generator = new Generator(folder);
    assert.deepEqual(generator.measure(2, []), [2, null, null, null, null, null, null, 300, 190, 256]);
    generator.start();
    fs.writeFileSync(path.join(folder, 'cpu.stat'), stat(9_000_000, V2['cpu.stat'].replace('usage_usec 900\n', '')));
    const loops = [{ utilization: 0.5, loopDelay: 12.4 }, { utilization: 0.998, loopDelay: null }];
    const figures = generator.measure(2, loops);
    assert.deepEqual(figures, [2, 998, 12, 15, 23, 1231, 7000, 300, 190, 256]);
    const unlimited = new Generator(newCgroup({}));
    unlimited.start();
    const ofProcess = unlimited.measure(2, loops)[6];
    assert.ok(Number.isInteger(ofProcess) && ofProcess >= 0 && ofProcess < 5000, `${ofProcess} ms of CPU time of the process`);
  });

  test('include a blocked event loop', async () => {
    const loop = new EventLoop();
    loop.start();
    await waitUntil('the loop is measured', () => loop.histogram.count > 0);
    const end = performance.now() + 400;
    while (performance.now() < end);
    await waitUntil('the block is measured', () => loop.histogram.max > 400e6);
    const { utilization, loopDelay } = loop.measure();
    loop.stop();
    assert.ok(utilization > 0.5 && loopDelay > 300, `${utilization}, ${loopDelay} ms`);
    assert.deepEqual(loop.measure(), loop.stopped, 'after the load it does not change');
  });
});

// The ends of the bins of a delay histogram, and their counts.
function binsOf([folds, , , , zeros, [first, ...differences]]) {
  let n = 0;
  const gamma = (1.01 / 0.99) ** (2 ** folds);
  return [[0, zeros], ...differences.map((difference, index) => [gamma ** (first + index), (n += difference)])];
}

/** A quantile of a delay, rounded up to the end of its bin. */
function quantile(delay, q) {
  const bins = binsOf(delay);
  const rank = q * (sum(bins.map(([, n]) => n)) - 1);
  let seen = 0;
  return bins.find(([, n]) => (seen += n) > rank)[0];
}

// A group has no time limit of its own: each worker has one.
describe('with Artillery', { skip: NO_ARTILLERY, concurrency: true }, () => {
  const counted = ({ counters }) => counters['vusers.created'] + (counters['vusers.skipped'] ?? 0);
  const UNDIVIDED = { ARTILLERY_PLUGINS: pluginsFor('results') };
  const think = (seconds) => ({ scenarios: [{ flow: [{ think: seconds }] }] });

  test('a healthy worker sends its load as planned', async () => {
    const { workers: [{ code, output, snapshot }] } = await runTest({ script: scriptOfPhases(), workers: 1, threads: 2, environment: UNDIVIDED });
    assert.equal(code, 0, output);
    const all = sum(Object.values(EXPECTED));
    const [planned, due, plannedMs, actualMs, random] = snapshot.load;
    assert.equal(counted(snapshot), planned);
    assert.deepEqual([due, random], [planned, 0]);
    // Artillery divides a ramp among its threads with another rounding.
    assert.ok(Math.abs(planned - all) <= 2, `${planned}`);
    assert.ok(actualMs >= plannedMs - 20 && actualMs < plannedMs * 1.2, `${actualMs} ms instead of ${plannedMs} ms`);
    // Far more than on an idle machine, where it is below 25 ms.
    assert.ok(quantile(snapshot.delay, 0.99) < 1500, JSON.stringify(snapshot.delay));
    const [threads, utilization, loopDelay] = snapshot.generator;
    assert.equal(threads, 2);
    assert.ok(utilization > 0 && utilization <= 1000 && loopDelay >= 0, JSON.stringify(snapshot.generator));
  });

  test('virtual users that maxVusers skips are planned', async () => {
    const limited = { ...script({ phases: [{ duration: 5, arrivalRate: 20, maxVusers: 2 }] }), ...think(2) };
    const { workers: [{ code, output, snapshot }] } = await runTest({ script: limited, workers: 1, environment: UNDIVIDED });
    assert.equal(code, 0, output);
    const { 'vusers.created': created, 'vusers.skipped': skipped } = snapshot.counters;
    assert.deepEqual([snapshot.load[0], snapshot.load[1], created + skipped], [100, 100, 100]);
    assert.ok(created >= 4 && created <= 8, `${created}`);
    assert.equal(sum(binsOf(snapshot.delay).map(([, n]) => n)), 100);
  });

  for (const [mode, environment] of [['Multiply', UNDIVIDED], ['Divide', {}]]) {
    test(`a worker with a busy event loop has a delay, with load: ${mode}`, async () => {
      // Each virtual user takes 100 ms of the thread, so that 40 of them, planned within 2 s, take 4 s.
      const busy = 'module.exports.block = (_, events, done) => { const end = performance.now() + 100; while (performance.now() < end); done(); };';
      const saturated = {
        ...script({ phases: [{ duration: 2, arrivalRate: 20 }], processor: './busy.js' }),
        scenarios: [{ flow: [{ function: 'block' }] }],
      };
      const files = { 'busy.js': busy };
      const { workers: [{ code, output, snapshot }] } = await runTest({ script: saturated, workers: 1, environment, files });
      assert.equal(code, 0, output);
      const [planned, due, plannedMs, actualMs] = snapshot.load;
      assert.deepEqual([planned, due, plannedMs, counted(snapshot)], [40, 40, 2000, 40]);
      assert.ok(actualMs >= 3800, `${actualMs} ms`);
      assert.ok(quantile(snapshot.delay, 0.99) > 1500 && quantile(snapshot.delay, 0.5) > 500, JSON.stringify(snapshot.delay));
      const [, utilization, loopDelay] = snapshot.generator;
      assert.ok(utilization > 900 && loopDelay >= 70, JSON.stringify(snapshot.generator));
    });
  }

  test('requests of a before hook are no arrivals, and phases after pauses have planned times', async () => {
    const hook = { flow: [{ loop: [{ get: { url: '/before' } }], count: 20 }] };
    const phases = [{ pause: 1 }, { name: 'first', duration: 2, arrivalRate: 5 }, { pause: 1 }, { arrivalCount: 3, duration: 1 }];
    const { workers: [{ code, output, snapshot }] } =
      await runTest({ script: { ...script({ phases }), before: hook, after: hook }, workers: 1, threads: 3, environment: UNDIVIDED });
    assert.equal(code, 0, output);
    assert.deepEqual([snapshot.load.slice(0, 3), counted(snapshot)], [[13, 13, 5000], 13]);
    assert.ok(snapshot.load[3] < 8000, String(snapshot.load));
  });

  test('Poisson processes are counted as expected arrivals', async () => {
    const phases = [{ duration: 3, arrivalRate: 10, mode: 'poisson' }, { duration: 1, arrivalRate: 4 }];
    for (const environment of [UNDIVIDED, {}]) {
      const { workers: [{ code, output, snapshot }] } = await runTest({ script: script({ phases }), workers: 1, threads: 2, environment });
      assert.equal(code, 0, output);
      assert.deepEqual([snapshot.load[0], snapshot.load[4]], [34, 30]);
      assert.equal(sum(binsOf(snapshot.delay).map(([, n]) => n)), 4);
    }
  });

  test('a script in TypeScript has a plan', async () => {
    const source = `export const config = { target: 'http://127.0.0.1', phases: [{ duration: 2, arrivalRate: 6 }] };
      export const scenarios = [{ flow: [{ get: { url: '/' } }] }];`;
    const { workers } = await runTest({ script: source, name: 'script.ts', workers: 2, threads: 2 });
    for (const { code, output, snapshot } of workers) {
      assert.equal(code, 0, output);
      assert.deepEqual([snapshot.load.slice(0, 3), counted(snapshot)], [[6, 6, 2000], 6]);
    }
  });

  test('a snapshot of a worker that is stopped has the virtual users that were due', async () => {
    const phases = [{ duration: 60, arrivalRate: 20 }];
    const { workers: [{ snapshot }] } =
      await runTest({ script: script({ phases }), workers: 1, threads: 2, environment: UNDIVIDED, stopAfter: 50 });
    assert.equal(snapshot.final, undefined);
    const [planned, due, plannedMs, actualMs] = snapshot.load;
    assert.deepEqual([planned, plannedMs], [1200, 60_000]);
    assert.ok(counted(snapshot) >= 50 && due >= counted(snapshot) - 2 && due < 600, `${due}, ${counted(snapshot)}`);
    assert.ok(actualMs >= 2400 && actualMs < 30_000, `${actualMs}`);
  });

  test('a worker whose phases Artillery rejects has no load', async () => {
    const phases = [{ duration: 1, arrivalRate: 5 }, { duration: 'soon', arrivalRate: 5 }];
    const { workers: [{ code, snapshot }] } = await runTest({ script: script({ phases }), workers: 1, environment: UNDIVIDED });
    assert.notEqual(code, 0);
    assert.equal(snapshot?.load, undefined);
  });
});
