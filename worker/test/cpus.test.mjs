import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';

const FILE = path.join(import.meta.dirname, '../preload/cpus.cjs');
const host = os.cpus().length;
const { cpuLimit, missingPlugin, threadCount } = createRequire(import.meta.url)(FILE);

// The CPU limit of a cgroup with these files, as {path: content}.
function limitOf(files) {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'cpus-'));
  try {
    for (const [name, content] of Object.entries(files)) {
      fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
      fs.writeFileSync(path.join(root, name), content);
    }
    return cpuLimit(root);
  } finally {
    fs.rmSync(root, { recursive: true });
  }
}
const v1 = (quota, period) => ({ 'cpu/cpu.cfs_quota_us': quota, 'cpu/cpu.cfs_period_us': period });

test('the CPU limit is read from the cgroup, v2 before v1', () => {
  assert.equal(limitOf({ 'cpu.max': '150000 100000\n' }), 1.5);
  assert.equal(limitOf(v1('400000\n', '100000\n')), 4);
  assert.equal(limitOf({ 'cpu.max': '50000 100000\n', ...v1('400000', '100000') }), 0.5);
});

test('a cgroup without a limit or with unexpected contents gives no limit', () => {
  for (const content of ['max 100000\n', '', '\n', 'x', '1', '0 0', '1 0', '-1 100000', '0 100000', '1 -1', '\0\0 \0']) {
    assert.equal(limitOf({ 'cpu.max': content }), undefined, content);
  }
  for (const files of [v1('-1\n', '100000\n'), v1('', ''), { 'cpu/cpu.cfs_quota_us': '100000' }, { 'cpu.max/x': '' }, {}]) {
    assert.equal(limitOf(files), undefined, JSON.stringify(files));
  }
});

test('the number of threads is the CPU limit, else the CPU request, else 1', () => {
  const threads = (limit, request, hostCpus = 64) => threadCount({ LOADTEST_CPU_REQUEST_MILLIS: request }, limit, hostCpus);
  assert.equal(threads(2, '8000'), 2);
  assert.equal(threads(0.1, '8000'), 1);
  assert.equal(threads(1.5, undefined), 2);
  assert.equal(threads(undefined, '2500'), 3);
  assert.equal(threads(16, undefined, 4), 4);
  assert.equal(threads(16, undefined, 0), 1);
  for (const request of [undefined, '', '0', '-5', 'x', 'NaN']) assert.equal(threads(undefined, request), 1, request);
});

test('WORKERS overrides the number of threads', () => {
  const threads = (WORKERS) => threadCount({ WORKERS, LOADTEST_CPU_REQUEST_MILLIS: '2000' }, 3, 4);
  assert.equal(threads('7'), 7);
  assert.equal(threads('x'), 1);
  assert.equal(threads('-2'), 1);
  assert.equal(threads(''), 3);
  assert.equal(threads('1e99'), 1);
  assert.equal(threads('99999999999'), 1024);
});

const COUNT = `
  import { cpus } from 'node:os';
  import os from 'os';
  import { createRequire } from 'node:module';
  import { Worker } from 'node:worker_threads';
  const require = createRequire(import.meta.url);
  const all = [cpus(), os.cpus(), require('os').cpus(), require('node:os').cpus()].map((one) => one.length);
  const entries = cpus().every(({ model, speed, times }) => typeof model === 'string' && speed >= 0 && times.idle >= 0);
  const separate = new Set(cpus()).size === cpus().length;
  new Worker("require('worker_threads').parentPort.postMessage(require('os').cpus().length)", { eval: true, execArgv: [] })
    .on('message', (inThread) => console.log(JSON.stringify([...all, inThread, entries, separate])));
`;

test('os.cpus() has one entry more than there are threads, for any import and in any thread', () => {
  const run = (WORKERS) => spawnSync(process.execPath, ['--input-type=module', '--eval', COUNT], {
    encoding: 'utf8',
    env: { ...process.env, NODE_OPTIONS: `--require=${FILE}`, WORKERS },
  });
  for (const threads of [1, 2, host + 3]) {
    const { stdout, stderr } = run(String(threads));
    assert.deepEqual(JSON.parse(stdout), [...new Array(5).fill(threads + 1), true, true], stderr);
  }
});

test('os.cpus() imported before the preload is replaced too', () => {
  const late = `import { cpus } from 'node:os'; await import(${JSON.stringify(FILE)}); console.log(cpus().length)`;
  const env = { ...process.env, WORKERS: '5' };
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', late], { encoding: 'utf8', env });
  assert.equal(stdout, '6\n', stderr);
});

describe('a required plugin', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'plugins-'));
  fs.mkdirSync(path.join(folder, 'artillery-plugin-loadtest-divide'));
  fs.mkdirSync(path.join(folder, 'artillery-plugin-loadtest-together'));
  after(() => fs.rmSync(folder, { recursive: true }));
  const complete = {
    LOADTEST_DIVIDE: 'true',
    ARTILLERY_PLUGINS: '{"mine": {}, "loadtest-divide": {"scope": "artillery-plugin-"}}',
    ARTILLERY_PLUGIN_PATH: `/elsewhere:${folder}`,
  };

  const CONSEQUENCE = 'Without it this worker would send the load of all workers.';

  test('is found, or not required', () => {
    assert.equal(missingPlugin(complete), undefined);
    assert.equal(missingPlugin({}), undefined);
    assert.equal(missingPlugin({ LOADTEST_DIVIDE: '', ARTILLERY_PLUGINS: '{}' }), undefined);
    const both = { 'loadtest-divide': {}, 'loadtest-together': {} };
    assert.equal(missingPlugin({ ...complete, LOADTEST_START_FILE: 'x', ARTILLERY_PLUGINS: JSON.stringify(both) }), undefined);
  });

  test('is reported as missing from ARTILLERY_PLUGINS or ARTILLERY_PLUGIN_PATH', () => {
    for (const text of [undefined, '', 'x', 'null', '[]', '{}', '{"mine": {}}', '{"loadtest-divide": null}', '{"loadtest-divide": {"scope": "@me/"}}']) {
      const problem = missingPlugin({ ...complete, ARTILLERY_PLUGINS: text });
      assert.equal(problem, `Plugin loadtest-divide is not enabled in ARTILLERY_PLUGINS. ${CONSEQUENCE}\
 Do not set ARTILLERY_PLUGINS in the worker's image or entry point.`, text);
    }
    for (const folders of [undefined, '', '/elsewhere']) {
      assert.match(missingPlugin({ ...complete, ARTILLERY_PLUGIN_PATH: folders }), /^Plugin loadtest-divide is not in a folder of ARTILLERY_PLUGIN_PATH\. /);
    }
    assert.match(missingPlugin({ ...complete, LOADTEST_START_FILE: 'x' }), /^Plugin loadtest-together .* this worker would not wait for the other workers\. /);
  });

  test('that is missing ends the worker with exit code 1 before Artillery starts', () => {
    const run = (environment) => spawnSync(process.execPath, ['-p', '"started"'], {
      encoding: 'utf8',
      env: { ...process.env, ...complete, NODE_OPTIONS: `--require=${FILE}`, ...environment },
    });
    assert.equal(run({}).stdout, 'started\n');
    const { status, stdout, stderr } = run({ ARTILLERY_PLUGINS: '{}' });
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /^Error: Plugin loadtest-divide is not enabled in ARTILLERY_PLUGINS\. Without it /);
  });
});
