//! What the workers of a test measured together, and whether the test passed.

use std::collections::BTreeMap;
use std::sync::Arc;

use loadtest_api::conditions::ConditionUpdate;
use loadtest_api::v1alpha1::{
    ConditionType, LoadTestSpec, LoadTestStatus, Phase, Reason, Results, Verdict,
};
use loadtest_results::thresholds::{self, Outcome};
use loadtest_results::{Measurements, SnapshotError, summarize};

use super::delivery::{Delivery, Tolerance, WorkerLoad, WorkerLoads};
use super::messages::{self, MAX_LISTED};
use super::{Decision, EventRecord, FinalPhase};
use crate::state::{WorkerState, WorkerStatus};

/// How far apart workers may begin their load that begin together, in milliseconds. Normally it is some tens.
const MAX_START_SKEW_MS: i64 = 1000;

/// The counter of Artillery's plugin expect.
const FAILED_EXPECTATIONS: &str = "plugins.expect.failed";

/// The merged results of the workers.
#[derive(Default)]
struct WorkerResults {
    measured: Measurements,
    /// Results that were left out because another pod of the same worker had left some.
    repeated: u32,
    /// Descriptions of what is missing.
    missing: Vec<String>,
    loads: WorkerLoads,
}

impl Decision<'_> {
    /// Puts results, thresholds and verdict into the status of a test that ends. Returns the conditions about them.
    pub(super) fn evaluate(
        &self,
        end: FinalPhase,
        status: &mut LoadTestStatus,
        workers: &[Arc<WorkerStatus>],
        events: &mut Vec<EventRecord>,
    ) -> Vec<ConditionUpdate> {
        let merged = WorkerResults::merge(workers, &self.test.spec);
        let mut results = status.start_time.is_some().then(|| {
            let count = u32::try_from(self.test.spec.count).unwrap_or_default();
            summarize(&merged.measured, count, merged.repeated)
        });
        if let Some(results) = &mut results {
            let ended = status.completion_time.as_ref().map_or(self.now, |at| at.0);
            self.complete_series(results, &merged.measured, ended);
        }
        let has_thresholds = status.thresholds.as_ref().is_some_and(|t| !t.is_empty());
        let evaluations = match (&results, &status.thresholds) {
            (Some(_), Some(thresholds)) => thresholds::evaluate(thresholds, &merged.measured),
            _ => Vec::new(),
        };
        for (threshold, evaluation) in status.thresholds.iter_mut().flatten().zip(&evaluations) {
            threshold.held = Some(evaluation.outcome == Outcome::Met);
            threshold.message =
                Some(evaluation.observed_values()).filter(|values| !values.is_empty());
        }

        let failures = thresholds::summarize_failures(&evaluations, MAX_LISTED);
        let met = evaluations.iter().filter(|e| e.outcome == Outcome::Met);
        let met = met.count();
        let delivery = results.as_mut().map(|results| {
            let is_completed = end == FinalPhase::Completed;
            let (measured, loads) = (&merged.measured, &merged.loads);
            Delivery::new(&self.test.spec, is_completed, measured, loads, results)
        });
        let shortfall = delivery.as_ref().filter(|d| d.delivered == Some(false));
        let is_partial = results.as_ref().is_some_and(|r| r.partial);
        let without_load = results
            .as_ref()
            .and_then(|results| without_load(merged.measured.workers, results));
        let failed_expectations = failed_expectations(&merged.measured, status);
        let (passed, reason, message) = match end {
            FinalPhase::Failed | FinalPhase::Stopped => (
                Some(false),
                Reason::NotCompleted,
                messages::not_completed(end.phase().as_str(), &failures),
            ),
            // Before thresholds: most of them are met where nothing was measured.
            FinalPhase::Completed if let Some((reason, message)) = without_load => {
                (Some(false), reason, messages::append(message, &failures))
            }
            FinalPhase::Completed if !thresholds::passed(&evaluations) => (
                Some(false),
                Reason::ThresholdsNotMet,
                messages::thresholds_not_met(&failures, shortfall.map(|d| d.reason)),
            ),
            FinalPhase::Completed if let Some(failed) = failed_expectations => (
                Some(false),
                Reason::ExpectationsNotMet,
                messages::expectations_not_met(failed),
            ),
            // Thresholds that some workers meet prove nothing about the others.
            FinalPhase::Completed if has_thresholds && is_partial => (
                Some(false),
                Reason::ResultsPartial,
                messages::RESULTS_INCOMPLETE.to_owned(),
            ),
            // Thresholds that another load meets prove nothing about the requested one.
            FinalPhase::Completed if let Some(delivery) = shortfall => (
                None,
                Reason::LoadNotDelivered,
                messages::load::inconclusive(met, &delivery.shortfall, &failures),
            ),
            FinalPhase::Completed if !has_thresholds => (
                Some(true),
                Reason::NoThresholds,
                messages::NO_THRESHOLDS.to_owned(),
            ),
            FinalPhase::Completed => (
                Some(true),
                Reason::ThresholdsMet,
                messages::thresholds_met(met, &failures),
            ),
        };
        status.verdict = Some(match passed {
            Some(true) => Verdict::Passed,
            Some(false) => Verdict::Failed,
            None => Verdict::Inconclusive,
        });
        let verdict = ConditionUpdate::new(ConditionType::Passed, passed, reason, message);
        let load = delivery.map(|delivery| delivery.condition());
        events.extend(load.as_ref().and_then(load_event));
        events.extend(verdict_event(status, &verdict));
        let mut conditions = vec![verdict];
        conditions.extend(results.as_ref().map(|results| merged.condition(results)));
        conditions.extend(load);
        let skew = results.as_ref().and_then(|r| r.start_skew_milliseconds);
        if let Some(skew) =
            skew.filter(|ms| *ms > MAX_START_SKEW_MS && self.test.spec.starts_together())
        {
            let message = messages::start_skewed(skew);
            events.push(EventRecord::warning(Reason::StartSkewed, message.clone()));
            conditions.push(ConditionUpdate::new(
                ConditionType::StartSynchronized,
                Some(false),
                Reason::StartSkewed,
                message,
            ));
        }
        status.results = results.map(Box::new);
        conditions
    }
}

/// The event about the verdict of a completed test: one that has thresholds, or has not passed.
pub(super) fn verdict_event(
    status: &LoadTestStatus,
    passed: &ConditionUpdate,
) -> Option<EventRecord> {
    let has_thresholds = status.thresholds.iter().flatten().next().is_some();
    let has_passed = passed.status == Some(true);
    let is_due = status.phase == Some(Phase::Completed) && (has_thresholds || !has_passed);
    let text = messages::verdict_event(passed.status, &passed.message);
    is_due.then(|| EventRecord {
        warning: !has_passed,
        ..EventRecord::normal(passed.reason, text)
    })
}

/// The event about a load that was not delivered. Missing workers have none: the event about the verdict names them.
pub(super) fn load_event(delivered: &ConditionUpdate) -> Option<EventRecord> {
    let is_due = matches!(
        delivered.reason,
        Reason::WorkersSaturated | Reason::VusersSkipped
    );
    is_due.then(|| EventRecord::warning(delivered.reason, delivered.message.clone()))
}

/// Why the results show no load that reached a target, if they do not.
fn without_load(workers: u32, results: &Results) -> Option<(Reason, &'static str)> {
    if workers == 0 {
        return Some((Reason::NoResults, messages::NO_RESULTS));
    }
    if results.vusers_created == 0 && results.requests == 0 {
        return Some((Reason::NothingAnswered, messages::NO_VUSERS));
    }
    // Engines without requests of their own, such as a browser's, count completed users only.
    let is_answered = results.responses > 0 || results.vusers_completed > 0;
    (!is_answered && results.errors + results.vusers_failed > 0)
        .then_some((Reason::NothingAnswered, messages::NOTHING_ANSWERED))
}

/// How many expectations of the script were not met, unless a threshold is about them. Artillery's plugin expect fails a worker
/// after one; the workers leave that to the operator.
fn failed_expectations(measured: &Measurements, status: &LoadTestStatus) -> Option<u64> {
    let mut thresholds = status.thresholds.iter().flatten();
    if thresholds.any(|threshold| threshold.expression.contains(FAILED_EXPECTATIONS)) {
        return None;
    }
    let failed = measured.counter(FAILED_EXPECTATIONS)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    (failed > 0.0).then_some(failed.ceil() as u64)
}

impl WorkerResults {
    /// Of several pods of one worker, the one that succeeded counts, or else the first: another one replaced it, and what it sent
    /// is not part of the test.
    fn merge(workers: &[Arc<WorkerStatus>], spec: &LoadTestSpec) -> Self {
        let (count, tolerance) = (spec.count, Tolerance::of(spec));
        let mut by_index: BTreeMap<i32, Vec<&WorkerStatus>> = BTreeMap::new();
        for worker in workers {
            let index = worker.index.and_then(|index| i32::try_from(index).ok());
            if let Some(index) = index.filter(|index| *index < count) {
                by_index.entry(index).or_default().push(worker);
            }
        }
        let mut merged = Self::default();
        let without_pod = (0..count).filter(|index| !by_index.contains_key(index));
        merged
            .missing
            .extend(without_pod.take(MAX_LISTED).map(messages::no_pod));
        for (index, mut pods) in by_index {
            pods.sort_by_key(|w| (w.state != WorkerState::Succeeded, w.ended));
            let mut snapshots = pods.iter().filter_map(|w| w.snapshot.as_ref());
            let first = snapshots.next().map(|snapshot| snapshot.decode());
            match first.unwrap_or(Err(SnapshotError::Missing)) {
                Ok(measured) => {
                    if measured.partial > 0 {
                        merged.missing.push(messages::incomplete_results(index));
                    }
                    let problems = measured.problems.iter();
                    merged
                        .missing
                        .extend(problems.map(|p| messages::results_problem(index, p)));
                    let load = WorkerLoad::new(index, &measured, tolerance);
                    if let Some(load) = load {
                        merged.loads.add(load);
                    }
                    merged.measured.merge(&measured);
                }
                Err(error) => merged
                    .missing
                    .push(messages::results_problem(index, &error.to_string())),
            }
            merged.repeated += u32::try_from(snapshots.count()).unwrap_or_default();
        }
        merged
    }

    /// The condition `ResultsComplete`.
    fn condition(&self, results: &Results) -> ConditionUpdate {
        let message = messages::results_complete(
            results.partial,
            &results.workers_reporting,
            &self.missing,
            results.metrics_dropped,
            self.repeated,
        );
        let reason = if results.partial {
            Reason::ResultsPartial
        } else {
            Reason::AllWorkersReported
        };
        ConditionUpdate::new(
            ConditionType::ResultsComplete,
            Some(!results.partial),
            reason,
            message,
        )
    }
}
