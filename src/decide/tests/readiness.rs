//! What generic tools read from the status of a test, in every phase. `hack/kstatus/test.sh` compares the same table with kstatus
//! itself, and with the health script for Argo CD.

use std::path::Path;

use super::delivery::THROTTLED;
use super::verdict::{condition, end, measured};
use super::*;
use loadtest_api::crd::crd;

/// The objects for `hack/kstatus`.
const OBJECTS: &str = "hack/kstatus/loadtests.json";

/// Writes [`OBJECTS`] instead of comparing it.
const UPDATE: &str = "UPDATE_KSTATUS_OBJECTS";

/// A test, with what tools make of it.
struct Example {
    name: &'static str,
    /// The status by kstatus.
    kstatus: &'static str,
    /// The health by Argo CD.
    health: &'static str,
    test: LoadTest,
}

fn missing_script() -> Observed {
    Observed {
        script: ScriptState::ConfigMapMissing {
            name: "script".into(),
            similar: None,
        },
        ..seen(JobState::Absent, vec![])
    }
}

fn both(state: &WorkerState) -> Vec<WorkerStatus> {
    [0, 1].map(|index| worker(index, state.clone())).to_vec()
}

/// A test of two workers after these observations, one second apart.
fn after(spec: &serde_json::Value, observations: &[Observed]) -> LoadTest {
    let mut test = with(test(2), spec);
    for (observed, seconds) in observations.iter().zip(0..) {
        step(&mut test, observed, seconds);
    }
    test
}

/// The same test, once its spec stops it.
fn stopped(mut running: LoadTest, observations: &[Observed]) -> LoadTest {
    running = with(running, &json!({"stop": true}));
    running.metadata.generation = Some(2);
    for (observed, seconds) in observations.iter().zip(10..) {
        step(&mut running, observed, seconds);
    }
    running
}

fn unfinished() -> Vec<Example> {
    let example = |name, test| Example {
        name,
        kstatus: "InProgress",
        health: "Progressing",
        test,
    };
    let suspended = |name, test| Example {
        health: "Suspended",
        ..example(name, test)
    };
    let none = json!({});
    let absent = || seen(JobState::Absent, vec![]);
    let pending = || WorkerState::Pending { blocker: None };
    let owned = |state| seen(JobState::Owned(job()), both(&state));
    let queued = JobState::Owned(JobStatus {
        suspended: true,
        started: None,
        ..job()
    });
    let running = || after(&none, &[absent(), owned(WorkerState::Running)]);
    let one_failed = vec![
        WorkerStatus {
            ended: Some(at(1)),
            pod_outlives_worker: true,
            ..failed(0, 1, "Error: x")
        },
        worker(1, WorkerState::Running),
    ];
    let mut failing = running();
    let one_failed = seen(JobState::Owned(job()), one_failed);
    step(&mut failing, &one_failed, 30);
    let schema = serde_json::to_value(crd()).unwrap();
    let default = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
        ["default"];
    let mut created = test(2);
    created.status = Some(serde_json::from_value(default.clone()).unwrap());
    let mut edited = running();
    edited.metadata.generation = Some(2);
    vec![
        example("created", created),
        example("pending", after(&none, &[missing_script()])),
        example(
            "job-rejected",
            after(
                &none,
                &[seen(JobState::Rejected("quota".into()), Vec::new())],
            ),
        ),
        suspended(
            "suspended-by-spec",
            after(&json!({"suspend": true}), &[absent()]),
        ),
        suspended(
            "suspended-by-queue",
            after(&none, &[absent(), seen(queued, vec![])]),
        ),
        example("starting", after(&none, &[absent(), owned(pending())])),
        example("running", running()),
        example("running-and-edited", edited),
        example(
            "stopping-by-spec",
            stopped(running(), &[owned(WorkerState::Running)]),
        ),
        example("stopping-for-a-failure", failing),
    ]
}

fn finished() -> Vec<Example> {
    let passed = |name, test| Example {
        name,
        kstatus: "Current",
        health: "Healthy",
        test,
    };
    let not_passed = |name, test| Example {
        kstatus: "Failed",
        health: "Degraded",
        ..passed(name, test)
    };
    let absent = || seen(JobState::Absent, vec![]);
    let running = || seen(JobState::Owned(job()), both(&WorkerState::Running));
    let ended_by = |reason: &str, workers| {
        let outcome = JobOutcome::Failed {
            at: at(20),
            reason: reason.into(),
            message: String::new(),
        };
        seen(ended(0, outcome), workers)
    };
    let one_failed = vec![failed(0, 1, "Error: x"), worker(1, WorkerState::Aborted)];
    let none = json!({});
    let workers = || vec![measured(0, 10), measured(1, 10)];
    let started = || after(&none, &[absent(), running()]);
    let mut late = after(&none, &[missing_script()]);
    step(&mut late, &missing_script(), 600);
    let mut edited = end(2, &[], workers()).0;
    edited.metadata.generation = Some(2);
    let mut deleted = end(2, &[], workers()).0;
    deleted.metadata.deletion_timestamp = Some(Time(at(90)));
    let mut set_aside = started();
    let cause = SetAsideCause::UnexpectedEnds(2);
    let config = WorkerConfig::default();
    set_aside.status = super::set_aside(&set_aside, cause, &config, at(30)).status;
    vec![
        passed("passed", end(2, &[], workers()).0),
        passed(
            "passed-with-thresholds",
            end(2, &["http.requests > 1"], workers()).0,
        ),
        not_passed(
            "thresholds-not-met",
            end(2, &["http.requests < 1"], workers()).0,
        ),
        not_passed("no-results", end(2, &["http.requests < 1"], vec![]).0),
        not_passed("inconclusive", end(1, &[], vec![THROTTLED.worker(0)]).0),
        not_passed(
            "worker-failed",
            after(
                &none,
                &[
                    absent(),
                    running(),
                    ended_by("BackoffLimitExceeded", one_failed),
                ],
            ),
        ),
        not_passed(
            "job-deleted",
            after(
                &none,
                &[absent(), running(), seen(JobState::Deleted(None), vec![])],
            ),
        ),
        not_passed("start-deadline-exceeded", late),
        not_passed(
            "stopped",
            stopped(
                started(),
                &[running(), ended_by("DeadlineExceeded", vec![])],
            ),
        ),
        not_passed("stopped-before-start", stopped(test(2), &[absent()])),
        not_passed("set-aside", set_aside),
        Example {
            kstatus: "InProgress",
            health: "Progressing",
            ..passed("passed-and-edited", edited)
        },
        Example {
            kstatus: "Terminating",
            ..passed("passed-and-deleted", deleted)
        },
    ]
}

/// A test that did not pass under an operator that wrote neither Ready nor Stalled.
fn of_older_operator() -> Example {
    let workers = vec![measured(0, 10), measured(1, 10)];
    let mut test = end(2, &["http.requests < 1"], workers).0;
    if let Some(status) = &mut test.status {
        let readiness = [ConditionType::Ready, ConditionType::Stalled].map(ConditionType::as_str);
        status
            .conditions
            .retain(|one| !readiness.contains(&one.type_.as_str()));
    }
    Example {
        name: "not-passed-under-an-older-operator",
        kstatus: "Current",
        health: "Degraded",
        test,
    }
}

#[test]
fn readiness_has_an_example_in_every_phase() {
    let mut examples = unfinished();
    examples.extend(finished());
    examples.push(of_older_operator());
    for phase in Phase::ALL {
        assert!(
            examples.iter().any(|e| e.test.phase() == Some(*phase)),
            "{phase:?}"
        );
    }
    let objects: Vec<_> = examples
        .iter()
        .map(|example| {
            let mut object = serde_json::to_value(&example.test).unwrap();
            object["metadata"]["name"] = json!(example.name);
            json!({"kstatus": example.kstatus, "health": example.health, "object": object})
        })
        .collect();
    let text = serde_json::to_string_pretty(&objects).unwrap() + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(OBJECTS);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap_or_default() == text,
        "{OBJECTS} differs from what the operator writes: run {UPDATE}=1 cargo test --lib readiness"
    );
}

#[test]
fn ready_has_the_reason_that_a_user_needs() {
    let shown: Vec<_> = unfinished()
        .iter()
        .chain(&finished())
        .filter(|example| example.name != "created")
        .map(|example| {
            let (status, reason, _) = condition(&example.test, "Ready");
            format!("{}: {status} {reason}", example.name)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "pending: False MissingTestScript",
            "job-rejected: False JobRejected",
            "suspended-by-spec: False Suspended",
            "suspended-by-queue: False Suspended",
            "starting: False Starting",
            "running: False Running",
            "running-and-edited: False Running",
            "stopping-by-spec: False Stopping",
            "stopping-for-a-failure: False WorkerFailed",
            "passed: True NoThresholds",
            "passed-with-thresholds: True ThresholdsMet",
            "thresholds-not-met: False ThresholdsNotMet",
            "no-results: False NoResults",
            "inconclusive: False LoadNotDelivered",
            "worker-failed: False WorkerFailed",
            "job-deleted: False JobDeleted",
            "start-deadline-exceeded: False MissingTestScript",
            "stopped: False Stopped",
            "stopped-before-start: False Stopped",
            "set-aside: False SetAside",
            "passed-and-edited: True NoThresholds",
            "passed-and-deleted: True NoThresholds",
        ]
    );
}

#[test]
fn stalled_repeats_ready_for_a_test_that_will_not_pass() {
    for Example { name, test, .. } in finished() {
        let (ready, reason, message) = condition(&test, "Ready");
        let stalled = test
            .status
            .as_ref()
            .and_then(|s| s.condition(ConditionType::Stalled))
            .map(|c| (c.status.as_str(), c.reason.as_str(), c.message.as_str()));
        let expected = (ready == "False").then_some(("True", reason, message));
        assert_eq!(stalled, expected, "{name}");
    }
}

#[test]
fn a_test_that_is_no_longer_set_aside_is_not_stalled() {
    let mut again = finished()
        .into_iter()
        .find(|example| example.name == "set-aside")
        .unwrap()
        .test;
    again.metadata.generation = Some(2);
    let running = seen(JobState::Owned(job()), both(&WorkerState::Running));
    let status = step(&mut again, &running, 40).status.unwrap();
    assert!(status.condition(ConditionType::Stalled).is_none());
    assert_eq!(condition(&again, "Ready").1, "Running");
}
