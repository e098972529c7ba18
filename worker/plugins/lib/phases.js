// Plans the arrivals of virtual users as Artillery creates them. Shared by the plugins `loadtest-divide`, which divides the
// plan, and `loadtest-results`, which compares the load that was sent with it. Mounted as /opt/loadtest/lib/phases.js
//
// The arrivals of a phase are a list of segments: `count` arrivals at intervals of `tick` ms, the first one tick after `start`.
'use strict';

/** The option of a thread that contains its share of a divided load. */
const SHARE_OPTION = 'loadtestDivided';
/** The mode of a divided phase is this name and the number of its schedule. */
const MODE = 'loadtest-divided';

// In ms. Source: the npm package `ms`.
const UNITS = [
  [/^(ms|msecs?|milliseconds?)?$/i, 1],
  [/^(s|secs?|seconds?)$/i, 1000],
  [/^(m|mins?|minutes?)$/i, 60_000],
  [/^(h|hrs?|hours?)$/i, 3_600_000],
  [/^(d|days?)$/i, 86_400_000],
  [/^(w|weeks?)$/i, 604_800_000],
  [/^(y|yrs?|years?)$/i, 31_557_600_000],
];
const MAX_DURATION_LENGTH = 100;

/**
 * A duration in seconds, parsed as in lib/core/phases.js. Undefined if Artillery rejects it. The result may be 0 or negative:
 * Artillery accepts the texts `0` and `-1s`.
 */
function parseSeconds(duration) {
  if (Number.isInteger(Number(duration))) return duration ? Number(duration) + 0 : undefined;
  const text = typeof duration === 'string' && duration.length <= MAX_DURATION_LENGTH ? duration : '';
  const [, number, unit] = /^(-?\d*\.?\d+) *([a-z]*)$/i.exec(text) ?? [];
  return (Number(number) * UNITS.find(([name]) => name.test(unit))?.[1]) / 1000 || undefined;
}

/** The arrivals in each second of a ramp in one of several threads. Source: lib/core/phases.js, createRamp. */
function rampCounts(from, to, seconds, { worker: thread = 1, totalWorkers: threads = 1 }) {
  const rates = seconds === 1
    ? [(to + from) / 2]
    : Array.from({ length: Math.ceil(seconds) }, (_, second) => ((to - from) / (seconds - 1)) * second + from);
  // Rounding can put the end of a ramp to 0 slightly below 0.
  return rates.map((rate) => Math.max(0, Math.floor(rate) + (Math.round((rate % 1) * threads) >= thread ? 1 : 0)));
}

/** Source: lib/core/phases.js, ticker. */
const rampSegments = (counts) => counts.map((count, second) => {
  const tick = Math.min(Math.floor(1000 / count), 1000) || 1000 / count;
  return { start: second * 1000, tick, count };
});

/** Source: the npm package `arrivals`, UniformProcess. */
function uniformSegments(tick, seconds) {
  const microseconds = Math.max(1, Math.floor(tick * 1000));
  return [{ start: 0, tick: microseconds / 1000, count: Math.floor((seconds * 1000 * 1000) / microseconds) }];
}

const totalCount = (segments) => segments.reduce((total, { count }) => total + count, 0);

/** The times of every `of`th arrival, after the first `skip` arrivals. */
function* arrivalTimes({ segments, skip, of }) {
  let next = skip;
  for (const { start, tick, count } of segments) {
    for (; next < count; next += of) yield start + (next + 1) * tick;
    next -= count;
  }
}

/**
 * The load of a phase, in the order of lib/core/phases.js:
 *   {isIdle, seconds}          a phase without arrivals; `seconds` is undefined if Artillery rejects its length
 *   {seconds, max, segments}   a phase with planned arrivals; `max` is its maxVusers
 *   {seconds, max, rate}       a Poisson process
 * Throws an error that begins with `field` if the phase cannot be parsed.
 */
function parsePhase(phase, mode, field) {
  const number = (value) => (value === undefined ? undefined : Number(value));
  const [count, rate, to, max = Infinity] =
    [phase.arrivalCount, phase.arrivalRate, phase.rampTo, phase.maxVusers].map(number);
  const check = (isValid, key, expected) => {
    if (isValid) return;
    const problem = phase[key] === undefined ? 'is missing' : `is ${JSON.stringify(phase[key])}, expected ${expected}`;
    throw new Error(`${field}.${key} ${problem}`);
  };
  const parseDuration = () => {
    const seconds = parseSeconds(phase.duration);
    check(seconds > 0, 'duration', 'a duration greater than 0');
    return seconds;
  };
  if (phase.pause !== undefined) return { isIdle: true, seconds: parseSeconds(phase.pause) };
  check(max >= 0, 'maxVusers', 'a number');
  if (count !== undefined) {
    check(count >= 0, 'arrivalCount', 'a number');
    if (count === 0) return { isIdle: true, seconds: 0 };
    const seconds = parseDuration();
    return { seconds, max, segments: uniformSegments((seconds * 1000) / count, seconds) };
  }
  check(rate === undefined || rate >= 0, 'arrivalRate', 'a number');
  if (to !== undefined) {
    check(to >= 0, 'rampTo', 'a number');
    const isShort = phase.duration === undefined || parseSeconds(phase.duration) === 0;
    const seconds = isShort ? 1 : parseDuration();
    return { seconds: Math.ceil(seconds), max, segments: rampSegments(rampCounts(rate ?? 0, to, seconds, phase)) };
  }
  if (rate === 0) return { isIdle: true, seconds: phase.duration === undefined ? 0 : parseSeconds(phase.duration) };
  const seconds = parseDuration();
  if ((phase.mode || mode || 'uniform') === 'uniform') return { seconds, max, segments: uniformSegments(1000 / rate, seconds) };
  // A Poisson process ends at its first arrival after the duration. One arrival per second in each slot keeps that delay short.
  return { seconds, max: Math.min(max, Math.max(1, Math.floor(rate))), rate };
}

/** The schedule of a divided phase. Undefined for any other phase. */
function scheduleOf({ mode }, schedules) {
  // The plugin `loadtest-divide` replaces the text by a `Mode`, whose conversion to a text has an effect.
  const number = mode?.schedule ?? (typeof mode === 'string' ? /^loadtest-divided-(\d+)$/.exec(mode)?.[1] : undefined);
  return number === undefined ? undefined : schedules[number];
}

/** A phase of a plan, see `planThread`. Undefined if Artillery rejects the phase, or never ends it. */
function planPhase(phase, mode, schedules) {
  const schedule = scheduleOf(phase, schedules);
  if (schedule) {
    const { segments, skip, of, count, length } = schedule;
    return { segments, skip, of, count, length };
  }
  // Artillery parses both, even if it does not need them.
  const isRejected = (value) => value !== undefined && parseSeconds(value) === undefined;
  if (isRejected(phase.duration) || isRejected(phase.pause)) return undefined;
  const { isIdle, seconds, segments = [], rate } = parsePhase(phase, mode, 'phase');
  if (isIdle) return { segments: [], skip: 0, of: 1, count: 0, length: Math.max(0, seconds * 1000) };
  if (rate) {
    if ((phase.mode || mode) !== 'poisson') return undefined;
    return { segments: [], skip: 0, of: 1, count: rate * seconds, length: seconds * 1000, rate };
  }
  const count = totalCount(segments);
  const isRamp = phase.rampTo !== undefined && phase.arrivalCount === undefined;
  if (isRamp) return { segments, skip: 0, of: 1, count, length: seconds * 1000 };
  // A uniform process ends with its last arrival, so it does not end if it has none.
  return count > 0 ? { segments, skip: 0, of: 1, count, length: count * segments[0].tick } : undefined;
}

/**
 * The plan of one thread, from the phases that Artillery runs in it and the schedules of its share of a divided load: a list of
 * {segments, skip, of, count, length, rate}. The arrivals are those of `arrivalTimes`, in ms after the start of the phase, which
 * takes `length` ms. A Poisson process has a `rate` per second, no segments, and an expected `count`. Undefined if Artillery
 * would not run these phases, or never end them.
 */
function planThread(phases, mode, schedules = []) {
  try {
    const plan = phases.map((phase) => planPhase(phase, mode, schedules));
    return plan.every(Boolean) ? plan : undefined;
  } catch {
    return undefined;
  }
}

/** The number of virtual users of a phase of a plan that are due within `elapsed` ms of its start. */
function countDue({ segments, skip, of, count, length, rate }, elapsed) {
  if (rate) return count * Math.min(1, Math.max(0, elapsed / length));
  const arrived = segments.reduce((total, segment) => {
    const ticks = Math.floor((elapsed - segment.start) / segment.tick);
    return total + Math.min(segment.count, Math.max(0, ticks));
  }, 0);
  return Math.max(0, Math.ceil((arrived - skip) / of));
}

module.exports = { arrivalTimes, countDue, MODE, parsePhase, parseSeconds, planThread, scheduleOf, SHARE_OPTION, totalCount };
