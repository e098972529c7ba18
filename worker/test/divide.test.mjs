import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ARTILLERY, countValues, EXPECTED, NO_ARTILLERY, PHASES, pluginsFor, runTest, script, scriptOfPhases } from './helpers.mjs';

const require = createRequire(import.meta.url);
const { arrivalTimes, parseSeconds } = require('../plugins/lib/phases.js');
const {
  Arrivals, dividePayload, dividePhases, Mode, roundUpRates, share, slot, userNumbers, workerFromEnv,
} = require('../plugins/divide/index.js');

const SIZES = [1, 2, 3, 7, 16];
const sum = (all) => all.reduce((total, number) => total + number, 0);
const ascending = (all) => all.sort((a, b) => a - b);

// The places of all threads of a test whose workers have 1, 2, 1, 2 ... threads.
const places = (workers) => Array.from({ length: workers }, (_, worker) => {
  const threads = 1 + (worker % 2);
  return Array.from({ length: threads }, (_, thread) => ({ worker, workers, thread, threads }));
}).flat();

// The times at which one worker creates the virtual users of a phase, in ms: lib/core/phases.js and the npm package `arrivals`.
function undividedTimes(phase) {
  if (phase.pause !== undefined) return [];
  const length = parseSeconds(phase.duration);
  if (phase.arrivalCount === undefined && phase.rampTo !== undefined) {
    return Array.from({ length: Math.ceil(length) }, (_, second) => {
      const rate = ((phase.rampTo - phase.arrivalRate) / (length - 1)) * second + phase.arrivalRate;
      const number = Math.floor(rate) + Number(Math.round((rate % 1) * 1) >= 1);
      const tick = Math.min(Math.floor(1000 / number), 1000);
      return Array.from({ length: Math.max(0, number) }, (_, one) => second * 1000 + (one + 1) * tick);
    }).flat();
  }
  const tick = Math.floor((phase.arrivalCount ? (length * 1000) / phase.arrivalCount : 1000 / phase.arrivalRate) * 1000);
  return Array.from({ length: Math.floor((length * 1000 * 1000) / tick) }, (_, number) => ((number + 1) * tick) / 1000);
}

const MANY = [1, 2, 5, 10, 60].flatMap((duration) => [1, 3, 5, 7, 100, 333].flatMap((number) => [
  { duration, arrivalRate: number },
  { duration: `${duration}s`, arrivalCount: number },
  { duration: `${duration * 1000 + 137}ms`, arrivalCount: number },
  { duration: duration + 1, arrivalRate: number, rampTo: 10 },
  { duration: duration + 1, arrivalRate: 0, rampTo: number },
])).concat([
  // Rounding puts the end of these ramps slightly below 0.
  { duration: 30, arrivalRate: 15, rampTo: 0 },
  { duration: 26, arrivalRate: 7, rampTo: 0 },
  { duration: '2500ms', arrivalRate: 8, rampTo: 0 },
  { duration: '1500ms', arrivalRate: 4, rampTo: 0 },
  { duration: 30, arrivalRate: 0.5 },
  { duration: 7, arrivalRate: 2.3 },
  { duration: 9, arrivalRate: 0.5, rampTo: 3.7 },
  { duration: 20, arrivalRate: 1 },
]);

/** A thread's schedule of one phase. */
const scheduleOf = ({ phases, schedules }, index) => schedules[/^loadtest-divided-(\d+)$/.exec(phases[index].mode)?.[1]];
const timesOf = (own, index) => {
  const schedule = scheduleOf(own, index);
  const all = schedule ? [...arrivalTimes(schedule)] : [];
  assert.equal(all.length, schedule?.count ?? 0);
  return all;
};

test('the workers together create as many virtual users as one worker, at the same times', () => {
  for (const workers of SIZES) {
    const all = places(workers).map((place) => dividePhases(MANY, place));
    MANY.forEach((phase, index) => {
      const made = ascending(all.flatMap((own) => timesOf(own, index)));
      const rounded = (times) => times.map((time) => Math.round(time * 1000));
      assert.deepEqual(rounded(made), rounded(undividedTimes(phase)), `${workers} workers: ${JSON.stringify(phase)}`);
    });
  }
});

test('the workers together create each virtual user of one worker exactly once', () => {
  const phases = [...MANY, { duration: 9, arrivalRate: 20, maxVusers: 5 }, { duration: 2, arrivalRate: 3 }];
  const all = sum(phases.map((phase) => undividedTimes(phase).length));
  for (const workers of SIZES) {
    const made = places(workers).flatMap((place) => [...userNumbers(dividePhases(phases, place).schedules)]);
    assert.deepEqual(ascending(made), Array.from({ length: all }, (_, number) => number));
  }
});

test('the numbers of virtual users of two workers differ by at most one', () => {
  for (const workers of SIZES) {
    const totals = new Array(workers).fill(0);
    for (const place of places(workers)) {
      totals[place.worker] += sum(dividePhases(MANY, place).schedules.map(({ count: own }) => own));
    }
    assert.ok(Math.max(...totals) - Math.min(...totals) <= 1, String(totals));
  }
});

test('a phase has the same duration for each worker', () => {
  for (const place of places(16)) {
    const own = dividePhases(MANY, place);
    own.phases.forEach((phase, index) => {
      const { duration, rampTo } = MANY[index];
      const length = rampTo === undefined ? parseSeconds(duration) : Math.ceil(parseSeconds(duration));
      assert.equal(parseSeconds(phase.pause ?? phase.duration), length, JSON.stringify(phase));
      assert.equal(scheduleOf(own, index)?.length ?? length * 1000, length * 1000);
    });
  }
});

test('maxVusers is divided, and a worker without a share of it pauses', () => {
  const phase = { name: 'limited', duration: 2, arrivalRate: 20, maxVusers: 5 };
  for (const workers of SIZES) {
    const all = places(workers).map((place) => dividePhases([phase], place));
    assert.equal(sum(all.map(({ phases }) => phases[0].maxVusers ?? 0)), 5);
    assert.equal(sum(all.map((own) => timesOf(own, 0).length)), 40);
    for (const { phases: [own] } of all) assert.ok(own.maxVusers > 0 || own.pause === '2000ms', JSON.stringify(own));
  }
  assert.equal(dividePhases([{ ...phase, maxVusers: 0 }], places(2)[0]).phases[0].pause, '2000ms');
});

test('a Poisson process is divided among at most as many threads as it has arrivals per second', () => {
  for (const [phase, mode] of [[{ mode: 'poisson' }, undefined], [{}, 'poisson']]) {
    const all = places(7).map((place) => dividePhases([{ duration: 9, arrivalRate: 5, ...phase }], place, mode));
    const own = all.map(({ phases }) => phases[0]);
    assert.deepEqual(own.map(({ arrivalRate }) => arrivalRate ?? 0).filter(Boolean), [1, 1, 1, 1, 1]);
    assert.deepEqual(own.filter((one) => !one.arrivalRate).map(({ pause }) => pause), new Array(5).fill('9000ms'));
    assert.ok(all.every(({ isRandom }) => isRandom));
  }
});

test('phases without arrivals are passed to Artillery unchanged', () => {
  const kept = [{ pause: '{' }, { pause: 2, duration: 2, arrivalRate: 3 }, { duration: 'soon', arrivalCount: '0' }, { arrivalRate: '0' }];
  const left = dividePhases([{ duration: 5, arrivalRate: 0 }, ...kept, { think: 1 }], places(3)[0]);
  assert.deepEqual(left, { phases: kept, schedules: [], isRandom: false });
});

test('a phase that cannot be divided is an error that names the field', () => {
  const invalid = [
    [{ duration: 'soon', arrivalCount: 3 }, 'duration is "soon", expected a duration greater than 0'],
    [{ duration: 1.5, arrivalRate: 1, rampTo: 3 }, 'duration is 1.5,'],
    [{ duration: '-3', arrivalRate: 3 }, 'duration is "-3",'],
    [{ duration: 0, arrivalRate: 3 }, 'duration is 0,'],
    [{ arrivalRate: 3 }, 'duration is missing'],
    [{ arrivalCount: 3 }, 'duration is missing'],
    [{ duration: 2, arrivalRate: 'x' }, 'arrivalRate is "x", expected a number'],
    [{ duration: 2, arrivalRate: -1, rampTo: 3 }, 'arrivalRate is -1,'],
    [{ duration: 2, arrivalCount: 'many' }, 'arrivalCount is "many",'],
    [{ duration: 2, rampTo: 'x' }, 'rampTo is "x",'],
    [{ duration: 2, arrivalCount: 3, maxVusers: 'few' }, 'maxVusers is "few",'],
  ];
  for (const [phase, problem] of invalid) {
    const divide = () => dividePhases([{ pause: 1 }, phase], places(3)[0]);
    assert.throws(divide, ({ message }) => message.includes(`config.phases[1].${problem}`), problem);
  }
});

test('Arrivals emits each arrival no earlier than scheduled', async () => {
  const segments = [{ start: 0, tick: 20, count: 3 }, { start: 100, tick: 0.1, count: 400 }, { start: 200, tick: 50, count: 1 }];
  const schedule = { segments, skip: 1, of: 2, length: 300 };
  const arrivals = new Arrivals(schedule);
  const due = [...arrivalTimes(schedule)];
  assert.deepEqual([due.length, due[0]], [202, 40]);
  const startedAt = performance.now();
  const emitted = [];
  arrivals.on('arrival', () => emitted.push(performance.now() - startedAt));
  const finished = new Promise((resolve) => { arrivals.on('finished', resolve); });
  arrivals.start();
  await finished;
  assert.ok(performance.now() - startedAt >= 299);
  assert.equal(emitted.length, due.length);
  // There is no upper bound, because it would depend on the load of the machine.
  emitted.forEach((at, index) => assert.ok(at >= due[index] - 1, `${at}, not ${due[index]}`));
});

test('a Mode adds itself to the prototype of objects for one lookup only', () => {
  const [arrivals, mode] = [{ uniform: {} }, new Mode(1)];
  Mode.schedules = [undefined, { segments: [], skip: 0, of: 1, length: 5 }];
  assert.equal(arrivals[mode].process(1, 2).length, 5);
  assert.equal(arrivals['loadtest-divided'], undefined);
});

test('fractional rates are rounded up until they are restored', () => {
  const phases = [{ arrivalRate: 3 }, { arrivalRate: 0.5 }, { arrivalRate: '1.5', rampTo: 0 }, { arrivalRate: 0.5, rampTo: 2 }];
  const real = structuredClone(phases);
  const restore = roundUpRates(phases, real);
  assert.deepEqual(real.map(({ arrivalRate }) => arrivalRate), [3, 1, 2, 0.5]);
  restore();
  assert.deepEqual(real, phases);
  assert.throws(() => roundUpRates(phases, undefined), /config\.phases\[1\]\.arrivalRate is 0\.5, but this version of Artillery/);
  roundUpRates(phases.slice(0, 1), undefined)();
});

test('slots cover all shares and never exceed the maximum', () => {
  for (const max of [1, 4, 9, Infinity]) {
    const taken = places(6).map((place) => slot(place, max)).filter(Boolean);
    for (const whole of [0, 1, 5, 36, 100]) assert.equal(sum(taken.map((own) => share(whole, own, 11))), whole);
    // A limit of 9 for 9 threads leaves 2 without a slot, because it is divided among the workers first.
    assert.equal(taken.length, { 1: 1, 4: 4, 9: 7, Infinity: 9 }[max]);
  }
});

test('each row goes to exactly one thread', () => {
  for (const workers of SIZES) {
    for (const length of [100, 37, workers * 2].filter((rows) => rows >= workers * 2)) {
      const data = Array.from({ length }, (_, row) => [row]);
      const all = places(workers).flatMap((place) => dividePayload({ path: 'a.csv', data }, place).data);
      assert.deepEqual(all.map(([row]) => row).sort((a, b) => a - b), data.map(([row]) => row));
    }
  }
});

test('each thread gets a row even if there are fewer rows than threads', () => {
  const data = [['a'], ['b'], ['c']];
  const all = places(7).map((place) => dividePayload({ data }, place).data.flat().join());
  assert.equal(all.join(' '), 'a b b c a a b c c a');
  assert.deepEqual(dividePayload({ data: [] }, places(3)[1]).data, []);
});

test('a payload with loadAll is not divided', () => {
  const whole = { name: 'people', loadAll: true, data: [['a'], ['b']] };
  assert.deepEqual(dividePayload(whole, places(2)[0]).data, whole.data);
  assert.deepEqual(dividePayload({ ...whole, order: 'sequence' }, places(2)[0]).data, [['a']]);
});

test('the worker index comes from the environment, and an invalid one is an error', () => {
  for (const env of [{}, { LOADTEST_WORKERS: '1' }, { JOB_COMPLETION_INDEX: '0' }]) {
    assert.deepEqual(workerFromEnv(env), { worker: 0, workers: 1 });
  }
  assert.deepEqual(workerFromEnv({ LOADTEST_WORKERS: '3', JOB_COMPLETION_INDEX: '0' }), { worker: 0, workers: 3 });
  for (const index of [undefined, '', '3', '-1', 'x', '0.5']) {
    assert.throws(() => workerFromEnv({ LOADTEST_WORKERS: '3', JOB_COMPLETION_INDEX: index }), /^Error: Invalid JOB_COMPLETION_INDEX .* workers\./);
  }
  assert.throws(() => workerFromEnv({ LOADTEST_WORKERS: 'many', JOB_COMPLETION_INDEX: '0' }), /^Error: Invalid JOB_COMPLETION_INDEX .* workers\./);
});

test('a thread without a share of the load fails', async () => {
  const file = JSON.stringify(require.resolve('../plugins/divide/index.js'));
  const env = { LOADTEST_WORKERS: '2', JOB_COMPLETION_INDEX: '0' };
  const construct = (options) => new Promise((resolve) => {
    const plugin = `new (require(${file}).Plugin)({ config: { phases: [] } }, null, ${options})`;
    new Worker(plugin, { eval: true, env }).on('error', (error) => resolve(error.message)).on('exit', resolve);
  });
  assert.match(String(await construct('{}')), /^This thread received no share of the divided load\./);
  assert.equal(await construct('{ loadtestDivided: { schedules: [], numbered: [] } }'), 0);
});

const assertSucceeded = (workers) => workers.forEach(({ code, output }) => assert.equal(code, 0, output));
/** Whether this version of Artillery gives the plugin access to the phases that it divides among its threads. */
const acceptsFractions = () => fs.existsSync(path.join(ARTILLERY, 'artillery/dist/lib/cmds/run.js'));
/** Only the plugin that divides the load. */
const DIVIDED = { ARTILLERY_PLUGINS: pluginsFor('divide') };

// A group has no time limit of its own: each worker has one.
describe('with Artillery', { skip: NO_ARTILLERY, concurrency: true }, () => {
  const all = sum(Object.values(EXPECTED));
  for (const [count, threads, environment] of [[1, 1, { ARTILLERY_PLUGINS: pluginsFor('results') }], [1, 2], [2, 1], [3, 2], [7, 1], [16, 1]]) {
    test(`${count} workers with ${threads} threads each send the load of one worker${environment ? ', without the plugin' : ''}`, async () => {
      const { requests, workers } = await runTest({ script: scriptOfPhases(), workers: count, threads, environment });
      assertSucceeded(workers);
      assert.deepEqual(countValues(requests.map(({ phase }) => phase)), EXPECTED);
      const rows = Array.from({ length: all }, (_, row) => `/row-${row}`);
      assert.deepEqual(requests.map(({ row }) => row).sort(), rows.sort(), 'virtual user k has row k');
      const limited = requests.filter(({ phase }) => phase === 'limited');
      assert.ok(new Set(limited.map(({ worker }) => worker)).size <= PHASES.at(-1).maxVusers);
      const vusers = sum(workers.map(({ snapshot }) => snapshot.load[0]));
      const counted = sum(workers.map(({ snapshot: { counters } }) => counters['vusers.created'] + (counters['vusers.skipped'] ?? 0)));
      assert.deepEqual([vusers, counted], [all, all], 'as many virtual users as planned');
      const logged = workers.map(({ output }) => /^Load test worker (\d+) of/m.exec(output)?.[1]);
      assert.deepEqual(logged, count === 1 ? [undefined] : workers.map((_, index) => String(index + 1)));
    });
  }

  test('rows are reused from the first on if there are too few, as with one worker, also in scripts with weights', async () => {
    const [scenario] = script({}).scenarios;
    const scenarios = [{ ...scenario, weight: 2 }, scenario, { ...scenario, weight: 1 }];
    const runWith = (workers, threads, environment) =>
      runTest({ script: { ...scriptOfPhases(['even', 'limited', 'count']), scenarios }, workers, threads, rows: 9, environment });
    const tests = await Promise.all([runWith(1, 1, { ARTILLERY_PLUGINS: pluginsFor() }), runWith(2, 2, DIVIDED), runWith(3, 1, DIVIDED)]);
    tests.forEach(({ workers }) => assertSucceeded(workers));
    const [undivided, ...divided] = tests.map(({ requests }) => countValues(requests.map(({ row }) => row)));
    assert.deepEqual([sum(Object.values(undivided)), undivided['/row-2'], undivided['/row-1']], [25, 3, 2]);
    for (const one of divided) assert.deepEqual(one, undivided);
  });

  test('rows are divided if they are read at random, or if virtual users arrive at random', async () => {
    const scripts = [
      script({ phases: [{ duration: 2, arrivalRate: 20 }], payload: { path: 'rows.csv', fields: ['row'] } }),
      script({ phases: [{ duration: 2, arrivalRate: 20, mode: 'poisson' }] }),
    ];
    const tests = await Promise.all(scripts.map((one) => runTest({ script: one, workers: 2, threads: 2, rows: 12, environment: DIVIDED })));
    for (const { requests, workers } of tests) {
      assertSucceeded(workers);
      const numbers = requests.map(({ row, worker }) => [Number(/\d+/.exec(row)[0]) % 2, worker]);
      assert.ok(numbers.length > 12);
      for (const [owner, worker] of numbers) assert.equal(owner, worker);
    }
  });

  test('fractional rates are divided', { skip: acceptsFractions() ? false : 'this version of Artillery accepts none' }, async () => {
    const phases = [{ name: 'half', duration: 4, arrivalRate: 0.5 }, { pause: 1 }, { name: 'more', duration: 2, arrivalRate: '2.5', rampTo: 0 }];
    const tests = await Promise.all([[1, 2], [3, 1]].map(([workers, threads]) =>
      runTest({ script: script({ phases }), workers, threads, environment: DIVIDED })));
    for (const { requests, workers } of tests) {
      assertSucceeded(workers);
      assert.deepEqual(countValues(requests.map(({ phase }) => phase)), { half: 2, more: 3 });
      assert.deepEqual(requests.map(({ row }) => row).sort(), ['/row-0', '/row-1', '/row-2', '/row-3', '/row-4']);
    }
  });

  test('no worker sends load if a phase cannot be divided', async () => {
    const phases = [{ duration: 1, arrivalRate: 5 }, { duration: 1, arrivalCount: 5, maxVusers: 'few' }];
    const { requests, workers } = await runTest({ script: script({ phases }), workers: 2, environment: DIVIDED });
    for (const { code, output } of workers) {
      assert.notEqual(code, 0, output);
      assert.match(output, /Cannot divide the load: config\.phases\[1\]\.maxVusers is "few", expected a number/);
    }
    assert.deepEqual(requests, []);
  });

  test('phases of an environment, rates from variables and a custom plugin scope are supported', async () => {
    // Artillery merges the two lists of phases item by item.
    const environments = { short: { phases: [{ name: 'chosen', duration: 1, arrivalRate: '{{ $env.RATE }}' }] } };
    const { requests, workers } = await runTest({
      // This scope applies to all plugins that do not set their own.
      script: script({ phases: [{ duration: 9, arrivalRate: 99 }], environments, pluginsScope: '@users/artillery-plugin-' }),
      workers: 3,
      args: ['--environment', 'short'],
      environment: { ...DIVIDED, RATE: '5' },
    });
    assertSucceeded(workers);
    assert.deepEqual(countValues(requests.map(({ phase }) => phase)), { chosen: 5 });
  });

  test('a script without phases has one virtual user, and the other workers have no load', async () => {
    const { requests, workers } = await runTest({ script: script({}), workers: 3, rows: 2, environment: DIVIDED });
    assertSucceeded(workers);
    assert.deepEqual(requests.map(({ worker, row }) => [worker, row]), [[0, '/row-0']]);
    assert.match(workers[2].output, /^Load test worker 3 of 3: rows\.csv has only 2 rows\. Some workers use the same rows\.$/m);
  });

  test('a worker with an invalid index sends no load', async () => {
    const environment = { ...DIVIDED, LOADTEST_WORKERS: '2', JOB_COMPLETION_INDEX: '2' };
    const { requests, workers } = await runTest({ script: scriptOfPhases(), workers: 1, environment });
    assert.notEqual(workers[0].code, 0, workers[0].output);
    assert.match(workers[0].output, /Invalid JOB_COMPLETION_INDEX 2 for 2 workers\./);
    assert.deepEqual(requests, []);
  });
});
