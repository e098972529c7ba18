//! The types of the results in the status. The crate `loadtest-results` fills them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

// Floats, although Kubernetes' API conventions advise against them: the values are measured and rounded to 0.1, nobody
// compares or applies them, and kubectl and jq can sort numbers.
/// The merged results of all workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Number of workers whose results are included, out of all, such as 9 of 10.
    pub workers_reporting: String,
    /// Number of included workers that had not reached the end of their test.
    pub workers_partial: i32,
    /// Number of results that were left out because another pod of the same worker had left some. Not zero where
    /// Kubernetes ran a worker twice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub workers_repeated: i32,
    /// Whether results are missing: those of a worker, or of the end of a worker's test.
    pub partial: bool,
    /// Milliseconds between the first and the last worker to begin its load, by their clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_skew_milliseconds: Option<i64>,
    /// Requests that were sent: HTTP requests, WebSocket messages, Socket.IO emits.
    pub requests: i64,
    /// Requests per second, from the first to the last.
    pub request_rate: f64,
    /// Responses and messages that were received.
    pub responses: i64,
    /// HTTP status codes, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<NamedCount>,
    /// Errors of all kinds. An HTTP status code is not an error.
    pub errors: i64,
    /// Errors by kind, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors_by_kind: Vec<NamedCount>,
    /// Virtual users that were created.
    pub vusers_created: i64,
    /// Virtual users whose scenario completed.
    pub vusers_completed: i64,
    /// Virtual users whose scenario failed.
    pub vusers_failed: i64,
    /// 95th percentile of the response time, such as 48.9ms: of HTTP, or else of Socket.IO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95: Option<String>,
    /// 99th percentile of the response time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<String>,
    /// The main histograms, in milliseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histograms: Vec<Distribution>,
    /// Upper bound of metrics that did not fit into the workers' result messages.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metrics_dropped: i32,
}

/// A count with its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedCount {
    /// The name; other stands for everything that is not listed.
    pub name: String,
    /// The count.
    pub count: i64,
}

/// Distribution of the values of a histogram. Percentiles are accurate within errorBound; everything else is exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    /// Artillery's name of the histogram.
    pub name: String,
    /// Number of values.
    pub count: i64,
    /// Minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Arithmetic mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// 90th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<f64>,
    /// 95th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95: Option<f64>,
    /// 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// 99.9th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999: Option<f64>,
    /// Relative error of a percentile at most, such as 1%.
    pub error_bound: String,
}

// serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

impl Results {
    /// The part that the metrics of finished tests show.
    #[must_use]
    pub fn for_metrics(self) -> Self {
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
