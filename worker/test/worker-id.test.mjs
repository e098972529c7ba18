import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ARTILLERY_RUN, NO_ARTILLERY, source } from './helpers.mjs';
import workerId from '../preload/worker-id.cjs';

test('WORKER_ID is set only while the reporter is constructed', () => {
  const seen = [];
  const reporter = {
    createPrometheusReporter(config) {
      seen.push([config, process.env.WORKER_ID]);
      if (config === 'invalid') throw new Error('pushgateway must be provided');
      return 'reporter';
    },
  };
  workerId.nameGroup(reporter, 'pod-0');
  workerId.nameGroup(reporter, 'pod-0');
  assert.equal(reporter.createPrometheusReporter('valid'), 'reporter');
  assert.throws(() => reporter.createPrometheusReporter('invalid'), /pushgateway/);
  assert.deepEqual(seen, [['valid', 'pod-0'], ['invalid', 'pod-0']]);
  assert.equal('WORKER_ID' in process.env, false);
});

describe('in Artillery', { skip: NO_ARTILLERY, timeout: 120_000 }, () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'worker-id-'));
  const requests = [];
  const target = http.createServer((request, response) => {
    requests.push(request.url);
    request.resume();
    response.end();
  });
  before(async () => {
    await once(target.listen(0, '127.0.0.1'), 'listening');
  });
  after(() => {
    target.closeAllConnections();
    target.close();
    fs.rmSync(directory, { recursive: true });
  });

  test('the group on the Pushgateway is named after the pod, and Artillery Cloud is not contacted', async () => {
    const url = `http://127.0.0.1:${target.address().port}`;
    fs.writeFileSync(path.join(directory, 'script.json'), JSON.stringify({
      config: {
        target: url,
        phases: [{ duration: 1, arrivalCount: 1 }],
        plugins: { 'publish-metrics': [{ type: 'prometheus', pushgateway: url }], slack: { webhookUrl: `${url}/slack` } },
      },
      scenarios: [{ flow: [{ get: { url: '/scenario/{{ $env.WORKER_ID }}' } }] }],
    }));
    const child = spawn(process.execPath, [...ARTILLERY_RUN, 'script.json'], {
      cwd: directory,
      env: {
        ...process.env,
        HOME: directory,
        ARTILLERY_DISABLE_TELEMETRY: 'true',
        NODE_OPTIONS: ['cpus', 'worker-id'].map((name) => `--require=${source(`preload/${name}.cjs`)}`).join(' '),
        WORKERS: '1',
        LOADTEST_POD_NAME: 'test-0-abcde',
        ARTILLERY_CLOUD_API_KEY: 'a9_secret',
        ARTILLERY_CLOUD_ENDPOINT: `${url}/cloud`,
      },
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
    const [code] = await once(child, 'close');
    assert.equal(code, 0, output);
    assert.ok(requests.includes('/scenario/test-0-abcde'), `a scenario can use the variable: ${requests}`);
    const groups = new Set(requests.filter((one) => one.startsWith('/metrics/job/')));
    assert.deepEqual([...groups], ['/metrics/job/test-0-abcde']);
    assert.deepEqual(requests.filter((one) => one.startsWith('/cloud')), []);
    assert.ok(requests.includes('/slack'), `the Slack plugin reports: ${requests} ${output}`);
    assert.ok(!output.includes('a9_secret'), output);
  });
});
