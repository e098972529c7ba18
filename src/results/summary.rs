//! What the status shows of the measurements: of bounded size, however many workers and metrics there are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sketch::round;
use super::{Measurements, Sketch};

const MOST_KINDS: usize = 10;
const MOST_CODES: usize = 20;
const MOST_NAME: usize = 100;
const OTHER: &str = "other";

/// The histograms that are shown, where there are any.
const MAIN: [&str; 4] = [
    "http.response_time",
    "vusers.session_length",
    "socketio.response_time",
    "browser.page.dominteractive",
];

// Decimals are numbers here, though Kubernetes' conventions advise against floats: they are rounded to 0.1, measured rather
// than wished for, so nobody compares or applies them; and a number can be sorted and shown by kubectl, and fed to jq.
/// What all workers have measured together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// How many workers these results are of, of all, such as `9 of 10`.
    pub workers_reporting: String,
    /// How many of those reporting had not reached the end of their test.
    pub workers_partial: i32,
    /// How many results were left out, because another pod of the same worker had left some. Not zero where Kubernetes has
    /// run a worker twice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub workers_repeated: i32,
    /// Whether something is missing: a worker, or the end of one's test.
    pub partial: bool,
    /// How many ms after the first worker the last one began its load, by their clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_skew_milliseconds: Option<i64>,
    /// Requests that were sent: HTTP requests, WebSocket messages, Socket.IO emits.
    pub requests: i64,
    /// Requests a second, from the first to the last that was counted.
    pub request_rate: f64,
    /// Responses and messages that came.
    pub responses: i64,
    /// HTTP status codes, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<Count>,
    /// Errors of all kinds. An HTTP status code is none.
    pub errors: i64,
    /// Errors by kind, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors_by_kind: Vec<Count>,
    /// Virtual users that were begun.
    pub vusers_created: i64,
    /// Virtual users whose scenario went through.
    pub vusers_completed: i64,
    /// Virtual users whose scenario failed.
    pub vusers_failed: i64,
    /// The response time that 95 % of the responses had at most, such as `48.9ms`: of HTTP, or else of Socket.IO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95: Option<String>,
    /// The same for 99 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<String>,
    /// The main histograms, in ms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histograms: Vec<Distribution>,
    /// How many other metrics the workers had no room to tell, at most.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metrics_dropped: i32,
}

/// How often something was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// What; `other` for all that are not shown one by one.
    pub name: String,
    /// How often.
    pub count: i64,
}

/// How the values of a histogram are spread. Percentiles are off by `errorBound` at most; the rest is exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    /// Artillery's name for it.
    pub name: String,
    /// How many values.
    pub count: i64,
    /// The least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The arithmetic mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// The median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// 90 % of the values are at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<f64>,
    /// 95 % of the values are at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95: Option<f64>,
    /// 99 % of the values are at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// 99.9 % of the values are at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999: Option<f64>,
    /// By how much a percentile may be off, such as `1%`.
    pub error_bound: String,
}

// serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

impl Results {
    /// The results of a test of so many workers.
    #[must_use]
    pub fn new(measured: &Measurements, workers: u32, repeated: u32) -> Self {
        let sum = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| measured.counter(name))
                .sum::<f64>()
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
        let histograms: Vec<_> = MAIN
            .iter()
            .filter_map(|name| Some(Distribution::new(name, measured.histogram(name)?)))
            .collect();
        let dropped_errors = whole(measured.dropped_errors);
        let mut results = Self {
            workers_reporting: format!("{} of {workers}", measured.workers),
            workers_repeated: number(repeated),
            workers_partial: number(measured.partial),
            partial: measured.partial > 0 || measured.workers < workers,
            start_skew_milliseconds: measured.starts.map(|(first, last)| whole(last - first)),
            requests: whole(requests),
            request_rate: round(requests / measured.seconds()),
            responses: whole(sum(&["http.responses", "websocket.messages_received"])),
            codes: most_frequent(
                measured
                    .counters_below("http.codes.")
                    .map(|(code, n)| (code, whole(n))),
                MOST_CODES,
                0,
            ),
            errors: errors().fold(dropped_errors, |sum, (_, n)| sum.saturating_add(n)),
            errors_by_kind: most_frequent(errors(), MOST_KINDS, dropped_errors),
            vusers_created: whole(sum(&["vusers.created"])),
            vusers_completed: whole(sum(&["vusers.completed"])),
            vusers_failed: whole(sum(&["vusers.failed"])),
            p95: None,
            p99: None,
            histograms,
            metrics_dropped: number(measured.dropped),
        };
        let shown = |ms: Option<f64>| ms.map(|ms| format!("{ms}ms"));
        let times = results.response_time();
        (results.p95, results.p99) = (
            shown(times.and_then(|t| t.p95)),
            shown(times.and_then(|t| t.p99)),
        );
        results
    }

    /// What the metrics show of them.
    #[must_use]
    pub fn numbers(self) -> Self {
        let times = self.response_time().map(|times| Distribution {
            error_bound: String::new(),
            ..times.clone()
        });
        Self {
            workers_reporting: String::new(),
            codes: Vec::new(),
            errors_by_kind: Vec::new(),
            p95: None,
            p99: None,
            histograms: times.into_iter().collect(),
            ..self
        }
    }

    /// The response times that the columns show: of HTTP, or else of Socket.IO.
    #[must_use]
    pub fn response_time(&self) -> Option<&Distribution> {
        self.histograms
            .iter()
            .find(|histogram| histogram.name.ends_with(".response_time"))
    }
}

impl Distribution {
    fn new(name: &str, sketch: &Sketch) -> Self {
        Self {
            name: name.to_owned(),
            count: i64::try_from(sketch.count()).unwrap_or(i64::MAX),
            min: sketch.summary("min"),
            max: sketch.summary("max"),
            mean: sketch.summary("mean"),
            p50: sketch.summary("p50"),
            p90: sketch.summary("p90"),
            p95: sketch.summary("p95"),
            p99: sketch.summary("p99"),
            p999: sketch.summary("p999"),
            error_bound: format!("{}%", sketch.error_percent()),
        }
    }
}

/// The most frequent, and the rest as one.
fn most_frequent<'a>(
    counts: impl Iterator<Item = (&'a str, i64)>,
    most: usize,
    other: i64,
) -> Vec<Count> {
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    let rest = counts.split_off(most.min(counts.len()));
    let other = rest
        .iter()
        .fold(other, |sum, (_, n)| sum.saturating_add(*n));
    let shown = |name: &str| {
        name.chars()
            .filter(|c| !c.is_control())
            .take(MOST_NAME)
            .collect()
    };
    let mut counts: Vec<_> = counts
        .into_iter()
        .map(|(name, count)| Count {
            name: shown(name),
            count,
        })
        .collect();
    if other > 0 {
        counts.push(Count {
            name: OTHER.to_owned(),
            count: other,
        });
    }
    counts
}

/// A counter as a whole number, which it is unless a worker was strange.
#[allow(clippy::cast_possible_truncation)]
fn whole(value: f64) -> i64 {
    // Within what JavaScript counts by ones.
    value.round().clamp(0.0, 9_007_199_254_740_991.0) as i64
}
