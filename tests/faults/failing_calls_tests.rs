//! Each rule, with a history that satisfies it and one that violates it.

use super::*;
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

/// A version of an object, after this many seconds.
fn seen(at: u32, kind: &str, change: Change, object: Value) -> ObjectVersion {
    ObjectVersion {
        at: SECOND * at,
        revision: u64::from(at),
        kind: kind.into(),
        change,
        object,
    }
}

fn test(at: u32, phase: &str, message: &str) -> ObjectVersion {
    let change = if at == 0 {
        Change::Added
    } else {
        Change::Modified
    };
    let status =
        json!({"phase": phase, "conditions": [{"type": "Progressing", "message": message}]});
    seen(at, "LoadTest", change, json!({"status": status}))
}

fn job(at: u32, change: Change, deadline: i64) -> ObjectVersion {
    let object = json!({"metadata": {"uid": "job"}, "spec": {"activeDeadlineSeconds": deadline}});
    seen(at, "Job", change, object)
}

#[test]
fn a_failure_without_a_report_in_time_is_a_violation() {
    let failure = Failure {
        error: "no jobs here",
        at: SECOND,
    };
    let (created, message) = (
        test(0, "Pending", ""),
        "Cannot create the Job: no jobs here.",
    );
    let is_violated = |history: &[ObjectVersion], log: &[(Duration, &str)], place| {
        error_is_reported(history, log, failure, place, 10 * SECOND).is_some()
    };
    let reported = |at| [created.clone(), test(at, "Pending", message)];
    assert!(!is_violated(&reported(11), &[], Place::Condition));
    assert!(is_violated(&reported(12), &[], Place::Condition));
    assert!(is_violated(&reported(2), &[], Place::EventOrLog));
    let (line, late) = ((2 * SECOND, message), (12 * SECOND, message));
    for place in [Place::EventOrLog, Place::Log] {
        assert!(!is_violated(&[], &[line], place));
        assert!(is_violated(&[], &[late], place));
    }
    assert!(is_violated(&[], &[line], Place::Condition));
    let event = json!({"reason": "RequestFailed", "message": message});
    let event = [seen(3, "Event", Change::Added, event)];
    assert!(!is_violated(&event, &[], Place::EventOrLog));
    assert!(is_violated(&event, &[], Place::Log));
}

#[test]
fn an_end_after_the_deadline_is_a_violation() {
    let is_violated = |history: &[ObjectVersion]| end_is_in_time(history, 10 * SECOND).is_some();
    let with_job = |end| {
        [
            test(0, "", ""),
            job(4, Change::Added, 60),
            test(end, "Failed", ""),
        ]
    };
    assert!(!is_violated(&with_job(14)));
    assert!(is_violated(&with_job(15)));
    assert!(!is_violated(&[test(0, "", ""), test(10, "Stopped", "")]));
    assert!(is_violated(&[test(0, "", ""), test(11, "Stopped", "")]));
    assert!(is_violated(&[test(0, "", ""), test(5, "Running", "")]));
}

#[test]
fn a_stop_without_effect_is_a_violation() {
    let is_violated = |history: &[ObjectVersion], effect| {
        stop_takes_effect(history, "no jobs here", 5 * SECOND, effect, 10 * SECOND).is_some()
    };
    let stopped = |at| [test(0, "", ""), test(at, "Stopped", "")];
    assert!(!is_violated(&stopped(15), StopEffect::Stopped));
    assert!(is_violated(&stopped(16), StopEffect::Stopped));
    assert!(is_violated(&[test(6, "Failed", "")], StopEffect::Stopped));
    let stopping = |message| [test(6, "Stopping", message)];
    assert!(!is_violated(
        &stopping("no jobs here"),
        StopEffect::Reported
    ));
    assert!(is_violated(&stopping(""), StopEffect::Reported));
    assert!(is_violated(
        &[test(6, "Running", "no jobs here")],
        StopEffect::Reported
    ));
    let ended = |created, ended| {
        [
            job(created, Change::Added, 60),
            job(ended, Change::Modified, 1),
        ]
    };
    assert!(!is_violated(&[], StopEffect::NoLoad));
    assert!(!is_violated(&ended(1, 15), StopEffect::NoLoad));
    assert!(is_violated(&ended(1, 16), StopEffect::NoLoad));
    assert!(is_violated(&ended(6, 7), StopEffect::NoLoad));
    assert!(is_violated(
        &[job(1, Change::Added, 60)],
        StopEffect::NoLoad
    ));
    let deleted = [job(1, Change::Added, 60), job(6, Change::Deleted, 60)];
    assert!(!is_violated(&deleted, StopEffect::NoLoad));
}
