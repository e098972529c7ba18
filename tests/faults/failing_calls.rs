//! I11 for calls that fail for good: each is reported, and neither the deadline nor `spec.stop` waits for it. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::invariants::{Change, ObjectVersion, Violation, conditions, created, violation};

/// A call that has failed for good.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// Part of the error's text.
    pub error: &'a str,
    /// When it failed first.
    pub at: Duration,
}

/// Where a failure must be reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Condition,
    /// The status cannot be written, or is final.
    EventOrLog,
    /// No test is concerned, or all.
    Log,
}

/// What `spec.stop` must cause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StopEffect {
    /// The phase `Stopped`.
    Stopped,
    /// The phase `Stopping` with the error: the Job cannot be ended.
    Reported,
    /// The Job is ended, or none is ever created: the phase cannot be recorded.
    NoLoad,
}

/// The versions of the tests in which a condition contains this text.
fn with_error<'a>(
    history: &'a [ObjectVersion],
    error: &'a str,
) -> impl Iterator<Item = &'a ObjectVersion> {
    history.iter().filter(move |seen| {
        let has_error = |c: &&Value| c["message"].as_str().is_some_and(|m| m.contains(error));
        seen.kind == "LoadTest" && conditions(&seen.object).iter().any(has_error)
    })
}

/// I11: a failed call is reported with its error, at the latest this long after it has failed.
pub fn error_is_reported(
    history: &[ObjectVersion],
    log: &[(Duration, &str)],
    failure: Failure,
    place: Place,
    limit: Duration,
) -> Option<Violation> {
    let in_condition = || with_error(history, failure.error).map(|seen| seen.at);
    let in_event = || {
        let events = created(history, "Event").filter(|e| e.text("/reason") == "RequestFailed");
        let with_error = events.filter(|e| e.text("/message").contains(failure.error));
        with_error.map(|e| e.at)
    };
    let in_log = || {
        let lines = log.iter().filter(|(_, line)| line.contains(failure.error));
        lines.map(|(at, _)| *at)
    };
    let reported = match place {
        Place::Condition => in_condition().min(),
        Place::EventOrLog => in_event().chain(in_log()).min(),
        Place::Log => in_log().min(),
    };
    let what = match reported {
        Some(at) if at <= failure.at + limit => return None,
        Some(at) => format!(
            "only {:.1} s later",
            at.saturating_sub(failure.at).as_secs_f64()
        ),
        None => "never".to_owned(),
    };
    let (error, at) = (failure.error, failure.at.as_secs_f64());
    let what = format!("the failure at {at:.1} s ({error}) was reported {what}: {place:?}");
    Some(violation("I11", what))
}

/// The first version of a test with its final phase.
fn first_end(history: &[ObjectVersion]) -> Option<&ObjectVersion> {
    let is_final = |phase: &str| matches!(phase, "Completed" | "Failed" | "Stopped");
    history
        .iter()
        .find(|s| s.kind == "LoadTest" && is_final(s.text("/status/phase")))
}

/// I11: a test whose workers end at once ends this long after its creation, or after that of its Job.
pub fn end_is_in_time(history: &[ObjectVersion], limit: Duration) -> Option<Violation> {
    let begun = created(history, "LoadTest").chain(created(history, "Job"));
    let latest = begun.map(|s| s.at).max()? + limit;
    let what = match first_end(history) {
        Some(end) if end.at <= latest => return None,
        Some(end) => format!("at {:.1} s", end.at.as_secs_f64()),
        None => "never".to_owned(),
    };
    let latest = latest.as_secs_f64();
    Some(violation(
        "I11",
        format!("the test ended {what}, not until {latest:.1} s"),
    ))
}

/// I11: `spec.stop` takes effect within this time, whatever fails.
pub fn stop_takes_effect(
    history: &[ObjectVersion],
    error: &str,
    stopped_at: Duration,
    effect: StopEffect,
    limit: Duration,
) -> Option<Violation> {
    let latest = stopped_at + limit;
    let in_time = |seen: &ObjectVersion| seen.at <= latest;
    let phase = |seen: &ObjectVersion, phase: &str| seen.text("/status/phase") == phase;
    let holds = match effect {
        StopEffect::Stopped => {
            first_end(history).is_some_and(|end| in_time(end) && phase(end, "Stopped"))
        }
        StopEffect::Reported => {
            with_error(history, error).any(|seen| in_time(seen) && phase(seen, "Stopping"))
        }
        StopEffect::NoLoad => {
            let mut jobs = created(history, "Job");
            let is_ended = |seen: &ObjectVersion| {
                let deadline = seen.object.pointer("/spec/activeDeadlineSeconds");
                seen.change == Change::Deleted || deadline.and_then(Value::as_i64) == Some(1)
            };
            jobs.all(|job| {
                let mut versions = history.iter().filter(|s| s.uid() == job.uid());
                job.at <= stopped_at && versions.any(|s| in_time(s) && is_ended(s))
            })
        }
    };
    let at = stopped_at.as_secs_f64();
    (!holds).then(|| {
        violation(
            "I11",
            format!("spec.stop at {at:.1} s had no effect: {effect:?}"),
        )
    })
}

#[cfg(test)]
#[allow(dead_code, reason = "they run in unit.rs: main.rs has no test harness")]
#[path = "failing_calls_tests.rs"]
mod tests;
