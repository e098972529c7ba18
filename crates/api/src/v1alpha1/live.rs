//! The course of a test while it runs, and when it is aborted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The course of a test: each list has one value for each step, of which there are at most 60. Counts of all steps add up to those of
/// the results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Series {
    /// When the first step begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Time>,
    /// Seconds of a step. It doubles when there would be more than 60 steps.
    pub step_seconds: i64,
    /// Requests that were sent in each step.
    pub requests: Vec<i64>,
    /// Errors in each step.
    pub errors: Vec<i64>,
    /// Virtual users that were created in each step.
    pub vusers_created: Vec<i64>,
    /// Virtual users that the script's phases plan for each step; 0 where the plan is unknown.
    pub vusers_planned: Vec<i64>,
    /// Virtual users that were active at the end of each step.
    pub vusers_active: Vec<i64>,
    /// Median response time in milliseconds; null without responses. Where two steps became one, the larger value.
    pub p50: Vec<Option<f64>>,
    /// The same for the 95th percentile.
    pub p95: Vec<Option<f64>>,
    /// The same for the 99th percentile.
    pub p99: Vec<Option<f64>>,
}

/// A condition that ends a running test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AbortCondition {
    /// The expression, as in thresholds. It is evaluated every 10 seconds, over what all workers measured in the last 10 seconds.
    #[schemars(length(min = 1, max = 1000))]
    pub when: String,

    /// How long the expression must hold without interruption, such as 20s or 1m30s. Default: one evaluation is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 12),
        regex(pattern = r"^([0-9]{1,3}h)?([0-9]{1,4}m)?([0-9]{1,5}s)?$")
    )]
    pub r#for: Option<String>,

    /// How long after the start of the load the expression is evaluated first, such as 30s. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 12),
        regex(pattern = r"^([0-9]{1,3}h)?([0-9]{1,4}m)?([0-9]{1,5}s)?$")
    )]
    pub after: Option<String>,

    /// What happens when the expression cannot be evaluated for 60 seconds, for example because no worker can be read, or no response
    /// arrives.
    #[serde(default)]
    pub on_no_data: OnNoData,
}

/// What happens when an abort condition cannot be evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNoData {
    /// The test ends.
    #[default]
    Abort,
    /// The test goes on.
    Continue,
}
