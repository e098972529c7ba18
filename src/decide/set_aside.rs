//! Tests that are no longer reconciled, because the process ended or panicked while it reconciled them.

use k8s_openapi::jiff::Timestamp;
use loadtest_api::v1alpha1::{LoadTest, Phase, Reason};

use super::{Decision, EventRecord, Plan, messages, progressing_conditions};
use crate::config::WorkerConfig;

/// What happened while a test was being reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAsideCause {
    /// The process ended unexpectedly, this often.
    UnexpectedEnds(u8),
    /// The reconcile panicked.
    Panic,
}

/// Reports that a test is set aside. Nothing else about the test changes: workers that run go on until the deadline of their Job.
#[must_use]
pub fn set_aside(
    test: &LoadTest,
    cause: SetAsideCause,
    config: &WorkerConfig,
    now: Timestamp,
) -> Plan {
    // What is kept of a finished test is not its whole status, and its end is final.
    if test.is_finished() {
        return Plan::default();
    }
    let decision = Decision {
        test,
        current: test.status.clone().unwrap_or_default(),
        live: None,
        failed_events: None,
        config,
        now,
    };
    let message = messages::set_aside(cause);
    let generation = test.metadata.generation.unwrap_or_default();
    let event = EventRecord::warning(Reason::SetAside, message.clone());
    let phase = decision.current.phase.unwrap_or(Phase::Pending);
    let conditions = progressing_conditions(Some(false), Reason::SetAside, message);
    Plan {
        events: vec![event.about(generation.to_string())],
        status: decision.if_changed(decision.status(phase, conditions)),
        ..Plan::default()
    }
}
