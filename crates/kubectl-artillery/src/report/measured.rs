//! What the workers' termination messages add to the results of the status, while the pods exist.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use loadtest_api::v1alpha1::{Distribution, NamedCount};
use loadtest_results::{Generator, Measurements, Sketch, summarize};
use serde::Serialize;

use super::format::{mebibytes, millicores, percent};
use crate::view::Worker;

const BY_ENDPOINT: &str = "plugins.metrics-by-endpoint.";
const TIMES_BY_ENDPOINT: &str = "plugins.metrics-by-endpoint.response_time.";

/// How many columns a distribution has at most.
const MAX_COLUMNS: i32 = 72;

/// The distribution of response times.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseTimes {
    /// Artillery's name of the histogram.
    pub name: String,
    /// Number of values.
    pub count: u64,
    /// Number of workers that are included.
    pub workers: usize,
    /// Values of 0 ms, which no column includes.
    pub zeros: u64,
    /// Columns whose bounds all have the same ratio, without gaps.
    pub columns: Vec<Column>,
}

/// A column of a distribution.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// Lower bound in milliseconds, exclusive.
    pub lower: f64,
    /// Upper bound in milliseconds, inclusive.
    pub upper: f64,
    /// Number of values.
    pub count: u64,
}

/// An endpoint that the plugin metrics-by-endpoint measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// Its response times.
    pub times: Distribution,
    /// Its status codes.
    pub codes: Vec<NamedCount>,
    /// Its errors by kind.
    pub errors: Vec<NamedCount>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerLine {
    /// Its index, from 0.
    pub index: Option<u32>,
    /// The name of its pod.
    pub pod: String,
    /// The node of its pod.
    pub node: Option<String>,
    /// Its state in one word.
    pub state: String,
    /// Whether it failed, or cannot start.
    pub is_problem: bool,
    /// The message that belongs to its state.
    pub detail: Option<String>,
    /// When its container started.
    pub started: Option<Time>,
    /// When its container ended.
    pub ended: Option<Time>,
    /// What it measured. None if it left no results.
    pub results: Option<WorkerResults>,
}

/// What one worker measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerResults {
    /// Requests that were sent.
    pub requests: i64,
    /// Requests per second.
    pub request_rate: f64,
    /// Errors of all kinds.
    pub errors: i64,
    /// 95th percentile of the response time.
    pub p95: Option<String>,
    /// Virtual users that were created.
    pub created_vusers: i64,
    /// Virtual users that the script plans for this worker.
    pub planned_vusers: Option<i64>,
    /// Duration of the phases by plan, in seconds.
    pub planned_seconds: Option<f64>,
    /// Time that the phases took, in seconds.
    pub actual_seconds: Option<f64>,
    /// 99th percentile of the arrival delay, in milliseconds.
    pub arrival_delay: Option<f64>,
    /// Share of time in which the event loop of the busiest thread was busy.
    pub utilization: Option<String>,
    /// Share of CPU periods in which the CPU limit throttled the worker.
    pub throttled: Option<String>,
    /// CPU limit.
    pub cpu_limit: Option<String>,
    /// Peak memory.
    pub memory: Option<String>,
    /// Whether the worker had not reached the end of its test.
    pub partial: bool,
}

impl WorkerLine {
    pub(super) fn new(worker: &Worker) -> Self {
        Self {
            index: worker.index,
            pod: worker.pod.clone(),
            node: worker.node.clone(),
            state: worker.state.clone(),
            is_problem: worker.is_problem,
            detail: worker.detail.clone(),
            started: worker.started.map(Time),
            ended: worker.ended.map(Time),
            results: worker.measured.as_deref().map(WorkerResults::new),
        }
    }
}

impl WorkerResults {
    fn new(measured: &Measurements) -> Self {
        let results = summarize(measured, 1, 0);
        let load = results.load.unwrap_or_default();
        let generator = measured.generator();
        Self {
            requests: results.requests,
            request_rate: results.request_rate,
            errors: results.errors,
            p95: results.p95,
            created_vusers: load.created_vusers,
            planned_vusers: load.planned_vusers,
            planned_seconds: load.planned_seconds,
            actual_seconds: load.actual_seconds,
            arrival_delay: load.arrival_delay.and_then(|delay| delay.p99),
            utilization: generator.and_then(|one| one.utilization).map(percent),
            throttled: generator.and_then(Generator::throttled_share).map(percent),
            cpu_limit: generator.and_then(|one| one.cpu_limit).map(millicores),
            memory: generator.and_then(|one| one.memory).map(mebibytes),
            partial: results.partial,
        }
    }
}

/// The distribution, and why it is missing or incomplete. `total` is the number of response times in the results.
pub(super) fn response_times(
    merged: Option<&(Measurements, usize)>,
    count: usize,
    total: Option<i64>,
    is_finished: bool,
) -> (Option<ResponseTimes>, Option<String>) {
    let Some((measured, workers)) = merged else {
        let note = if is_finished {
            "The distribution of the response times is missing: it is read from the pods of the workers, and none has left its measurements."
        } else {
            "The distribution of the response times follows when the workers have ended."
        };
        return (None, Some(note.to_owned()));
    };
    let names = ["http.response_time", "socketio.response_time"];
    let found = names
        .into_iter()
        .find_map(|name| Some((name, measured.histogram(name)?)));
    let Some((name, sketch)) = found else {
        return (
            None,
            Some("The workers measured no response time.".to_owned()),
        );
    };
    let times = ResponseTimes {
        name: name.to_owned(),
        count: sketch.count(),
        workers: *workers,
        zeros: sketch
            .buckets()
            .filter(|(_, upper, _)| *upper <= 0.0)
            .fold(0, |sum, (_, _, n)| sum.saturating_add(n)),
        columns: columns(sketch),
    };
    let is_complete = total.is_none_or(|total| i64::try_from(times.count) == Ok(total));
    let note = match (is_complete, *workers) {
        (true, _) => None,
        (false, some) if some < count => Some(format!(
            "The distribution includes {some} of {count} workers: those whose pods exist and have ended."
        )),
        (false, _) => Some(format!(
            "The distribution has {} values, and the results have {}.",
            times.count,
            total.unwrap_or_default()
        )),
    };
    (Some(times), note)
}

/// Joins neighboring bins into columns of equal ratio, so that there are at most [`MAX_COLUMNS`].
fn columns(sketch: &Sketch) -> Vec<Column> {
    let bins: Vec<_> = sketch
        .buckets()
        .filter(|(lower, ..)| *lower > 0.0)
        .collect();
    let Some((lower, upper, _)) = bins.first() else {
        return Vec::new();
    };
    let log_ratio = (upper / lower).ln();
    #[allow(clippy::cast_possible_truncation)] // saturates
    let key = |upper: f64| (upper.ln() / log_ratio).round() as i32;
    let keys: Vec<_> = bins.iter().map(|(_, upper, n)| (key(*upper), *n)).collect();
    let first = keys.first().map_or(0, |(key, _)| *key);
    let last = keys.last().map_or(0, |(key, _)| *key);
    let joined = (last.saturating_sub(first) / MAX_COLUMNS).saturating_add(1);
    let mut counts = BTreeMap::new();
    for (key, n) in keys {
        let count: &mut u64 = counts.entry((key - first) / joined).or_default();
        *count = count.saturating_add(n);
    }
    let bound = |column: i32| (f64::from(first - 1 + column * joined) * log_ratio).exp();
    (0..=(last - first) / joined)
        .map(|column| Column {
            lower: bound(column),
            upper: bound(column + 1),
            count: counts.get(&column).copied().unwrap_or_default(),
        })
        .collect()
}

/// The names of all histograms.
fn histograms(measured: &Measurements) -> impl Iterator<Item = (String, &Sketch)> {
    measured.names().filter_map(|name| {
        let name = name.strip_suffix(".p999")?;
        Some((name.to_owned(), measured.histogram(name)?))
    })
}

/// The endpoints, the slowest first.
pub(super) fn endpoints(measured: &Measurements) -> Vec<Endpoint> {
    let mut endpoints: Vec<_> = histograms(measured)
        .filter_map(|(name, sketch)| {
            let endpoint = name.strip_prefix(TIMES_BY_ENDPOINT)?;
            Some(Endpoint {
                name: endpoint.to_owned(),
                times: sketch.distribution(&name),
                codes: counts(measured, &format!("{BY_ENDPOINT}{endpoint}.codes.")),
                errors: counts(measured, &format!("{BY_ENDPOINT}{endpoint}.errors.")),
            })
        })
        .collect();
    endpoints.sort_by(|a, b| {
        b.times
            .p95
            .unwrap_or(0.0)
            .total_cmp(&a.times.p95.unwrap_or(0.0))
    });
    endpoints
}

/// The counters below a prefix, the most frequent first.
fn counts(measured: &Measurements, prefix: &str) -> Vec<NamedCount> {
    let mut counts: Vec<_> = measured
        .names()
        .filter_map(|name| {
            #[allow(clippy::cast_possible_truncation)] // saturates
            let count = measured.counter(&name)?.round() as i64;
            let name = name.strip_prefix(prefix)?.to_owned();
            Some(NamedCount { name, count })
        })
        .collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.count));
    counts
}

/// The histograms that are neither in the results nor of an endpoint.
pub(super) fn other_histograms(measured: &Measurements) -> Vec<Distribution> {
    let in_results = summarize(measured, 0, 0).histograms;
    histograms(measured)
        .filter(|(name, _)| {
            !name.starts_with(TIMES_BY_ENDPOINT) && !in_results.iter().any(|one| one.name == *name)
        })
        .map(|(name, sketch)| sketch.distribution(&name))
        .collect()
}
