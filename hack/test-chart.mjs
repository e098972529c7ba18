// Runs the program of `helm test` against a fake API server: test-chart.mjs PROGRAM
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const program = readFileSync(process.argv[2], 'utf8');
const folder = mkdtempSync(join(tmpdir(), 'helm-test-'));
const token = join(folder, 'token');
writeFileSync(token, 'secret');

/** A free port, for the target of the load test. */
const port = await new Promise((resolve) => {
  const server = createServer().listen(0, () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

/** Runs the program while LoadTests end with this verdict, or never. Returns its exit code, output and requests. */
async function run(verdict, { sendsLoad = true, code = 201 } = {}) {
  const calls = [];
  const api = createServer(async (request, response) => {
    let body = '';
    for await (const part of request) body += part;
    calls.push(`${request.method} ${request.url} ${request.headers.authorization}`);
    response.setHeader('content-type', 'application/json');
    if (request.method === 'POST') {
      if (sendsLoad && code === 201) await fetch(`http://127.0.0.1:${port}/`);
      response.statusCode = code;
      const { metadata } = JSON.parse(body);
      return response.end(JSON.stringify({ message: 'denied', metadata: { name: `${metadata.generateName}x` } }));
    }
    const conditions = [{ type: 'Ready', message: 'The message.' }];
    return response.end(JSON.stringify({ status: { phase: verdict ? 'Completed' : 'Running', verdict, conditions } }));
  });
  await new Promise((resolve) => api.listen(0, '127.0.0.1', resolve));
  const env = { ...process.env, POD_IP: '127.0.0.1', TEST_NAMESPACE: 'n', TEST_NAME: 't', TEST_LABELS: '{}', TEST_TIMEOUT: '2' };
  Object.assign(env, { TEST_API: `http://127.0.0.1:${api.address().port}`, TEST_TOKEN_FILE: token, TEST_PORT: port });
  const child = spawn('node', ['--input-type=module', '-e', program], { env });
  let output = '';
  child.stdout.on('data', (text) => (output += text));
  child.stderr.on('data', (text) => (output += text));
  const exit = await new Promise((resolve) => child.on('close', resolve));
  api.close();
  return { exit, output, calls };
}

const path = '/apis/loadtest.artillery.io/v1alpha1/namespaces/n/loadtests';
const good = await run('Passed');
assert.equal(good.exit, 0, good.output);
assert.match(good.output, /created the LoadTest n\/t-x\nCompleted: The message.\nverdict: Passed; requests received: 1/);
assert.deepEqual(good.calls, [`POST ${path}`, `GET ${path}/t-x`, `DELETE ${path}/t-x`].map((call) => `${call} Bearer secret`));
for (const [verdict, options, message] of [
  ['Failed', {}, /verdict: Failed/],
  ['Inconclusive', {}, /verdict: Inconclusive/],
  [undefined, {}, /verdict: none in time/],
  ['Passed', { sendsLoad: false }, /requests received: 0/],
  ['Passed', { code: 403 }, /POST loadtests: 403 denied/],
]) {
  const bad = await run(verdict, options);
  assert.equal(bad.exit, 1, bad.output);
  assert.match(bad.output, message);
}
rmSync(folder, { recursive: true });
