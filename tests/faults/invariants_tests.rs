//! Each invariant, with a history that satisfies it and one that violates it.

use super::*;
use serde_json::json;

fn seen(version: u64, kind: &str, change: Change, object: Value) -> ObjectVersion {
    ObjectVersion {
        at: Duration::from_millis(version),
        revision: version,
        kind: kind.into(),
        change,
        object,
    }
}

fn condition(kind: &str, status: &str, time: &str) -> Value {
    json!({"type": kind, "status": status, "lastTransitionTime": time})
}

fn test(version: u64, status: Value) -> ObjectVersion {
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

fn running(version: u64, succeeded: i64) -> ObjectVersion {
    let conditions = [
        condition("Progressing", "True", "1"),
        condition("Completed", "False", "1"),
        condition("Failed", "False", "1"),
        condition("Ready", "False", "1"),
    ];
    test(
        version,
        json!({"phase": "Running", "succeeded": succeeded, "conditions": conditions, "observedGeneration": 1}),
    )
}

fn ended(version: u64, end: &str) -> ObjectVersion {
    let types = ["Progressing", "Completed", "Failed", "Ready", "Stalled"];
    let conditions = types.map(|c| {
        let holds = c == end || c == "Stalled";
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

fn job(version: u64, uid: &str) -> ObjectVersion {
    let owners = [json!({"uid": "test", "controller": true})];
    seen(
        version,
        "Job",
        Change::Added,
        json!({"metadata": {"name": "t", "uid": uid, "ownerReferences": owners}}),
    )
}

fn event(version: u64, reason: &str, message: &str) -> ObjectVersion {
    let about = json!({"kind": "LoadTest", "uid": "test"});
    let object = json!({"metadata": {"name": version.to_string()}, "reason": reason, "message": message, "involvedObject": about});
    seen(version, "Event", Change::Added, object)
}

fn violated(history: &[ObjectVersion]) -> Vec<&'static str> {
    check(history, &BTreeSet::new())
        .into_iter()
        .map(|v| v.invariant)
        .collect()
}

fn good() -> Vec<ObjectVersion> {
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

fn good_and(more: ObjectVersion) -> Vec<ObjectVersion> {
    let mut history = good();
    history.push(more);
    history
}

#[test]
fn good_run_violates_nothing() {
    assert_eq!(violated(&good()), [""; 0]);
}

#[test]
fn second_job_and_job_after_the_end_are_violations() {
    assert_eq!(violated(&good_and(job(8, "other"))), ["I1", "I2"]);
}

#[test]
fn changed_end_is_a_violation() {
    assert!(violated(&good_and(ended(8, "Failed"))).contains(&"I3"));
    assert!(violated(&good_and(running(8, 2))).contains(&"I3"));
    let mut later = ended(8, "Completed");
    later.object["status"]["completionTime"] = json!("3");
    assert_eq!(violated(&good_and(later)), ["I3"]);
}

#[test]
fn decreased_count_is_a_violation() {
    let history = [
        test(1, Value::Null),
        job(2, "job"),
        running(3, 1),
        running(4, 0),
    ];
    assert_eq!(violated(&history), ["I4"]);
}

#[test]
fn changed_time_order_and_generation_of_conditions_are_violations() {
    let mut other_time = running(8, 0);
    other_time.object["status"]["conditions"][0]["lastTransitionTime"] = json!("9");
    assert_eq!(
        violated(&[
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
        violated(&[test(1, Value::Null), job(2, "job"), running(3, 0), shuffled]),
        ["I5"]
    );
    let mut ahead = running(8, 0);
    ahead.object["status"]["observedGeneration"] = json!(2);
    assert_eq!(
        violated(&[test(1, Value::Null), job(2, "job"), ahead]),
        ["I5"]
    );
}

#[test]
fn only_optional_conditions_may_come_and_go() {
    let with = |version, type_: &str, position: usize| {
        let mut seen = running(version, 0);
        let added = condition(type_, "False", &version.to_string());
        let conditions = &mut seen.object["status"]["conditions"];
        conditions.as_array_mut().unwrap().insert(position, added);
        seen
    };
    let missing = |version, position| with(version, "EventsRecorded", position);
    let then = |version| [test(1, Value::Null), job(2, "job"), version];
    for type_ in ["LoadDelivered", "LiveResultsAvailable", "EventsRecorded"] {
        let again = [with(3, type_, 4), running(4, 0), with(5, type_, 4)];
        let history = [&then(running(2, 0))[..], &again].concat();
        assert_eq!(violated(&history), [""; 0]);
    }
    let passed = [with(3, "Passed", 4), running(4, 0)];
    let history = [&then(running(2, 0))[..], &passed].concat();
    assert_eq!(violated(&history), ["I5"]);
    assert_eq!(violated(&then(missing(3, 1))), ["I5"]);
    let mut other_time = missing(4, 4);
    other_time.object["status"]["conditions"][4]["lastTransitionTime"] = json!("9");
    assert_eq!(
        violated(&[&then(missing(3, 4))[..], &[other_time]].concat()),
        ["I5"]
    );
}

#[test]
fn duplicate_event_is_a_violation() {
    assert_eq!(violated(&good_and(event(8, "Running", "a"))), ["I6"]);
    assert_eq!(violated(&good_and(event(8, "Running", "c"))), [""; 0]);
    let duplicates = [event(1, "Completed", "a"), event(2, "Completed", "b")];
    assert_eq!(violated(&duplicates), ["I6"]);
}

#[test]
fn changed_or_deleted_foreign_job_is_a_violation() {
    let foreign = |version, change, parallelism: i32| {
        let object = json!({"metadata": {"name": "t", "uid": "f", "labels": {"foreign": "true"}}, "spec": {"parallelism": parallelism}});
        seen(version, "Job", change, object)
    };
    assert_eq!(
        violated(&[
            foreign(1, Change::Added, 1),
            foreign(2, Change::Modified, 1)
        ]),
        [""; 0]
    );
    assert_eq!(
        violated(&[
            foreign(1, Change::Added, 1),
            foreign(2, Change::Modified, 0)
        ]),
        ["I7"]
    );
    let deleted = [foreign(1, Change::Added, 1), foreign(2, Change::Deleted, 1)];
    assert_eq!(violated(&deleted), ["I7"]);
    assert_eq!(check(&deleted, &BTreeSet::from(["f".to_owned()])), []);
}

#[test]
fn results_without_a_job_are_a_violation() {
    assert_eq!(violated(&[test(1, Value::Null), running(2, 1)]), ["I9"]);
    let without_job = |end| {
        let mut ended = ended(2, end);
        ended.object["status"]["succeeded"] = json!(0);
        [test(1, Value::Null), ended]
    };
    assert_eq!(violated(&without_job("Completed")), ["I9"]);
    assert_eq!(violated(&without_job("Failed")), [""; 0]);
}

#[test]
fn test_that_passed_without_its_load_is_a_violation() {
    let with_load = |passed, delivered| {
        let mut ended = ended(7, "Completed");
        let conditions = ended.object["status"]["conditions"].as_array_mut().unwrap();
        if passed == "True" {
            let ready = [condition("Ready", "True", "2")];
            conditions.splice(3.., ready);
        }
        conditions.push(condition("Passed", passed, "2"));
        conditions.push(condition("LoadDelivered", delivered, "2"));
        let mut history = good();
        history.pop();
        history.push(ended);
        history
    };
    assert_eq!(violated(&with_load("True", "False")), ["I17"]);
    for (passed, delivered) in [("Unknown", "False"), ("True", "True"), ("True", "Unknown")] {
        assert_eq!(violated(&with_load(passed, delivered)), [""; 0]);
    }
}

#[test]
fn series_that_does_not_add_up_is_a_violation() {
    let with_series = |requests: &[i64]| {
        let mut ended = ended(7, "Completed");
        let series = json!({"requests": requests, "errors": [0], "vusersCreated": [0]});
        ended.object["status"]["results"] =
            json!({"requests": 5, "errors": 0, "vusersCreated": 0, "series": series});
        let mut history = good();
        history.pop();
        history.push(ended);
        history
    };
    assert_eq!(violated(&with_series(&[2, 3])), [""; 0]);
    assert_eq!(violated(&with_series(&[2, 2])), ["I18"]);
    assert_eq!(violated(&with_series(&[6, -1])), ["I18"]);
}

#[test]
fn readiness_that_differs_from_the_end_is_a_violation() {
    let change = |object: &mut ObjectVersion, position: usize, status| {
        object.object["status"]["conditions"][position]["status"] = json!(status);
    };
    let mut ready_while_running = running(8, 0);
    change(&mut ready_while_running, 3, "True");
    let start = [test(1, Value::Null), job(2, "job")];
    assert_eq!(
        violated(&[&start[..], &[ready_while_running]].concat()),
        ["I19"]
    );
    let mut stalled_while_running = running(8, 0);
    let conditions = &mut stalled_while_running.object["status"]["conditions"];
    let stalled = condition("Stalled", "True", "8");
    conditions.as_array_mut().unwrap().push(stalled);
    assert_eq!(
        violated(&[&start[..], &[stalled_while_running]].concat()),
        ["I19"]
    );
    for (position, status) in [(3, "True"), (4, "False")] {
        let mut failed = ended(7, "Failed");
        change(&mut failed, position, status);
        assert_eq!(violated(&[&start[..], &[failed]].concat()), ["I19"]);
    }
}

#[test]
fn two_start_times_for_the_workers_of_a_job_are_a_violation() {
    let annotated = |version, pod: &str, instant, attempt| {
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
        annotated(8, "a", "2026-01-01T00:00:05.123Z", "1"),
        annotated(9, "b", "2026-01-01T00:00:05.123Z", "1"),
    ];
    let again = annotated(10, "b", "2026-01-01T00:00:05.123Z", "2");
    assert_eq!(
        violated(&[good(), first.to_vec(), vec![again]].concat()),
        Vec::<&str>::new()
    );
    assert_eq!(
        violated(
            &[
                good(),
                first.to_vec(),
                vec![annotated(10, "b", "2026-01-01T00:00:05.124Z", "2")]
            ]
            .concat()
        ),
        ["start"]
    );
}
