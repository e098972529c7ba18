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
import zlib from 'node:zlib';
import { ARTILLERY, count } from './divide-pods.mjs';
import together from '../../src/worker/together.js';

const { nameOf, readInstant, readPort } = together;
const SOURCE = path.join(import.meta.dirname, '../../src/worker');

test('an instant is read as it is written, and nothing else is one', () => {
  assert.equal(readInstant('2026-11-25T10:00:00.123Z'), Date.UTC(2026, 10, 25, 10, 0, 0, 123));
  assert.equal(readInstant(' 2026-11-25T10:00:00Z\n'), Date.UTC(2026, 10, 25, 10));
  assert.equal(readInstant('2026-11-25T10:00:00.123456+01:00'), Date.UTC(2026, 10, 25, 9, 0, 0, 123));
  for (const none of ['', '\n']) assert.equal(readInstant(none), undefined);
  for (const bad of ['soon', '5', '1795602949842', '2026-11-25', '2026-11-25T10:00:00', '2026-11-25T10:00:0', '2026-13-25T10:00:00Z']) {
    assert.throws(() => readInstant(bad), /no instant/, bad);
  }
});

test('a port is a number', () => {
  assert.equal(readPort('PORT', { PORT: '8080' }), 8080);
  for (const bad of [undefined, '', '0', '65536', '1.5', 'http', '-1']) {
    assert.throws(() => readPort('PORT', { PORT: bad }), /PORT is no port/, bad);
  }
});

test('a worker is known by its number, from 1', () => {
  assert.equal(nameOf({ LOADTEST_WORKERS: '4', JOB_COMPLETION_INDEX: '1' }), 'Load test worker 2 of 4');
  assert.equal(nameOf({}), 'This load test worker');
});

/** Waits for a state. */
async function until(what, isSo) {
  const end = Date.now() + 60_000;
  while (!(await isSo())) {
    assert.ok(Date.now() < end, `in vain: ${what}`);
    await sleep(10);
  }
}

async function freePort() {
  const server = net.createServer().listen(0);
  await once(server, 'listening');
  const { port } = server.address();
  await once(server.close(), 'close');
  return port;
}

/** Whether something accepts connections, and closes them. */
const accepts = (port) => new Promise((resolve) => {
  let isOpen = false;
  net.connect(port, '127.0.0.1').on('connect', () => (isOpen = true)).on('error', () => {}).on('close', () => resolve(isOpen)).resume();
});

const inFuture = (ms) => new Date(Date.now() + ms).toISOString();

// Real tests are run with ARTILLERY: see divide-pods.mjs.
const skip = ARTILLERY ? false : 'ARTILLERY is not set';

describe('in Artillery', { skip, concurrency: 1, timeout: 300_000 }, () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'together-'));
  const file = (name) => path.join(directory, name);
  const children = new Set();
  let requests;
  let answer;
  const target = http.createServer(async (request, response) => {
    requests.push({ at: Date.now(), path: request.url });
    await answer?.(request.url);
    response.end();
  });

  before(async () => {
    await once(target.listen(0, '127.0.0.1'), 'listening');
    for (const name of ['divide', 'results', 'together']) {
      const plugin = file(`artillery-plugin-loadtest-${name}`);
      fs.mkdirSync(plugin);
      fs.copyFileSync(path.join(SOURCE, `${name}.js`), path.join(plugin, 'index.js'));
    }
    // Tells what is read, as nothing is to be seen of a worker that goes on waiting.
    fs.writeFileSync(file('reads.cjs'), `
      const fs = require('node:fs');
      const { readFileSync } = fs;
      let last;
      const tell = (what) => what !== last && console.log('READ', JSON.stringify(last = what));
      fs.readFileSync = function (name, ...rest) {
        if (name !== process.env.LOADTEST_START_FILE) return readFileSync(name, ...rest);
        try {
          const text = readFileSync(name, ...rest);
          tell(text);
          return text;
        } catch (error) {
          tell(error.code);
          throw error;
        }
      };`);
    fs.writeFileSync(file('rows.csv'), Array.from({ length: 100 }, (_, row) => `row-${row}\n`).join(''));
  });
  after(() => {
    for (const child of children) child.kill('SIGKILL');
    target.closeAllConnections();
    target.close();
    fs.rmSync(directory, { recursive: true });
  });

  const FAST = { config: { phases: [{ duration: 2, arrivalRate: 20 }] }, scenarios: [{ flow: [{ get: { url: '/' } }] }] };

  // Each test has a file of its own, as a worker of the one before may still look at it.
  let files = 0;
  function newTest(script) {
    requests = [];
    answer = undefined;
    files += 1;
    const config = { target: `http://127.0.0.1:${target.address().port}`, ...script.config };
    fs.writeFileSync(file('script.json'), JSON.stringify({ ...script, config }));
    return file(`start-${files}`);
  }

  async function startPod(start, { index = 0, workers = 1, threads = 1, plugins = ['together'], port, informed, preload, environment } = {}) {
    const ports = { port: port ?? (await freePort()), informed: informed ?? (await freePort()) };
    const pod = { output: '', ...ports, message: file(`message-${index}`) };
    fs.rmSync(pod.message, { force: true });
    pod.child = spawn(process.execPath, [path.resolve(ARTILLERY, 'artillery/bin/run'), 'run', 'script.json'], {
      cwd: directory,
      env: {
        ...process.env,
        HOME: directory,
        ARTILLERY_DISABLE_TELEMETRY: 'true',
        ARTILLERY_PLUGIN_PATH: directory,
        ARTILLERY_PLUGINS: JSON.stringify(Object.fromEntries(plugins.map((name) => [`loadtest-${name}`, {}]))),
        NODE_OPTIONS: `--require=${SOURCE}/cpus.cjs ${preload ? `--require=${preload}` : ''}`,
        WORKERS: String(threads),
        LOADTEST_WORKERS: String(workers),
        JOB_COMPLETION_INDEX: String(index),
        LOADTEST_TERMINATION_LOG: pod.message,
        LOADTEST_START_FILE: start,
        LOADTEST_READY_PORT: String(pod.port),
        LOADTEST_INFORMED_PORT: String(pod.informed),
        ...environment,
      },
    });
    children.add(pod.child);
    for (const stream of [pod.child.stdout, pod.child.stderr]) stream.on('data', (data) => (pod.output += data));
    pod.ended = once(pod.child, 'close').then(([code]) => {
      children.delete(pod.child);
      return code;
    });
    pod.says = (words) => until(`${words} of ${pod.output}`, () => {
      assert.equal(pod.child.exitCode, null, pod.output);
      return words.test(pod.output);
    });
    pod.ready = () => pod.says(/ is ready and waits for the others$/m);
    return pod;
  }

  // As the operator does, through the kubelet: at once.
  function write(start, text) {
    fs.writeFileSync(`${start}.new`, text);
    fs.renameSync(`${start}.new`, start);
  }

  const startOf = ({ message }) =>
    JSON.parse(zlib.inflateSync(Buffer.from(fs.readFileSync(message, 'utf8').split('loadtest.v1 ')[1], 'base64'))).start;

  test('a worker is ready when it has loaded its script and its before hook has run, and makes nothing before the instant', async () => {
    // Loaded by a thread only, and by the main thread for the hook.
    fs.writeFileSync(file('slow.js'), `
      const fs = require('node:fs');
      if (!require('node:worker_threads').isMainThread) {
        fs.writeFileSync('loading', '');
        while (!fs.existsSync('go-on')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      }`);
    const hook = { flow: [{ get: { url: '/before' } }] };
    const start = newTest({ ...FAST, before: hook, config: { ...FAST.config, processor: './slow.js' } });
    const pod = await startPod(start, { index: 1, workers: 4 });
    await until('the script is being loaded', () => fs.existsSync(file('loading')));
    assert.equal(await accepts(pod.port), false);
    assert.deepEqual(requests.map((one) => one.path), ['/before']);
    fs.writeFileSync(file('go-on'), '');
    await until('the worker is ready', () => accepts(pod.port));
    await pod.says(/^Load test worker 2 of 4 is ready and waits for the others$/m);
    assert.equal(await accepts(pod.informed), false);
    const instant = inFuture(1500);
    write(start, instant);
    await until('the worker knows when to begin', () => accepts(pod.informed));
    assert.deepEqual(requests.map((one) => one.path), ['/before']);
    assert.equal(await pod.ended, 0, pod.output);
    assert.match(pod.output, new RegExp(`^Load test worker 2 of 4 begins, \\d+ ms after ${instant}$`, 'm'));
    const load = requests.slice(1);
    assert.equal(load.length, 40);
    assert.ok(load.every(({ at }) => at >= Date.parse(instant)), JSON.stringify(load[0]));
    assert.ok(!pod.output.includes('Unknown message'), pod.output);
  });

  for (const plugins of [['divide', 'together', 'results'], ['results', 'together', 'divide']]) {
    test(`all threads of all workers begin together, with the plugins ${plugins.join(', ')}`, async (t) => {
      const start = newTest({
        config: { payload: { path: 'rows.csv', fields: ['row'], order: 'sequence' }, phases: [{ duration: 2, arrivalRate: 20 }] },
        scenarios: [{ flow: [{ get: { url: '/{{ row }}' } }] }],
      });
      const [workers, threads] = [3, 2];
      const pods = await Promise.all([0, 1, 2].map((index) => startPod(start, { index, workers, threads, plugins })));
      await Promise.all(pods.map((pod) => pod.ready()));
      assert.deepEqual(requests, []);
      const instant = inFuture(1000);
      write(start, instant);
      assert.deepEqual(await Promise.all(pods.map((pod) => pod.ended)), [0, 0, 0], pods[0].output);
      const paths = requests.map((one) => one.path);
      assert.deepEqual(paths.sort(), Array.from({ length: 40 }, (_, row) => `/row-${row}`).sort(), 'virtual user k has row k');
      const late = pods.map((pod) => startOf(pod) - Date.parse(instant));
      t.diagnostic(`began ${late.join(', ')} ms after the instant`);
      assert.ok(late.every((ms) => ms >= 0 && ms < 500), String(late));
      assert.ok(requests[0].at >= Date.parse(instant));
    });
  }

  test('the threads of a worker do not wait for each other to begin', async (t) => {
    fs.writeFileSync(file('first.js'), `
      let began = false;
      module.exports.tell = (_context, _events, done) => {
        if (!began) console.log('thread began', Date.now());
        began = true;
        done();
      };`);
    const flow = [{ function: 'tell' }];
    const start = newTest({ config: { processor: './first.js', phases: [{ duration: 1, arrivalRate: 80 }] }, scenarios: [{ flow }] });
    const pod = await startPod(start, { threads: 8 });
    await pod.ready();
    write(start, inFuture(300));
    assert.equal(await pod.ended, 0, pod.output);
    const times = [...pod.output.matchAll(/thread began (\d+)/g)].map(([, at]) => Number(at));
    assert.equal(times.length, 8, pod.output);
    const skew = Math.max(...times) - Math.min(...times);
    t.diagnostic(`${skew} ms between the first virtual users of 8 threads`);
    // One by one they take 50 ms each.
    assert.ok(skew < 300, `${skew} ms`);
  });

  test('an instant that is past is now', async () => {
    const start = newTest(FAST);
    write(start, '2020-01-01T00:00:00.000Z');
    const pod = await startPod(start);
    assert.equal(await pod.ended, 0, pod.output);
    assert.match(pod.output, /^Load test worker 1 of 1 begins, \d+ ms after 2020-01-01T00:00:00\.000Z$/m);
    assert.equal(requests.length, 40);
  });

  test('a file may be missing, then be empty or wrong, and change through a link as a volume does', async () => {
    const start = newTest(FAST);
    // A volume of the kubelet: the file is a link through `..data`, which is a link that is replaced.
    let versions = 0;
    const swap = (text) => {
      versions += 1;
      fs.mkdirSync(file(`volume/..${versions}`), { recursive: true });
      fs.writeFileSync(file(`volume/..${versions}/start`), text);
      fs.symlinkSync(`..${versions}`, file('volume/..data_tmp'));
      fs.renameSync(file('volume/..data_tmp'), file('volume/..data'));
    };
    fs.symlinkSync('volume/..data/start', start);
    const pod = await startPod(start, { preload: file('reads.cjs') });
    await pod.says(/^READ "ENOENT"$/m);
    swap('');
    await pod.says(/^READ ""$/m);
    for (const wrong of ['soon', 'sooner']) {
      swap(wrong);
      await pod.says(new RegExp(`^READ "${wrong}"$`, 'm'));
    }
    swap('');
    await pod.says(/^READ ""\n[^]*^READ ""$/m);
    const instant = inFuture(200);
    swap(instant);
    assert.equal(await pod.ended, 0, pod.output);
    assert.deepEqual(count(pod.output.match(/no instant: .*/g)), { 'no instant: "soon"': 1 });
    assert.equal(requests.length, 40);
    assert.ok(requests[0].at >= Date.parse(instant));
  });

  for (const state of ['no instant', 'an instant']) {
    test(`SIGTERM ends a worker that waits with ${state}, after its after hook`, async () => {
      const start = newTest({ ...FAST, after: { flow: [{ get: { url: '/after' } }] } });
      const pod = await startPod(start, { preload: file('reads.cjs') });
      await pod.ready();
      const instant = Date.now() + 1000;
      if (state === 'an instant') {
        write(start, new Date(instant).toISOString());
        await pod.says(/^READ "20/m);
        // The hook lasts until after the instant.
        answer = () => sleep(instant + 500 - Date.now());
      }
      const stopped = Date.now();
      pod.child.kill('SIGTERM');
      const code = await pod.ended;
      // Before 2.0.20 it is 0.
      assert.ok([0, 143].includes(code), `${code}: ${pod.output}`);
      // Where there is no network, versions before 2.0.34 look for one for 12 s, with or without the plugin.
      assert.ok(Date.now() - stopped < 20_000, `${Date.now() - stopped} ms`);
      assert.deepEqual(requests.map((one) => one.path), ['/after']);
      assert.doesNotMatch(pod.output, / begins, /);
    });
  }

  test('a worker that cannot tell that it is ready fails', async () => {
    const taken = net.createServer().listen(0);
    await once(taken, 'listening');
    const { port } = taken.address();
    const pod = await startPod(newTest(FAST), { port });
    assert.equal(await pod.ended, 1, pod.output);
    taken.close();
    assert.match(pod.output, /^Load test worker 1 of 1 cannot tell that it is ready: .*EADDRINUSE/m);
    assert.doesNotMatch(pod.output, /^ +at /m);
    assert.deepEqual(requests, []);
  });

  test('a worker that cannot tell that it will begin does so all the same', async () => {
    const taken = net.createServer().listen(0);
    await once(taken, 'listening');
    const start = newTest(FAST);
    write(start, inFuture(0));
    const pod = await startPod(start, { informed: taken.address().port });
    assert.equal(await pod.ended, 0, pod.output);
    taken.close();
    assert.match(pod.output, /^Load test worker 1 of 1 cannot tell that it will begin: .*EADDRINUSE/m);
    assert.equal(requests.length, 40);
  });

  test('without a file nobody waits', async () => {
    newTest(FAST);
    const pod = await startPod('', { environment: { LOADTEST_READY_PORT: '', LOADTEST_INFORMED_PORT: '' } });
    assert.equal(await pod.ended, 0, pod.output);
    assert.doesNotMatch(pod.output, /Load test worker/);
    assert.equal(requests.length, 40);
  });
});
