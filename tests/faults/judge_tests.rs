//! Each invariant, with a history that keeps it and one that breaks it.

use super::*;
use serde_json::json;

fn seen(version: u64, kind: &str, change: Change, object: Value) -> Seen {
    Seen {
        at: Duration::from_millis(version),
        version,
        kind: kind.into(),
        change,
        object,
    }
}

fn condition(kind: &str, status: &str, time: &str) -> Value {
    json!({"type": kind, "status": status, "lastTransitionTime": time})
}

fn test(version: u64, status: Value) -> Seen {
    let mut object = json!({"metadata": {"name": "t", "uid": "test", "generation": 1}});
    object["status"] = status;
    seen(
        version,
        "LoadTest",
        if version == 1 {
            Change::Added
        } else {
            Change::Modified
        },
        object,
    )
}

fn running(version: u64, succeeded: i64) -> Seen {
    let conditions = [
        condition("Progressing", "True", "1"),
        condition("Completed", "False", "1"),
        condition("Failed", "False", "1"),
    ];
    test(
        version,
        json!({"phase": "Running", "succeeded": succeeded, "conditions": conditions, "observedGeneration": 1}),
    )
}

fn ended(version: u64, end: &str) -> Seen {
    let conditions = ["Progressing", "Completed", "Failed"].map(|c| {
        let holds = c == end;
        condition(
            c,
            if holds { "True" } else { "False" },
            if holds || c == "Progressing" {
                "2"
            } else {
                "1"
            },
        )
    });
    test(
        version,
        json!({"phase": end, "succeeded": 2, "conditions": conditions, "completionTime": "2"}),
    )
}

fn job(version: u64, uid: &str) -> Seen {
    let owners = [json!({"uid": "test", "controller": true})];
    seen(
        version,
        "Job",
        Change::Added,
        json!({"metadata": {"name": "t", "uid": uid, "ownerReferences": owners}}),
    )
}

fn event(version: u64, reason: &str, message: &str) -> Seen {
    let about = json!({"kind": "LoadTest", "uid": "test"});
    let object = json!({"metadata": {"name": version.to_string()}, "reason": reason, "message": message, "involvedObject": about});
    seen(version, "Event", Change::Added, object)
}

fn broken(history: &[Seen]) -> Vec<&'static str> {
    judge(history, &BTreeSet::new())
        .into_iter()
        .map(|v| v.invariant)
        .collect()
}

fn good() -> Vec<Seen> {
    vec![
        test(1, Value::Null),
        job(2, "job"),
        event(3, "Running", "a"),
        event(4, "Running", "b"),
        running(5, 0),
        running(6, 1),
        ended(7, "Completed"),
    ]
}

fn good_and(more: Seen) -> Vec<Seen> {
    let mut history = good();
    history.push(more);
    history
}

#[test]
fn a_good_run_breaks_nothing() {
    assert_eq!(broken(&good()), [""; 0]);
}

#[test]
fn a_second_job_and_one_after_the_end_are_found() {
    assert_eq!(broken(&good_and(job(8, "other"))), ["I1", "I2"]);
}

#[test]
fn an_end_that_changes_is_found() {
    assert!(broken(&good_and(ended(8, "Failed"))).contains(&"I3"));
    assert!(broken(&good_and(running(8, 2))).contains(&"I3"));
    let mut later = ended(8, "Completed");
    later.object["status"]["completionTime"] = json!("3");
    assert_eq!(broken(&good_and(later)), ["I3"]);
}

#[test]
fn a_count_that_falls_is_found() {
    let history = [
        test(1, Value::Null),
        job(2, "job"),
        running(3, 1),
        running(4, 0),
    ];
    assert_eq!(broken(&history), ["I4"]);
}

#[test]
fn a_time_without_a_change_and_an_order_that_changes_are_found() {
    let mut other_time = running(8, 0);
    other_time.object["status"]["conditions"][0]["lastTransitionTime"] = json!("9");
    assert_eq!(
        broken(&[
            test(1, Value::Null),
            job(2, "job"),
            running(3, 0),
            other_time
        ]),
        ["I5"]
    );
    let mut shuffled = running(8, 0);
    shuffled.object["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .reverse();
    assert_eq!(
        broken(&[test(1, Value::Null), job(2, "job"), running(3, 0), shuffled]),
        ["I5"]
    );
    let mut ahead = running(8, 0);
    ahead.object["status"]["observedGeneration"] = json!(2);
    assert_eq!(
        broken(&[test(1, Value::Null), job(2, "job"), ahead]),
        ["I5"]
    );
}

#[test]
fn an_event_that_is_said_twice_is_found() {
    assert_eq!(broken(&good_and(event(8, "Running", "a"))), ["I6"]);
    assert_eq!(broken(&good_and(event(8, "Running", "c"))), [""; 0]);
    let twice = [event(1, "Completed", "a"), event(2, "Completed", "b")];
    assert_eq!(broken(&twice), ["I6"]);
}

#[test]
fn a_foreign_object_that_is_changed_or_deleted_is_found() {
    let foreign = |version, change, parallelism: i32| {
        let object = json!({"metadata": {"name": "t", "uid": "f", "labels": {"foreign": "true"}}, "spec": {"parallelism": parallelism}});
        seen(version, "Job", change, object)
    };
    assert_eq!(
        broken(&[
            foreign(1, Change::Added, 1),
            foreign(2, Change::Modified, 1)
        ]),
        [""; 0]
    );
    assert_eq!(
        broken(&[
            foreign(1, Change::Added, 1),
            foreign(2, Change::Modified, 0)
        ]),
        ["I7"]
    );
    let deleted = [foreign(1, Change::Added, 1), foreign(2, Change::Deleted, 1)];
    assert_eq!(broken(&deleted), ["I7"]);
    assert_eq!(judge(&deleted, &BTreeSet::from(["f".to_owned()])), []);
}

#[test]
fn results_without_a_job_are_found() {
    assert_eq!(broken(&[test(1, Value::Null), running(2, 1)]), ["I9"]);
}

#[test]
fn workers_told_two_instants_are_found() {
    let told = |version, pod: &str, instant, attempt| {
        let owners = [json!({"uid": "job", "controller": true})];
        let metadata = json!({"name": pod, "uid": pod, "ownerReferences": owners, "annotations":
            {START_ANNOTATION: instant, loadtest_api::labels::START_ATTEMPT_ANNOTATION: attempt}});
        seen(
            version,
            "Pod",
            Change::Modified,
            json!({"metadata": metadata}),
        )
    };
    let first = [
        told(8, "a", "2026-01-01T00:00:05.123Z", "1"),
        told(9, "b", "2026-01-01T00:00:05.123Z", "1"),
    ];
    let again = told(10, "b", "2026-01-01T00:00:05.123Z", "2");
    assert_eq!(
        broken(&[good(), first.to_vec(), vec![again]].concat()),
        Vec::<&str>::new()
    );
    assert_eq!(
        broken(
            &[
                good(),
                first.to_vec(),
                vec![told(10, "b", "2026-01-01T00:00:05.124Z", "2")]
            ]
            .concat()
        ),
        ["together"]
    );
}
