import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ARTILLERY_RUN, countValues, decode, freePort, mount, NO_ARTILLERY, probe, source, waitUntil } from './helpers.mjs';
import server from '../plugins/lib/server.js';
import together from '../plugins/together/index.js';

const { portFromEnv } = server;
const { parseStartTime, workerName } = together;

test('the start time is an RFC 3339 timestamp, and anything else is an error', () => {
  assert.equal(parseStartTime('2026-11-25T10:00:00.123Z'), Date.UTC(2026, 10, 25, 10, 0, 0, 123));
  assert.equal(parseStartTime(' 2026-11-25T10:00:00Z\n'), Date.UTC(2026, 10, 25, 10));
  assert.equal(parseStartTime('2026-11-25T10:00:00.123456+01:00'), Date.UTC(2026, 10, 25, 9, 0, 0, 123));
  for (const empty of ['', '\n']) assert.equal(parseStartTime(empty), undefined);
  for (const bad of ['soon', '5', '1795602949842', '2026-11-25', '2026-11-25T10:00:00', '2026-11-25T10:00:0', '2026-13-25T10:00:00Z']) {
    assert.throws(() => parseStartTime(bad), /^Error: expected an RFC 3339 timestamp, found "/, bad);
  }
});

test('a port is a number from 1 to 65535', () => {
  assert.equal(portFromEnv('PORT', { PORT: '8080' }), 8080);
  for (const bad of [undefined, '', '0', '65536', '1.5', 'http', '-1']) {
    assert.throws(() => portFromEnv('PORT', { PORT: bad }), /^Error: PORT is .*, expected a port number$/, bad);
  }
});

test('the name of a worker has its number, counted from 1', () => {
  assert.equal(workerName({ LOADTEST_WORKERS: '4', JOB_COMPLETION_INDEX: '1' }), 'Load test worker 2 of 4');
  assert.equal(workerName({}), 'This load test worker');
});

const inFuture = (ms) => new Date(Date.now() + ms).toISOString();

describe('in Artillery', { skip: NO_ARTILLERY, concurrency: 1, timeout: 300_000 }, () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'together-'));
  const file = (name) => path.join(directory, name);
  const children = new Set();
  const TOGETHER = file('artillery-plugin-loadtest-together/index.js');
  let requests;
  let answer;
  const target = http.createServer(async (request, response) => {
    requests.push({ at: Date.now(), path: request.url });
    await answer?.(request.url);
    response.end();
  });

  before(async () => {
    await once(target.listen(0, '127.0.0.1'), 'listening');
    mount(directory);
    // Logs what the worker reads from the start file, because a waiting worker logs nothing.
    fs.writeFileSync(file('reads.cjs'), `
      const fs = require('node:fs');
      const { readFileSync } = fs;
      let last;
      const log = (result) => result !== last && console.log('READ', JSON.stringify(last = result));
      fs.readFileSync = function (name, ...rest) {
        if (name !== process.env.LOADTEST_START_FILE) return readFileSync(name, ...rest);
        try {
          const text = readFileSync(name, ...rest);
          log(text);
          return text;
        } catch (error) {
          log(error.code);
          throw error;
        }
      };`);
    fs.writeFileSync(file('times.cjs'), `
      if (require('node:worker_threads').isMainThread) process.on('exit', () => console.log('TIMES', JSON.stringify(global.loadtestStart)));`);
    fs.writeFileSync(file('rows.csv'), Array.from({ length: 100 }, (_, row) => `row-${row}\n`).join(''));
  });
  after(() => {
    for (const child of children) child.kill('SIGKILL');
    target.closeAllConnections();
    target.close();
    fs.rmSync(directory, { recursive: true });
  });

  const FAST = { config: { phases: [{ duration: 2, arrivalRate: 20 }] }, scenarios: [{ flow: [{ get: { url: '/' } }] }] };

  // Each test has its own start file, because a worker of an earlier test may still read that of its test.
  let files = 0;
  function newTest(script) {
    requests = [];
    answer = undefined;
    files += 1;
    const config = { target: `http://127.0.0.1:${target.address().port}`, ...script.config };
    fs.writeFileSync(file('script.json'), JSON.stringify({ ...script, config }));
    return file(`start-${files}`);
  }

  async function startWorker(startFile, { index = 0, workers = 1, threads = 1, plugins = ['together'], preloads = [TOGETHER], port, timeout = '600', environment } = {}) {
    const worker = { output: '', port: port ?? (await freePort()), message: file(`message-${index}`) };
    fs.rmSync(worker.message, { force: true });
    worker.child = spawn(process.execPath, [...ARTILLERY_RUN, 'script.json'], {
      cwd: directory,
      env: {
        ...process.env,
        HOME: directory,
        ARTILLERY_DISABLE_TELEMETRY: 'true',
        ARTILLERY_PLUGIN_PATH: directory,
        ARTILLERY_PLUGINS: JSON.stringify(Object.fromEntries(plugins.map((name) => [`loadtest-${name}`, {}]))),
        NODE_OPTIONS: [...preloads, source('preload/cpus.cjs')].map((one) => `--require=${one}`).join(' '),
        WORKERS: String(threads),
        LOADTEST_WORKERS: String(workers),
        JOB_COMPLETION_INDEX: String(index),
        LOADTEST_TERMINATION_LOG: worker.message,
        LOADTEST_START_FILE: startFile,
        LOADTEST_PORT: String(worker.port),
        LOADTEST_START_TIMEOUT: timeout,
        ...environment,
      },
    });
    children.add(worker.child);
    for (const stream of [worker.child.stdout, worker.child.stderr]) stream.on('data', (data) => (worker.output += data));
    worker.ended = once(worker.child, 'close').then(([code]) => {
      children.delete(worker.child);
      return code;
    });
    worker.waitForOutput = (pattern) => waitUntil(`${pattern} in ${worker.output}`, () => {
      assert.equal(worker.child.exitCode, null, worker.output);
      return pattern.test(worker.output);
    });
    worker.untilReady = () => worker.waitForOutput(/ is ready and waits for the start time$/m);
    return worker;
  }

  // Writes the start file atomically, as the kubelet does.
  function write(startFile, text) {
    fs.writeFileSync(`${startFile}.new`, text);
    fs.renameSync(`${startFile}.new`, startFile);
  }

  const snapshotOf = ({ message }) => decode(fs.readFileSync(message, 'utf8'));
  const startOf = (worker) => snapshotOf(worker).start;

  test('a worker is ready after it has loaded its script and run its before hook, and sends no load before the start time', async () => {
    // Blocks a thread only: the main thread loads the processor too, for the hook.
    fs.writeFileSync(file('slow.js'), `
      const fs = require('node:fs');
      if (!require('node:worker_threads').isMainThread) {
        fs.writeFileSync('loading', '');
        while (!fs.existsSync('go-on')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      }`);
    const hook = { flow: [{ get: { url: '/before' } }] };
    const startFile = newTest({ ...FAST, before: hook, config: { ...FAST.config, processor: './slow.js' } });
    const worker = await startWorker(startFile, { index: 1, workers: 4, preloads: [TOGETHER, file('times.cjs')] });
    const [ready, started] = [probe(worker.port, '/ready'), probe(worker.port, '/started')];
    await waitUntil('the script is loading', () => fs.existsSync(file('loading')));
    assert.equal((await probe(worker.port, '/').answered).status, 404, 'the server answers while the script is loading');
    assert.equal(ready.status, undefined);
    assert.deepEqual(requests.map((one) => one.path), ['/before']);
    fs.writeFileSync(file('go-on'), '');
    assert.equal((await ready.answered).status, 200);
    await worker.waitForOutput(/^Load test worker 2 of 4 is ready and waits for the start time$/m);
    assert.equal(started.status, undefined);
    const sentAt = Date.now();
    const startTime = inFuture(1500);
    write(startFile, startTime);
    assert.equal((await started.answered).status, 200);
    assert.deepEqual(requests.map((one) => one.path), ['/before']);
    assert.equal((await probe(worker.port, '/ready').answered).status, 200);
    assert.equal(await worker.ended, 0, worker.output);
    assert.match(worker.output, new RegExp(`^Load test worker 2 of 4 started its load \\d+ ms after the start time ${startTime}$`, 'm'));
    const times = JSON.parse(/^TIMES (.*)$/m.exec(worker.output)[1]);
    assert.equal(times.startTime, Date.parse(startTime));
    assert.ok(times.receivedAt >= sentAt && times.receivedAt < times.startTime, JSON.stringify(times));
    assert.ok(times.startedAt >= times.startTime, JSON.stringify(times));
    const load = requests.slice(1);
    assert.equal(load.length, 40);
    assert.ok(load.every(({ at }) => at >= Date.parse(startTime)), JSON.stringify(load[0]));
    assert.ok(!worker.output.includes('Unknown message'), worker.output);
  });

  for (const plugins of [['divide', 'together', 'results'], ['results', 'together', 'divide']]) {
    test(`all threads of all workers start at the same time, with the plugins ${plugins.join(', ')}`, async (t) => {
      const startFile = newTest({
        config: { payload: { path: 'rows.csv', fields: ['row'], order: 'sequence' }, phases: [{ duration: 2, arrivalRate: 20 }] },
        scenarios: [{ flow: [{ get: { url: '/{{ row }}' } }] }],
      });
      const [workers, threads] = [3, 2];
      const all = await Promise.all([0, 1, 2].map((index) => startWorker(startFile, { index, workers, threads, plugins })));
      await Promise.all(all.map((worker) => worker.untilReady()));
      assert.deepEqual(requests, []);
      const startTime = inFuture(1000);
      write(startFile, startTime);
      assert.deepEqual(await Promise.all(all.map((worker) => worker.ended)), [0, 0, 0], all[0].output);
      const paths = requests.map((one) => one.path);
      assert.deepEqual(paths.sort(), Array.from({ length: 40 }, (_, row) => `/row-${row}`).sort(), 'virtual user k uses row k');
      const late = all.map((worker) => startOf(worker) - Date.parse(startTime));
      t.diagnostic(`started ${late.join(', ')} ms after the start time`);
      assert.ok(late.every((ms) => ms >= 0 && ms < 500), String(late));
      assert.ok(requests[0].at >= Date.parse(startTime));
      const loads = all.map((worker) => snapshotOf(worker).load);
      assert.equal(loads.reduce((total, [planned]) => total + planned, 0), 40);
      // The plan counts from the start time, and threads end their phases no earlier.
      assert.ok(loads.every(([, , plannedMs, actualMs]) => plannedMs === 2000 && actualMs >= 1999), JSON.stringify(loads));
    });
  }

  test('the threads of a worker do not wait for each other to start', async (t) => {
    fs.writeFileSync(file('first.js'), `
      let started = false;
      module.exports.log = (_context, _events, done) => {
        if (!started) console.log('thread started', Date.now());
        started = true;
        done();
      };`);
    const flow = [{ function: 'log' }];
    const startFile = newTest({ config: { processor: './first.js', phases: [{ duration: 1, arrivalRate: 80 }] }, scenarios: [{ flow }] });
    const worker = await startWorker(startFile, { threads: 8 });
    await worker.untilReady();
    write(startFile, inFuture(300));
    assert.equal(await worker.ended, 0, worker.output);
    const times = [...worker.output.matchAll(/thread started (\d+)/g)].map(([, at]) => Number(at));
    assert.equal(times.length, 8, worker.output);
    const skew = Math.max(...times) - Math.min(...times);
    t.diagnostic(`${skew} ms between the first virtual users of 8 threads`);
    // One after the other, they would take 50 ms each.
    assert.ok(skew < 300, `${skew} ms`);
  });

  test('a worker starts immediately if the start time has passed', async () => {
    const startFile = newTest(FAST);
    write(startFile, '2020-01-01T00:00:00.000Z');
    const worker = await startWorker(startFile);
    assert.equal(await worker.ended, 0, worker.output);
    assert.match(worker.output, /^Load test worker 1 of 1 started its load \d+ ms after the start time 2020-01-01T00:00:00\.000Z$/m);
    assert.equal(requests.length, 40);
  });

  test('a worker waits while the start file is missing, empty or invalid, and sees it change through a link', async () => {
    const startFile = newTest(FAST);
    // A volume as the kubelet updates it: the file is a link through `..data`, which is a link that is replaced.
    let versions = 0;
    const swap = (text) => {
      versions += 1;
      fs.mkdirSync(file(`volume/..${versions}`), { recursive: true });
      fs.writeFileSync(file(`volume/..${versions}/start`), text);
      fs.symlinkSync(`..${versions}`, file('volume/..data_tmp'));
      fs.renameSync(file('volume/..data_tmp'), file('volume/..data'));
    };
    fs.symlinkSync('volume/..data/start', startFile);
    const worker = await startWorker(startFile, { preloads: [TOGETHER, file('reads.cjs')] });
    await worker.waitForOutput(/^READ "ENOENT"$/m);
    swap('');
    await worker.waitForOutput(/^READ ""$/m);
    for (const invalid of ['soon', 'sooner']) {
      swap(invalid);
      await worker.waitForOutput(new RegExp(`^READ "${invalid}"$`, 'm'));
    }
    swap('');
    await worker.waitForOutput(/^READ ""\n[^]*^READ ""$/m);
    const startTime = inFuture(200);
    swap(startTime);
    assert.equal(await worker.ended, 0, worker.output);
    assert.deepEqual(countValues(worker.output.match(/found ".*/g)), { 'found "soon". It keeps trying.': 1 });
    assert.equal(requests.length, 40);
    assert.ok(requests[0].at >= Date.parse(startTime));
  });

  for (const state of ['without', 'with']) {
    test(`SIGTERM ends a waiting worker ${state} a start time, after its after hook`, async () => {
      const startFile = newTest({ ...FAST, after: { flow: [{ get: { url: '/after' } }] } });
      const worker = await startWorker(startFile, { preloads: [TOGETHER, file('reads.cjs')] });
      await worker.untilReady();
      const startTime = Date.now() + 1000;
      if (state === 'with') {
        write(startFile, new Date(startTime).toISOString());
        await worker.waitForOutput(/^READ "20/m);
        // The hook runs past the start time.
        answer = () => sleep(startTime + 500 - Date.now());
      }
      const stopped = Date.now();
      worker.child.kill('SIGTERM');
      const code = await worker.ended;
      // The exit code is 0 before Artillery 2.0.20.
      assert.ok([0, 143].includes(code), `${code}: ${worker.output}`);
      // Without a network, Artillery before 2.0.34 spends 12 s on connection attempts, with or without the plugin.
      assert.ok(Date.now() - stopped < 20_000, `${Date.now() - stopped} ms`);
      assert.deepEqual(requests.map((one) => one.path), ['/after']);
      assert.doesNotMatch(worker.output, / started its load /);
    });
  }

  test('a worker fails if its port is in use', async () => {
    const taken = net.createServer().listen(0);
    await once(taken, 'listening');
    const { port } = taken.address();
    const worker = await startWorker(newTest(FAST), { port });
    assert.equal(await worker.ended, 1, worker.output);
    taken.close();
    assert.match(worker.output, /^Load test worker 1 of 1 cannot report that it is ready: .*EADDRINUSE/m);
    assert.doesNotMatch(worker.output, /^ +at /m);
    assert.deepEqual(requests, []);
  });

  test('a worker answers probes even if only the plugin opens the port', async () => {
    const startFile = newTest(FAST);
    const worker = await startWorker(startFile, { preloads: [] });
    assert.equal((await probe(worker.port, '/ready').answered).status, 200);
    write(startFile, inFuture(500));
    assert.equal((await probe(worker.port, '/started').answered).status, 200);
    assert.equal(await worker.ended, 0, worker.output);
    assert.equal(requests.length, 40);
  });

  test('a worker that receives no start time in time exits without any load', async () => {
    const worker = await startWorker(newTest(FAST), { timeout: '8' });
    assert.equal(await worker.ended, 1, worker.output);
    assert.match(worker.output, /\nNo start time arrived within 8s: the operator or the LoadTest is gone\. The load was not sent\.\n$/);
    assert.deepEqual(requests, []);
  });

  test('a worker does not wait without LOADTEST_START_FILE', async () => {
    newTest(FAST);
    const worker = await startWorker('', { environment: { LOADTEST_PORT: '', LOADTEST_START_TIMEOUT: '' } });
    assert.equal(await worker.ended, 0, worker.output);
    assert.doesNotMatch(worker.output, /Load test worker/);
    assert.equal(requests.length, 40);
  });
});
