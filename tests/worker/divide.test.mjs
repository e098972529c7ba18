import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ARTILLERY, count, EXPECTED, everyPhase, PHASES, runTest, script } from './divide-pods.mjs';

const require = createRequire(import.meta.url);
const { Arrivals, dividePayload, dividePhases, instants, Mode, numbers, readPlace, roundUp, seat, seconds, share } =
  require('../../src/worker/divide.js');

const SIZES = [1, 2, 3, 7, 16];
const sum = (all) => all.reduce((total, number) => total + number, 0);
const ascending = (all) => all.sort((a, b) => a - b);

// All places of a test, where pods have 1, 2, 1, 2 ... threads.
const places = (workers) => Array.from({ length: workers }, (_, worker) => {
  const threads = 1 + (worker % 2);
  return Array.from({ length: threads }, (_, thread) => ({ worker, workers, thread, threads }));
}).flat();

// The instants at which Artillery makes the virtual users of a phase, in ms: lib/core/phases.js and the npm package `arrivals`.
function alone(phase) {
  if (phase.pause !== undefined) return [];
  const length = seconds(phase.duration);
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
  // These end a little below 0, by how numbers are rounded.
  { duration: 30, arrivalRate: 15, rampTo: 0 },
  { duration: 26, arrivalRate: 7, rampTo: 0 },
  { duration: '2500ms', arrivalRate: 8, rampTo: 0 },
  { duration: '1500ms', arrivalRate: 4, rampTo: 0 },
  { duration: 30, arrivalRate: 0.5 },
  { duration: 7, arrivalRate: 2.3 },
  { duration: 9, arrivalRate: 0.5, rampTo: 3.7 },
  { duration: 20, arrivalRate: 1 },
]);

/** What a thread makes in one phase, as its schedule. */
const scheduleOf = ({ phases, schedules }, index) => schedules[/^loadtest-divided-(\d+)$/.exec(phases[index].mode)?.[1]];
const instantsOf = (own, index) => {
  const schedule = scheduleOf(own, index);
  const all = schedule ? [...instants(schedule)] : [];
  assert.equal(all.length, schedule?.count ?? 0);
  return all;
};

test('all workers together make what one makes, at the same instants', () => {
  for (const workers of SIZES) {
    const all = places(workers).map((place) => dividePhases(MANY, place));
    MANY.forEach((phase, index) => {
      const made = ascending(all.flatMap((own) => instantsOf(own, index)));
      const rounded = (times) => times.map((time) => Math.round(time * 1000));
      assert.deepEqual(rounded(made), rounded(alone(phase)), `${workers} workers: ${JSON.stringify(phase)}`);
    });
  }
});

test('and the virtual users that one makes, each once', () => {
  const phases = [...MANY, { duration: 9, arrivalRate: 20, maxVusers: 5 }, { duration: 2, arrivalRate: 3 }];
  const all = sum(phases.map((phase) => alone(phase).length));
  for (const workers of SIZES) {
    const made = places(workers).flatMap((place) => [...numbers(dividePhases(phases, place).schedules)]);
    assert.deepEqual(ascending(made), Array.from({ length: all }, (_, number) => number));
  }
});

test('no worker makes two more than another', () => {
  for (const workers of SIZES) {
    const pods = new Array(workers).fill(0);
    for (const place of places(workers)) {
      pods[place.worker] += sum(dividePhases(MANY, place).schedules.map(({ count: own }) => own));
    }
    assert.ok(Math.max(...pods) - Math.min(...pods) <= 1, String(pods));
  }
});

test('every phase lasts as long for each worker', () => {
  for (const place of places(16)) {
    const own = dividePhases(MANY, place);
    own.phases.forEach((phase, index) => {
      const { duration, rampTo } = MANY[index];
      const length = rampTo === undefined ? seconds(duration) : Math.ceil(seconds(duration));
      assert.equal(seconds(phase.pause ?? phase.duration), length, JSON.stringify(phase));
      assert.equal(scheduleOf(own, index)?.length ?? length * 1000, length * 1000);
    });
  }
});

test('the limits of all workers are the limit, and who has none rests', () => {
  const phase = { name: 'limited', duration: 2, arrivalRate: 20, maxVusers: 5 };
  for (const workers of SIZES) {
    const all = places(workers).map((place) => dividePhases([phase], place));
    assert.equal(sum(all.map(({ phases }) => phases[0].maxVusers ?? 0)), 5);
    assert.equal(sum(all.map((own) => instantsOf(own, 0).length)), 40);
    for (const { phases: [own] } of all) assert.ok(own.maxVusers > 0 || own.pause === '2000ms', JSON.stringify(own));
  }
  assert.equal(dividePhases([{ ...phase, maxVusers: 0 }], places(2)[0]).phases[0].pause, '2000ms');
});

test('a Poisson process is shared among as many as have one a second', () => {
  for (const [phase, mode] of [[{ mode: 'poisson' }, undefined], [{}, 'poisson']]) {
    const all = places(7).map((place) => dividePhases([{ duration: 9, arrivalRate: 5, ...phase }], place, mode));
    const own = all.map(({ phases }) => phases[0]);
    assert.deepEqual(own.map(({ arrivalRate }) => arrivalRate ?? 0).filter(Boolean), [1, 1, 1, 1, 1]);
    assert.deepEqual(own.filter((one) => !one.arrivalRate).map(({ pause }) => pause), new Array(5).fill('9000ms'));
    assert.ok(all.every(({ isRandom }) => isRandom));
  }
});

test('phases in which nothing comes are left to Artillery', () => {
  const kept = [{ pause: '{' }, { pause: 2, duration: 2, arrivalRate: 3 }, { duration: 'soon', arrivalCount: '0' }, { arrivalRate: '0' }];
  const left = dividePhases([{ duration: 5, arrivalRate: 0 }, ...kept, { think: 1 }], places(3)[0]);
  assert.deepEqual(left, { phases: kept, schedules: [], isRandom: false });
});

test('a phase that cannot be shared out is refused, so that no worker makes all of it', () => {
  const refused = [
    [{ duration: 'soon', arrivalCount: 3 }, 'duration is "soon", which is no length of time'],
    [{ duration: 1.5, arrivalRate: 1, rampTo: 3 }, 'duration is 1.5,'],
    [{ duration: '-3', arrivalRate: 3 }, 'duration is "-3",'],
    [{ duration: 0, arrivalRate: 3 }, 'duration is 0,'],
    [{ arrivalRate: 3 }, 'duration is missing'],
    [{ arrivalCount: 3 }, 'duration is missing'],
    [{ duration: 2, arrivalRate: 'x' }, 'arrivalRate is "x", which is no number'],
    [{ duration: 2, arrivalRate: -1, rampTo: 3 }, 'arrivalRate is -1,'],
    [{ duration: 2, arrivalCount: 'many' }, 'arrivalCount is "many",'],
    [{ duration: 2, rampTo: 'x' }, 'rampTo is "x",'],
    [{ duration: 2, arrivalCount: 3, maxVusers: 'few' }, 'maxVusers is "few",'],
  ];
  for (const [phase, fault] of refused) {
    const divide = () => dividePhases([{ pause: 1 }, phase], places(3)[0]);
    assert.throws(divide, ({ message }) => message.includes(`config.phases[1].${fault}`), fault);
  }
});

test('lengths are read as Artillery reads them', () => {
  const lengths = {
    3: 3, 1.5: 0.0015, '90s': 90, '1.5 min': 90, '250 ms': 0.25, '2h': 7200, '.5d': 43_200, '2 weeks': 1_209_600, '1y': 31_557_600,
    '.1 yrs': 3_155_760,
  };
  for (const [text, length] of Object.entries(lengths)) assert.equal(seconds(text), length, text);
  assert.equal(seconds(3), 3);
  for (const bad of [1.5, 'x', '3 months', '1 2s', undefined, {}]) assert.ok(Number.isNaN(seconds(bad)), String(bad));
});

test('virtual users come when they are due', async () => {
  const beats = [{ start: 0, tick: 20, count: 3 }, { start: 100, tick: 0.1, count: 400 }, { start: 200, tick: 50, count: 1 }];
  const schedule = { beats, others: 1, of: 2, length: 300 };
  const arrivals = new Arrivals(schedule);
  const due = [...instants(schedule)];
  assert.deepEqual([due.length, due[0]], [202, 40]);
  const began = performance.now();
  const came = [];
  arrivals.on('arrival', () => came.push(performance.now() - began));
  const finished = new Promise((resolve) => { arrivals.on('finished', resolve); });
  arrivals.start();
  await finished;
  assert.ok(performance.now() - began >= 299);
  assert.equal(came.length, due.length);
  // How late they may be is for the machine to say.
  came.forEach((at, index) => assert.ok(at >= due[index] - 1, `${at}, not ${due[index]}`));
});

test('a mode is known for one look-up', () => {
  const [arrivals, mode] = [{ uniform: {} }, new Mode(1)];
  Mode.schedules = [undefined, { beats: [], others: 0, of: 1, length: 5 }];
  assert.equal(arrivals[mode].process(1, 2).length, 5);
  assert.equal(arrivals['loadtest-divided'], undefined);
});

test('a rate that is a fraction is rounded up until the threads are made', () => {
  const phases = [{ arrivalRate: 3 }, { arrivalRate: 0.5 }, { arrivalRate: '1.5', rampTo: 0 }, { arrivalRate: 0.5, rampTo: 2 }];
  const real = structuredClone(phases);
  const restore = roundUp(phases, real);
  assert.deepEqual(real.map(({ arrivalRate }) => arrivalRate), [3, 1, 2, 0.5]);
  restore();
  assert.deepEqual(real, phases);
  assert.throws(() => roundUp(phases, undefined), /config\.phases\[1\]\.arrivalRate is 0\.5, and this version of Artillery/);
  roundUp(phases.slice(0, 1), undefined)();
});

test('seats are all different and there is none too many', () => {
  for (const most of [1, 4, 9, Infinity]) {
    const taken = places(6).map((place) => seat(place, most)).filter(Boolean);
    for (const whole of [0, 1, 5, 36, 100]) assert.equal(sum(taken.map((own) => share(whole, own, 11))), whole);
    // Of nine seats in pods of one and two threads a limit of nine leaves two empty: it is shared among the pods first.
    assert.equal(taken.length, { 1: 1, 4: 4, 9: 7, Infinity: 9 }[most]);
  }
});

test('each row goes to one thread', () => {
  for (const workers of SIZES) {
    for (const length of [100, 37, workers * 2].filter((rows) => rows >= workers * 2)) {
      const data = Array.from({ length }, (_, row) => [row]);
      const all = places(workers).flatMap((place) => dividePayload({ path: 'a.csv', data }, place).data);
      assert.deepEqual(all.map(([row]) => row).sort((a, b) => a - b), data.map(([row]) => row));
    }
  }
});

test('where rows are too few, each thread has one all the same', () => {
  const data = [['a'], ['b'], ['c']];
  const all = places(7).map((place) => dividePayload({ data }, place).data.flat().join());
  assert.equal(all.join(' '), 'a b b c a a b c c a');
  assert.deepEqual(dividePayload({ data: [] }, places(3)[1]).data, []);
});

test('a payload that each virtual user has as a whole stays whole', () => {
  const whole = { name: 'people', loadAll: true, data: [['a'], ['b']] };
  assert.deepEqual(dividePayload(whole, places(2)[0]).data, whole.data);
  assert.deepEqual(dividePayload({ ...whole, order: 'sequence' }, places(2)[0]).data, [['a']]);
});

test('one worker has all, and one of several without a number does not run', () => {
  for (const env of [{}, { LOADTEST_WORKERS: '1' }, { JOB_COMPLETION_INDEX: '0' }]) {
    assert.deepEqual(readPlace(env), { worker: 0, workers: 1 });
  }
  assert.deepEqual(readPlace({ LOADTEST_WORKERS: '3', JOB_COMPLETION_INDEX: '0' }), { worker: 0, workers: 3 });
  for (const index of [undefined, '', '3', '-1', 'x', '0.5']) {
    assert.throws(() => readPlace({ LOADTEST_WORKERS: '3', JOB_COMPLETION_INDEX: index }), /no such worker/);
  }
  assert.throws(() => readPlace({ LOADTEST_WORKERS: 'many', JOB_COMPLETION_INDEX: '0' }), /no such worker/);
});

test('a thread that was not given its part does not run', async () => {
  const file = JSON.stringify(require.resolve('../../src/worker/divide.js'));
  const env = { LOADTEST_WORKERS: '2', JOB_COMPLETION_INDEX: '0' };
  const construct = (options) => new Promise((resolve) => {
    const plugin = `new (require(${file}).Plugin)({ config: { phases: [] } }, null, ${options})`;
    new Worker(plugin, { eval: true, env }).on('error', (error) => resolve(error.message)).on('exit', resolve);
  });
  assert.match(String(await construct('{}')), /this version of Artillery/);
  assert.equal(await construct('{ loadtestDivided: { schedules: [], numbered: [] } }'), 0);
});

const skip = ARTILLERY ? false : 'ARTILLERY is not set: the node_modules of an installation';
const succeeded = (pods) => pods.forEach(({ code, output }) => assert.equal(code, 0, output));
/** Whether the plugin can reach the phases as Artillery shares them among its threads. */
const takesFractions = () => fs.existsSync(path.join(ARTILLERY, 'artillery/dist/lib/cmds/run.js'));
/** Artillery as it is. */
const UNDIVIDED = { ARTILLERY_PLUGINS: '{}' };

describe('with Artillery', { skip, concurrency: true, timeout: 600_000 }, () => {
  const all = sum(Object.values(EXPECTED));
  for (const [workers, threads, environment] of [[1, 1, UNDIVIDED], [1, 2], [2, 1], [3, 2], [7, 1], [16, 1]]) {
    test(`${workers} workers of ${threads} threads${environment ? ', undivided' : ''}`, async () => {
      const { requests, pods } = await runTest({ script: everyPhase(), workers, threads, environment });
      succeeded(pods);
      assert.deepEqual(count(requests.map(({ phase }) => phase)), EXPECTED);
      const rows = Array.from({ length: all }, (_, row) => `/row-${row}`);
      assert.deepEqual(requests.map(({ row }) => row).sort(), rows.sort(), 'virtual user k has row k');
      const limited = requests.filter(({ phase }) => phase === 'limited');
      assert.ok(new Set(limited.map(({ pod }) => pod)).size <= PHASES.at(-1).maxVusers);
      const says = pods.map(({ output }) => /^Load test worker (\d+) of/m.exec(output)?.[1]);
      assert.deepEqual(says, workers === 1 ? [undefined] : pods.map((_, pod) => String(pod + 1)));
    });
  }

  test('rows that do not suffice begin anew, as for one worker, whatever Artillery reads for weights', async () => {
    const [scenario] = script({}).scenarios;
    const scenarios = [{ ...scenario, weight: 2 }, scenario, { ...scenario, weight: 1 }];
    const of = (workers, threads, environment) =>
      runTest({ script: { ...everyPhase(['even', 'limited', 'count']), scenarios }, workers, threads, rows: 9, environment });
    const tests = await Promise.all([of(1, 1, UNDIVIDED), of(2, 2), of(3, 1)]);
    tests.forEach(({ pods }) => succeeded(pods));
    const [alone, ...divided] = tests.map(({ requests }) => count(requests.map(({ row }) => row)));
    assert.deepEqual([sum(Object.values(alone)), alone['/row-2'], alone['/row-1']], [25, 3, 2]);
    for (const one of divided) assert.deepEqual(one, alone);
  });

  test('rows are dealt out where they are read at random, or virtual users come at random', async () => {
    const scripts = [
      script({ phases: [{ duration: 2, arrivalRate: 20 }], payload: { path: 'rows.csv', fields: ['row'] } }),
      script({ phases: [{ duration: 2, arrivalRate: 20, mode: 'poisson' }] }),
    ];
    for (const { requests, pods } of await Promise.all(scripts.map((one) => runTest({ script: one, workers: 2, threads: 2, rows: 12 })))) {
      succeeded(pods);
      const numbers = requests.map(({ row, pod }) => [Number(/\d+/.exec(row)[0]) % 2, pod]);
      assert.ok(numbers.length > 12);
      for (const [own, pod] of numbers) assert.equal(own, pod);
    }
  });

  test('rates that are fractions', { skip: takesFractions() ? false : 'this version takes none' }, async () => {
    const phases = [{ name: 'half', duration: 4, arrivalRate: 0.5 }, { pause: 1 }, { name: 'more', duration: 2, arrivalRate: '2.5', rampTo: 0 }];
    const tests = await Promise.all([[1, 2], [3, 1]].map(([workers, threads]) =>
      runTest({ script: script({ phases }), workers, threads })));
    for (const { requests, pods } of tests) {
      succeeded(pods);
      assert.deepEqual(count(requests.map(({ phase }) => phase)), { half: 2, more: 3 });
      assert.deepEqual(requests.map(({ row }) => row).sort(), ['/row-0', '/row-1', '/row-2', '/row-3', '/row-4']);
    }
  });

  test('a phase that cannot be shared out is made by no worker', async () => {
    const phases = [{ duration: 1, arrivalRate: 5 }, { duration: 1, arrivalCount: 5, maxVusers: 'few' }];
    const { requests, pods } = await runTest({ script: script({ phases }), workers: 2 });
    for (const { code, output } of pods) {
      assert.notEqual(code, 0, output);
      assert.match(output, /a phase cannot be shared out: config\.phases\[1\]\.maxVusers is "few", which is no number/);
    }
    assert.deepEqual(requests, []);
  });

  test('the phases of the environment, a rate from a variable, plugins of another scope', async () => {
    // Artillery merges the two lists one by one.
    const environments = { short: { phases: [{ name: 'chosen', duration: 1, arrivalRate: '{{ $env.RATE }}' }] } };
    const { requests, pods } = await runTest({
      // With a scope of the user's own, Artillery looks for all plugins there that do not say otherwise.
      script: script({ phases: [{ duration: 9, arrivalRate: 99 }], environments, pluginsScope: '@users/artillery-plugin-' }),
      workers: 3,
      args: ['--environment', 'short'],
      environment: { RATE: '5' },
    });
    succeeded(pods);
    assert.deepEqual(count(requests.map(({ phase }) => phase)), { chosen: 5 });
  });

  test('without phases there is one virtual user, and a worker may have nothing to do', async () => {
    const { requests, pods } = await runTest({ script: script({}), workers: 3, rows: 2 });
    succeeded(pods);
    assert.deepEqual(requests.map(({ pod, row }) => [pod, row]), [[0, '/row-0']]);
    assert.match(pods[2].output, /^Load test worker 3 of 3: only 2 rows of rows\.csv, so workers share them$/m);
  });

  test('a worker without a number makes nothing', async () => {
    const environment = { LOADTEST_WORKERS: '2', JOB_COMPLETION_INDEX: '2' };
    const { requests, pods } = await runTest({ script: everyPhase(), workers: 1, environment });
    assert.notEqual(pods[0].code, 0, pods[0].output);
    assert.match(pods[0].output, /no such worker: 2 of 2/);
    assert.deepEqual(requests, []);
  });
});
