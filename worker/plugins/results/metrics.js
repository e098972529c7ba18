// The measurements of a worker in the text format 0.0.4 of Prometheus. Mounted as
// /opt/loadtest/artillery-plugin-loadtest-results/metrics.js
//
// Metrics of Artillery's core have names of their own. All others, which scripts and plugins can name as they like, are
// `artillery_counters_total` and `artillery_histograms` with the label `metric`, in the units of the script. These resemble the
// names of Artillery's Prometheus reporter.
'use strict';

const { middleOfBin } = require('./measurements.js');

const BUCKETS_MS = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000];
const MAX_METRICS = 200;
const MAX_ERRORS = 50;
const MAX_CODES = 50;
const HTTP_CODE = /^http\.codes\.\d{3}$/;
const MAX_LABEL_LENGTH = 200;
// Replaces the values of a label that has too many.
const OTHER = 'other';

const STATES = ['created', 'completed', 'failed', 'skipped'];
const STATE_COUNTERS = STATES.map((state) => `vusers.${state}`);
const BUILT_IN = new Set(['http.requests', 'http.responses', 'http.downloaded_bytes', ...STATE_COUNTERS]);

const HISTOGRAMS = {
  'http.response_time': ['artillery_http_response_time_seconds', 'Response times of HTTP requests.'],
  'socketio.response_time': ['artillery_socketio_response_time_seconds', 'Response times of Socket.IO messages.'],
  'vusers.session_length': ['artillery_vusers_session_length_seconds', 'Durations of completed virtual users.'],
};

const escapeLabel = (text) => text.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n');

/** The values of a label. Those after the first `max` are `other`, from then on, so that no counter decreases. */
class LabelValues {
  constructor(max) {
    Object.assign(this, { max, known: new Set() });
  }

  get(text) {
    // A cut within a surrogate pair would leave half of it.
    const value = text.slice(0, MAX_LABEL_LENGTH).toWellFormed();
    if (!this.known.has(value) && this.known.size >= this.max) return OTHER;
    this.known.add(value);
    return value;
  }
}

/** The cumulative counts of a sketch in ms, the last one without a bound. `unit` is that of the bounds and the sum, in ms. */
function bucketsOf({ positive, negative, zeros, sum }, unit) {
  const counts = new Array(BUCKETS_MS.length + 1).fill(0);
  const add = (value, n) => {
    const index = BUCKETS_MS.findIndex((bound) => value <= bound);
    counts[index < 0 ? BUCKETS_MS.length : index] += n;
  };
  add(0, zeros);
  // The middle of a bin is also the value of a percentile in results.
  for (const [bin, n] of positive) add(middleOfBin(bin), n);
  for (const [bin, n] of negative) add(-middleOfBin(bin), n);
  for (let i = 1; i < counts.length; i += 1) counts[i] += counts[i - 1];
  return { bounds: BUCKETS_MS.map((bound) => bound / unit), counts, sum: sum / unit };
}

class Exposition {
  /** `labels` are those of all series. Undefined ones are omitted. */
  constructor(labels) {
    this.labels = Object.entries(labels).filter(([, value]) => value !== undefined);
    this.errors = new LabelValues(MAX_ERRORS);
    this.codes = new LabelValues(MAX_CODES);
    this.metrics = new LabelValues(MAX_METRICS);
  }

  /** The text of a snapshot, see `Collector`. `snapshot` is undefined before anything is measured. */
  render(snapshot) {
    const { counters = new Map(), histograms = new Map(), load, delays, generator } = snapshot ?? {};
    this.lines = [];
    this.addCounters(counters);
    this.addHistograms(histograms);
    const [planned, due] = load ?? [];
    const [, utilization, loopDelay] = generator ?? [];
    this.addGauge('artillery_vusers_planned', 'Virtual users that this worker should create in the whole script.', planned);
    this.addGauge('artillery_vusers_due', 'Virtual users that should have arrived until now.', due);
    if (delays) {
      const help = 'Differences between the actual and the planned arrivals of virtual users.';
      this.addFamily('artillery_arrival_delay_seconds', 'histogram', help, [[[], bucketsOf(delays, 1000)]]);
    }
    const ratio = typeof utilization === 'number' ? utilization / 1000 : undefined;
    this.addGauge('artillery_event_loop_utilization_ratio', 'Utilization of the event loop of the busiest thread.', ratio);
    const seconds = typeof loopDelay === 'number' ? loopDelay / 1000 : undefined;
    this.addGauge('artillery_event_loop_delay_p99_seconds', 'p99 of the event-loop delay of the worst thread.', seconds);
    return `${this.lines.join('\n')}\n`;
  }

  addCounters(counters) {
    const [errors, codes, others] = [new Map(), new Map(), new Map()];
    const add = (map, value, n) => map.set(value, (map.get(value) ?? 0) + n);
    for (const [name, n] of counters) {
      if (!Number.isFinite(n)) continue;
      if (name.startsWith('errors.')) add(errors, this.errors.get(name.slice('errors.'.length)), n);
      else if (HTTP_CODE.test(name)) add(codes, this.codes.get(name.slice('http.codes.'.length)), n);
      else if (!BUILT_IN.has(name)) add(others, this.metrics.get(name), n);
    }
    const count = (name) => counters.get(name) ?? 0;
    const labeled = (label, map) => [...map].map(([value, n]) => [[[label, value]], n]);
    const counter = (name, help, samples) => this.addFamily(name, 'counter', help, samples);
    const states = STATES.map((state) => [[['state', state]], count(`vusers.${state}`)]);
    counter('artillery_vusers_total', 'Virtual users by state.', states);
    counter('artillery_http_requests_total', 'HTTP requests.', [[[], count('http.requests')]]);
    counter('artillery_http_responses_total', 'HTTP responses by status code.', labeled('code', codes));
    counter('artillery_http_downloaded_bytes_total', 'Bytes of HTTP responses.', [[[], count('http.downloaded_bytes')]]);
    counter('artillery_errors_total', 'Errors by kind.', labeled('error', errors));
    counter('artillery_counters_total', 'Other counters of Artillery, plugins and scripts.', labeled('metric', others));
    const active = count('vusers.created') - count('vusers.completed') - count('vusers.failed');
    this.addGauge('artillery_vusers_active', 'Virtual users that have arrived and not ended.', Math.max(0, active));
  }

  addHistograms(histograms) {
    const others = new Map();
    for (const [name, h] of histograms) {
      if (!Number.isFinite(h.sum)) continue;
      if (Object.hasOwn(HISTOGRAMS, name)) {
        const [metric, help] = HISTOGRAMS[name];
        this.addFamily(metric, 'histogram', help, [[[], bucketsOf(h, 1000)]]);
        continue;
      }
      const value = this.metrics.get(name);
      // Different metrics have no common unit, so there is no histogram of the remaining ones.
      if (value !== OTHER && !others.has(value)) others.set(value, bucketsOf(h, 1));
    }
    const help = 'Other histograms of Artillery, plugins and scripts, usually in milliseconds.';
    this.addFamily('artillery_histograms', 'histogram', help, [...others].map(([value, h]) => [[['metric', value]], h]));
  }

  addGauge(name, help, value) {
    if (value !== undefined) this.addFamily(name, 'gauge', help, [[[], value]]);
  }

  /** Each sample is [labels, value]. The value of a histogram is that of `bucketsOf`. */
  addFamily(name, type, help, samples) {
    if (samples.length === 0) return;
    this.lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const [labels, value] of samples) {
      if (type === 'histogram') this.addHistogram(name, labels, value);
      else this.addSeries(name, labels, value);
    }
  }

  addHistogram(name, labels, { bounds, counts, sum }) {
    counts.forEach((n, i) => this.addSeries(`${name}_bucket`, [...labels, ['le', String(bounds[i] ?? '+Inf')]], n));
    this.addSeries(`${name}_sum`, labels, sum);
    this.addSeries(`${name}_count`, labels, counts.at(-1));
  }

  addSeries(name, labels, value) {
    const text = [...this.labels, ...labels].map(([label, of]) => `${label}="${escapeLabel(of)}"`).join(',');
    this.lines.push(`${name}${text && `{${text}}`} ${value}`);
  }
}

module.exports = { Exposition, MAX_ERRORS, MAX_METRICS };
