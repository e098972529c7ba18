import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ARTILLERY, count, EXPECTED, everyPhase, PHASES, runTest, script } from './divide-pods.mjs';

const require = createRequire(import.meta.url);
const { dividePayload, dividePhases, Extra, readPlace, seat, seconds, share } = require('../../src/worker/divide.js');

const SIZES = [1, 2, 3, 7, 16];
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

// All places of a test, where pods have 1, 2, 1, 2 ... threads.
const places = (workers) => Array.from({ length: workers }, (_, worker) => {
  const threads = 1 + (worker % 2);
  return Array.from({ length: threads }, (_, thread) => ({ worker, workers, thread, threads }));
}).flat();

// The arrivals that Artillery makes of a phase, as seconds: lib/core/phases.js and the npm package `arrivals`.
function arrivals(phase) {
  if (phase.pause !== undefined) return [];
  const length = seconds(phase.duration);
  if (phase.arrivalCount === undefined && phase.rampTo !== undefined) {
    const worker = Array.isArray(phase.worker) ? new Extra(phase.worker) : phase.worker;
    return Array.from({ length }, (_, second) => {
      const rate = ((phase.rampTo - phase.arrivalRate) / (length - 1)) * second + phase.arrivalRate;
      const more = Math.round((rate % 1) * phase.totalWorkers) >= worker;
      return Array.from({ length: Math.floor(rate) + Number(more) }, () => second + 1);
    }).flat();
  }
  const tick = Math.floor((phase.arrivalCount ? (length * 1000) / phase.arrivalCount : 1000 / phase.arrivalRate) * 1000);
  return Array.from({ length: Math.floor((length * 1000 * 1000) / tick) }, (_, number) => ((number + 1) * tick) / 1e6);
}
const alone = (phase) => arrivals({ ...phase, worker: 1, totalWorkers: 1 });

const MANY = [1, 2, 5, 10, 60].flatMap((duration) => [1, 3, 5, 7, 100, 333].flatMap((number) => [
  { duration, arrivalRate: number },
  { duration: `${duration}s`, arrivalCount: number },
  { duration: `${duration * 1000 + 137}ms`, arrivalCount: number },
  { duration: duration + 1, arrivalRate: number, rampTo: 10 },
  { duration: duration + 1, arrivalRate: 0, rampTo: number },
]));

test('all workers together make what one makes, in each phase', () => {
  for (const workers of SIZES) {
    const all = places(workers).map((place) => dividePhases(MANY, place));
    MANY.forEach((phase, index) => {
      const made = sum(all.map((own) => arrivals(own[index]).length));
      assert.equal(made, alone(phase).length, `${workers} workers: ${JSON.stringify(phase)}`);
    });
  }
});

test('and in each second of a ramp', () => {
  for (const workers of SIZES) {
    for (const phase of MANY.filter(({ rampTo }) => rampTo !== undefined)) {
      const made = places(workers).flatMap((place) => arrivals(dividePhases([phase], place)[0]));
      assert.deepEqual(count(made), count(alone(phase)), `${workers} workers: ${JSON.stringify(phase)}`);
    }
  }
});

test('and in each second where there is less than one for each', () => {
  const phase = { duration: 30, arrivalRate: 1 };
  const made = places(16).flatMap((place) => arrivals(dividePhases([phase], place)[0]));
  assert.deepEqual(count(made), count(alone(phase)));
});

test('no worker makes two more than another', () => {
  for (const workers of SIZES) {
    const pods = new Array(workers).fill(0);
    for (const place of places(workers)) {
      pods[place.worker] += sum(dividePhases(MANY, place).map((own) => arrivals(own).length));
    }
    assert.ok(Math.max(...pods) - Math.min(...pods) <= 1, String(pods));
  }
});

test('every phase lasts as long for each worker', () => {
  for (const place of places(16)) {
    dividePhases(MANY, place).forEach((own, index) => {
      const length = seconds(MANY[index].duration);
      const ends = own.arrivalCount === undefined ? seconds(own.pause ?? own.duration) : arrivals(own).at(-1);
      assert.ok(Math.abs(ends - length) < 0.001, `${JSON.stringify(own)}: ${ends}`);
    });
  }
});

test('the limits of all workers are the limit, and who has none rests', () => {
  const phase = { name: 'limited', duration: 2, arrivalRate: 20, maxVusers: 5 };
  for (const workers of SIZES) {
    const all = places(workers).map((place) => dividePhases([phase], place)[0]);
    assert.equal(sum(all.map(({ maxVusers }) => maxVusers ?? 0)), 5);
    assert.equal(sum(all.map((own) => arrivals(own).length)), 40);
    for (const own of all) assert.ok(own.maxVusers > 0 || own.pause === '2000ms', JSON.stringify(own));
  }
  assert.equal(dividePhases([{ ...phase, maxVusers: 0 }], places(2)[0])[0].pause, '2000ms');
});

test('a Poisson process is shared among as many as have one a second', () => {
  for (const [phase, mode] of [[{ mode: 'poisson' }, undefined], [{}, 'poisson']]) {
    const all = places(7).map((place) => dividePhases([{ duration: 9, arrivalRate: 5, ...phase }], place, mode)[0]);
    assert.deepEqual(all.map(({ arrivalRate }) => arrivalRate ?? 0).filter(Boolean), [1, 1, 1, 1, 1]);
    assert.deepEqual(all.filter((own) => !own.arrivalRate).map(({ pause }) => pause), new Array(5).fill('9000ms'));
  }
});

test('what Artillery leaves out or refuses is left to it', () => {
  const kept = [
    { pause: '{' },
    { pause: 2, duration: 2, arrivalRate: 3 },
    { duration: 'soon', arrivalCount: 3 },
    { duration: 1.5, rampTo: 3 },
    { duration: 2, arrivalRate: 'x' },
  ];
  assert.deepEqual(dividePhases([{ duration: 5, arrivalRate: 0 }, ...kept, { think: 1 }], places(3)[0]), kept);
});

test('lengths are read as Artillery reads them', () => {
  const lengths = { 3: 3, 1.5: 0.0015, '90s': 90, '1.5 min': 90, '250 ms': 0.25, '2h': 7200, '.5d': 43_200 };
  for (const [text, length] of Object.entries(lengths)) assert.equal(seconds(text), length, text);
  assert.equal(seconds(3), 3);
  for (const bad of [1.5, 'x', '3 months', '1 2s', undefined, {}]) assert.ok(Number.isNaN(seconds(bad)), String(bad));
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

test('without workers nothing is shared out, and a worker without a number does not run', () => {
  assert.equal(readPlace({}), undefined);
  assert.equal(readPlace({ LOADTEST_WORKERS: '1' }), undefined);
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
  assert.equal(await construct('{ loadtestDivided: true }'), 0);
});

const skip = ARTILLERY ? false : 'ARTILLERY is not set: the node_modules of an installation';
const succeeded = (pods) => pods.forEach(({ code, output }) => assert.equal(code, 0, output));

describe('with Artillery', { skip, concurrency: true, timeout: 600_000 }, () => {
  const all = Object.keys(EXPECTED);
  for (const [workers, threads, names] of [[1, 1, all], [2, 1, ['rare', 'ramp']], [3, 2, all], [7, 1, all], [16, 1, ['even', 'count']]]) {
    test(`${workers} workers of ${threads} threads`, async () => {
      const { requests, pods } = await runTest({ script: everyPhase(names), workers, threads });
      succeeded(pods);
      const expected = Object.fromEntries(names.map((name) => [name, EXPECTED[name]]));
      assert.deepEqual(count(requests.map(({ phase }) => phase)), expected);
      const [limited, others] = [true, false].map((is) => requests.filter(({ phase }) => (phase === 'limited') === is));
      const rows = Array.from({ length: others.length }, (_, row) => `/row-${row}`);
      assert.deepEqual(others.map(({ row }) => row).sort(), rows.sort(), 'virtual user k has row k');
      assert.equal(new Set(requests.map(({ row }) => row)).size, requests.length);
      assert.ok(new Set(limited.map(({ pod }) => pod)).size <= PHASES.at(-1).maxVusers);
      const says = pods.map(({ output }) => /^Load test worker (\d+) of/m.exec(output)?.[1]);
      assert.deepEqual(says, workers === 1 ? [undefined] : pods.map((_, pod) => String(pod + 1)));
    });
  }

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
