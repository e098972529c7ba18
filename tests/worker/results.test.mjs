// node --test tests/worker. With ARTILLERY, the node_modules of an installation, real tests are run too.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import zlib from 'node:zlib';
import results from '../../src/worker/results.js';

const { encode, fromStats, lastWords, measured, merge } = results;

function decode(message) {
  const line = message.split('\n').pop();
  assert.match(line, /^loadtest\.v1 [A-Za-z0-9+/]+=*$/);
  return JSON.parse(zlib.inflateSync(Buffer.from(line.split(' ')[1], 'base64')));
}

// As Artillery's DDSketch keeps them.
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
  test('has all that was measured', () => {
    const histogram = { min: -3, max: 9.5, sum: 20.25, zeroCount: 2, store: { bins: [0, 4, 0, 1, 0], offset: 5 }, negativeStore: { bins: [3], offset: -1 } };
    const all = { ...fromStats({ counters: CORE, histograms: { h: histogram }, firstCounterAt: 5, lastCounterAt: 8 }), start: 4 };
    assert.deepEqual(decode(encode(all, { final: true })), {
      final: true, start: 4, first: 5, last: 8, counters: CORE, histograms: { h: [0, -3, 9.5, 20.25, 2, [6, 4, -4, 1], [-1, 3]] },
    });
    assert.equal(decode(encode(all)).final, undefined);
    assert.equal('start' in decode(encode({ ...all, start: undefined })), false);
  });

  test('of several reports is that of all', () => {
    const histogram = (key) => ({ min: key, max: key, sum: key, zeroCount: 1, store: { bins: [2], offset: key }, negativeStore: { bins: [1], offset: key } });
    const report = (key) => fromStats({ counters: { a: key }, histograms: { h: histogram(key) }, firstCounterAt: 100 - key, lastCounterAt: 100 + key });
    const started = [90, 91].map((start) => ({ ...measured(), start }));
    const all = [fromStats({}), ...started, report(1), report(3), report(2), fromStats({ counters: { b: 1 } })].reduce(merge, measured());
    assert.deepEqual(decode(encode(all)), {
      start: 90, first: 97, last: 103, counters: { a: 6, b: 1 }, histograms: { h: [0, 1, 3, 6, 3, [1, 2, 0, 0], [1, 1, 0, 0]] },
    });
  });

  test('folds neighbouring bins, and keeps all else exact', () => {
    const all = fromStats({ histograms: { h: { min: 1, max: 2, sum: 3, zeroCount: 0, store: { bins: [1, 2, 4, 8, 16], offset: -2 }, negativeStore: { bins: [], offset: 0 } } } });
    const bins = (folds) => decode(encode(all, { folds })).histograms.h;
    assert.deepEqual(bins(1), [1, 1, 2, 3, 0, [-1, 1, 5, 18], []]);
    assert.deepEqual(bins(2), [2, 1, 2, 3, 0, [0, 7, 17], []]);
  });

  for (const [histograms, count, spread] of [[2, 1e3, 2], [6, 1e5, 2], [6, 1e5, 6], [23, 1e6, 2], [23, 1e6, 6]]) {
    test(`of ${histograms} histograms of ${count} values fits, and tells what was folded or dropped`, () => {
      const all = fromStats(stats(histograms, count, spread));
      const text = encode(all);
      assert.ok(Buffer.byteLength(text) <= 4096, `${text.length}`);
      const snapshot = decode(text);
      const kept = Object.entries(snapshot.histograms);
      assert.equal(kept.length + (snapshot.dropped?.[0] ?? 0), histograms);
      assert.deepEqual(snapshot.counters, CORE);
      for (const [name, histogram] of kept) assert.equal(countOf(histogram), count, name);
      const whole = encode(all, { room: Infinity });
      assert.equal(whole.length <= 4096, kept.every(([, [folds]]) => folds === 0), `whole it has ${whole.length}`);
      assert.ok(MAIN.every((name) => kept.some(([known]) => known === name)));
      assert.equal(snapshot.lost, undefined);
    });
  }

  test('gives up the least important first', () => {
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

  test('of more metrics than anybody reads is made in a moment', () => {
    const counters = Object.fromEntries(Array.from({ length: 50000 }, (_, i) => [`plugins.metrics-by-endpoint./thing/${Math.random()}.codes.${i}`, i]));
    const started = performance.now();
    const text = encode(fromStats({ ...stats(2, 1000), counters: { ...CORE, ...counters } }));
    assert.ok(text.length <= 4096 && decode(text).counters['http.requests'] === 20000);
    assert.ok(performance.now() - started < 2000);
  });
});

test('last words are without blanks, reports and snapshots, and cut in front', () => {
  assert.equal(lastWords('a\n\n  \n---\nhttp.requests: ....... 5\nloadtest.v1 x\nError: no\n    at x\n'), 'a\nError: no\n    at x');
  const long = lastWords('é'.repeat(2000));
  assert.ok(Buffer.byteLength(long) <= 1024 && /^é+$/.test(long));
});

describe('in Artillery', { skip: !process.env.ARTILLERY && 'ARTILLERY is not set', concurrency: 1 }, () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'results-'));
  const plugin = path.join(dir, 'artillery-plugin-loadtest-results');
  fs.mkdirSync(plugin);
  fs.copyFileSync(new URL('../../src/worker/results.js', import.meta.url), path.join(plugin, 'index.js'));
  const message = path.join(dir, 'message');

  // Runs a script, and SIGTERMs it once that many requests have come, or once it says this.
  async function run(script, { stopAfter = Infinity, stopAt, log = message, preload } = {}) {
    fs.rmSync(message, { force: true });
    let requests = 0;
    let child;
    const server = http.createServer((_, response) => {
      requests += 1;
      if (requests === stopAfter) child.kill('SIGTERM');
      response.end('ok');
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const file = path.join(dir, 'test.json');
    fs.writeFileSync(file, JSON.stringify({
      ...script, config: { target: `http://127.0.0.1:${server.address().port}`, phases: [{ duration: 2, arrivalRate: 10 }], ...script.config },
    }));
    const env = {
      ...process.env, HOME: dir, ARTILLERY_DISABLE_TELEMETRY: '1', ARTILLERY_DISABLE_ENSURE: '1', ARTILLERY_PLUGIN_PATH: dir,
      ARTILLERY_PLUGINS: '{"loadtest-results":{}}', LOADTEST_TERMINATION_LOG: log,
      NODE_OPTIONS: preload ? `--require ${preload}` : '',
    };
    child = spawn('node', [path.join(process.env.ARTILLERY, 'artillery/bin/run'), 'run', file], { env });
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

  test('a whole test leaves all it has counted; ensure does not fail it', async () => {
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
    test(`SIGTERM loses nothing that was counted, with ${threads} threads`, async () => {
      const cpus = path.join(dir, 'cpus.cjs');
      fs.writeFileSync(cpus, `require('os').cpus = () => Array(${threads + 1}).fill({});`);
      const script = { config: { phases: [{ duration: 60, arrivalRate: 20 }] }, scenarios };
      const { requests, text } = await run(script, { stopAfter: 50, preload: cpus });
      const snapshot = decode(text);
      assert.equal(snapshot.final, undefined);
      assert.ok(snapshot.start <= snapshot.first);
      assert.ok(snapshot.counters['http.requests'] >= 50 && snapshot.counters['http.requests'] <= requests, snapshot.counters['http.requests']);
    });
  }

  test('a crash leaves its reason, and what was counted before', async () => {
    fs.writeFileSync(path.join(dir, 'crash.js'), `
      let n = 0;
      module.exports.crash = (_, __, done) => (++n < 130 ? done() : setImmediate(() => { throw new Error('out of luck'); }));`);
    const flow = [{ get: { url: '/' } }, { function: 'crash' }];
    const { code, text } = await run({ config: { processor: './crash.js', phases: [{ duration: 30, arrivalRate: 10 }] }, scenarios: [{ flow }] });
    assert.equal(code, 11);
    assert.match(text, /Error: out of luck/);
    assert.ok(text.length <= 4096);
    assert.ok(decode(text).counters['http.requests'] > 0);
  });

  test('a failure before anything was counted leaves nothing, so that Kubernetes shows the log', async () => {
    const { code, text } = await run({ config: { processor: './none.js' }, scenarios });
    assert.notEqual(code, 0);
    assert.equal(text, '');
  });

  test('SIGTERM before anything was counted leaves nothing', async () => {
    const { text } = await run({ config: { phases: [{ pause: 60 }] }, scenarios }, { stopAt: /Phase started/ });
    assert.equal(text, '');
  });

  test('what cannot be written is told once, and disturbs nothing', async () => {
    const { code, output } = await run({ scenarios }, { log: dir });
    assert.equal(code, 0);
    assert.equal(output.match(/loadtest-results: .*cannot be saved/g).length, 1);
  });
});
