//! Tests that fail: why, and who is named.

use super::*;

#[test]
fn the_first_deleted_pod_is_blamed() {
    let outcome = JobOutcome::Failed {
        at: at(9),
        reason: "BackoffLimitExceeded".into(),
        message: "limit".into(),
    };
    let JobState::Owned(job) = ended(0, outcome) else {
        unreachable!()
    };
    let deleted = |index, version| {
        let deleted = Some(Box::new(crate::state::Deletion {
            grace_deadline: at(8),
            version,
            removed: true,
        }));
        WorkerStatus {
            deleted,
            ..worker(index, WorkerState::Aborted)
        }
    };
    let observed = seen(
        JobState::Owned(JobStatus { failed: 3, ..job }),
        vec![deleted(0, 12), deleted(1, 10), deleted(2, 11)],
    );
    let status = plan(&test(3), &observed, 10).status.unwrap();
    assert_eq!(
        (
            status.conditions[2].reason.as_str(),
            status.failed,
            status.aborted
        ),
        ("WorkerDeleted", 1, 2)
    );
    assert_eq!(
        status.conditions[2].message,
        "Worker 1 (pod t-1-x) failed (Deleted): its pod was deleted. 2 other workers were stopped."
    );
    assert_eq!(
        status
            .failed_workers
            .iter()
            .map(|f| f.index)
            .collect::<Vec<_>>(),
        [Some(1)]
    );
}

#[test]
fn ten_failed_workers_are_listed_and_all_are_counted() {
    let outcome = JobOutcome::Failed {
        at: at(9),
        reason: "FailedIndexes".into(),
        message: "f".into(),
    };
    let JobState::Owned(job) = ended(3, outcome) else {
        unreachable!()
    };
    let job = JobState::Owned(JobStatus { failed: 15, ..job });
    let workers = (0..15).map(|i| failed(i, 1, "boom")).collect();
    let status = plan(
        &with(test(18), &json!({"failurePolicy": "Continue"})),
        &seen(job, workers),
        10,
    )
    .status
    .unwrap();
    assert_eq!(
        (
            status.failed_workers.len(),
            status.failed,
            status.aborted,
            status.succeeded
        ),
        (10, 15, 0, 3)
    );
}

#[test]
fn pod_reasons_become_the_reason_of_the_test() {
    let outcome = JobOutcome::Failed {
        at: at(9),
        reason: "BackoffLimitExceeded".into(),
        message: "limit".into(),
    };
    for (word, reason) in [
        ("OOMKilled", "OutOfMemory"),
        ("Evicted", "WorkerEvicted"),
        ("PreemptionByScheduler", "WorkerPreempted"),
        ("DeletionByTaintManager", "NodeLost"),
        ("StartError", "ContainerNotStarting"),
        ("Error", "WorkerFailed"),
    ] {
        let died = worker(
            0,
            WorkerState::Failed {
                exit_code: None,
                reason: word.into(),
                message: None,
                container: None,
            },
        );
        let status = plan(&test(1), &seen(ended(0, outcome.clone()), vec![died]), 10)
            .status
            .unwrap();
        assert_eq!(status.conditions[2].reason, reason, "{word}");
    }
}

#[test]
fn a_failure_names_the_worker_and_separates_failed_from_stopped() {
    let outcome = JobOutcome::Failed {
        at: at(9),
        reason: "BackoffLimitExceeded".into(),
        message: "limit".into(),
    };
    let workers = vec![
        failed(2, 11, "one\nlast words\n"),
        worker(0, WorkerState::Aborted),
        worker(1, WorkerState::Aborted),
    ];
    let plan = plan(&test(3), &seen(ended(0, outcome), workers), 10);
    let status = plan.status.unwrap();
    assert_eq!(
        (status.phase, status.failed, status.active),
        (Some(Phase::Failed), 1, 0)
    );
    assert_eq!(
        status.conditions[2].message,
        "Worker 2 (pod t-2-x) failed with exit code 11: last words. 2 other workers were stopped. \
         See: kubectl logs -n n t-2-x"
    );
    let holding: Vec<_> = status
        .conditions
        .iter()
        .filter(|c| c.status == "True")
        .map(|c| c.type_.as_str())
        .collect();
    assert_eq!(holding, ["Failed", "Stalled"]);
    // The start time of a failure that was over before the first observation is recorded all the same.
    assert_eq!(
        plan.events.iter().map(|e| e.reason.as_str()).next(),
        Some("Created")
    );
    assert_eq!(
        plan.events.last().map(|e| (e.warning, e.reason)),
        Some((true, Reason::Failed))
    );
}

#[test]
fn failure_message_quotes_the_error_line() {
    let outcome = JobOutcome::Failed {
        at: at(9),
        reason: "BackoffLimitExceeded".into(),
        message: "limit".into(),
    };
    for (wrote, reported) in [
        (
            "\nError: Cannot find module './p.js'\n    at node:internal/x:1\n  code: 'MODULE_NOT_FOUND',\n  requireStack: []\n}\n",
            "Error: Cannot find module './p.js'",
        ),
        (
            "TypeError: x is not a function\n    at y\n",
            "TypeError: x is not a function",
        ),
        ("Summary report\n  last words\n}\n", "last words"),
        ("  }\n\n", ""),
    ] {
        let status = plan(
            &test(1),
            &seen(ended(0, outcome.clone()), vec![failed(0, 1, wrote)]),
            10,
        )
        .status
        .unwrap();
        assert_eq!(
            status.failed_workers[0]
                .message
                .as_deref()
                .unwrap_or_default(),
            reported
        );
    }
}

#[test]
fn failure_message_is_about_the_first_failed_worker() {
    let outcome = JobOutcome::Failed {
        at: at(9),
        reason: "BackoffLimitExceeded".into(),
        message: "limit".into(),
    };
    let workers = vec![failed(1, 1, "b"), failed(0, 1, "a")];
    let message = plan(&test(2), &seen(ended(0, outcome), workers), 10)
        .status
        .unwrap()
        .conditions[2]
        .message
        .clone();
    assert!(
        message.starts_with(
            "Worker 0 (pod t-0-x) failed with exit code 1: a. 1 other worker failed too. See:"
        ),
        "{message}"
    );
}

#[test]
fn a_failure_without_a_failed_pod_reports_deleted_pods() {
    let outcome = JobOutcome::Failed {
        at: at(9),
        reason: "BackoffLimitExceeded".into(),
        message: "limit".into(),
    };
    let gone = ended(0, outcome);
    let JobState::Owned(job) = gone else {
        unreachable!()
    };
    let observed = seen(
        JobState::Owned(JobStatus { failed: 2, ..job }),
        vec![worker(0, WorkerState::Aborted)],
    );
    let status = plan(&test(2), &observed, 10).status.unwrap();
    assert_eq!(status.failed, 1, "one at least has failed");
    assert!(
        status.conditions[2].message.contains("deleted or lost"),
        "{}",
        status.conditions[2].message
    );
}

#[test]
fn a_deleted_job_counts_with_its_last_known_state() {
    let JobState::Owned(complete) = ended(1, JobOutcome::Complete { at: at(3) }) else {
        unreachable!()
    };
    let done = plan(
        &test(1),
        &seen(JobState::Deleted(Some(complete)), vec![]),
        9,
    )
    .status
    .unwrap();
    assert_eq!((done.phase, done.succeeded), (Some(Phase::Completed), 1));
    let lost = plan(&test(1), &seen(JobState::Deleted(Some(job())), vec![]), 9);
    let status = lost.status.clone().unwrap();
    assert_eq!(
        (status.phase, status.conditions[2].reason.as_str()),
        (Some(Phase::Failed), "JobDeleted")
    );
    assert_eq!(status.duration.as_deref(), Some("9s"));
    assert!(!creates(&lost));
}

#[test]
fn the_line_of_a_log_that_names_the_error_is_quoted() {
    let module = "node:internal/modules/esm/resolve:275\n    throw new ERR_MODULE_NOT_FOUND(\n          ^\n\n\
        Error [ERR_MODULE_NOT_FOUND]: Cannot find module '/data/procesor.js' imported from /a.js\n    \
        at finalizeResolution (node:internal/modules/esm/resolve:275:11) {\n  code: 'ERR_MODULE_NOT_FOUND',\n  \
        url: 'file:///data/procesor.js'\n}\n\nNode.js v24.0.0\n";
    let type_error =
        "TypeError: x is not a function\n    at f (/data/p.js:1:2)\n    at g\n{ url: 1 }\n";
    let plain = "vusers.created: 10\nall done\n---\n";
    for (log, line) in [
        (
            module,
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find module '/data/procesor.js' imported from /a.js",
        ),
        (type_error, "TypeError: x is not a function"),
        (plain, "all done"),
    ] {
        assert_eq!(
            log_line::most_informative_line(Some(log)).as_deref(),
            Some(line)
        );
    }
    let report = failed(0, 21, "vusers.session_length:\n  p99: 3\n");
    let message = messages::worker_failed(&report, 0, 0, None, "t");
    assert!(
        message.contains("expectation of expect was not met"),
        "{message}"
    );
    assert!(!message.contains("p99"), "{message}");
}
