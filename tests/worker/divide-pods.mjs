// Runs real Artillery as the workers of one test would, against a target on loopback that counts.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

/** The node_modules of an installation of Artillery. */
export const ARTILLERY = process.env.ARTILLERY;
const AT_ONCE = Number(process.env.PODS_AT_ONCE ?? 8);
const SOURCE = path.join(import.meta.dirname, '../../src/worker');

/** The phases of the tests, by name, and how many virtual users one worker makes in each. */
export const PHASES = [
  { name: 'even', duration: 2, arrivalRate: 7 },
  { name: 'rare', duration: 2, arrivalRate: 2 },
  { name: 'ramp', duration: 3, arrivalRate: 1, rampTo: 8 },
  { name: 'down', duration: '2500ms', arrivalRate: 6, rampTo: 0 },
  { name: 'count', duration: '1s', arrivalCount: 5 },
  { name: 'limited', duration: 1, arrivalRate: 6, maxVusers: 3 },
];
export const EXPECTED = { even: 14, rare: 4, ramp: 14, down: 8, count: 5, limited: 6 };

/** A script that asks for a path of its row, so that the target sees who made what. */
export const script = (config) => ({
  config: {
    target: 'http://127.0.0.1',
    payload: { path: 'rows.csv', fields: ['row'], order: 'sequence' },
    ...config,
  },
  scenarios: [{ flow: [{ get: { url: '/{{ row }}', headers: { pod: '{{ $env.JOB_COMPLETION_INDEX }}' } } }] }],
});

/** All the phases, or those of some names, with a pause after each, in which late requests come in. */
export const everyPhase = (names = Object.keys(EXPECTED)) => script({
  phases: PHASES.filter(({ name }) => names.includes(name)).flatMap((phase) => [phase, { pause: 1 }]),
});

// As the kubelet mounts a ConfigMap: each file is a link through `..data`.
function mount(directory) {
  const data = path.join(directory, '..data');
  fs.mkdirSync(path.join(data, 'artillery-plugin-loadtest-divide'), { recursive: true });
  fs.copyFileSync(path.join(SOURCE, 'divide.js'), path.join(data, 'artillery-plugin-loadtest-divide/index.js'));
  fs.copyFileSync(path.join(SOURCE, 'cpus.cjs'), path.join(data, 'cpus.cjs'));
  for (const name of fs.readdirSync(data)) fs.symlinkSync(path.join('..data', name), path.join(directory, name));
}

let running = 0;
const waiting = [];

// Pods of all tests take turns, so that none is slow.
async function inTurn(run) {
  if (running === AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  else running += 1;
  try {
    return await run();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else running -= 1;
  }
}

async function runPod({ directory, args, environment, pod }) {
  const child = spawn(process.execPath, [path.resolve(ARTILLERY, 'artillery/bin/run'), 'run', 'script.json', ...args], {
    cwd: directory,
    env: { ...process.env, ...environment },
    timeout: 300_000,
  });
  const ended = once(child, 'close');
  child.stderr.on('data', (data) => { pod.output += data; });
  for await (const line of createInterface({ input: child.stdout })) {
    pod.output += `${line}\n`;
    // A pause has no name.
    const [, phase] = /^Phase started: (\S+)/.exec(line) ?? [];
    if (phase && phase !== 'unnamed') pod.begun.push({ phase, at: performance.now() });
  }
  [pod.code] = await ended;
}

// The phase of a request, by when it came. On a busy machine it may come late, in the pause after its phase, or be quicker
// than the pod's word that the phase has begun: each may take half of the pause.
function phaseAt({ begun }, at) {
  return begun.findLast((one) => one.at - 500 <= at)?.phase ?? 'none';
}

/** Runs a test with so many workers. Gives the requests, as {pod, phase, row}, and the pods, as {code, output}. */
export async function runTest({ script: what, workers, threads = 1, rows = 100, args = [], environment = {} }) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'divide-'));
  const pods = Array.from({ length: workers }, () => ({ output: '', begun: [] }));
  const requests = [];
  const target = http.createServer((request, response) => {
    const pod = Number(request.headers.pod);
    requests.push({ pod, row: request.url, at: performance.now() });
    response.end();
  });
  try {
    target.listen(0, '127.0.0.1');
    await once(target, 'listening');
    mount(directory);
    fs.writeFileSync(path.join(directory, 'rows.csv'), Array.from({ length: rows }, (_, row) => `row-${row}\n`).join(''));
    fs.writeFileSync(path.join(directory, 'script.json'), JSON.stringify(what));
    await Promise.all(pods.map((pod, index) => inTurn(() => runPod({
      directory,
      pod,
      args: ['-t', `http://127.0.0.1:${target.address().port}`, ...args],
      environment: {
        ARTILLERY_DISABLE_TELEMETRY: 'true',
        ARTILLERY_PLUGIN_PATH: directory,
        ARTILLERY_PLUGINS: '{"loadtest-divide":{"scope":"artillery-plugin-"}}',
        NODE_OPTIONS: `--require=${directory}/cpus.cjs`,
        WORKERS: String(threads),
        LOADTEST_WORKERS: String(workers),
        JOB_COMPLETION_INDEX: String(index),
        ...environment,
      },
    }))));
  } finally {
    target.close();
    fs.rmSync(directory, { recursive: true });
  }
  return { requests: requests.map(({ at, ...request }) => ({ ...request, phase: phaseAt(pods[request.pod], at) })), pods };
}

/** How many there are of each. */
export function count(values) {
  const counts = {};
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}
