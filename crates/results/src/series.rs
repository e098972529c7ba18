//! The course of a test: what was measured in each step of time, of which there are few however long the test runs.

use loadtest_api::v1alpha1::{Distribution, Results, Series};

use crate::{Measurements, summarize};

/// How many steps a series has at most.
pub const MAX_STEPS: usize = 60;

/// The shortest step, which is also how often workers are read.
pub const MIN_STEP_SECONDS: i64 = 10;

/// The step of a test that is expected to take so many seconds: as short as [`MAX_STEPS`] allow.
#[must_use]
pub fn step_seconds(expected: Option<f64>) -> i64 {
    let shortest = float(MIN_STEP_SECONDS) * 60.0;
    let mut step = MIN_STEP_SECONDS;
    let mut longest = shortest;
    while expected.is_some_and(|expected| expected > longest) && step < 1 << 30 {
        step *= 2;
        longest *= 2.0;
    }
    step
}

/// Adds a period to a series: what was `measured` until its end, with its summary `totals`, and in the `period` itself, where that is
/// known. `seconds` are those from the start of the series to the begin and the end of the period.
///
/// It is added to the step in which its middle lies. What was missed before counts there. Where there are too many steps, two become
/// one: counts add up, and of percentiles the larger one stays, which is an upper bound.
pub fn add_period(
    series: &mut Series,
    seconds: (f64, f64),
    totals: &Results,
    measured: &Measurements,
    period: Option<&Measurements>,
) {
    let period = period.map(|period| summarize(period, 0, 0));
    let times = period.as_ref().and_then(Results::response_time);
    let totals = Totals::new(totals, measured);
    add(series, seconds, &totals, times);
}

/// Adds the last period, and makes every count add up to the final results. Where these are lower, for example because a worker was
/// lost with its results, the last steps become smaller.
pub fn complete(
    series: &mut Series,
    seconds: (f64, f64),
    totals: &Results,
    measured: &Measurements,
    period: Option<&Measurements>,
) {
    add_period(series, seconds, totals, measured, period);
    let totals = Totals::new(totals, measured);
    for (counts, total) in counts(series).into_iter().zip(totals.counts) {
        let Some(total) = total else { continue };
        let mut surplus = sum(counts).saturating_sub(total);
        for count in counts.iter_mut().rev() {
            let removed = surplus.clamp(0, *count);
            *count -= removed;
            surplus -= removed;
        }
    }
}

/// What was measured until the end of a period.
struct Totals {
    /// In the order of [`counts`]; None where it is unknown.
    counts: [Option<i64>; 4],
    /// The virtual users that have not ended.
    active: i64,
}

impl Totals {
    fn new(totals: &Results, measured: &Measurements) -> Self {
        #[allow(clippy::cast_possible_truncation)] // saturates
        let due = measured.plan().map(|plan| plan.due.round() as i64);
        let ended = totals.vusers_completed.saturating_add(totals.vusers_failed);
        Self {
            counts: [
                Some(totals.requests),
                Some(totals.errors),
                Some(totals.vusers_created),
                due,
            ],
            active: totals.vusers_created.saturating_sub(ended).max(0),
        }
    }
}

/// Adds a period. `times` are the response times in it, where they are known.
fn add(series: &mut Series, seconds: (f64, f64), totals: &Totals, times: Option<&Distribution>) {
    series.step_seconds = series.step_seconds.max(MIN_STEP_SECONDS);
    let middle = f64::midpoint(seconds.0, seconds.1).max(0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    let step = |series: &Series| (middle / float(series.step_seconds)) as usize;
    while step(series) >= MAX_STEPS {
        halve(series);
    }
    let at = step(series).max(series.requests.len().saturating_sub(1));
    let last_active = series.vusers_active.last().copied().unwrap_or_default();
    series.vusers_active.resize(at + 1, last_active);
    series.vusers_active[at] = totals.active;
    for (counts, total) in counts(series).into_iter().zip(totals.counts) {
        counts.resize(at + 1, 0);
        // After a takeover the totals may lack workers that had ended before.
        let missed = total.map_or(0, |total| total.saturating_sub(sum(counts)).max(0));
        counts[at] = counts[at].saturating_add(missed);
    }
    let values = times.map_or([None; 3], |times| [times.p50, times.p95, times.p99]);
    for (percentiles, value) in percentiles(series).into_iter().zip(values) {
        percentiles.resize(at + 1, None);
        percentiles[at] = larger(percentiles[at], value);
    }
}

fn counts(series: &mut Series) -> [&mut Vec<i64>; 4] {
    [
        &mut series.requests,
        &mut series.errors,
        &mut series.vusers_created,
        &mut series.vusers_planned,
    ]
}

fn sum(counts: &[i64]) -> i64 {
    counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
}

fn percentiles(series: &mut Series) -> [&mut Vec<Option<f64>>; 3] {
    [&mut series.p50, &mut series.p95, &mut series.p99]
}

/// Steps are short.
#[allow(clippy::cast_precision_loss)]
fn float(seconds: i64) -> f64 {
    seconds as f64
}

fn larger(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

/// Doubles the step.
fn halve(series: &mut Series) {
    series.step_seconds = series.step_seconds.saturating_mul(2);
    for counts in counts(series) {
        *counts = counts.chunks(2).map(|pair| pair.iter().sum()).collect();
    }
    let active = series.vusers_active.chunks(2);
    series.vusers_active = active.filter_map(|pair| pair.last().copied()).collect();
    for percentiles in percentiles(series) {
        let pairs = percentiles.chunks(2);
        *percentiles = pairs
            .map(|pair| pair.iter().copied().reduce(larger).flatten())
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(requests: i64) -> Totals {
        Totals {
            counts: [requests, requests / 10, requests, requests].map(Some),
            active: 3,
        }
    }

    fn times(p95: f64) -> Distribution {
        Distribution {
            p50: Some(1.0),
            p95: Some(p95),
            ..Distribution::default()
        }
    }

    #[test]
    fn the_sum_of_all_steps_is_that_of_the_totals() {
        let mut series = Series::default();
        let mut sum = 0;
        // The steps of an hour and a half; workers that could not be read are missing in some of them.
        for period in (0..540).filter(|period| !(100..130).contains(period)) {
            sum += i64::from(period % 7);
            let begin = f64::from(period) * 10.0;
            let times = times(f64::from(period));
            add(
                &mut series,
                (begin, begin + 10.0),
                &totals(sum),
                Some(&times),
            );
            assert!(series.requests.len() <= MAX_STEPS);
            for counts in [
                &series.requests,
                &series.vusers_created,
                &series.vusers_planned,
            ] {
                assert_eq!(counts.iter().sum::<i64>(), sum);
                assert_eq!(counts.len(), series.p95.len());
            }
        }
        assert_eq!(series.step_seconds, 160);
        assert_eq!(series.errors.iter().sum::<i64>(), sum / 10);
        assert_eq!(series.vusers_active.last(), Some(&3));
        assert_eq!(
            series.p95.last(),
            Some(&Some(539.0)),
            "the largest of the step"
        );
        assert_eq!(series.p99.last(), Some(&None));
    }

    #[test]
    fn a_completed_series_adds_up_to_lower_totals_without_a_negative_count() {
        let mut series = Series::default();
        for (step, sum) in [10, 30, 60].into_iter().enumerate() {
            let begin = f64::from(u32::try_from(step).unwrap_or_default()) * 10.0;
            add(&mut series, (begin, begin + 10.0), &totals(sum), None);
        }
        // A period of which fewer workers are known than before.
        add(&mut series, (30.0, 40.0), &totals(40), None);
        assert_eq!(series.requests, [10, 20, 30, 0]);
        let results = Results {
            requests: 25,
            errors: 9,
            ..Results::default()
        };
        let seconds = (38.0, 38.0);
        complete(
            &mut series,
            seconds,
            &results,
            &Measurements::default(),
            None,
        );
        assert_eq!(series.requests, [10, 15, 0, 0]);
        assert_eq!(series.errors, [1, 2, 3, 3]);
        assert_eq!(series.vusers_created, [0; 4]);
        assert_eq!(series.vusers_planned, [10, 20, 30, 0], "unknown at the end");
    }

    #[test]
    fn the_step_follows_the_expected_duration() {
        let steps = [
            None,
            Some(60.0),
            Some(600.0),
            Some(601.0),
            Some(86_400.0),
            Some(f64::INFINITY),
        ];
        let steps = steps.map(step_seconds);
        assert_eq!(steps[..5], [10, 10, 10, 20, 2560]);
        assert!(steps[5] > 1 << 29);
    }

    #[test]
    fn a_series_is_short_enough_for_a_status() {
        let mut series = Series::default();
        for period in 0..60 {
            let begin = f64::from(period) * 10.0;
            let times = Distribution {
                p99: Some(1234.5),
                ..times(1234.5)
            };
            add(
                &mut series,
                (begin, begin + 10.0),
                &totals(i64::from(period) * 5000),
                Some(&times),
            );
        }
        let length = serde_json::to_string(&series).map_or(0, |json| json.len());
        assert!(length < 3072, "{length}");
    }
}
