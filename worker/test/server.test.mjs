// Live results: GET /snapshot and GET /metrics of a worker.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ARTILLERY_RUN, decode, freePort, mount, NO_ARTILLERY, pluginsFor, SKETCHED_VALUES, waitUntil } from './helpers.mjs';
import live from '../plugins/results/live.js';
import measurements from '../plugins/results/measurements.js';
import metrics from '../plugins/results/metrics.js';
import server from '../plugins/lib/server.js';

const { Live } = live;
const { MAX_CONNECTIONS, Server } = server;
const { emptyMeasurements, middleOfBin, Totals } = measurements;
const { Exposition, MAX_ERRORS, MAX_METRICS } = metrics;

/** The response to a request: status, headers and body. */
async function get(port, url, options = {}) {
  const request = http.request({ port, path: url, host: '127.0.0.1', agent: false, ...options }).end(options.body);
  const [response] = await once(request, 'response');
  return { status: response.statusCode, headers: response.headers, body: Buffer.concat(await response.toArray()).toString() };
}

// Strict: any line that is not valid fails. Returns {families: {name: type}, series: {name and labels: value}}.
function parseMetrics(text) {
  assert.ok(text.endsWith('\n'));
  const [families, series] = [{}, {}];
  const label = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
  const sample = new RegExp(`^([a-z_]+)(?:\\{((?:${label})(?:,${label})*)\\})? (-?[0-9.e+]+)$`);
  let current;
  for (const line of text.slice(0, -1).split('\n')) {
    const [, type, ofType] = /^# TYPE ([a-z_0-9]+) (counter|gauge|histogram)$/.exec(line) ?? [];
    if (type) {
      assert.equal(type in families, false, `${type} has two types`);
      families[type] = ofType;
      current = type;
      continue;
    }
    if (/^# HELP [a-z_0-9]+ \S.*$/.test(line)) continue;
    const [, name, labels = '', value] = sample.exec(line.replace('p99', 'pxx')) ?? assert.fail(`not valid: ${line}`);
    const base = families[current] === 'histogram' ? name.replace(/_(bucket|sum|count)$/, '') : name;
    assert.equal(base.replace('pxx', 'p99'), current, line);
    const key = `${name}{${labels}}`;
    assert.equal(key in series, false, `twice: ${key}`);
    series[key] = Number(value);
  }
  return { families, series };
}

// All buckets of a histogram are cumulative, and the last one is the count.
function assertCumulative(series) {
  const last = {};
  for (const [key, n] of Object.entries(series)) {
    const [, name, labels, le] = /^(.*)_bucket\{(.*?),?le="(.*)"\}$/.exec(key) ?? [];
    if (!name) continue;
    const histogram = `${name}{${labels}}`;
    assert.ok(n >= (last[histogram] ?? 0), key);
    last[histogram] = n;
    if (le === '+Inf') assert.equal(n, series[`${name}_count{${labels}}`], key);
  }
  return Object.keys(last).length;
}

function promtool(text) {
  const { error, status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  if (error?.code !== 'ENOENT') assert.deepEqual([status, stdout, stderr], [0, '', ''], text);
}

const snapshotOf = ({ counters = {}, histograms = {} }) => {
  const totals = new Totals();
  for (const [name, n] of Object.entries(counters)) totals.addCounter(name, n, 1);
  for (const [name, values] of Object.entries(histograms)) values.forEach((value) => totals.addToHistogram(name, value));
  return totals.measurements;
};

describe('metrics', () => {
  const LABELS = { namespace: 'n', loadtest: 't', worker: '3' };

  test('have the counters, with codes, states and errors as labels', () => {
    const counters = {
      'http.requests': 9, 'http.responses': 8, 'http.codes.200': 5, 'http.codes.503': 3, 'http.downloaded_bytes': 77,
      'errors.ETIMEDOUT': 1, 'vusers.created': 6, 'vusers.completed': 3, 'vusers.failed': 1, 'my.own "counter"\n\\': 2.5,
    };
    const text = new Exposition(LABELS).render({ ...snapshotOf({ counters }), load: [50, 7, 1, 1, 0], generator: [1, 512, 3] });
    promtool(text);
    const { series } = parseMetrics(text);
    const own = 'namespace="n",loadtest="t",worker="3"';
    assert.deepEqual(series, {
      [`artillery_vusers_total{${own},state="created"}`]: 6,
      [`artillery_vusers_total{${own},state="completed"}`]: 3,
      [`artillery_vusers_total{${own},state="failed"}`]: 1,
      [`artillery_vusers_total{${own},state="skipped"}`]: 0,
      [`artillery_http_requests_total{${own}}`]: 9,
      [`artillery_http_responses_total{${own},code="200"}`]: 5,
      [`artillery_http_responses_total{${own},code="503"}`]: 3,
      [`artillery_http_downloaded_bytes_total{${own}}`]: 77,
      [`artillery_errors_total{${own},error="ETIMEDOUT"}`]: 1,
      [`artillery_counters_total{${own},metric="my.own \\"counter\\"\\n\\\\"}`]: 2.5,
      [`artillery_vusers_active{${own}}`]: 2,
      [`artillery_vusers_planned{${own}}`]: 50,
      [`artillery_vusers_due{${own}}`]: 7,
      [`artillery_event_loop_utilization_ratio{${own}}`]: 0.512,
      [`artillery_event_loop_delay_pxx_seconds{${own}}`]: 0.003,
    });
  });

  test('have histograms in seconds, whose buckets contain the values of the sketch', () => {
    const values = [0, 0.4, 3, 3, 30, 299, 301, 70_000];
    const histograms = { 'http.response_time': values, 'my.depth': [-4, 0, 7, 2e6] };
    const snapshot = snapshotOf({ histograms });
    const { series } = parseMetrics(new Exposition({}).render({ ...snapshot, delays: snapshot.histograms.get('my.depth') }));
    assert.equal(assertCumulative(series), 3);
    const bucket = (le) => series[`artillery_http_response_time_seconds_bucket{le="${le}"}`];
    assert.deepEqual(['0.001', '0.0025', '0.005', '0.05', '0.25', '0.5', '60', '+Inf'].map(bucket), [2, 2, 4, 5, 5, 7, 7, 8]);
    assert.equal(series['artillery_http_response_time_seconds_sum{}'], values.reduce((a, b) => a + b) / 1000);
    const own = (le) => series[`artillery_histograms_bucket{metric="my.depth",le="${le}"}`];
    assert.deepEqual(['1', '10', '60000', '+Inf'].map(own), [2, 3, 3, 4]);
    assert.equal(series['artillery_arrival_delay_seconds_count{}'], 4);
  });

  test('exist before anything is measured', () => {
    const text = new Exposition(LABELS).render(undefined);
    promtool(text);
    assert.ok(Object.values(parseMetrics(text).series).every((value) => value === 0));
  });

  test('have a bounded number of series, and no counter decreases when names appear', () => {
    const exposition = new Exposition(LABELS);
    const names = (prefix, count) => Array.from({ length: count }, (_, i) => `${prefix}${i}-${'x'.repeat(i % 300)}`);
    let previous = {};
    for (const count of [10, 300, 3000]) {
      const counters = Object.fromEntries([...names('errors.', count), ...names('my.', count)].map((name) => [name, count]));
      const histograms = Object.fromEntries(names('h.', count).map((name) => [name, [1, 2]]));
      // The order in which names appear differs between snapshots.
      const { counters: all, ...rest } = snapshotOf({ counters, histograms });
      const text = exposition.render({ ...rest, counters: new Map([...all].reverse()) });
      const { series } = parseMetrics(text);
      for (const [key, value] of Object.entries(previous)) assert.ok(series[key] >= value, key);
      previous = series;
      const of = (family) => Object.entries(series).filter(([key]) => key.startsWith(family));
      const total = (family) => of(family).reduce((sum, [, n]) => sum + n, 0);
      const countOf = (family) => of(family).length;
      assert.deepEqual([total('artillery_errors_total'), total('artillery_counters_total')], [count * count, count * count]);
      assert.ok(countOf('artillery_errors_total') <= MAX_ERRORS + 1);
      assert.ok(countOf('artillery_counters_total') + countOf('artillery_histograms_count') <= MAX_METRICS + 1);
      assert.ok(text.split('\n').every((line) => line.length < 500));
    }
  });
});

test('the totals of a thread have the bins of Artillery', () => {
  const totals = new Totals();
  for (const value of SKETCHED_VALUES) totals.addToHistogram('h', value);
  const { positive, negative, ...rest } = totals.measurements.histograms.get('h');
  const sorted = (bins) => [...bins].sort(([a], [b]) => a - b);
  const own = { ...rest, positive: sorted(positive), negative: sorted(negative) };
  assert.deepEqual(own, JSON.parse(fs.readFileSync(new URL('fixtures/sketch.json', import.meta.url))));
  const [[bin]] = own.positive.slice(-1);
  assert.ok(Math.abs(middleOfBin(bin) / 1e300 - 1) < 0.0101);
});

describe('the server', () => {
  test('drops readers that are slow, the oldest first, and answers others meanwhile', async () => {
    const own = new Server(await freePort());
    own.route('/large', (response) => response.send(200, Buffer.alloc(64 << 20)));
    own.route('/small', (response) => response.send(200, 'small'));
    own.open();
    const sockets = [];
    for (let i = 0; i < MAX_CONNECTIONS.others + 8; i += 1) {
      // A socket without a reader.
      const socket = net.connect(own.port, '127.0.0.1').on('error', () => {}).pause();
      await once(socket, 'connect');
      socket.write('GET /large HTTP/1.1\r\nhost: a\r\n\r\n');
      sockets.push(socket);
    }
    const { waiting, others } = own.groups;
    await waitUntil('all requests have arrived', () => waiting.size === 0 && others.size === MAX_CONNECTIONS.others);
    assert.equal((await get(own.port, '/small')).body, 'small');
    await waitUntil('all are dropped', () => own.connections.size === 0);
    for (const socket of sockets) socket.destroy();
  });

  test('answers with 500 if a path fails', async () => {
    const own = new Server(await freePort());
    own.route('/', () => Promise.reject(new Error('out of luck')));
    own.open();
    assert.equal((await get(own.port, '/')).status, 500);
  });
});

describe('live results', () => {
  // A collector whose clock and threads the test controls.
  function newLive({ cost = 0 } = {}) {
    const clock = { now: 0 };
    const answers = [];
    const collector = {
      final: false, queries: 0,
      threads: {
        costs: new Map([[1, cost]]),
        query: () => new Promise((resolve) => {
          collector.queries += 1;
          answers.push(resolve);
        }),
      },
      liveSnapshot: () => ({ ...emptyMeasurements(), isFinal: collector.final, at: clock.now }),
    };
    return { clock, answers, collector, live: new Live(collector, () => clock.now) };
  }

  test('are queried once for all requests of a second, and rendered once', async () => {
    const { clock, answers, collector, live } = newLive();
    let renders = 0;
    const render = ({ at }) => {
      renders += 1;
      return `${at}`;
    };
    const texts = Promise.all(Array.from({ length: 20 }, () => live.text(render)));
    answers.pop()();
    assert.deepEqual(new Set(await texts), new Set(['0']));
    clock.now = 999;
    assert.equal(await live.text(render), '0');
    assert.deepEqual([collector.queries, renders], [1, 1]);
    clock.now = 1000;
    const next = live.text(render);
    answers.pop()();
    assert.equal(await next, '1000');
    assert.deepEqual([collector.queries, renders], [2, 2]);
  });

  test('are final at once after the end of the test, and are not queried any more', async () => {
    const { clock, answers, collector, live } = newLive();
    const first = live.text(({ isFinal }) => `${isFinal}`);
    answers.pop()();
    assert.equal(await first, 'false');
    clock.now = 1000;
    collector.final = true;
    for (let i = 0; i < 3; i += 1) {
      assert.equal(await live.text(({ isFinal }) => `${isFinal}`), 'true');
      clock.now += 10_000;
    }
    assert.equal(collector.queries, 1);
  });

  test('that take long are collected less often, but every 5 s', async () => {
    const { clock, answers, collector, live } = newLive({ cost: 15 });
    const render = () => '';
    for (const [now, queries] of [[0, 1], [2900, 1], [3000, 2]]) {
      clock.now = now;
      const text = live.text(render);
      answers.pop()?.();
      await text;
      assert.equal(collector.queries, queries, `at ${now}`);
    }
    collector.threads.costs.set(1, 1000);
    for (const [now, queries] of [[6000, 3], [10_999, 3], [11_000, 4]]) {
      clock.now = now;
      const text = live.text(render);
      answers.pop()?.();
      await text;
      assert.equal(collector.queries, queries, `at ${now}`);
    }
  });
});

describe('in Artillery', { skip: NO_ARTILLERY, concurrency: 2, timeout: 300_000 }, () => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'server-'));
  const target = http.createServer((_, response) => response.end('ok'));
  const children = new Set();
  before(async () => {
    await once(target.listen(0, '127.0.0.1'), 'listening');
    mount(root);
  });
  after(() => {
    for (const child of children) child.kill('SIGKILL');
    target.closeAllConnections();
    target.close();
    fs.rmSync(root, { recursive: true });
  });

  // Counts the queries that a thread receives.
  const COUNT_QUERIES = `
    const { BroadcastChannel, isMainThread } = require('node:worker_threads');
    if (isMainThread) {
      const channel = new BroadcastChannel('loadtest-results');
      channel.unref();
      const { postMessage } = BroadcastChannel.prototype;
      BroadcastChannel.prototype.postMessage = function (message) {
        if (message.query) console.log('QUERY', message.query);
        return postMessage.call(this, message);
      };
    }`;

  async function startWorker(script, { threads = 1, environment = {}, preload = '', plugins = ['results'], port } = {}) {
    const folder = fs.mkdtempSync(path.join(root, 'test-'));
    const file = (name) => path.join(folder, name);
    const worker = { output: '', port: port ?? (await freePort()), message: file('message'), file };
    const config = { target: `http://127.0.0.1:${target.address().port}`, ...script.config };
    const scenarios = script.scenarios ?? [{ flow: [{ get: { url: '/' } }] }];
    fs.writeFileSync(worker.file('test.json'), JSON.stringify({ ...script, config, scenarios }));
    fs.writeFileSync(worker.file('preload.cjs'), preload);
    fs.writeFileSync(worker.file('processor.js'), script.processor ?? '');
    worker.child = spawn(process.execPath, [...ARTILLERY_RUN, worker.file('test.json')], {
      env: {
        ...process.env, HOME: folder, ARTILLERY_DISABLE_TELEMETRY: 'true', ARTILLERY_PLUGIN_PATH: root,
        ARTILLERY_PLUGINS: pluginsFor(...plugins), LOADTEST_TERMINATION_LOG: worker.message, WORKERS: String(threads),
        NODE_OPTIONS: `--require=${root}/cpus.cjs --require=${worker.file('preload.cjs')}`,
        LOADTEST_LIVE: 'true', LOADTEST_PORT: String(worker.port), LOADTEST_POD_NAME: 'pod-1',
        LOADTEST_NAMESPACE: 'n', LOADTEST_NAME: 't', JOB_COMPLETION_INDEX: '0', ...environment,
      },
    });
    children.add(worker.child);
    for (const stream of [worker.child.stdout, worker.child.stderr]) stream.on('data', (data) => (worker.output += data));
    worker.ended = once(worker.child, 'close').then(([code]) => code);
    worker.get = (url, options) => get(worker.port, url, options);
    worker.isOpen = async () => {
      try {
        return await worker.get('/');
      } catch (error) {
        if (error.code === 'ECONNREFUSED') return false;
        throw error;
      }
    };
    return worker;
  }
  const snapshotFrom = async (worker) => {
    const { status, body } = await worker.get('/snapshot');
    return status === 200 ? decode(body) : undefined;
  };
  // Holds the worker after its load until the file exists.
  const HOLD = {
    config: { phases: [{ duration: 6, arrivalRate: 20 }], processor: './processor.js' },
    after: { flow: [{ function: 'hold' }] },
    processor: `
      const { existsSync } = require('node:fs');
      module.exports.hold = (_, events, done) => {
        const timer = setInterval(() => {
          if (!existsSync(__dirname + '/end')) return;
          clearInterval(timer);
          done();
        }, 20);
      };`,
  };

  test('the snapshot of two threads grows, and at the end it equals the termination message', async () => {
    const phases = [{ pause: 1 }, ...HOLD.config.phases];
    const worker = await startWorker({ ...HOLD, config: { ...HOLD.config, phases } }, { threads: 2 });
    await waitUntil('the port is open', worker.isOpen);
    const early = await worker.get('/snapshot');
    assert.deepEqual([early.status, early.body, early.headers['loadtest-pod']], [204, '', 'pod-1']);
    assert.equal((await worker.get('/metrics')).status, 200);

    const requests = [];
    await waitUntil('the snapshot is final', async () => {
      const snapshot = await snapshotFrom(worker);
      if (snapshot) {
        const { load, generator, counters } = snapshot;
        assert.ok(load[0] === 120 && load[1] <= 120 && generator[0] === 2, JSON.stringify(snapshot));
        if (counters['http.requests']) requests.push(counters['http.requests']);
      }
      return snapshot?.final;
    });
    assert.deepEqual(requests, [...requests].sort((a, b) => a - b));
    assert.ok(new Set(requests).size >= 3, `${new Set(requests).size} different values`);

    const response = await worker.get('/snapshot');
    assert.deepEqual([response.headers['loadtest-pod'], response.headers.connection], ['pod-1', 'close']);
    const final = decode(response.body);
    assert.equal(final.counters['http.requests'], 120);
    assert.ok(final.final && final.load && final.delay && final.generator, Object.keys(final).join());
    assert.equal(response.body, fs.readFileSync(worker.message, 'utf8'));
    const text = (await worker.get('/metrics')).body;
    promtool(text);
    const { series } = parseMetrics(text);
    assertCumulative(series);
    const own = 'namespace="n",loadtest="t",worker="0"';
    assert.equal(series[`artillery_http_requests_total{${own}}`], 120);
    assert.equal(series[`artillery_http_response_time_seconds_count{${own}}`], 120);
    assert.equal(series[`artillery_vusers_planned{${own}}`], 120);
    fs.writeFileSync(worker.file('end'), '');
    assert.equal(await worker.ended, 0, worker.output);
  });

  test('20 clients that send requests all the time cause one query a second', async () => {
    const worker = await startWorker(HOLD, { preload: COUNT_QUERIES });
    await waitUntil('results are available', async () => (await worker.isOpen()) && (await snapshotFrom(worker)));
    const [queriesBefore, startedAt] = [worker.output.split('QUERY').length, performance.now()];
    let responses = 0;
    await Promise.all(Array.from({ length: 20 }, async (_, i) => {
      while (performance.now() - startedAt < 3000) {
        assert.equal((await worker.get(i % 2 ? '/metrics' : '/snapshot')).status, 200);
        responses += 1;
      }
    }));
    const seconds = (performance.now() - startedAt) / 1000;
    await waitUntil('the log is complete', () => worker.output.split('QUERY').length > queriesBefore);
    const queries = worker.output.split('QUERY').length - queriesBefore;
    assert.ok(queries >= 1 && queries <= seconds + 1, `${queries} queries in ${seconds} s`);
    assert.ok(responses > 100, `${responses} responses`);
    fs.writeFileSync(worker.file('end'), '');
    assert.equal(await worker.ended, 0, worker.output);
  });

  test('a thread that does not answer is served with its last known results within about a second', async () => {
    const worker = await startWorker({
      config: { phases: [{ duration: 60, arrivalRate: 5 }], processor: './processor.js' },
      scenarios: [{ flow: [{ get: { url: '/' } }, { function: 'block' }] }],
      // Blocks the thread for as long as the file exists.
      processor: `
        const { existsSync } = require('node:fs');
        module.exports.block = (_, events, done) => {
          while (existsSync(__dirname + '/block')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
          done();
        };`,
    });
    let before;
    await waitUntil('results are available', async () => (before = (await worker.isOpen()) && (await snapshotFrom(worker))));
    fs.writeFileSync(worker.file('block'), '');
    // Until two snapshots in a row are the same, the thread still answers.
    let last;
    await waitUntil('the thread is blocked', async () => {
      [before, last] = [last, (await snapshotFrom(worker)).counters['http.requests']];
      return before === last;
    });
    const started = performance.now();
    assert.equal((await snapshotFrom(worker)).counters['http.requests'], last);
    assert.ok(performance.now() - started < 4000);
    fs.rmSync(worker.file('block'));
    await waitUntil('the thread answers', async () => (await snapshotFrom(worker)).counters['http.requests'] > last);
    worker.child.kill('SIGTERM');
    await worker.ended;
  });

  test('clients that are slow, send too much, or send something else affect neither the test nor other clients', async () => {
    const worker = await startWorker(HOLD);
    await waitUntil('results are available', async () => (await worker.isOpen()) && (await snapshotFrom(worker)));
    const request = 'GET /metrics HTTP/1.1\r\nhost: a\r\n';
    const closed = [];
    const texts = [
      '', request, `${request}\r\n`, `${request}\r\n`.repeat(300), 'nonsense\r\n\r\n', `GET /${'x'.repeat(1e5)} HTTP/1.1\r\n\r\n`,
      `${request}content-length: 99999999\r\n\r\n`, `${request}upgrade: x\r\nconnection: upgrade\r\n\r\n`,
    ];
    for (const text of texts) {
      for (let i = 0; i < 6; i += 1) {
        // A socket without a reader.
        const socket = net.connect(worker.port, '127.0.0.1').on('error', () => {}).pause();
        await once(socket, 'connect');
        socket.write(text);
        const timer = setInterval(() => socket.write('x'), 100);
        closed.push(new Promise((resolve) => { socket.on('close', resolve); }).then(() => clearInterval(timer)));
      }
    }
    for (const [method, url, status, pod] of [['POST', '/snapshot', 404, 'pod-1'], ['PUT', '/metrics', 404], ['GET', '/', 404],
      ['GET', '/metrics/', 404], ['GET', '/ready', 404], ['GET', '/snapshot', 200, 'pod-1']]) {
      const response = await worker.get(url, { method, body: method === 'GET' ? undefined : 'x'.repeat(100) });
      assert.deepEqual([response.status, response.headers['loadtest-pod']], [status, pod], `${method} ${url}`);
    }
    await Promise.all(closed);
    fs.writeFileSync(worker.file('end'), '');
    assert.equal(await worker.ended, 0, worker.output);
    assert.equal(decode(fs.readFileSync(worker.message, 'utf8')).counters['http.requests'], 120);
  });

  const SHORT = { config: { phases: [{ duration: 2, arrivalRate: 10 }] } };

  test('without LOADTEST_LIVE no port is opened', async () => {
    const worker = await startWorker(SHORT, { environment: { LOADTEST_LIVE: '' } });
    let opened = false;
    const ended = worker.ended.then(() => true);
    await waitUntil('the worker has ended', async () => {
      opened ||= Boolean(await worker.isOpen());
      return Promise.race([ended, Promise.resolve(false)]);
    });
    assert.deepEqual([opened, await worker.ended], [false, 0], worker.output);
  });

  test('a port in use is logged once, and does not affect the test', async () => {
    const taken = net.createServer().listen(0);
    await once(taken, 'listening');
    const worker = await startWorker(SHORT, { port: taken.address().port });
    assert.equal(await worker.ended, 0, worker.output);
    taken.close();
    const warnings = worker.output.match(/^loadtest-results: Live results are not available: .*EADDRINUSE.* not affected\.$/gm);
    assert.equal(warnings.length, 1, worker.output);
    assert.equal(decode(fs.readFileSync(worker.message, 'utf8')).final, true);
  });

  for (const isLive of [true, false]) {
    test(`the server for probes ${isLive ? 'serves live results' : 'serves no live results without LOADTEST_LIVE'}`, async () => {
      const worker = await startWorker(HOLD, {
        plugins: ['results', 'together'],
        environment: {
          LOADTEST_LIVE: String(isLive), LOADTEST_START_FILE: path.join(root, `start-${isLive}`), LOADTEST_START_TIMEOUT: '600',
          NODE_OPTIONS: `--require=${root}/artillery-plugin-loadtest-together/index.js --require=${root}/cpus.cjs`,
        },
      });
      await waitUntil('the port is open', worker.isOpen);
      assert.equal((await worker.get('/ready')).status, 200);
      const expected = isLive ? [204, 200] : [404, 404];
      assert.deepEqual([(await worker.get('/snapshot')).status, (await worker.get('/metrics')).status], expected);
      const started = worker.get('/started');
      fs.writeFileSync(path.join(root, `start-${isLive}`), new Date().toISOString());
      assert.equal((await started).status, 200);
      const hasRequests = async () => (await snapshotFrom(worker))?.counters['http.requests'] > 0;
      if (isLive) await waitUntil('the snapshot has requests', hasRequests);
      fs.writeFileSync(worker.file('end'), '');
      assert.equal(await worker.ended, 0, worker.output);
    });
  }
});
