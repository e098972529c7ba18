//! The status of a test.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{Phase, Results, Threshold, Verdict};

/// A worker that failed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailedWorker {
    /// Index of the worker, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i32>,

    /// Name of its pod.
    pub pod: String,

    /// Why it failed, in one word of its container or pod, such as Error, OOMKilled or Evicted.
    pub reason: String,

    /// Exit code of its container, if it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// The most informative line of its log, or the message of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why a test is being stopped.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StopCause {
    /// The reason, as in conditions.
    pub reason: String,

    /// The message for people.
    #[schemars(length(max = 2000))]
    pub message: String,
}

/// What the operator observed of a test.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LoadTestStatus {
    /// Generation of the spec that this status describes, or -1 before the operator has processed the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Phase of the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// Progressing, Completed, Failed and Ready, in this order, and Stopped for a test that was stopped. Exactly one of
    /// Completed, Failed and Stopped becomes True, once. A finished test also has Passed and ResultsComplete, and
    /// Stalled if it has not passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,

    /// Name of the test's Job, from the attempt to create it on. While it is set, most of the spec cannot change.
    // Written as null where it is not set, so that a merge patch removes it.
    #[serde(default)]
    pub job: Option<String>,

    /// Start time of the test's Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// Instant at which the workers begin their load together. Recorded before it is sent to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_start_time: Option<MicroTime>,

    /// When the test finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// How long the test has run since its start time, such as 55s or 2m5s. Updated about every 10 seconds while the
    /// test runs, and exact when it has finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,

    /// Whether the test passed. Set when it has finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,

    /// Why the test is being stopped, or was stopped, before its workers had finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_cause: Option<StopCause>,

    /// The conditions that the results must meet: those of the script's ensure and of spec.thresholds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 201))]
    pub thresholds: Option<Vec<Threshold>>,

    /// The merged results of all workers. Set when the test has finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Box<Results>>,

    /// Number of workers that are pending or running.
    #[serde(default)]
    pub active: i32,

    /// Number of workers that succeeded.
    #[serde(default)]
    pub succeeded: i32,

    /// Number of workers that failed. Workers that were stopped because another failed do not count.
    #[serde(default)]
    pub failed: i32,

    /// Number of workers that were stopped before they had finished, because another failed or the test was stopped.
    #[serde(default)]
    pub aborted: i32,

    /// The workers that failed, at most ten. The field failed counts all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failed_workers: Vec<FailedWorker>,

    /// Total duration of the test script's phases. A worker that runs much longer is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_duration: Option<String>,

    /// Number of workers that succeeded, out of all, such as 1/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions: Option<String>,

    /// Image of the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// The schema of a list of conditions, keyed by their type as Kubernetes' own are.
fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = <Vec<Condition>>::json_schema(generator);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert(
        "x-kubernetes-list-map-keys".into(),
        serde_json::json!(["type"]),
    );
    schema
}
