//! Summarizes measurements for the status. The size of a summary is bounded for any number of workers
//! and metrics.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use loadtest_api::v1alpha1::{
    ArrivalDelay, DeliveredLoad, Distribution, LAYOUT_SHIFT, NamedCount, Results,
};

use crate::sketch::round;
use crate::{Measurements, Sketch};

const MAX_ERROR_KINDS: usize = 10;
const MAX_CODES: usize = 20;
const MAX_NAME_CHARS: usize = 100;
const OTHER: &str = "other";
/// The counters of the status codes that a browser received.
const BROWSER_CODES: &str = "browser.page.codes.";

/// The maximum number of histograms of pages and steps of a browser.
const MAX_BROWSER_HISTOGRAMS: usize = 20;
/// Before the name of the page or step: its web vitals, and its duration.
const BROWSER_HISTOGRAMS: [&str; 6] = [
    "browser.page.LCP.",
    "browser.page.FCP.",
    "browser.page.TTFB.",
    "browser.page.INP.",
    LAYOUT_SHIFT,
    "browser.step.",
];

/// The histograms in a summary, if they were measured.
const HISTOGRAMS: [&str; 4] = [
    "http.response_time",
    "vusers.session_length",
    "socketio.response_time",
    "browser.page.dominteractive",
];

/// Summarizes the measurements of a test with `workers` workers. `repeated` is the number of results
/// that were ignored because another pod of the same worker had reported too.
#[must_use]
pub fn summarize(measured: &Measurements, workers: u32, repeated: u32) -> Results {
    let sum = |names: &[&str]| {
        names
            .iter()
            .filter_map(|name| measured.counter(name))
            .sum::<f64>()
            .clamp(f64::MIN, f64::MAX)
    };
    let requests = sum(&[
        "http.requests",
        "websocket.messages_sent",
        "socketio.emit",
        "browser.http_requests",
    ]);
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let errors = || {
        measured
            .counters_below("errors.")
            .map(|(kind, n)| (kind, whole(n)))
    };
    let histograms: Vec<_> = HISTOGRAMS
        .iter()
        .filter_map(|name| Some(measured.histogram(name)?.distribution(name)))
        .chain(browser_histograms(measured))
        .collect();
    let codes = measured.counters_below("http.codes.");
    let codes = codes.chain(measured.counters_below(BROWSER_CODES));
    let mut counts = BTreeMap::new();
    for (code, n) in codes {
        *counts.entry(code).or_insert(0.0) += n;
    }
    let browser_responses = measured.counters_below(BROWSER_CODES);
    let browser_responses = browser_responses.fold(0.0, |sum, (_, n)| sum + n);
    let dropped_errors = whole(measured.dropped_errors);
    let mut results = Results {
        live: false,
        as_of: None,
        series: None,
        workers_reporting: format!("{} of {workers}", measured.workers),
        workers_repeated: number(repeated),
        workers_partial: number(measured.partial),
        partial: measured.partial > 0 || measured.workers < workers,
        start_skew_milliseconds: measured.starts.map(|(first, last)| whole(last - first)),
        requests: whole(requests),
        request_rate: round(requests / measured.seconds()),
        responses: whole(
            sum(&["http.responses", "websocket.messages_received"]) + browser_responses,
        ),
        codes: most_frequent(
            counts.into_iter().map(|(code, n)| (code, whole(n))),
            MAX_CODES,
            0,
        ),
        errors: errors().fold(dropped_errors, |sum, (_, n)| sum.saturating_add(n)),
        errors_by_kind: most_frequent(errors(), MAX_ERROR_KINDS, dropped_errors),
        vusers_created: whole(sum(&["vusers.created"])),
        vusers_completed: whole(sum(&["vusers.completed"])),
        vusers_failed: whole(sum(&["vusers.failed"])),
        p95: None,
        p99: None,
        histograms,
        metrics_dropped: number(measured.dropped),
        load: Some(delivered_load(measured)),
        generators: None,
    };
    let shown = |ms: Option<f64>| ms.map(|ms| format!("{ms}ms"));
    let times = results.response_time();
    (results.p95, results.p99) = (
        shown(times.and_then(|t| t.p95)),
        shown(times.and_then(|t| t.p99)),
    );
    results
}

/// The histograms of the most frequent pages and steps of a browser, in the order of their names.
fn browser_histograms(measured: &Measurements) -> Vec<Distribution> {
    let mut found: Vec<_> = BROWSER_HISTOGRAMS
        .iter()
        .flat_map(|prefix| measured.histograms_below(prefix))
        .collect();
    found.sort_by_key(|(_, sketch)| Reverse(sketch.count()));
    found.truncate(MAX_BROWSER_HISTOGRAMS);
    found.sort_by_key(|(name, _)| *name);
    let shown = |(name, sketch): (&str, &Sketch)| Distribution {
        name: shortened(name),
        ..sketch.distribution(name)
    };
    found.into_iter().map(shown).collect()
}

/// The load without its share that was sent, which depends on the accepted tolerance.
fn delivered_load(measured: &Measurements) -> DeliveredLoad {
    let count = |name: &str| whole(measured.counter(name).unwrap_or_default());
    let plan = measured.plan();
    DeliveredLoad {
        sent: None,
        planned_vusers: plan.map(|plan| whole(plan.vusers)),
        created_vusers: count("vusers.created"),
        skipped_vusers: count("vusers.skipped"),
        planned_seconds: plan.map(|plan| round(plan.planned_seconds)),
        actual_seconds: plan.map(|plan| round(plan.actual_seconds)),
        arrival_delay: measured.arrival_delay().map(|delay| ArrivalDelay {
            p50: delay.summary("p50"),
            p99: delay.summary("p99"),
            max: delay.summary("max"),
        }),
    }
}

/// The `max` highest counts. The rest is added to `other`, which becomes the last entry.
fn most_frequent<'a>(
    counts: impl Iterator<Item = (&'a str, i64)>,
    max: usize,
    other: i64,
) -> Vec<NamedCount> {
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    let rest = counts.split_off(max.min(counts.len()));
    let other = rest
        .iter()
        .fold(other, |sum, (_, n)| sum.saturating_add(*n));
    let mut counts: Vec<_> = counts
        .into_iter()
        .map(|(name, count)| NamedCount {
            name: shortened(name),
            count,
        })
        .collect();
    if other > 0 {
        counts.push(NamedCount {
            name: OTHER.to_owned(),
            count: other,
        });
    }
    counts
}

/// A name that a script can choose, as the status shows it.
fn shortened(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME_CHARS)
        .collect()
}

/// A counter as an integer. Only a manipulated snapshot has other values.
#[allow(clippy::cast_possible_truncation)]
fn whole(value: f64) -> i64 {
    // Clients written in JavaScript must be able to represent it exactly.
    value.round().clamp(0.0, 9_007_199_254_740_991.0) as i64
}
