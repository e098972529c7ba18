// Live results of a worker: GET /snapshot for the operator and GET /metrics for Prometheus, on the port LOADTEST_PORT. Mounted as
// /opt/loadtest/artillery-plugin-loadtest-results/live.js and enabled by environment variables:
//
//   LOADTEST_LIVE=true
//   LOADTEST_PORT          see lib/server.js
//   LOADTEST_POD_NAME      the header `loadtest-pod` of /snapshot, because another pod may have got the IP address of this one
//   LOADTEST_NAMESPACE, LOADTEST_NAME, JOB_COMPLETION_INDEX    the labels of the metrics
//
// Responses come from memory. The threads are queried for the first request after an interval, and requests that arrive in
// between share its result. So the cost does not depend on the number of clients.
'use strict';

const { sharedServer } = require('../lib/server.js');
const { Exposition } = require('./metrics.js');

const MIN_INTERVAL_MS = 1000;
// Very many metrics are collected less often, so that they take a smaller part of a CPU.
const MAX_INTERVAL_MS = 5000;
const MAX_CPU_SHARE = 0.01;

/** The current snapshot and its texts. */
class Live {
  /** `collector` has `final`, `threads` and `liveSnapshot()`. `now` returns ms of a clock that is never set. */
  constructor(collector, now = () => performance.now()) {
    Object.assign(this, { collector, now, snapshot: undefined, texts: new Map() });
    Object.assign(this, { refreshedAt: -Infinity, refreshing: undefined, cost: 0 });
  }

  /** `render(snapshot)` of the current snapshot, which is undefined before anything is measured. */
  async text(render) {
    const interval = Math.min(Math.max(this.cost / MAX_CPU_SHARE, MIN_INTERVAL_MS), MAX_INTERVAL_MS);
    const isFinal = this.collector.final && this.snapshot?.isFinal;
    if (!isFinal && this.now() - this.refreshedAt >= interval) {
      this.refreshing ??= this.refresh().finally(() => { this.refreshing = undefined; });
    }
    await this.refreshing;
    if (!this.texts.has(render)) this.texts.set(render, this.measureCost(() => render(this.snapshot)));
    return this.texts.get(render);
  }

  async refresh() {
    const { threads } = this.collector;
    if (!this.collector.final) await threads.query();
    // Receiving an answer takes about as long as sending it.
    this.cost = 2 * [...threads.costs.values()].reduce((a, b) => a + b, 0);
    this.snapshot = this.measureCost(() => this.collector.liveSnapshot());
    this.texts.clear();
    this.refreshedAt = this.now();
  }

  measureCost(action) {
    const started = this.now();
    const result = action();
    this.cost += this.now() - started;
    return result;
  }
}

/** Registers both paths and opens the port, if live results are enabled. A failure is logged and does not affect the test. */
function serveLive(collector, env) {
  if (env.LOADTEST_LIVE !== 'true') return;
  const warn = ({ message }) => {
    console.error(`loadtest-results: Live results are not available: ${message}. The test is not affected.`);
  };
  try {
    const server = sharedServer(env);
    const live = new Live(collector);
    const { LOADTEST_NAMESPACE: namespace, LOADTEST_NAME: loadtest, JOB_COMPLETION_INDEX: worker } = env;
    const exposition = new Exposition({ namespace, loadtest, worker });
    const encode = (snapshot) => snapshot && Buffer.from(collector.encodeLive(snapshot));
    const render = (snapshot) => Buffer.from(exposition.render(snapshot));
    const respondWith = (toText, contentType) => async (response) => {
      const text = await live.text(toText);
      if (text) response.send(200, text, { 'content-type': contentType });
      else response.send(204);
    };
    const headers = env.LOADTEST_POD_NAME ? { 'loadtest-pod': env.LOADTEST_POD_NAME } : {};
    server.route('/snapshot', respondWith(encode, 'text/plain; charset=utf-8'), { headers });
    server.route('/metrics', respondWith(render, 'text/plain; version=0.0.4; charset=utf-8'));
    server.onFailure(warn);
    server.open();
  } catch (error) {
    warn(error);
  }
}

module.exports = { Live, serveLive };
