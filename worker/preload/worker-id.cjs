// Names the group of this worker on the Pushgateway after its pod, LOADTEST_POD_NAME.
//
// Artillery's Prometheus reporter takes the name from WORKER_ID, and chooses a random one without it. But in the main thread
// WORKER_ID also stands for a worker of Artillery Cloud: the Slack plugin is silent then, and Artillery contacts its cloud if
// it finds an API key (lib/platform/cloud/cloud.js, lib/platform/local/index.js). So the main thread has the variable only
// while the reporter is constructed. In Artillery's threads, which run the scenarios, the variable has no such effects, so
// scripts can use it there.
'use strict';

const Module = require('node:module');
const { isMainThread } = require('node:worker_threads');

const REPORTER = './lib/prometheus';
const IMPORTER = /[\\/](artillery-plugin-)?publish-metrics[\\/]/;

const wrapped = new WeakSet();

/** Makes the reporter's constructor see WORKER_ID. */
function nameGroup(reporter, podName) {
  const create = reporter?.createPrometheusReporter;
  if (typeof create !== 'function' || wrapped.has(create)) return;
  const named = function createPrometheusReporter(...args) {
    process.env.WORKER_ID = podName;
    try {
      return create.apply(this, args);
    } finally {
      delete process.env.WORKER_ID;
    }
  };
  wrapped.add(named);
  reporter.createPrometheusReporter = named;
}

function install(podName) {
  if (!isMainThread) {
    process.env.WORKER_ID = podName;
    return;
  }
  const { _load: load } = Module;
  Module._load = function (request, parent, ...rest) {
    const exported = load.call(this, request, parent, ...rest);
    if (request === REPORTER && IMPORTER.test(parent?.filename ?? '')) nameGroup(exported, podName);
    return exported;
  };
}

if (process.env.LOADTEST_POD_NAME) install(process.env.LOADTEST_POD_NAME);

module.exports = { nameGroup };
