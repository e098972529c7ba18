//! What all formats of a report show.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use loadtest_api::v1alpha1::{
    ConditionType, Distribution, LoadTest, LoadTestSpec, LoadTestStatus, Phase, Reason, Results,
    Threshold,
};
use serde::Serialize;

use super::measured::{self, Endpoint, ResponseTimes, WorkerLine};
use super::timeline::{self, Entry};
use crate::outcome::Outcome;
use crate::view::View;

/// The report of a test. As JSON it is the format `json`, in which `results`, `thresholds` and `conditions` are those of the status.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The name of the test.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Passed, Failed, Inconclusive or Stopped; the phase of a test that has not finished.
    pub verdict: String,
    /// The outcome as the exit codes know it.
    #[serde(skip)]
    pub outcome: Outcome,
    /// The phase of the test.
    pub phase: Option<Phase>,
    /// The reason of the verdict, or of the phase, as in conditions.
    pub reason: Option<String>,
    /// Why the test has its verdict, or what it waits for, in a sentence.
    pub why: String,
    /// When the report was made.
    pub generated: Time,
    /// When the test was created.
    pub created: Option<Time>,
    /// When its Job started.
    pub started: Option<Time>,
    /// When the workers began their load together.
    pub load_started: Option<Time>,
    /// When the test finished.
    pub completed: Option<Time>,
    /// How long the test ran, as in the status.
    pub duration: Option<String>,
    /// How long the phases of its script take.
    pub expected_duration: Option<String>,
    /// Workers that succeeded, out of all.
    pub completions: Option<String>,
    /// The merged results of all workers, as in the status.
    pub results: Option<Box<Results>>,
    /// The conditions that the results must meet, as in the status.
    pub thresholds: Vec<Threshold>,
    /// The conditions of the test, as in the status.
    pub conditions: Vec<Condition>,
    /// What happened, the oldest first.
    pub timeline: Vec<Entry>,
    /// The distribution of the response times, from the workers whose pods exist.
    pub response_times: Option<ResponseTimes>,
    /// Why the distribution is missing, or does not include all workers, in a sentence.
    pub response_times_note: Option<String>,
    /// The endpoints that the plugin metrics-by-endpoint measured, the slowest first.
    pub endpoints: Vec<Endpoint>,
    /// Histograms that are neither in the results nor of an endpoint.
    pub other_histograms: Vec<Distribution>,
    /// The workers whose pods exist.
    pub workers: Vec<WorkerLine>,
    /// The spec.
    pub spec: LoadTestSpec,
    /// The script, if it could be read.
    pub script: Option<String>,
    /// The versions.
    pub versions: Versions,
    /// What could not be read, and why, in sentences.
    pub missing: Vec<String>,
}

/// The versions of the programs that made the results and the report.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// Of the program that made the report.
    pub plugin: String,
    /// The image of the workers, as in the status.
    pub worker_image: Option<String>,
    /// The API version of the test.
    pub api: String,
}

impl Report {
    /// The report of a test at a time. `version` is that of the program that makes it.
    #[must_use]
    pub fn new(view: &View, now: Timestamp, version: &str) -> Self {
        let test = &view.test;
        let empty = LoadTestStatus::default();
        let status = test.status.as_ref().unwrap_or(&empty);
        let (reason, why) = explanation(test, status);
        let is_finished = test.phase().is_some_and(Phase::is_terminal);
        let merged = view.measured();
        let count = usize::try_from(test.spec.count).unwrap_or_default();
        let total = status
            .results
            .as_deref()
            .and_then(Results::response_time)
            .map(|times| times.count);
        let (response_times, response_times_note) =
            measured::response_times(merged.as_ref(), count, total, is_finished);
        let measurements = merged.as_ref().map(|(measurements, _)| measurements);
        let mut report = Self {
            name: test.name_any(),
            namespace: test.namespace().unwrap_or_default(),
            verdict: verdict(test, status),
            outcome: Outcome::of(test),
            phase: test.phase(),
            reason,
            why,
            generated: Time(now),
            created: test.metadata.creation_timestamp.clone(),
            started: status.start_time.clone(),
            load_started: status.load_start_time.as_ref().map(|time| Time(time.0)),
            completed: status.completion_time.clone(),
            duration: status.duration.clone(),
            expected_duration: status.expected_duration.clone(),
            completions: status.completions.clone(),
            results: status.results.clone(),
            thresholds: status.thresholds.clone().unwrap_or_default(),
            conditions: status.conditions.clone(),
            timeline: Vec::new(),
            response_times,
            response_times_note,
            endpoints: measurements.map(measured::endpoints).unwrap_or_default(),
            other_histograms: measurements
                .map(measured::other_histograms)
                .unwrap_or_default(),
            workers: view.workers.iter().map(WorkerLine::new).collect(),
            spec: test.spec.clone(),
            script: view.script.clone(),
            versions: Versions {
                plugin: version.to_owned(),
                worker_image: status.image.clone(),
                api: "loadtest.artillery.io/v1alpha1".to_owned(),
            },
            missing: view.missing.clone(),
        };
        report.timeline = timeline::entries(&report, &view.events);
        report
    }

    /// Whether the test has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.outcome != Outcome::Unfinished
    }

    /// A condition, if it is set.
    #[must_use]
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.type_ == type_.as_str())
    }

    /// The response times that the columns of kubectl show.
    #[must_use]
    pub fn response_time(&self) -> Option<&Distribution> {
        self.results.as_deref().and_then(Results::response_time)
    }

    /// How to make the workers send the planned load.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        let generators = self.results.as_deref()?.generators.as_ref()?;
        generators.advice.as_deref()
    }
}

fn verdict(test: &LoadTest, status: &LoadTestStatus) -> String {
    let phase = test.phase();
    match (phase, status.verdict) {
        (Some(Phase::Stopped), _) => Phase::Stopped.as_str(),
        (Some(phase), Some(verdict)) if phase.is_terminal() => verdict.as_str(),
        (Some(phase), _) => phase.as_str(),
        (None, _) => Phase::Pending.as_str(),
    }
    .to_owned()
}

/// The reason and the sentence of the condition that explains most.
fn explanation(test: &LoadTest, status: &LoadTestStatus) -> (Option<String>, String) {
    let is_finished = test.phase().is_some_and(Phase::is_terminal);
    let passed = status.condition(ConditionType::Passed);
    // Without completion, this condition only states that the test failed or was stopped; those of the end have the cause.
    let is_explained = passed.is_some_and(|one| one.reason != Reason::NotCompleted.as_str());
    let end = [
        ConditionType::Failed,
        ConditionType::Stopped,
        ConditionType::Completed,
    ];
    let end = end
        .into_iter()
        .filter_map(|type_| status.condition(type_))
        .find(|condition| condition.status == "True");
    let condition = match is_finished {
        true if is_explained => passed,
        true => end.or(passed),
        false => status.progressing(),
    };
    match condition {
        Some(condition) => (Some(condition.reason.clone()), condition.message.clone()),
        None => (
            None,
            "The operator has not reported on this test yet. Check that it is running.".to_owned(),
        ),
    }
}
