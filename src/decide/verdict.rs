//! What a test's workers have measured together, and whether it has passed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Ending, MOST_NAMED, Say, Scene, Wanted};
use crate::api::v1alpha1::{ConditionType, LoadTestStatus, Reason, Verdict};
use crate::progress::{Worker, WorkerState};
use crate::results::{Measurements, Results, SnapshotError};
use crate::verdict::{Judged, Outcome, Rule, judge, passed, told};

/// What the workers' snapshots hold, one of each worker.
#[derive(Default)]
struct Reports {
    measured: Measurements,
    /// How many results were left out, as another pod of the same worker had left some.
    repeated: u32,
    /// The workers of which something is missing, and what.
    missing: Vec<String>,
}

impl Scene<'_> {
    /// Takes what the workers have measured into the status of an ended test, judges its thresholds, and gives the
    /// conditions that tell of both.
    pub(super) fn judged(
        &self,
        ending: Ending,
        status: &mut LoadTestStatus,
        workers: &[Arc<Worker>],
        events: &mut Vec<Say>,
    ) -> Vec<Wanted> {
        let reports = Reports::of(workers, self.test.spec.count);
        let count = u32::try_from(self.test.spec.count).unwrap_or_default();
        let results = status
            .start_time
            .is_some()
            .then(|| Results::new(&reports.measured, count, reports.repeated));
        let rules: Vec<Rule> = status.thresholds.iter().flatten().map(Rule::from).collect();
        let is_partial = results.as_ref().is_some_and(|r| r.partial);
        let judged = if results.is_some() {
            judge(&rules, &reports.measured)
        } else {
            Vec::new()
        };
        for (threshold, judged) in status.thresholds.iter_mut().flatten().zip(&judged) {
            threshold.held = Some(judged.outcome == Outcome::Held);
            threshold.message = Some(judged.found()).filter(|found| !found.is_empty());
        }

        let broken = told(&judged, MOST_NAMED);
        let (holds, reason, message) = match ending {
            Ending::Failed => (
                false,
                Reason::NotCompleted,
                self::join("the test failed", &broken),
            ),
            Ending::Stopped => (
                false,
                Reason::NotCompleted,
                self::join("the test was stopped", &broken),
            ),
            Ending::Completed if rules.is_empty() => (
                true,
                Reason::NoThresholds,
                "all workers succeeded, and there are no thresholds".to_owned(),
            ),
            Ending::Completed if !passed(&judged) => {
                (false, Reason::ThresholdsBroken, broken.clone())
            }
            // Thresholds that hold for some workers say nothing of the others.
            Ending::Completed if is_partial => (
                false,
                Reason::ResultsPartial,
                "the thresholds cannot be judged, as results of workers are missing".to_owned(),
            ),
            Ending::Completed => (
                true,
                Reason::ThresholdsHeld,
                self::join(&all_hold(&judged), &broken),
            ),
        };
        status.verdict = Some(if holds {
            Verdict::Passed
        } else {
            Verdict::Failed
        });
        if ending == Ending::Completed && !rules.is_empty() {
            let say = if holds { Say::normal } else { Say::warning };
            events.push(say(
                reason,
                format!(
                    "{} Load Test: {message}",
                    if holds { "Passed" } else { "Not passed" }
                ),
            ));
        }
        let mut wanted = vec![Wanted::new(
            ConditionType::Passed,
            Some(holds),
            reason,
            message,
        )];
        if let Some(results) = &results {
            wanted.push(reports.complete(results));
        }
        status.results = results.map(Box::new);
        wanted
    }
}

fn all_hold(judged: &[Judged]) -> String {
    match judged.iter().filter(|j| j.outcome == Outcome::Held).count() {
        1 => "the threshold holds".into(),
        n => format!("{n} thresholds hold"),
    }
}

fn join(what: &str, broken: &str) -> String {
    if broken.is_empty() {
        what.to_owned()
    } else {
        format!("{what}; {broken}")
    }
}

impl Reports {
    /// Of the pods of one worker that of the one that succeeded counts, or else that of the first: a second one was made
    /// in its place, and what it has sent is no part of the test.
    fn of(workers: &[Arc<Worker>], count: i32) -> Self {
        let mut by_index: BTreeMap<i32, Vec<&Worker>> = BTreeMap::new();
        for worker in workers {
            if let Some(index) = worker
                .index
                .and_then(|index| i32::try_from(index).ok())
                .filter(|index| *index < count)
            {
                by_index.entry(index).or_default().push(worker);
            }
        }
        let mut reports = Self::default();
        let unseen = (0..count)
            .filter(|index| !by_index.contains_key(index))
            .take(MOST_NAMED);
        reports
            .missing
            .extend(unseen.map(|index| format!("worker {index} has no pod")));
        for (index, mut pods) in by_index {
            pods.sort_by_key(|w| (w.state != WorkerState::Succeeded, w.ended));
            let mut left = pods
                .iter()
                .filter_map(|w| w.snapshot.as_ref().map(|snapshot| snapshot.unpack()));
            match left.next().unwrap_or(Err(SnapshotError::Missing)) {
                Ok(own) => {
                    if own.partial > 0 {
                        reports
                            .missing
                            .push(format!("worker {index} did not reach the end of its test"));
                    }
                    reports.measured.merge(&own);
                }
                Err(why) => reports.missing.push(format!("worker {index}: {why}")),
            }
            reports.repeated += u32::try_from(left.count()).unwrap_or_default();
        }
        reports
    }

    /// The condition that says whether all is known.
    fn complete(&self, results: &Results) -> Wanted {
        let dropped = (results.metrics_dropped > 0).then(|| {
            format!(
                "{} metrics that did not fit into the workers' results were left out",
                results.metrics_dropped
            )
        });
        let repeated = (self.repeated > 0).then(|| {
            format!(
                "{} workers were run twice by Kubernetes, and counted once",
                self.repeated
            )
        });
        let more = (self.missing.len() > MOST_NAMED).then(|| "and more".to_owned());
        let told = self
            .missing
            .iter()
            .take(MOST_NAMED)
            .cloned()
            .chain(more)
            .chain(dropped)
            .chain(repeated);
        let (type_, reporting) = (ConditionType::ResultsComplete, &results.workers_reporting);
        let message = |first: String| {
            std::iter::once(first)
                .chain(told)
                .collect::<Vec<_>>()
                .join("; ")
        };
        if results.partial {
            Wanted::new(
                type_,
                Some(false),
                Reason::ResultsPartial,
                message(format!("{reporting} workers have reported")),
            )
        } else {
            Wanted::new(
                type_,
                Some(true),
                Reason::AllReported,
                message("all workers have reported".into()),
            )
        }
    }
}
