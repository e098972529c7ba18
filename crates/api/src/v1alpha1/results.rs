//! The types of the results in the status. The crate `loadtest-results` fills them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Series;

// Floats, although Kubernetes' API conventions advise against them: the values are measured and rounded to 0.1, nobody
// compares or applies them, and kubectl and jq can sort numbers.
/// The merged results of all workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Whether the test still runs: these are the results until asOf.
    #[serde(default)]
    pub live: bool,
    /// When the workers were read that still run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
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
    /// Requests that were sent: HTTP requests, WebSocket messages, Socket.IO emits, requests of browsers.
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
    /// The main histograms, in milliseconds. browser.page.CLS has no unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histograms: Vec<Distribution>,
    /// Upper bound of metrics that did not fit into the workers' result messages.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metrics_dropped: i32,
    /// The course of the test, if its workers could be read while it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// The planned load, and how much of it the workers sent. The condition LoadDelivered compares them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<DeliveredLoad>,
    /// Whether the workers themselves limited the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generators: Option<Generators>,
}

/// The planned load, and how much of it the workers sent. Fields about the plan are not set where a worker could not read
/// the script's phases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveredLoad {
    /// Share of the planned load that was sent in time, such as 35%. Of a worker whose phases took too long, only the part of
    /// its virtual users counts that it created in the planned duration. Not set if results of a worker are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// Virtual users that the script's phases plan for the workers that reported. For phases with a Poisson process, the
    /// expected number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_vusers: Option<i64>,
    /// Virtual users that were created.
    pub created_vusers: i64,
    /// Virtual users that were not created because maxVusers was reached.
    pub skipped_vusers: i64,
    /// Duration of the script's phases, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_seconds: Option<f64>,
    /// Time that the phases took, in seconds, on the slowest worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_seconds: Option<f64>,
    /// How late virtual users arrived, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival_delay: Option<ArrivalDelay>,
}

/// How late virtual users arrived, in milliseconds. Percentiles are accurate within 8%.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArrivalDelay {
    /// Median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// Maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Whether the workers themselves limited the load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Generators {
    /// Number of workers whose load was too late, out of those that reported, such as 1 of 4.
    pub saturated: String,
    /// The worker with the largest delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<WorstGenerator>,
    /// How to size the workers for the planned load. Set if the load was not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What a worker measured about itself while its load ran. What it could not measure is not set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorstGenerator {
    /// Index of the worker, from 0.
    pub worker: i32,
    /// Virtual users per second that the script plans for this worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_rate: Option<f64>,
    /// Virtual users per second that arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival_rate: Option<f64>,
    /// Number of Artillery's threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<i32>,
    /// Share of time in which the event loop of the busiest thread was busy, such as 99%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<String>,
    /// 99th percentile of the event-loop delay, such as 182ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_loop_delay: Option<String>,
    /// Share of CPU periods in which the CPU limit throttled the worker, such as 98%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<String>,
    /// Total time for which the worker was throttled, such as 41.2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_time: Option<String>,
    /// Average CPU usage, such as 298m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// CPU limit, such as 300m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<String>,
    /// Peak memory, such as 143Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Memory limit, such as 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
}

impl Generators {
    /// The number of saturated workers.
    #[must_use]
    pub fn saturated_workers(&self) -> Option<u32> {
        self.saturated.split(' ').next()?.parse().ok()
    }
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

/// The names of the response times that the columns show, the first one that was measured.
const RESPONSE_TIMES: [&str; 2] = ["http.response_time", "socketio.response_time"];

/// Before the name of a page: the histogram of its layout shifts, whose scores have no unit.
pub const LAYOUT_SHIFT: &str = "browser.page.CLS.";

impl Distribution {
    /// Whether the values are times in milliseconds. Unknown for histograms of scripts.
    #[must_use]
    pub fn is_time(&self) -> bool {
        !self.name.starts_with(LAYOUT_SHIFT) && self.name != "browser.memory_used_mb"
    }
}

// serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// The fields of results that are not written where they are not set, by the path of their object.
const OMITTED_FIELDS: [(&str, &[&str]); 6] = [
    (
        "",
        &[
            "asOf",
            "workersRepeated",
            "startSkewMilliseconds",
            "codes",
            "errorsByKind",
            "p95",
            "p99",
            "histograms",
            "metricsDropped",
            "series",
            "load",
            "generators",
        ],
    ),
    ("/series", &["start"]),
    (
        "/load",
        &[
            "sent",
            "plannedVusers",
            "plannedSeconds",
            "actualSeconds",
            "arrivalDelay",
        ],
    ),
    ("/load/arrivalDelay", &["p50", "p99", "max"]),
    ("/generators", &["worst", "advice"]),
    (
        "/generators/worst",
        &[
            "plannedRate",
            "arrivalRate",
            "threads",
            "utilization",
            "eventLoopDelay",
            "throttled",
            "throttledTime",
            "cpu",
            "cpuLimit",
            "memory",
            "memoryLimit",
        ],
    ),
];

impl Results {
    /// Stands for live results that are recorded, but not kept.
    #[must_use]
    pub fn placeholder() -> Self {
        Self {
            live: true,
            ..Self::default()
        }
    }

    /// Whether this stands for recorded live results, which always have a time.
    #[must_use]
    pub fn is_placeholder(&self) -> bool {
        self.live && self.as_of.is_none()
    }

    /// A merge patch that replaces recorded results as a whole: fields that are not set are null.
    #[must_use]
    pub fn merge_patch(&self) -> Value {
        let mut patch = json!(self);
        for (path, names) in OMITTED_FIELDS {
            let Some(Value::Object(object)) = patch.pointer_mut(path) else {
                continue;
            };
            for name in names {
                object.entry(*name).or_insert(Value::Null);
            }
        }
        patch
    }

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
            series: None,
            p95: None,
            p99: None,
            histograms: times.into_iter().collect(),
            generators: self.generators.map(|generators| Generators {
                saturated: generators.saturated,
                ..Generators::default()
            }),
            ..self
        }
    }

    /// The response times that the columns show: of HTTP, or else of Socket.IO.
    #[must_use]
    pub fn response_time(&self) -> Option<&Distribution> {
        RESPONSE_TIMES
            .iter()
            .find_map(|name| self.histograms.iter().find(|one| one.name == *name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The paths of a schema's fields that a value does not have. The elements of lists are replaced with their list.
    fn missing(schema: &Value, value: &Value, path: &str, all: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            match value.get(name) {
                Some(value) => missing(field, value, &path, all),
                None => all.push(path),
            }
        }
    }

    #[test]
    fn a_patch_of_results_has_every_field() {
        let results = Results {
            series: Some(Series::default()),
            load: Some(DeliveredLoad {
                arrival_delay: Some(ArrivalDelay::default()),
                ..DeliveredLoad::default()
            }),
            generators: Some(Generators {
                worst: Some(WorstGenerator::default()),
                ..Generators::default()
            }),
            ..Results::default()
        };
        let crd = serde_json::to_value(crate::crd::crd()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
            ["properties"]["results"];
        let mut all = Vec::new();
        missing(schema, &results.merge_patch(), "results", &mut all);
        assert_eq!(all, Vec::<String>::new());
        let sent = Results::default().merge_patch();
        assert_eq!(
            (&sent["series"], &sent["requests"]),
            (&Value::Null, &0.into())
        );
    }
}
