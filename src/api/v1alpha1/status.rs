//! What the operator has seen of a test.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{Phase, Verdict};
use crate::results::Results;

/// Something that has to hold for a test to pass.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Threshold {
    /// The expression, as in the script's `ensure` or in `spec.thresholds`.
    pub expression: String,

    /// Whether the test passes only if it holds. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,

    /// Whether it held, once the test has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,

    /// The values of the metrics that it names, or why it cannot be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A worker that failed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailedWorker {
    /// The worker's number, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i32>,

    /// Its pod.
    pub pod: String,

    /// Why it failed, in one word: as its container or its pod has it, such as `Error`, `OOMKilled` or `Evicted`.
    pub reason: String,

    /// The exit code of its container, if that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// The last line that it wrote, or what was said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What the operator has seen of a test.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LoadTestStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the test stands, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// `Progressing`, `Completed` and `Failed`, in this order, and `Stopped` of a test that was. Exactly one of the last
    /// three becomes True, once. Of a test that has ended also `Passed` and `ResultsComplete`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,

    /// When the test's Job started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When the workers were to begin their load, if they began together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_start_time: Option<MicroTime>,

    /// When the test ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// How long the test has run since its start time, such as `55s` or `2m5s`. Renewed every 10 seconds or so while
    /// the test runs, and exact once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,

    /// Whether the test has passed, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,

    /// What has to hold for the test to pass: what the script's `ensure` asks for, and `spec.thresholds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 201))]
    pub thresholds: Option<Vec<Threshold>>,

    /// What all workers have measured together, once the test has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Box<Results>>,

    /// The number of workers that are pending or running.
    #[serde(default)]
    pub active: i32,

    /// The number of workers that succeeded.
    #[serde(default)]
    pub succeeded: i32,

    /// The number of workers that failed. Workers that were stopped because another failed do not count.
    #[serde(default)]
    pub failed: i32,

    /// The number of workers that were stopped before they had ended, because another failed or the test was ended.
    #[serde(default)]
    pub aborted: i32,

    /// The workers that failed, ten at most; `failed` counts all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failed_workers: Vec<FailedWorker>,

    /// How long the phases of the test script take. A worker that still runs long after that is told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_duration: Option<String>,

    /// The number of workers that succeeded, of all, such as `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions: Option<String>,

    /// The workers' image.
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
