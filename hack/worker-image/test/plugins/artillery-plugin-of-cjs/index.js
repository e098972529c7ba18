exports.LEGACY_METRICS_FORMAT = false;
exports.Plugin = class {
  constructor(script, events) {
    events.on('done', (stats) => console.log('of-cjs has', stats.counters['http.requests']));
  }
};
