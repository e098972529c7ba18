//! What the workers of a running test reported, merged.

use k8s_openapi::jiff::Timestamp;
use loadtest_api::v1alpha1::{Results, Series};
use loadtest_results::Measurements;

/// What the workers of a running test reported until now.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveResults {
    /// When the workers were read.
    pub as_of: Timestamp,
    /// What they have measured since the start of the load. A worker that did not respond counts with its last response.
    pub measured: Measurements,
    /// What the load of each worker is judged by, with its index.
    pub loads: Vec<(i32, Measurements)>,
    /// The course of the test.
    pub series: Series,
    /// Since when no worker has responded, and why.
    pub unreachable: Option<Unreachable>,
    /// The state of each condition in `spec.abort`, in the same order.
    pub aborts: Vec<AbortState>,
}

impl LiveResults {
    /// What an earlier process recorded about workers that have ended since.
    #[must_use]
    pub fn from_record(recorded: Results) -> Option<Self> {
        Some(Self {
            as_of: recorded.as_of?.0,
            measured: Measurements::default(),
            loads: Vec::new(),
            series: recorded.series?,
            unreachable: None,
            aborts: Vec::new(),
        })
    }
}

/// Workers that do not respond.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreachable {
    /// Since when.
    pub since: Timestamp,
    /// How many workers were asked.
    pub workers: usize,
    /// The error of one of them.
    pub error: String,
}

/// The state of a condition that aborts a test.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AbortState {
    /// Since when the condition has held without interruption.
    pub held_since: Option<Timestamp>,
    /// Since when the condition could not be evaluated.
    pub unknown_since: Option<Timestamp>,
    /// The values of its metrics, or why it could not be evaluated.
    pub observed: String,
}
