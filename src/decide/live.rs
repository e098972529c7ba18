//! The results of a test that still runs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::conditions::ConditionUpdate;
use loadtest_api::v1alpha1::{ConditionType, Reason, Results};
use loadtest_results::{Measurements, series, summarize};

use super::delivery::{Delivery, Tolerance, WorkerLoad, WorkerLoads};
use super::{Decision, messages, saturating_add};
use crate::state::LiveResults;

/// How long workers may be unreachable before that is reported: two attempts.
const UNREACHABLE_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(15);

impl Decision<'_> {
    /// The results until now, and the conditions about them.
    pub(super) fn live_results(
        &self,
        live: &LiveResults,
    ) -> (Option<Results>, Vec<ConditionUpdate>) {
        let spec = &self.test.spec;
        let is_late = |at| saturating_add(at, UNREACHABLE_GRACE_PERIOD) <= self.now;
        let unreachable = live.unreachable.as_ref().filter(|u| is_late(u.since));
        let unavailable = unreachable.map(|unreachable| {
            self.with_first_message(ConditionUpdate::new(
                ConditionType::LiveResultsAvailable,
                Some(false),
                Reason::WorkersUnreachable,
                messages::workers_unreachable(unreachable.workers, &unreachable.error),
            ))
        });
        if live.measured.workers == 0 {
            return (None, unavailable.into_iter().collect());
        }
        let count = u32::try_from(spec.count).unwrap_or_default();
        let mut results = summarize(&live.measured, count, 0);
        let tolerance = Tolerance::of(spec);
        let mut loads = WorkerLoads::default();
        for (index, measured) in &live.loads {
            if let Some(load) = WorkerLoad::new(*index, measured, tolerance) {
                loads.add(load);
            }
        }
        let delivery = Delivery::new(spec, false, &live.measured, &loads, &mut results);
        let delivered = (delivery.delivered == Some(false))
            .then(|| self.with_first_message(delivery.condition()));
        results.live = true;
        results.as_of = Some(Time(live.as_of));
        results.series = Some(live.series.clone());
        // In the order of all conditions.
        (
            Some(results),
            delivered.into_iter().chain(unavailable).collect(),
        )
    }

    /// The condition with the message that was recorded first: its figures change all the time.
    fn with_first_message(&self, mut update: ConditionUpdate) -> ConditionUpdate {
        let recorded = self.current.condition(update.type_);
        if let Some(recorded) = recorded.filter(|c| c.reason == update.reason.as_str()) {
            update.message.clone_from(&recorded.message);
        }
        update
    }

    /// Completes the course of a test that has `ended` with its final results, if its workers were read.
    pub(super) fn complete_series(
        &self,
        results: &mut Results,
        measured: &Measurements,
        ended: Timestamp,
    ) {
        let was_read = |live: &&LiveResults| !live.series.requests.is_empty();
        let Some(live) = self.live.filter(was_read) else {
            return;
        };
        let mut series = live.series.clone();
        let Some(start) = series.start.as_ref().map(|start| start.0) else {
            return;
        };
        let since_start = |at: Timestamp| at.duration_since(start).as_secs_f64();
        let seconds = (since_start(live.as_of.min(ended)), since_start(ended));
        // After a takeover nobody may know what was measured since the last step.
        let period = (live.measured.workers > 0)
            .then(|| measured.since(&live.measured, seconds.1 - seconds.0));
        series::complete(&mut series, seconds, results, measured, period.as_ref());
        results.series = Some(series);
    }
}
