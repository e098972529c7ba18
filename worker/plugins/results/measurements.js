// The measurements of a worker and of its threads, as counters and sketches. Mounted as
// /opt/loadtest/artillery-plugin-loadtest-results/measurements.js
'use strict';

const emptyMeasurements = () => ({
  start: undefined, first: undefined, last: undefined, counters: new Map(), histograms: new Map(), invalid: new Set(),
});

// The measurements of one `stats` or `done` event of Artillery. A metric with a value that is not a number is `invalid`: Artillery
// appends a text to the sum, so that the sum of "3" and "3" is "033".
function fromStats({ counters, histograms, firstCounterAt, lastCounterAt }) {
  const bins = ({ bins, offset }) => new Map(bins.map((n, i) => [i + offset, n]).filter(([, n]) => n > 0));
  const all = { ...emptyMeasurements(), first: firstCounterAt || undefined, last: lastCounterAt || undefined };
  for (const [name, value] of Object.entries(counters ?? {})) {
    if (Number.isFinite(value)) all.counters.set(name, value);
    else all.invalid.add(name);
  }
  for (const [name, { min, max, sum, zeroCount, store, negativeStore }] of Object.entries(histograms ?? {})) {
    // An empty histogram has the minimum Infinity.
    const isEmpty = min === Infinity && max === -Infinity && sum === 0;
    if (isEmpty || [min, max, sum, zeroCount].every(Number.isFinite)) {
      all.histograms.set(name, { min, max, sum, zeros: zeroCount, positive: bins(store), negative: bins(negativeStore) });
    } else {
      all.invalid.add(name);
    }
  }
  return all;
}

// A value that a script counts, as a number: numbers in texts are common, because headers are texts. Undefined if it is none.
function toNumber(value) {
  const isNumeric = ['number', 'bigint', 'boolean'].includes(typeof value) || (typeof value === 'string' && value.trim() !== '');
  const number = isNumeric ? Number(value) : NaN;
  return Number.isFinite(number) ? number : undefined;
}

// DDSketch's own merge would lose the negative bins.
function merge(into, other) {
  const earliest = (a, b) => (b === undefined || a < b ? a : b);
  const latest = (a, b) => (b === undefined || a > b ? a : b);
  const addTo = (map, [key, n]) => map.set(key, (map.get(key) ?? 0) + n);
  for (const name of other.invalid) into.invalid.add(name);
  into.start = earliest(into.start, other.start);
  into.first = earliest(into.first, other.first);
  into.last = latest(into.last, other.last);
  for (const counter of other.counters) addTo(into.counters, counter);
  for (const [name, h] of other.histograms) {
    const known = into.histograms.get(name);
    if (!known) {
      into.histograms.set(name, { ...h, positive: new Map(h.positive), negative: new Map(h.negative) });
      continue;
    }
    known.min = Math.min(known.min, h.min);
    known.max = Math.max(known.max, h.max);
    known.sum += h.sum;
    known.zeros += h.zeros;
    for (const bin of h.positive) addTo(known.positive, bin);
    for (const bin of h.negative) addTo(known.negative, bin);
  }
  return into;
}

// The bin of a value in Artillery's sketches, which have a relative accuracy of 1 % (sketches-js, KeyMapping.js).
const MANTISSA = (2 * 0.01) / (1 - 0.01);
const MULTIPLIER = (1 / Math.log1p(MANTISSA)) * Math.log(2);
const MIN_POSSIBLE = 2 ** -1023 * (1 + MANTISSA);
const GAMMA = 1 + MANTISSA;
const binOf = (value) => Math.ceil(Math.log2(value) * MULTIPLIER);

/** The value that represents a bin. */
const middleOfBin = (bin) => GAMMA ** bin * (2 / (1 + GAMMA));

/**
 * All that one thread has counted so far. Artillery's own store keeps the measurements of each period until the end of the test,
 * so reading it would take longer the longer the test runs.
 */
class Totals {
  constructor() {
    this.measurements = emptyMeasurements();
  }

  addCounter(name, number, time) {
    const { measurements } = this;
    measurements.counters.set(name, (measurements.counters.get(name) ?? 0) + number);
    if (measurements.first === undefined || time < measurements.first) measurements.first = time;
    if (measurements.last === undefined || time > measurements.last) measurements.last = time;
  }

  addToHistogram(name, number) {
    const { histograms } = this.measurements;
    let h = histograms.get(name);
    if (!h) {
      h = { min: Infinity, max: -Infinity, sum: 0, zeros: 0, positive: new Map(), negative: new Map() };
      histograms.set(name, h);
    }
    h.sum += number;
    if (number < h.min) h.min = number;
    if (number > h.max) h.max = number;
    if (Math.abs(number) <= MIN_POSSIBLE) {
      h.zeros += 1;
      return;
    }
    const [bins, bin] = number > 0 ? [h.positive, binOf(number)] : [h.negative, binOf(-number)];
    bins.set(bin, (bins.get(bin) ?? 0) + 1);
  }
}

module.exports = { emptyMeasurements, fromStats, merge, middleOfBin, toNumber, Totals };
