// Generates the fixtures for tests of the operator, which compare its merged results with Artillery's: the messages of workers,
// and Artillery's own summary of the same sketches. ARTILLERY selects another installation: a node_modules folder.
//
//   node test/generate-fixtures.mjs generated > test/fixtures/generated.json
//   node test/generate-fixtures.mjs load > test/fixtures/load.json
//   node test/generate-fixtures.mjs sketch > test/fixtures/sketch.json
//   ARTILLERY=.. node test/generate-fixtures.mjs run MESSAGE=STATS.. > test/fixtures/artillery-2.0.x.json
//
// MESSAGE is a file with a worker's termination message. STATS is a file with its `done` event, written by
// `SSMS.serializeMetrics`.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { ARTILLERY as modules, NO_ARTILLERY, SKETCHED_VALUES } from './helpers.mjs';
import results from '../plugins/results/index.js';
import loads from '../plugins/results/load.js';

if (NO_ARTILLERY) throw new Error(NO_ARTILLERY);
const { DDSketch } = createRequire(path.join(modules, 'artillery/package.json'))('@artilleryio/sketches-js');
const places = ['artillery/dist/lib/core/ssms.js', '@artilleryio/int-core/lib/ssms.js', 'artillery/lib/core/ssms.js'];
const { SSMS } = await import(pathToFileURL(places.map((p) => path.join(modules, p)).find((p) => fs.existsSync(p))));
const { version } = JSON.parse(fs.readFileSync(path.join(modules, 'artillery/package.json')));

function fixture(messages, stats) {
  const total = SSMS.pack(stats);
  const summaries = Object.fromEntries(Object.entries(total.histograms).map(([name, h]) => [name, SSMS.summarizeHistogram(h)]));
  return { artillery: version, messages, counters: total.counters, summaries };
}

// A generator with a seed, so that the fixtures are reproducible.
function randomNumbers(seed) {
  let state = seed;
  return () => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return (state + 0.5) / 2 ** 31;
  };
}

function generated() {
  const sketches = (seed, count, spread, folds, isOnlyWorker) => {
    const next = randomNumbers(seed);
    // Folded bins equal those of a sketch with a larger relative error.
    const gamma = ((1 + 0.01) / (1 - 0.01)) ** (2 ** folds);
    const [whole, fine] = [{}, {}];
    for (const [name, scale] of [['http.response_time', 40], ['vusers.session_length', 900], ['custom.small', 0.001]]) {
      whole[name] = new DDSketch({ relativeAccuracy: (gamma - 1) / (gamma + 1) });
      fine[name] = new DDSketch({ relativeAccuracy: 0.01 });
      for (let i = 0; i < count; i += 1) {
        let value = Math.round(scale * Math.exp(spread * (next() + next() + next() - 1.5)) * 1024) / 1024;
        // DDSketch's own merge loses negative values, so only a test with one worker has some.
        if (isOnlyWorker) value *= i % 4 === 0 ? 0 : i % 8 === 1 ? 1 : -1;
        whole[name].accept(value);
        fine[name].accept(value);
      }
    }
    const counters = { 'http.requests': count, 'vusers.created': count, 'custom.half': count / 2 };
    return { whole: { period: seed, counters, histograms: whole }, fine: { counters, histograms: fine } };
  };
  const fixtures = [];
  for (const [counts, spread, folds] of [[[1], 1, 0], [[301], 3, 0], [[901], 3, 1], [[2, 1], 2, 0], [[400, 3, 1000], 3, 0], [[3000, 2000], 2, 1], [[4000, 10], 4, 2]]) {
    const workers = counts.map((count, i) => sketches(i + 1, count, spread, folds, counts.length === 1));
    const text = ({ fine }) => results.encode(results.fromStats(fine), { final: true, folds });
    fixtures.push({ folds, ...fixture(workers.map(text), workers.map(({ whole }) => whole)) });
  }
  return fixtures;
}

// Each case is a test: the messages of its workers with their `load` and `generator`, and the summary of all arrival delays. In
// the last case two workers know no plan: one could not read its phases, one has an older version of the plugin.
function generatedLoads() {
  const gamma = (1.01 / 0.99) ** (2 ** loads.DELAY_FOLDS);
  const healthy = { planned: 8000, ms: [20_000, 20_012], spread: 12, generator: [1, 612, 3, 0, 201, 0, 14_208, 2000, 171, 512] };
  const cases = {
    'a healthy worker': [healthy],
    'workers with and without limits': [healthy, { ...healthy, generator: [4, 250, 1, null, null, null, 9100, null, 210, null] }],
    'a saturated worker': [{ planned: 8000, ms: [20_000, 57_123], spread: 37_123, generator: [1, 1000, 95, 315, 323, 41_231, 9701, 300, 190, 256] }],
    'a partial snapshot': [{ ...healthy, due: 4000, ms: [20_000, 10_000], isPartial: true }],
    'Poisson processes only': [{ ...healthy, random: 8000, spread: undefined }],
    'a worker that reports no resources': [{ ...healthy, generator: new Array(10).fill(null) }],
    'a plan that is unknown in some workers': [healthy, { generator: healthy.generator }, {}],
  };
  return Object.entries(cases).map(([name, workers]) => {
    const whole = new DDSketch({ relativeAccuracy: (gamma - 1) / (gamma + 1) });
    const fixtures = workers.map(({ planned, due = planned, ms, random = 0, spread, generator, isPartial }, seed) => {
      const next = randomNumbers(seed + 1);
      const delays = new loads.Delays();
      for (let i = 0; spread !== undefined && i < due; i += 1) {
        const delay = Math.round(spread * next() ** 2);
        delays.add(delay);
        whole.accept(delay);
      }
      const load = planned === undefined ? undefined : [planned, due, ...ms, random];
      const counters = { 'vusers.created': due ?? 5 };
      const all = { ...results.fromStats({ counters }), load, delays: delays.count > 0 ? delays : undefined, generator };
      return { message: results.encode(all, { final: !isPartial }), load, generator };
    });
    return { name, workers: fixtures, delay: whole.count > 0 ? SSMS.summarizeHistogram(whole) : null };
  });
}

function sketched() {
  const sketch = new DDSketch({ relativeAccuracy: 0.01 });
  for (const value of SKETCHED_VALUES) sketch.accept(value);
  const { positive, negative, ...rest } = results.fromStats({ histograms: { h: sketch } }).histograms.get('h');
  const sorted = (bins) => [...bins].sort(([a], [b]) => a - b);
  return { ...rest, positive: sorted(positive), negative: sorted(negative) };
}

function run(pairs) {
  const files = pairs.map((pair) => pair.split('=').map((file) => fs.readFileSync(file, 'utf8')));
  return [{ folds: 0, ...fixture(files.map(([message]) => message), files.map(([, stats]) => SSMS.deserializeMetrics(stats))) }];
}

const [kind, ...pairs] = process.argv.slice(2);
const fixtures = { run, generated, load: generatedLoads, sketch: sketched }[kind](pairs);
console.log(JSON.stringify(fixtures, null, 1));
// SSMS may leave timers.
process.exit(0);
