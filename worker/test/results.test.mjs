import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { ARTILLERY_RUN, decode, mount, NO_ARTILLERY } from './helpers.mjs';
import results from '../plugins/results/index.js';

const { emptyMeasurements, encode, fromStats, logTail, merge } = results;

// A random histogram, in the format of Artillery's DDSketch.
function sketch(count, spread) {
  const store = () => ({ bins: [], offset: -2000 });
  const h = { min: Infinity, max: -Infinity, sum: 0, zeroCount: 0, store: store(), negativeStore: store() };
  for (let i = 0; i < count; i += 1) {
    const value = 50 * Math.exp(spread * (Math.random() + Math.random() + Math.random() + Math.random() - 2));
    const key = Math.ceil(Math.log(value) / Math.log(1.01 / 0.99));
    h.store.bins[key + 2000] = (h.store.bins[key + 2000] ?? 0) + 1;
    h.min = Math.min(h.min, value);
    h.max = Math.max(h.max, value);
    h.sum += value;
  }
  h.store.bins = Array.from(h.store.bins, (n) => n ?? 0);
  return h;
}

const CORE = { 'vusers.created': 9000, 'vusers.completed': 8000, 'http.requests': 20000, 'http.codes.200': 19000, 'errors.ETIMEDOUT': 12 };
const MAIN = ['http.response_time', 'vusers.session_length'];

function stats(histograms, count, spread = 2, counters = CORE) {
  const names = [...MAIN, 'http.response_time.2xx', 'my.own'].slice(0, histograms);
  while (names.length < histograms) names.push(`plugins.metrics-by-endpoint.response_time./api/v1/things/${names.length}`);
  return { counters, histograms: Object.fromEntries(names.map((n) => [n, sketch(count, spread)])), firstCounterAt: 1000, lastCounterAt: 61000 };
}

const countOf = ([, , , , zeros, ...bins]) => bins.flatMap(([, ...differences]) => {
  let count = 0;
  return differences.map((difference) => (count += difference));
}).reduce((a, b) => a + b, zeros);

describe('a snapshot', () => {
  test('contains all measurements', () => {
    const histogram = { min: -3, max: 9.5, sum: 20.25, zeroCount: 2, store: { bins: [0, 4, 0, 1, 0], offset: 5 }, negativeStore: { bins: [3], offset: -1 } };
    const all = { ...fromStats({ counters: CORE, histograms: { h: histogram }, firstCounterAt: 5, lastCounterAt: 8 }), start: 4 };
    assert.deepEqual(decode(encode(all, { final: true })), {
      final: true, start: 4, first: 5, last: 8, counters: CORE, histograms: { h: [0, -3, 9.5, 20.25, 2, [6, 4, -4, 1], [-1, 3]] },
    });
    assert.equal(decode(encode(all)).final, undefined);
    assert.equal('start' in decode(encode({ ...all, start: undefined })), false);
  });

  test('of several reports contains their sum', () => {
    const histogram = (key) => ({ min: key, max: key, sum: key, zeroCount: 1, store: { bins: [2], offset: key }, negativeStore: { bins: [1], offset: key } });
    const report = (key) => fromStats({ counters: { a: key }, histograms: { h: histogram(key) }, firstCounterAt: 100 - key, lastCounterAt: 100 + key });
    const started = [90, 91].map((start) => ({ ...emptyMeasurements(), start }));
    const all = [fromStats({}), ...started, report(1), report(3), report(2), fromStats({ counters: { b: 1 } })].reduce(merge, emptyMeasurements());
    assert.deepEqual(decode(encode(all)), {
      start: 90, first: 97, last: 103, counters: { a: 6, b: 1 }, histograms: { h: [0, 1, 3, 6, 3, [1, 2, 0, 0], [1, 1, 0, 0]] },
    });
  });

  test('folds adjacent bins, and keeps all other values exact', () => {
    const all = fromStats({ histograms: { h: { min: 1, max: 2, sum: 3, zeroCount: 0, store: { bins: [1, 2, 4, 8, 16], offset: -2 }, negativeStore: { bins: [], offset: 0 } } } });
    const bins = (folds) => decode(encode(all, { folds })).histograms.h;
    assert.deepEqual(bins(1), [1, 1, 2, 3, 0, [-1, 1, 5, 18], []]);
    assert.deepEqual(bins(2), [2, 1, 2, 3, 0, [0, 7, 17], []]);
  });

  for (const [histograms, count, spread] of [[2, 1e3, 2], [6, 1e5, 2], [6, 1e5, 6], [23, 1e6, 2], [23, 1e6, 6]]) {
    test(`of ${histograms} histograms of ${count} values fits, and contains the numbers of folds and of dropped histograms`, () => {
      const all = fromStats(stats(histograms, count, spread));
      const text = encode(all);
      assert.ok(Buffer.byteLength(text) <= 4096, `${text.length}`);
      const snapshot = decode(text);
      const kept = Object.entries(snapshot.histograms);
      assert.equal(kept.length + (snapshot.dropped?.[0] ?? 0), histograms);
      assert.deepEqual(snapshot.counters, CORE);
      for (const [name, histogram] of kept) assert.equal(countOf(histogram), count, name);
      const whole = encode(all, { room: Infinity });
      assert.equal(whole.length <= 4096, kept.every(([, [folds]]) => folds === 0), `${whole.length} bytes without a limit`);
      assert.ok(MAIN.every((name) => kept.some(([known]) => known === name)));
      assert.equal(snapshot.lost, undefined);
    });
  }

  test('drops the least important metrics first', () => {
    const all = fromStats({
      ...stats(8, 1e5),
      counters: { ...CORE, 'errors.EMANY': 40, 'my.counter': 3, 'plugins.x': 5, 'http.downloaded_bytes': 7 },
    });
    const left = new Set([...all.counters.keys(), ...all.histograms.keys()]);
    const order = [];
    for (let room = encode(all).length; room > 160; room -= 4) {
      const text = encode(all, { room, keep: 'my.counter < 5' });
      assert.ok(text.length <= room, `${text.length} > ${room}`);
      const { counters, histograms, dropped = [0, 0], errors = 0, lost = [] } = decode(text);
      const gone = [...left].filter((name) => counters[name] === undefined && !histograms[name]);
      gone.forEach((name) => left.delete(name));
      if (gone.length > 0) order.push(gone);
      assert.equal(Object.keys(counters).length + dropped[1], all.counters.size);
      assert.equal(Object.keys(histograms).length + dropped[0], all.histograms.size);
      assert.equal((counters['errors.EMANY'] ?? 0) + (counters['errors.ETIMEDOUT'] ?? 0) + errors, 52);
      const important = [...MAIN, 'my.counter', 'vusers.created'].filter((name) => !left.has(name));
      if (lost[0] !== '*') assert.deepEqual(lost.filter((name) => important.includes(name)).sort(), important.sort());
    }
    const at = (name) => order.findIndex((gone) => gone.includes(name));
    const plugin = 'plugins.metrics-by-endpoint.response_time./api/v1/things/4';
    const inOrder = [plugin, 'my.own', 'http.response_time.2xx', 'plugins.x', 'http.downloaded_bytes', 'errors.ETIMEDOUT', 'my.counter'];
    assert.deepEqual(inOrder.map(at), inOrder.map(at).sort((a, b) => a - b));
    assert.ok(at(plugin) >= 0 && at('my.counter') >= 0 && at('my.counter') <= at('http.response_time'));
    assert.ok(at('vusers.session_length') <= at('http.response_time'));
  });

  test('contains its most important metrics first', () => {
    const counters = { 'my.counter': 3, 'errors.E': 2, ...CORE };
    const snapshot = decode(encode(fromStats({ ...stats(8, 10), counters }), { final: true, keep: 'my.counter < 5' }));
    assert.deepEqual(Object.keys(snapshot), ['final', 'first', 'last', 'counters', 'histograms']);
    assert.deepEqual(Object.keys(snapshot.counters).slice(-3), ['my.counter', 'errors.ETIMEDOUT', 'errors.E']);
    assert.deepEqual(Object.keys(snapshot.histograms).slice(0, 2), MAIN);
  });

  test('names metrics with values that are not numbers, and contains the others', () => {
    const bad = { text: '0333', none: null, missing: undefined, nan: NaN, infinite: Infinity, nested: { a: 1 }, list: [1], yes: true };
    const [good, textual] = [sketch(9, 1), { ...sketch(9, 1), sum: '01' }];
    const report = { counters: { ...bad, ok: 2, negative: -5, huge: 1e308 }, histograms: { good, textual, notANumber: { ...good, sum: NaN } } };
    const all = [fromStats(report), fromStats({ counters: { text: 4, huge: 1e308, ok: 1 } })].reduce(merge, emptyMeasurements());
    const snapshot = decode(encode(all));
    assert.deepEqual(snapshot.counters, { ok: 3, negative: -5 });
    assert.deepEqual(Object.keys(snapshot.histograms), ['good']);
    assert.deepEqual(snapshot.invalid.sort(), [...Object.keys(bad), 'textual', 'notANumber', 'huge'].sort());
  });

  test('names a limited number of invalid metrics, those in thresholds first', () => {
    const counters = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`bad.${i}`, 'x']));
    const long = 'y'.repeat(1000);
    const all = fromStats({ counters: { ...counters, [long]: 'x', wanted: 'x', ok: 1 } });
    const invalid = (keep) => decode(encode(all, { keep })).invalid;
    assert.deepEqual([invalid('wanted < 1').length, invalid('wanted < 1')[0]], [20, 'wanted']);
    assert.equal(invalid('wanted < 1').includes('*'), false);
    assert.equal(invalid(`${long} < 1`).at(-1), '*', 'a metric in a threshold that is not named');
    assert.equal(invalid(Object.keys(counters).join(' + ')).at(-1), '*');
  });

  const LOAD = {
    load: [8000, 8000, 20000, 57123, 0],
    delays: { min: 0, max: 37123, sum: 9e7, zeros: 3, positive: new Map(Array.from({ length: 480 }, (_, i) => [i + 50, 1 + ((i * 37) % 19)])), negative: new Map() },
    generator: [2, 998, 612, 315, 323, 41230, 17000, 300, 190, 256],
  };

  test('contains the load, the delay and the generator before all counters and histograms', () => {
    const snapshot = decode(encode({ ...fromStats(stats(3, 100)), ...LOAD }, { final: true }));
    assert.deepEqual(Object.keys(snapshot), ['final', 'first', 'last', 'load', 'delay', 'generator', 'counters', 'histograms']);
    assert.deepEqual([snapshot.load, snapshot.generator], [LOAD.load, LOAD.generator]);
    assert.deepEqual(snapshot.delay.slice(0, 5), [3, 0, 37123, 9e7, 3]);
    assert.deepEqual([countOf(snapshot.delay), snapshot.delay[6]], [3 + [...LOAD.delays.positive.values()].reduce((a, b) => a + b), []]);
    const unknown = decode(encode({ ...fromStats(stats(3, 100)), load: undefined, delays: undefined, generator: LOAD.generator }));
    assert.deepEqual(['load' in unknown, 'delay' in unknown, 'generator' in unknown], [false, false, true]);
  });

  test('gives the load priority over histograms, and drops it before the main counters', () => {
    const all = { ...fromStats(stats(8, 1e5)), ...LOAD };
    const cost = encode(all, { room: Infinity }).length - encode(fromStats(stats(8, 1e5)), { room: Infinity }).length;
    assert.ok(cost < 300, `${cost} bytes`);
    let isDropped = false;
    for (let room = encode(all).length; room > 160; room -= 8) {
      const text = encode(all, { room });
      assert.ok(text.length <= room);
      const { load, delay, generator, counters, histograms } = decode(text);
      assert.equal(Boolean(load && delay && generator), Boolean(load || delay || generator));
      if (load) assert.deepEqual(Object.keys(CORE).filter((name) => !(name in counters) && name !== 'errors.ETIMEDOUT'), []);
      else assert.deepEqual(histograms, {});
      isDropped ||= !load;
    }
    assert.ok(isDropped);
  });

  test('of 50,000 metrics is encoded within 2 s of CPU time', () => {
    const counters = Object.fromEntries(Array.from({ length: 50000 }, (_, i) => [`plugins.metrics-by-endpoint./thing/${Math.random()}.codes.${i}`, i]));
    const before = process.cpuUsage();
    const text = encode(fromStats({ ...stats(2, 1000), counters: { ...CORE, ...counters } }));
    const { user, system } = process.cpuUsage(before);
    assert.ok(text.length <= 4096 && decode(text).counters['http.requests'] === 20000);
    assert.ok(user + system < 2_000_000, `${user + system} µs`);
  });
});

test('the end of the log omits blank lines, reports and snapshots, and is cut at its start', () => {
  assert.equal(logTail('a\n\n  \n---\nhttp.requests: ....... 5\nloadtest.v1 x\nError: no\n    at x\n'), 'a\nError: no\n    at x');
  const long = logTail('é'.repeat(2000));
  assert.ok(Buffer.byteLength(long) <= 1024 && /^é+$/.test(long));
});

describe('in Artillery', { skip: NO_ARTILLERY, concurrency: 3 }, () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'results-'));
  after(() => fs.rmSync(root, { recursive: true }));
  mount(root);

  // Runs a script in a folder of its own. Sends SIGTERM after a number of requests, or when the output matches a pattern.
  async function run(script, { files = {}, stopAfter = Infinity, stopAt, log, preload, environment = {} } = {}) {
    const folder = fs.mkdtempSync(path.join(root, 'test-'));
    const message = path.join(folder, 'message');
    let requests = 0;
    let child;
    const server = http.createServer((_, response) => {
      requests += 1;
      if (requests === stopAfter) child.kill('SIGTERM');
      response.end('ok');
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const config = { target: `http://127.0.0.1:${server.address().port}`, phases: [{ duration: 2, arrivalRate: 10 }], ...script.config };
    for (const [name, text] of Object.entries({ 'test.json': JSON.stringify({ ...script, config }), ...files })) {
      fs.writeFileSync(path.join(folder, name), text);
    }
    const env = {
      ...process.env, HOME: folder, ARTILLERY_DISABLE_TELEMETRY: '1', ARTILLERY_DISABLE_ENSURE: '1', ARTILLERY_PLUGIN_PATH: root,
      ARTILLERY_PLUGINS: '{"loadtest-results":{}}', LOADTEST_TERMINATION_LOG: log ?? message,
      NODE_OPTIONS: preload ? `--require ${path.join(folder, preload)}` : '', ...environment,
    };
    child = spawn(process.execPath, [...ARTILLERY_RUN, path.join(folder, 'test.json')], { env });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (data) => {
        output += data;
        if (stopAt?.test(output)) child.kill('SIGTERM');
      });
    }
    const [code] = await once(child, 'close');
    server.closeAllConnections();
    server.close();
    return { code, output, requests, text: fs.existsSync(message) ? fs.readFileSync(message, 'utf8') : '' };
  }
  const scenarios = [{ flow: [{ get: { url: '/' } }] }];

  test('a complete test leaves a final snapshot, and `ensure` does not fail it', async () => {
    const script = { config: { plugins: { ensure: {} }, ensure: { thresholds: [{ 'http.response_time.p95': 0 }] } }, scenarios };
    const before = Date.now();
    const { code, requests, text } = await run(script);
    assert.equal(code, 0);
    const snapshot = decode(text);
    assert.equal(snapshot.final, true);
    assert.ok(snapshot.start > before && snapshot.start <= snapshot.first, JSON.stringify(snapshot));
    assert.equal(snapshot.counters['http.requests'], requests);
    assert.equal(countOf(snapshot.histograms['http.response_time']), requests);
  });

  for (const threads of [1, 3]) {
    test(`a worker with ${threads} threads that receives SIGTERM leaves all that it has counted`, async () => {
      const files = { 'cpus.cjs': `require('os').cpus = () => Array(${threads + 1}).fill({});` };
      const script = { config: { phases: [{ duration: 60, arrivalRate: 20 }] }, scenarios };
      const { requests, text } = await run(script, { files, stopAfter: 50, preload: 'cpus.cjs' });
      const snapshot = decode(text);
      assert.equal(snapshot.final, undefined);
      assert.ok(snapshot.start <= snapshot.first);
      assert.ok(snapshot.counters['http.requests'] >= 50 && snapshot.counters['http.requests'] <= requests, snapshot.counters['http.requests']);
    });
  }

  test('a value that is not a number costs only its metric, and a numeric text is a number', async () => {
    const count = `
      const bad = [NaN, Infinity, null, undefined, 'x', '', { a: 1 }];
      module.exports.count = (_, events, done) => {
        for (const name of ['text', 'histogram.text']) events.emit(name.split('.')[0] === 'text' ? 'counter' : 'histogram', name, '3');
        bad.forEach((value, i) => {
          events.emit('counter', 'bad.counter.' + i, 1);
          events.emit('counter', 'bad.counter.' + i, value);
          events.emit('histogram', 'bad.histogram.' + i, value);
        });
        done();
      };`;
    const flow = [{ get: { url: '/' } }, { function: 'count' }];
    const { code, requests, text } = await run({ config: { processor: './count.js' }, scenarios: [{ flow }] }, { files: { 'count.js': count } });
    assert.equal(code, 0);
    const { counters, histograms, invalid } = decode(text);
    assert.deepEqual([counters['http.requests'], counters.text], [requests, 3 * requests]);
    assert.deepEqual([countOf(histograms['histogram.text']), histograms['histogram.text'][3]], [requests, 3 * requests]);
    const bad = [0, 1, 2, 3, 4, 5, 6].flatMap((i) => [`bad.counter.${i}`, `bad.histogram.${i}`]).sort();
    assert.deepEqual(invalid.sort(), bad);
    assert.ok(bad.every((name) => !(name in counters) && !(name in histograms)));
  });

  const expectations = [{ flow: [{ get: { url: '/', expect: [{ statusCode: 201 }] } }] }];

  test('expectations that are not met are counted, and do not fail the worker', async () => {
    const { code, requests, text } = await run({ config: { plugins: { expect: {} } }, scenarios: expectations });
    assert.equal(code, 0);
    assert.equal(decode(text).counters['plugins.expect.failed'], requests);
  });

  test('expectations that are not met fail a worker whose results are not saved, or that evaluates its own ensure', async () => {
    const script = { config: { plugins: { expect: {} } }, scenarios: expectations };
    assert.equal((await run(script, { log: root })).code, 21);
    script.config.ensure = { thresholds: [{ 'http.response_time.p95': 60_000 }] };
    assert.equal((await run(script, { environment: { ARTILLERY_DISABLE_ENSURE: '' } })).code, 21);
  });

  for (const limit of [4096, 1228]) {
    test(`a worker that crashes leaves the error, and what it has counted, in ${limit} bytes`, async () => {
      // It crashes once results are saved. When that is depends on the clock: Artillery's periods are those of the clock.
      const crash = `
        const { statSync } = require('node:fs');
        const isSaved = () => statSync(process.env.LOADTEST_TERMINATION_LOG, { throwIfNoEntry: false })?.size > 0;
        module.exports.crash = (_, events, done) => {
          for (let i = 0; i < 300; i += 1) events.emit('counter', 'my.' + Math.random(), 1);
          if (!isSaved()) return done();
          setImmediate(() => { throw new Error('out of luck'); });
        };`;
      const flow = [{ get: { url: '/' } }, { function: 'crash' }];
      const config = { processor: './crash.js', phases: [{ duration: 60, arrivalRate: 10 }] };
      const environment = { LOADTEST_RESULTS_LIMIT: `${limit}` };
      const { code, text } = await run({ config, scenarios: [{ flow }] }, { files: { 'crash.js': crash }, environment });
      assert.equal(code, 11);
      assert.match(text, /Error: out of luck/);
      assert.ok(text.length > limit / 2 && text.length <= limit, text.length);
      assert.ok(decode(text).counters['http.requests'] > 0);
    });
  }

  test('a worker that fails before it has counted anything leaves no message, so that Kubernetes shows the log', async () => {
    const { code, text } = await run({ config: { processor: './none.js' }, scenarios });
    assert.notEqual(code, 0);
    assert.equal(text, '');
  });

  test('a worker that receives SIGTERM before it has counted anything leaves no message', async () => {
    const { text } = await run({ config: { phases: [{ pause: 60 }] }, scenarios }, { stopAt: /Phase started/ });
    assert.equal(text, '');
  });

  test('an unwritable termination message is logged once, and does not affect the test', async () => {
    const { code, output } = await run({ scenarios }, { log: root });
    assert.equal(code, 0);
    assert.equal(output.match(/loadtest-results: Cannot save the results of this worker: /g).length, 1);
  });
});
