// The probes of a worker with a synchronized start, in processes that run something else than Artillery.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { freePort, probe, source, waitUntil } from './helpers.mjs';
import server from '../plugins/lib/server.js';

const { MAX_CONNECTIONS } = server;

describe('probes', { timeout: 60_000 }, () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'probes-'));
  const children = new Set();
  after(() => {
    for (const child of children) child.kill('SIGKILL');
    fs.rmSync(directory, { recursive: true });
  });

  /** Starts a process that is preloaded as a worker, and runs `code` as `main`, whose name decides whether it is Artillery. */
  async function start(code, { main = 'artillery', timeout = '600', port } = {}) {
    const file = path.join(directory, `${children.size}`, main);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    // Reaches each state whose path is written to its input. Ends with its input.
    fs.writeFileSync(file, `${code}
      const probes = globalThis[Symbol.for('loadtest.probes')];
      process.stdin.on('data', (paths) => String(paths).trim().split(' ').forEach((path) => probes.reach(path)));`);
    const worker = { output: '', port: port ?? (await freePort()) };
    worker.child = spawn(process.execPath, [file], {
      env: {
        ...process.env,
        NODE_OPTIONS: `--require=${source('plugins/together/index.js')}`,
        LOADTEST_START_FILE: path.join(directory, 'start'),
        LOADTEST_START_TIMEOUT: timeout,
        LOADTEST_PORT: String(worker.port),
        LOADTEST_WORKERS: '3',
        JOB_COMPLETION_INDEX: '1',
      },
    });
    children.add(worker.child);
    for (const stream of [worker.child.stdout, worker.child.stderr]) stream.on('data', (data) => (worker.output += data));
    worker.ended = once(worker.child, 'close').then(([exitCode]) => exitCode);
    worker.reach = (state) => worker.child.stdin.write(`${state} `);
    return worker;
  }

  test('a probe that was sent while the process loads is answered when its state is reached', async () => {
    const loaded = path.join(directory, 'loaded');
    const worker = await start(`
      while (!require('node:fs').existsSync(${JSON.stringify(loaded)})) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);`);
    const [ready, started] = [probe(worker.port, '/ready'), probe(worker.port, '/started')];
    // The port accepts connections before the main module has ended its first turn.
    await waitUntil('the port is open', () => new Promise((resolve) => {
      const socket = net.connect(worker.port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
      socket.on('connect', () => socket.destroy());
    }));
    fs.writeFileSync(loaded, '');
    assert.equal((await probe(worker.port, '/').answered).status, 404);
    assert.deepEqual([ready.status, started.status], [undefined, undefined]);
    worker.reach('/ready');
    await ready.answered;
    assert.deepEqual([ready.status, ready.body, started.status], [200, 'ready', undefined]);
    const again = await probe(worker.port, '/ready').answered;
    assert.deepEqual([again.status, again.body], [200, 'ready']);
    worker.reach('/started');
    await started.answered;
    assert.deepEqual([started.status, started.body], [200, 'started']);
    worker.child.stdin.end();
    assert.equal(await worker.ended, 0, worker.output);
  });

  test('a held probe does not keep the process alive', async () => {
    const worker = await start('');
    const ready = probe(worker.port, '/ready');
    await probe(worker.port, '/').answered;
    worker.child.stdin.end();
    assert.equal(await worker.ended, 0, worker.output);
    await assert.rejects(ready.answered);
  });

  test('only GET requests of the two paths are answered with 200', async () => {
    const worker = await start('');
    worker.reach('/ready /started');
    await probe(worker.port, '/started').answered;
    for (const [method, url] of [['POST', '/ready'], ['HEAD', '/ready'], ['DELETE', '/started'], ['GET', '/'], ['GET', '/ready/'],
      ['GET', '/ready?x=1'], ['GET', '/__proto__'], ['GET', '/constructor']]) {
      assert.equal((await probe(worker.port, url, { method }).answered).status, 404, `${method} ${url}`);
    }
    worker.child.stdin.end();
    assert.equal(await worker.ended, 0, worker.output);
  });

  // Opens connections that send `text`. Resolves to a list of promises that resolve when each is closed.
  async function connect(worker, count, text = () => '') {
    const closed = [];
    for (let i = 0; i < count; i += 1) {
      const socket = net.connect(worker.port, '127.0.0.1').on('error', () => {});
      closed.push(once(socket, 'close'));
      await once(socket, 'connect');
      socket.write(text(i));
      socket.resume();
    }
    return closed;
  }

  test('invalid requests and many connections do no harm', async () => {
    const worker = await start('');
    await probe(worker.port, '/').answered;
    const closed = await connect(worker, 400, (i) => (i % 2 ? 'nonsense\r\n\r\n' : ''));
    // Half of them are invalid, and the oldest of the others are too many.
    const began = performance.now();
    await Promise.all(closed.slice(0, 2 * (200 - MAX_CONNECTIONS.waiting)));
    assert.ok(performance.now() - began < 4000, 'before the deadline of idle connections');
    const ready = probe(worker.port, '/ready');
    worker.reach('/ready');
    assert.equal((await ready.answered).status, 200);
    worker.child.stdin.end();
    assert.equal(await worker.ended, 0, worker.output);
  });

  test('a held probe stays while other clients connect, send requests, or do neither', async () => {
    const worker = await start('');
    const [ready, started] = [probe(worker.port, '/ready'), probe(worker.port, '/started')];
    await probe(worker.port, '/').answered;
    const request = 'GET / HTTP/1.1\r\nhost: a\r\n\r\n';
    const idle = await connect(worker, 200);
    const busy = await connect(worker, 200, () => request);
    const slow = await connect(worker, 10, () => 'GET / HT');
    await Promise.all([...idle, ...busy, ...slow]);
    assert.deepEqual([ready.status, started.status], [undefined, undefined]);
    worker.reach('/ready /started');
    assert.deepEqual((await Promise.all([ready.answered, started.answered])).map(({ status }) => status), [200, 200]);
    worker.child.stdin.end();
    assert.equal(await worker.ended, 0, worker.output);
  });

  test('of several requests on one connection only the first is answered', async () => {
    const worker = await start('');
    await probe(worker.port, '/').answered;
    let text = '';
    const socket = net.connect(worker.port, '127.0.0.1').on('error', () => {}).on('data', (data) => (text += data));
    socket.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(500));
    await once(socket, 'close');
    assert.ok(text.split('HTTP/1.1 404').length <= 2, text);
    worker.child.stdin.end();
    assert.equal(await worker.ended, 0, worker.output);
  });

  test('threads and child processes do not open the port', async () => {
    const worker = await start(`
      const { Worker } = require('node:worker_threads');
      const { execFileSync } = require('node:child_process');
      if (!process.env.CHILD) {
        process.env.CHILD = 'true';
        console.log(String(execFileSync(process.execPath, ['-e', 'console.log("child")'])));
        new Worker('console.log("thread")', { eval: true });
      }`);
    await waitUntil('both have run', () => /child/.test(worker.output) && /thread/.test(worker.output));
    worker.reach('/ready');
    assert.equal((await probe(worker.port, '/ready').answered).status, 200);
    worker.child.stdin.end();
    assert.equal(await worker.ended, 0, worker.output);
    assert.deepEqual(worker.output.split('\n').filter(Boolean).sort(), ['child', 'thread']);
  });

  for (const [main, opens] of [['artillery/bin/run', true], ['bin/artillery', true], ['artillery.js', true], ['npx', false], ['artillery/other.js', false]]) {
    test(`${main} ${opens ? 'opens' : 'does not open'} the port`, async () => {
      const worker = await start('console.log("runs");', { main });
      await waitUntil('it runs', () => worker.output.includes('runs'));
      const sent = probe(worker.port, '/', { isLate: true });
      if (opens) assert.equal((await sent.answered).status, 404);
      else await assert.rejects(sent.answered, { code: 'ECONNREFUSED' });
      worker.child.stdin.end();
      assert.equal(await worker.ended, 0, worker.output);
    });
  }

  test('a port in use ends the process with an error', async () => {
    const taken = net.createServer().listen(0);
    await once(taken, 'listening');
    const worker = await start('', { port: taken.address().port });
    assert.equal(await worker.ended, 1, worker.output);
    taken.close();
    assert.match(worker.output, /^Load test worker 2 of 3 cannot report that it is ready: .*EADDRINUSE.*No other process of the pod may use this port\.$/m);
    assert.doesNotMatch(worker.output, /^ +at /m);
  });

  test('a process that receives no start time in time exits', async () => {
    const worker = await start('', { timeout: '1' });
    worker.reach('/ready');
    assert.equal(await worker.ended, 1, worker.output);
    assert.equal(worker.output, 'No start time arrived within 1s: the operator or the LoadTest is gone. The load was not sent.\n');
  });
});
