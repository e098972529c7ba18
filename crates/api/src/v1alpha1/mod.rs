//! `loadtest.artillery.io/v1alpha1`: the [`LoadTest`] resource.
//!
//! The CRD in `config/crd` is printed from these types, so the doc comments of the fields are what
//! `kubectl explain` shows.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod lifecycle;
mod live;
mod reasons;
mod results;
mod script;
mod status;
mod threshold;
mod worker;
pub(crate) mod worker_policy;

pub use lifecycle::JobRecord;
pub use live::{AbortCondition, OnNoData, Series};
pub use reasons::{ConditionType, Phase, Reason, Verdict};
pub use results::{
    ArrivalDelay, DeliveredLoad, Distribution, Generators, LAYOUT_SHIFT, NamedCount, Results,
    WorstGenerator,
};
pub use script::{
    ClaimFiles, Config, ConfigMapFiles, ConfigMaps, External, ImageFiles, Processor,
    TEST_SCRIPT_KEY, TestScript,
};
pub use status::{FailedWorker, LoadTestStatus, StopCause};
pub use threshold::{RESERVED_WORDS, Threshold, is_identifier_char, quote_metric};
pub use worker::WorkerTemplate;
pub use worker_policy::validate_env;

/// Fields of the spec that cannot change once the test has started. The API server sets a default for those that are required.
pub(crate) const FIXED_FIELDS: [(&str, Presence); 14] = [
    ("count", Presence::Required),
    ("testScript", Presence::Required),
    ("failurePolicy", Presence::Required),
    ("load", Presence::Required),
    ("liveResults", Presence::Required),
    ("abort", Presence::Optional),
    ("validate", Presence::Required),
    ("start", Presence::Optional),
    ("thresholds", Presence::Optional),
    ("loadTolerance", Presence::Optional),
    ("environment", Presence::Optional),
    ("target", Presence::Optional),
    ("variables", Presence::Optional),
    ("worker", Presence::Optional),
];

/// Fields of the spec that can change while the test runs. Further rules guard `suspend` and `stop`.
#[cfg(test)]
pub(crate) const MUTABLE_FIELDS: [&str; 6] = [
    "stop",
    "suspend",
    "startDeadlineSeconds",
    "activeDeadlineSeconds",
    "jobTtlSecondsAfterFinished",
    "ttlSecondsAfterFinished",
];

/// Whether a field is always present in a stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    Optional,
}

/// CEL: the test has not started, and no queue holds a Job of it.
const NOT_STARTED: &str = "!has(oldSelf.status) || !has(oldSelf.status.phase) || (oldSelf.status.phase in ['Pending', 'Suspended'] && !has(oldSelf.status.job))";

/// CEL: once the test has started, the fixed fields are unchanged. Each field is compared on its own: the API server estimates
/// the cost of optional field selection (`.?`) as unbounded.
fn fixed_once_started() -> String {
    let unchanged = FIXED_FIELDS.map(|(field, presence)| {
        let (new, old) = (
            format!("self.spec.{field}"),
            format!("oldSelf.spec.{field}"),
        );
        match presence {
            Presence::Required => format!("{new} == {old}"),
            Presence::Optional => {
                format!("has({new}) == has({old}) && (!has({new}) || {new} == {old})")
            }
        }
    });
    format!("{NOT_STARTED} || ({})", unchanged.join(" && "))
}

/// CEL: once the test has started, it is not suspended.
fn not_suspended_once_started() -> String {
    format!(
        "{NOT_STARTED} || !has(self.spec.suspend) || !self.spec.suspend || (has(oldSelf.spec.suspend) && oldSelf.spec.suspend)"
    )
}

/// A distributed load test: count Artillery workers run one test script, each in a pod of its own.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "loadtest.artillery.io",
    version = "v1alpha1",
    kind = "LoadTest",
    plural = "loadtests",
    shortname = "lt",
    category = "all",
    namespaced,
    status = "LoadTestStatus",
    derive = "PartialEq",
    doc = "A distributed Artillery load test. It runs once: to run it again, delete it and create it again, or create another under a new name.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase", description = "Phase of the test"),
    printcolumn(name = "Completions", type_ = "string", json_path = ".status.completions", description = "Workers that succeeded, out of all"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration", description = "How long the test has run"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment", description = "Environment of the script"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict", description = "Whether the test passed"),
    printcolumn(name = "P95", type_ = "string", json_path = ".status.results.p95", description = "95th percentile of the response time"),
    printcolumn(name = "Errors", type_ = "integer", json_path = ".status.results.errors", description = "Errors of all workers"),
    printcolumn(name = "RPS", type_ = "number", json_path = ".status.results.requestRate", priority = "10", description = "Requests per second of all workers"),
    printcolumn(name = "P99", type_ = "string", json_path = ".status.results.p99", priority = "10", description = "99th percentile of the response time"),
    printcolumn(name = "Sent", type_ = "string", json_path = ".status.results.load.sent", priority = "10", description = "Share of the planned load that was sent"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = "10", description = "Image of the workers"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name is used in pod names and labels: use only a-z, 0-9 and '-' (no dots), and start and end with a letter or digit"),
    validation = Rule::new("size(self.metadata.name) + 1 + size(string((has(self.spec.count) ? self.spec.count : 1) - 1)) <= 63")
        .message("metadata.name is too long: with '-' and the index of the last worker it must fit into the 63 characters of a host name"),
    validation = Rule::new(fixed_once_started())
        .message("the test has a Job: only spec.stop, startDeadlineSeconds, activeDeadlineSeconds, jobTtlSecondsAfterFinished and ttlSecondsAfterFinished can still change; create a new LoadTest for anything else"),
    validation = Rule::new(not_suspended_once_started())
        .message("the test has a Job and cannot be suspended, because its workers would repeat their load: set spec.stop to true to end it"),
    validation = Rule::new("!has(oldSelf.spec.stop) || !oldSelf.spec.stop || (has(self.spec.stop) && self.spec.stop)")
        .message("spec.stop cannot be unset: create a new LoadTest to run the test again"),
)]
#[serde(rename_all = "camelCase")]
pub struct LoadTestSpec {
    /// Number of workers. Each worker runs the whole test script in its own pod, so the load is count times what the
    /// script describes, unless load is Divide.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: i32,

    /// Environment of the test script (an entry of config.environments) that the workers use, as with artillery run
    /// --environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub environment: Option<String>,

    /// The test script and the files it needs.
    pub test_script: TestScript,

    /// Variables of the script, as with artillery run --variables: the script reads them as {{ name }}. Values are
    /// strings or integers. Write other values as strings, such as '0.5' and 'true'.
    // The type accepts any value, because the operator would skip a LoadTest that does not parse. The schema is the widest one
    // whose values the rules above can compare.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, IntOrString>", extend("maxProperties" = 256))]
    pub variables: BTreeMap<String, serde_json::Value>,

    /// URL under test. Overrides the script's config.target, as with artillery run --target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub target: Option<String>,

    /// Multiply: every worker sends the load that the script describes. Divide: the workers share that load; the
    /// arrivals of each phase and the rows of each payload are divided among them.
    #[serde(default)]
    pub load: Load,

    /// Together: all workers begin their load at the same instant, as soon as every worker is ready. Immediate: each
    /// worker begins as soon as it is ready. Default: Together for more than one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,

    /// Conditions the merged results must meet for the test to pass, in addition to the script's ensure: expressions
    /// as in the conditions of Artillery's ensure, such as http.response_time.p95 < 200. They are evaluated once,
    /// over the results of all workers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1000)))]
    pub thresholds: Vec<String>,

    /// How far the sent load may differ from the load that the script's phases plan. Beyond it, the condition LoadDelivered is
    /// False, and the test does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_tolerance: Option<LoadTolerance>,

    /// Conditions that end the test while it runs, to protect what it loads. The test fails with the reason AbortConditionMet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub abort: Vec<AbortCondition>,

    /// Whether workers serve their results over HTTP while they run, and the operator shows them in status.results. Without it,
    /// results follow at the end.
    #[serde(default = "default_live_results")]
    pub live_results: bool,

    /// Whether the script is checked before workers start: it must be valid YAML, have scenarios, and have no keys
    /// that Artillery would ignore. A problem is reported with its line and column, and no worker starts.
    #[serde(default = "default_validate")]
    pub validate: bool,

    /// Settings of the workers' pods. They take precedence over the operator's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Box<WorkerTemplate>>,

    /// What happens when a worker fails. FailFast: the other workers are stopped, and the test fails at once.
    /// Continue: the other workers run to their end, and then the test fails.
    #[serde(default)]
    pub failure_policy: FailurePolicy,

    /// Seconds to wait for prerequisites such as the script, and then again for all workers to start. After that the
    /// test fails with the reason found. Time while suspended does not count.
    #[serde(default = "default_start_deadline")]
    #[schemars(range(min = 1))]
    pub start_deadline_seconds: i64,

    /// Seconds the test may run, from the start of its Job. After that its workers are stopped, and it fails.
    /// Default: 24 hours more than the script's phases take, or 7 days where that is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,

    /// Seconds after its end until the Job and pods of the test are deleted. The LoadTest stays, with its results. Default:
    /// ttlSecondsAfterFinished, or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub job_ttl_seconds_after_finished: Option<i32>,

    /// Seconds after its end until the test is deleted with its Job and pods. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// Suspends the test before it starts: no Job is created while this is true. A test that has started cannot be
    /// suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Stops the test: workers receive SIGTERM, and the phase becomes Stopped when they have exited. Cannot be
    /// undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<bool>,
}

fn default_count() -> i32 {
    1
}

fn default_start_deadline() -> i64 {
    600
}

fn default_live_results() -> bool {
    true
}

fn default_validate() -> bool {
    true
}

/// How the workers relate to the load that the script describes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Load {
    /// Every worker sends the whole load.
    #[default]
    Multiply,
    /// The workers share the load.
    Divide,
}

/// How far the sent load may differ from the load that the script's phases plan. Beyond it, the condition LoadDelivered is
/// False, and the test does not pass.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LoadTolerance {
    /// Percent of the planned virtual users that may be missing. Default: 1. A Poisson process may create fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub users_percent: Option<i32>,

    /// Percent of the planned duration by which a worker's load may be late, at least 2 seconds at its end and 5 seconds for its
    /// virtual users. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub time_percent: Option<i32>,

    /// Percent of the planned virtual users that maxVusers may skip. Default: 1. 100 accepts all skipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub skipped_percent: Option<i32>,
}

// The schema of an optional enum has the description of the enum, not that of the field.
/// Together: all workers begin their load at the same instant, as soon as every worker is ready. Immediate: each worker
/// begins as soon as it is ready. Default: Together for more than one worker.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// All at the same instant.
    Together,
    /// Each as soon as it is ready.
    Immediate,
}

impl LoadTestSpec {
    /// Whether the workers wait for each other before they begin their load.
    #[must_use]
    pub fn starts_together(&self) -> bool {
        self.start
            .map_or(self.count > 1, |start| start == Start::Together)
    }
}

/// What happens to the other workers when one fails.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// They are stopped.
    #[default]
    FailFast,
    /// They run to their end.
    Continue,
}
