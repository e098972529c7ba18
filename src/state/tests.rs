#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use loadtest_api::v1alpha1::Reason;
use serde_json::json;

fn worker(status: &serde_json::Value, deleted: bool) -> WorkerStatus {
    let mut pod = json!({
        "metadata": {"name": "t-0-abcde", "uid": "u", "annotations": {"batch.kubernetes.io/job-completion-index": "0"}},
        "status": status,
    });
    if deleted {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
    }
    WorkerStatus::from_pod(&serde_json::from_value(pod).unwrap(), "t")
}

fn pending(reason: Reason, message: &str) -> WorkerState {
    WorkerState::Pending {
        blocker: Some(StartBlocker {
            reason,
            message: message.into(),
            container: None,
        }),
    }
}

fn terminated(code: i32, reason: &str) -> serde_json::Value {
    json!({"phase": "Failed", "containerStatuses": [{"name": "t", "state": {"terminated":
        {"exitCode": code, "reason": reason, "startedAt": "2026-01-01T00:00:00Z", "message": "boom"}}}]})
}

#[test]
fn worker_runs_only_when_its_own_container_runs() {
    let sidecar_only = worker(
        &json!({"phase": "Running", "containerStatuses": [
        {"name": "mesh", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
        {"name": "t", "state": {"waiting": {"reason": "ContainerCreating"}}}]}),
        false,
    );
    assert_eq!(
        (sidecar_only.started, sidecar_only.state),
        (false, WorkerState::Pending { blocker: None })
    );
    let running = worker(
        &json!({"phase": "Running", "containerStatuses": [{"name": "t", "state": {"running": {}}}]}),
        false,
    );
    assert_eq!(
        (running.started, running.state, running.index),
        (true, WorkerState::Running, Some(0))
    );
}

#[test]
fn probes_determine_the_start_state() {
    for (started, ready, readiness) in [
        (json!(null), false, StartState::Loading),
        (json!(false), false, StartState::Loading),
        (json!(true), false, StartState::Ready),
        (json!(true), true, StartState::Acknowledged),
    ] {
        let status = json!({"phase": "Running", "containerStatuses": [
            {"name": "t", "started": started, "ready": ready, "state": {"running": {}}}]});
        assert_eq!(worker(&status, false).start.state, readiness, "{status}");
    }
}

#[test]
fn pending_pod_reports_its_start_blocker() {
    let image = worker(
        &json!({"phase": "Pending", "containerStatuses": [{"name": "t", "state": {"waiting":
        {"reason": "ImagePullBackOff", "message": "no such image"}}}]}),
        false,
    );
    assert_eq!(
        image.state,
        pending(Reason::ImageNotPullable, "ImagePullBackOff: no such image")
    );
    let full = worker(
        &json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/1 nodes are available"}]}),
        false,
    );
    assert_eq!(
        full.state,
        pending(
            Reason::Unschedulable,
            "Unschedulable: 0/1 nodes are available"
        )
    );
}

#[test]
fn failed_workers_are_distinguished_from_aborted_ones() {
    let failed = WorkerState::Failed {
        exit_code: Some(11),
        reason: "Error".into(),
        message: Some("boom".into()),
        container: None,
    };
    assert_eq!(worker(&terminated(11, "Error"), false).state, failed);
    assert_eq!(
        worker(&terminated(11, "Error"), true).state,
        failed,
        "failed on its own while being stopped"
    );
    assert_eq!(
        worker(&terminated(143, "Error"), true).state,
        WorkerState::Aborted
    );
    assert!(matches!(
        worker(&terminated(137, "OOMKilled"), true).state,
        WorkerState::Failed { .. }
    ));
    assert!(matches!(
        worker(&terminated(143, "Error"), false).state,
        WorkerState::Failed { .. }
    ));
    assert!(
        matches!(worker(&json!({"phase": "Failed", "reason": "Evicted"}), false).state,
        WorkerState::Failed { exit_code: None, reason, .. } if reason == "Evicted")
    );
}

#[test]
fn container_with_a_start_error_has_not_run() {
    let w = worker(
        &json!({"phase": "Failed", "containerStatuses": [{"name": "t", "state": {"terminated":
        {"exitCode": 128, "reason": "StartError", "startedAt": "1970-01-01T00:00:00Z"}}}]}),
        false,
    );
    assert!(!w.started);
}

#[test]
fn only_true_conditions_finish_a_job() {
    let job = |type_: &str, status: &str| {
        JobStatus::from_job(
            &serde_json::from_value(json!({"metadata": {"uid": "j"}, "status": {"conditions": [
            {"type": type_, "status": status, "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
            .unwrap(),
        )
        .outcome
    };
    assert_eq!(job("FailureTarget", "True"), None);
    assert_eq!(job("Complete", "False"), None);
    assert!(matches!(
        job("Complete", "True"),
        Some(JobOutcome::Complete { .. })
    ));
    assert!(
        matches!(job("Failed", "True"), Some(JobOutcome::Failed { reason, .. }) if reason == "R")
    );
}

#[test]
fn other_containers_explain_a_worker_that_does_not_start() {
    let started_at = "2026-01-01T00:00:00Z";
    let crashed = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "no configuration", "startedAt": started_at}});
    let crash_loop = json!({"name": "proxy", "lastState": crashed,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}});
    let no_image = json!({"name": "proxy", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}});
    let between = json!({"name": "proxy", "state": crashed});
    let waits = json!({"name": "t", "state": {"waiting": {"reason": "PodInitializing"}}});
    for (init, others, reason, exit_code) in [
        (
            vec![&crash_loop],
            vec![],
            Reason::ContainerNotStarting,
            Some(1),
        ),
        (
            vec![],
            vec![&crash_loop],
            Reason::ContainerNotStarting,
            Some(1),
        ),
        (
            vec![&between],
            vec![],
            Reason::ContainerNotStarting,
            Some(1),
        ),
        (vec![&no_image], vec![], Reason::ImageNotPullable, None),
    ] {
        let containers: Vec<_> = others.into_iter().chain([&waits]).collect();
        let pod = worker(
            &json!({"phase": "Pending", "initContainerStatuses": init, "containerStatuses": containers}),
            false,
        );
        let WorkerState::Pending {
            blocker: Some(blocker),
        } = pod.state
        else {
            panic!("{:?}", pod.state)
        };
        let container = blocker.container.unwrap();
        assert_eq!((blocker.reason, container.name.as_str()), (reason, "proxy"));
        assert_eq!(container.exit_code, exit_code);
        assert_eq!(
            container.output.as_deref(),
            exit_code.map(|_| "no configuration")
        );
    }
}

#[test]
fn an_init_container_that_fails_is_named_by_the_failed_worker() {
    let crashed = json!({"exitCode": 3, "reason": "Error", "message": "no certificate", "startedAt": "2026-01-01T00:00:00Z"});
    let pod = worker(
        &json!({"phase": "Failed", "initContainerStatuses": [{"name": "certs", "state": {"terminated": crashed}}],
            "containerStatuses": [{"name": "t", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
        false,
    );
    let WorkerState::Failed {
        container: Some(container),
        ..
    } = pod.state
    else {
        panic!("{:?}", pod.state)
    };
    assert_eq!(
        (container.name.as_str(), container.exit_code),
        ("certs", Some(3))
    );
}

#[test]
fn the_clock_of_a_node_is_compared_with_those_of_others() {
    let now: k8s_openapi::jiff::Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
    let pod = |since: &str| {
        let pod = json!({
            "metadata": {"name": "t-0-abcde", "uid": "u", "creationTimestamp": "2026-01-01T00:00:05Z"},
            "status": {"phase": "Running", "containerStatuses": [{"name": "t", "state": {"running": {"startedAt": since}}}]},
        });
        WorkerStatus::from_pod(&serde_json::from_value(pod).unwrap(), "t").merge_earlier(None, now)
    };
    assert_eq!(pod("2026-01-01T00:00:07Z").clock_offset, 0);
    assert_eq!(pod("2025-12-31T23:59:45Z").clock_offset, -20);
    let ahead = pod("2026-01-01T00:00:40Z");
    assert_eq!(ahead.clock_offset, 30);
    // The view of an hour later still shows the same start.
    let later = "2026-01-01T01:00:00Z".parse().unwrap();
    let again = pod("2026-01-01T00:00:40Z").merge_earlier(Some(&ahead), later);
    assert_eq!(again.clock_offset, 30);
}

#[test]
fn texts_of_any_length_are_kept_in_bounded_memory() {
    let long = "x".repeat(1 << 20);
    let run = json!({"terminated": {"exitCode": 1, "reason": long, "message": long, "startedAt": "2026-01-01T00:00:00Z"}});
    let waiting = json!({"waiting": {"reason": long, "message": long}});
    let snapshot = json!({"terminated": {"exitCode": 0, "message": format!("loadtest.v1 {long}")}});
    let condition = |type_| {
        json!({"type": type_, "status": if type_ == "PodScheduled" { "False" } else { "True" },
        "reason": long, "message": long})
    };
    for status in [
        json!({"phase": "Failed", "containerStatuses": [{"name": "t", "state": run}]}),
        json!({"phase": "Failed", "reason": long, "message": long, "containerStatuses": [{"name": "mesh", "state": run}]}),
        json!({"phase": "Pending", "containerStatuses": [{"name": "t", "state": waiting}]}),
        json!({"phase": "Pending", "containerStatuses": [{"name": "mesh", "state": waiting, "lastState": run}]}),
        json!({"phase": "Pending", "conditions": [condition("PodScheduled")]}),
        json!({"phase": "Failed", "conditions": [condition("DisruptionTarget")]}),
        json!({"phase": "Succeeded", "containerStatuses": [{"name": "t", "state": snapshot}]}),
    ] {
        // The text form is longer than what is kept: a snapshot is a list of numbers in it.
        let kept = format!("{:?}", worker(&status, false)).len();
        assert!(kept < 12 << 10, "{kept} bytes");
    }
}
