// Helpers of several tests. `runTest` runs the workers of a test with real Artillery, against a target on the loopback interface
// that records the requests.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import zlib from 'node:zlib';

const PROJECT = path.join(import.meta.dirname, '..');

/** The source of a plugin or preload, such as `plugins/divide/index.js`. */
export const source = (name) => path.join(PROJECT, name);

/** The node_modules folder with Artillery: ARTILLERY, or else that of this project. Undefined if it is not installed. */
export const ARTILLERY = findArtillery();
export const NO_ARTILLERY = ARTILLERY ? false : 'Artillery is not installed: run npm ci, or set ARTILLERY to a node_modules folder';
/** The arguments of node that run a script with Artillery. */
export const ARTILLERY_RUN = ARTILLERY ? [path.join(ARTILLERY, 'artillery/bin/run'), 'run'] : [];

function findArtillery() {
  const modules = path.resolve(process.env.ARTILLERY || path.join(PROJECT, 'node_modules'));
  if (fs.existsSync(path.join(modules, 'artillery'))) return modules;
  if (process.env.ARTILLERY) throw new Error(`ARTILLERY is ${modules}, which has no folder artillery`);
  return undefined;
}

const MAX_RUNNING = Number(process.env.MAX_RUNNING_WORKERS ?? 16);
// Artillery needs a whole CPU while it starts, and very little afterwards.
const MAX_STARTING = os.availableParallelism();

/** The phases of the tests, and below by name the number of virtual users that one worker creates in each. */
export const PHASES = [
  { name: 'even', duration: 2, arrivalRate: 7 },
  { name: 'rare', duration: 2, arrivalRate: 2 },
  { name: 'ramp', duration: 3, arrivalRate: 1, rampTo: 8 },
  { name: 'down', duration: '2500ms', arrivalRate: 6, rampTo: 0 },
  { name: 'count', duration: '1s', arrivalCount: 5 },
  { name: 'limited', duration: 1, arrivalRate: 6, maxVusers: 3 },
];
export const EXPECTED = { even: 14, rare: 4, ramp: 14, down: 8, count: 5, limited: 6 };

/** A script whose requests identify the row and the worker: the path is the row, and a header is the worker's index. */
export const script = (config) => ({
  config: {
    target: 'http://127.0.0.1',
    payload: { path: 'rows.csv', fields: ['row'], order: 'sequence' },
    ...config,
  },
  scenarios: [{ flow: [{ get: { url: '/{{ row }}', headers: { worker: '{{ $env.JOB_COMPLETION_INDEX }}' } } }] }],
});

/** A script with all phases, or those with the given names. The pause after each phase separates its late requests from the next. */
export const scriptOfPhases = (names = Object.keys(EXPECTED)) => script({
  phases: PHASES.filter(({ name }) => names.includes(name)).flatMap((phase) => [phase, { pause: 1 }]),
});

/** Mounts the plugins as the kubelet mounts a ConfigMap: each entry of the folder is a link through `..data`. */
export function mount(directory) {
  const data = path.join(directory, '..2026_11_27');
  for (const name of fs.readdirSync(source('plugins'))) {
    const mounted = name === 'lib' ? name : `artillery-plugin-loadtest-${name}`;
    fs.cpSync(source(path.join('plugins', name)), path.join(data, mounted), { recursive: true });
  }
  fs.copyFileSync(source('preload/cpus.cjs'), path.join(data, 'cpus.cjs'));
  fs.symlinkSync(path.basename(data), path.join(directory, '..data'));
  for (const name of fs.readdirSync(data)) fs.symlinkSync(path.join('..data', name), path.join(directory, name));
}

/** A limit of concurrent holders. `acquire` waits for a free place and returns the function that frees it. */
function limiter(max) {
  const waiting = [];
  let held = 0;
  const release = () => {
    const next = waiting.shift();
    if (next) next();
    else held -= 1;
  };
  return async function acquire() {
    if (held === max) await new Promise((resolve) => { waiting.push(resolve); });
    else held += 1;
    let released = false;
    return () => {
      if (!released) release();
      released = true;
    };
  };
}

// Shared by all tests of a file, so that concurrent tests do not slow down each other's workers.
const acquireRun = limiter(MAX_RUNNING);
const acquireStart = limiter(MAX_STARTING);

async function runWorker({ directory, args, environment, worker }) {
  const releaseRun = await acquireRun();
  const releaseStart = await acquireStart();
  try {
    const child = spawn(process.execPath, [...ARTILLERY_RUN, ...args], {
      cwd: directory,
      env: { ...process.env, ...environment },
      timeout: 300_000,
    });
    worker.child = child;
    const closed = once(child, 'close');
    child.stderr.on('data', (data) => { worker.output += data; });
    for await (const line of createInterface({ input: child.stdout })) {
      worker.output += `${line}\n`;
      const [, phase] = /^Phase started: (\S+)/.exec(line) ?? [];
      if (phase) releaseStart();
      // A pause has no name.
      if (phase && phase !== 'unnamed') worker.phases.push({ phase, at: performance.now() });
    }
    [worker.code] = await closed;
  } finally {
    releaseStart();
    releaseRun();
  }
}

// The phase of a request, by its time. A request may arrive after the end of its phase, and before the worker has logged the
// start of its phase, by up to half of the pause between phases.
function phaseAt({ phases = [] } = {}, at) {
  return phases.findLast((one) => one.at - 500 <= at)?.phase ?? 'none';
}

/** The value of ARTILLERY_PLUGINS that enables plugins. */
export const pluginsFor = (...names) =>
  JSON.stringify(Object.fromEntries(names.map((name) => [`loadtest-${name}`, { scope: 'artillery-plugin-' }])));

/** The snapshot of a termination message, see plugins/results/index.js. */
export function decode(message) {
  const line = message.split('\n').pop();
  assert.match(line, /^loadtest\.v1 [A-Za-z0-9+/]+=*$/);
  return JSON.parse(zlib.inflateSync(Buffer.from(line.split(' ')[1], 'base64')));
}

/**
 * Runs a test of a script, an object or a text. Returns the requests as {worker, phase, row} and the workers as
 * {code, output, snapshot}. `files` are further files of the script's folder. All workers receive SIGTERM after `stopAfter`
 * requests.
 */
export async function runTest({
  script: scriptOrText, name = 'script.json', files = {}, workers: count, threads = 1, rows = 100, args = [], environment = {}, stopAfter,
}) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'divide-'));
  const workers = Array.from({ length: count }, () => ({ output: '', phases: [] }));
  const requests = [];
  const target = http.createServer((request, response) => {
    const worker = Number(request.headers.worker);
    requests.push({ worker, row: request.url, at: performance.now() });
    if (requests.length === stopAfter) for (const { child } of workers) child.kill('SIGTERM');
    response.end();
  });
  try {
    target.listen(0, '127.0.0.1');
    await once(target, 'listening');
    mount(directory);
    fs.writeFileSync(path.join(directory, 'rows.csv'), Array.from({ length: rows }, (_, row) => `row-${row}\n`).join(''));
    const text = typeof scriptOrText === 'string' ? scriptOrText : JSON.stringify(scriptOrText);
    for (const [file, content] of Object.entries({ ...files, [name]: text })) fs.writeFileSync(path.join(directory, file), content);
    const message = (index) => path.join(directory, `message-${index}`);
    await Promise.all(workers.map((worker, index) => runWorker({
      directory,
      worker,
      args: [name, '-t', `http://127.0.0.1:${target.address().port}`, ...args],
      environment: {
        ARTILLERY_DISABLE_TELEMETRY: 'true',
        ARTILLERY_PLUGIN_PATH: directory,
        ARTILLERY_PLUGINS: pluginsFor('divide', 'results'),
        LOADTEST_TERMINATION_LOG: message(index),
        NODE_OPTIONS: `--require=${directory}/cpus.cjs`,
        WORKERS: String(threads),
        LOADTEST_WORKERS: String(count),
        JOB_COMPLETION_INDEX: String(index),
        ...environment,
      },
    })));
    workers.forEach((worker, index) => {
      if (fs.existsSync(message(index))) worker.snapshot = decode(fs.readFileSync(message(index), 'utf8'));
    });
  } finally {
    target.close();
    fs.rmSync(directory, { recursive: true });
  }
  return { requests: requests.map(({ at, ...request }) => ({ ...request, phase: phaseAt(workers[request.worker], at) })), workers };
}

/** The number of occurrences of each value. */
export function countValues(values) {
  const counts = {};
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

/** Waits until a condition holds. */
export async function waitUntil(what, condition) {
  const end = Date.now() + 60_000;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `timed out: ${what}`);
    await sleep(10);
  }
}

/** A port that no process uses. */
export async function freePort() {
  const server = net.createServer().listen(0);
  await once(server, 'listening');
  const { port } = server.address();
  await once(server.close(), 'close');
  return port;
}

/** Sends a probe, as soon as the port is open. `status` and `body` are undefined while the response is held back. */
export function probe(port, path, { method = 'GET', isLate } = {}) {
  const sent = { status: undefined, body: undefined };
  const send = () => new Promise((resolve, reject) => {
    http.request({ port, path, method, host: '127.0.0.1', agent: false }, async (response) => {
      const body = Buffer.concat(await response.toArray()).toString();
      resolve(Object.assign(sent, { status: response.statusCode, body }));
    }).on('error', reject).end();
  });
  sent.answered = (async () => {
    for (;;) {
      try {
        return await send();
      } catch (error) {
        if (error.code !== 'ECONNREFUSED' || isLate) throw error;
        await sleep(10);
      }
    }
  })();
  // Some tests do not wait for the answer.
  sent.answered.catch(() => {});
  return sent;
}

/** Values of every magnitude, whose sketch by Artillery is the fixture `sketch.json`. */
export const SKETCHED_VALUES = [
  ...Array.from({ length: 300 }, (_, i) => [i, -i, i / 10, (i / 7) ** 3, 1.02020202 ** (i * 5)]).flat(), 0, 1e-9, 1e-320, 1e300, -1e300,
];
