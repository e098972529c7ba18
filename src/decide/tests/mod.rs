#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::Arc;

use super::running::refresh_interval;
use super::*;
use crate::state::{
    ConfigMapFiles, JobOutcome, JobStatus, ScriptState, StartBlocker, StartHandshake, StartState,
    WorkerState, WorkerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use loadtest_script::Analysis;
use serde_json::json;

mod coordinated_start;
mod failures;
mod verdict;

const BEGIN: &str = "2026-01-01T00:00:00Z";

fn at(seconds: i64) -> Timestamp {
    BEGIN.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn test(count: i32) -> LoadTest {
    serde_json::from_value(json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
        "metadata": {"name": "t", "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": "1"},
        "spec": {"count": count, "testScript": {"config": {"configMap": "script"}}}}))
    .unwrap()
}

fn job() -> JobStatus {
    JobStatus {
        uid: "j".into(),
        owner_uid: Some("u".into()),
        started: Some(at(0)),
        active: 2,
        succeeded: 0,
        failed: 0,
        suspended: false,
        deadline: None,
        ttl: None,
        failing: false,
        outcome: None,
    }
}

fn worker(index: u32, state: WorkerState) -> WorkerStatus {
    let started = !matches!(state, WorkerState::Pending { .. });
    WorkerStatus {
        pod: format!("t-{index}-x"),
        uid: format!("p{index}"),
        index: Some(index),
        node: None,
        started,
        running_since: (state == WorkerState::Running).then(|| at(0)),
        ended: None,
        start: StartHandshake {
            state: if started {
                StartState::Acknowledged
            } else {
                StartState::Loading
            },
            instant: started.then(|| at(0)),
            attempt: u8::MAX,
            sent_at: None,
            ack_deadline: Some(at(0)),
        },
        snapshot: None,
        pod_outlives_worker: false,
        deleted: None,
        state,
    }
}

fn failed(index: u32, code: i32, message: &str) -> WorkerStatus {
    worker(
        index,
        WorkerState::Failed {
            exit_code: Some(code),
            reason: "Error".into(),
            message: Some(message.into()),
        },
    )
}

fn seen(job: JobState, workers: Vec<WorkerStatus>) -> Observed {
    let workers = workers.into_iter().map(Arc::new).collect();
    Observed {
        job,
        workers,
        script: ScriptState::NotRead,
        has_worker_files: true,
        blocker: None,
        running_jobs: 0,
    }
}

/// A script in the test's `ConfigMap`.
fn read_script(analysis: Analysis) -> ScriptState {
    ScriptState::Read {
        config_maps: vec![ConfigMapFiles {
            name: "script".into(),
            keys: vec!["test-script.yaml".into()],
        }],
        analysis: Arc::new(analysis),
    }
}

fn plan(test: &LoadTest, observed: &Observed, seconds: i64) -> Plan {
    decide(test, observed, &WorkerConfig::default(), at(seconds))
}

/// Decides, and writes what is to be written, as the operator does.
fn step(test: &mut LoadTest, observed: &Observed, seconds: i64) -> Plan {
    let plan = plan(test, observed, seconds);
    if let Some(status) = plan.status.clone() {
        test.status = Some(status);
    }
    plan
}

fn ended(succeeded: i32, outcome: JobOutcome) -> JobState {
    JobState::Owned(JobStatus {
        active: 0,
        succeeded,
        outcome: Some(outcome),
        ..job()
    })
}

fn creates(plan: &Plan) -> bool {
    matches!(plan.action, Some(Action::CreateJob(_)))
}

fn steer(plan: &Plan) -> Option<JobField> {
    match &plan.action {
        Some(Action::PatchJob(steer)) => Some(steer.field),
        _ => None,
    }
}

/// Sets fields of the spec.
fn with(mut test: LoadTest, spec: &serde_json::Value) -> LoadTest {
    let mut whole = serde_json::to_value(&test.spec).unwrap();
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    test.spec = serde_json::from_value(whole).unwrap();
    test
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.events.iter().map(|e| e.reason.as_str()).collect()
}

#[test]
fn status_refreshes_slow_down_and_spread_with_many_running_tests() {
    assert_eq!(
        [0, 400, 401, 10_000].map(|n| refresh_interval(n).as_secs()),
        [10, 10, 11, 250]
    );
    let mut seconds = [0; 25];
    for i in 0..1000 {
        let mut test = test(1);
        test.metadata.uid = Some(format!("uid-{i}"));
        let running = Observed {
            running_jobs: 1000,
            ..seen(
                JobState::Owned(job()),
                vec![worker(0, WorkerState::Running)],
            )
        };
        let first = step(&mut test, &running, 1).requeue_at.unwrap();
        let wait = first.duration_since(at(1)).as_secs();
        assert!((25..50).contains(&wait), "{wait}");
        seconds[usize::try_from(first.as_second().rem_euclid(25)).unwrap()] += 1;
        let due = first.duration_since(at(0)).as_secs();
        assert!(
            step(&mut test, &running, due - 1).status.is_none(),
            "not before its turn"
        );
        let refreshed = step(&mut test, &running, due);
        assert!(refreshed.status.is_some());
        assert_eq!(
            refreshed
                .requeue_at
                .unwrap()
                .duration_since(first)
                .as_secs(),
            25,
            "and then once a round"
        );
    }
    assert!(seconds.iter().all(|n| (20..70).contains(n)), "{seconds:?}");
}

#[test]
fn status_starting_is_written_before_every_attempt_to_create_the_job() {
    let mut test = test(2);
    let first = step(&mut test, &seen(JobState::Absent, vec![]), 0);
    assert_eq!(first.status.as_ref().unwrap().phase, Some(Phase::Starting));
    assert!(
        matches!(&first.action, Some(Action::CreateJob(job)) if job.metadata.name.as_deref() == Some("t"))
    );
    assert!(first.events.is_empty(), "the Job is not there yet");
    // The operator ended before it created the Job: the write proves that what it sees now is not out of date.
    let again = plan(&test, &seen(JobState::Absent, vec![]), 5);
    assert!(again.status.is_some() && creates(&again));
}

#[test]
fn a_run_takes_three_status_writes_besides_refreshes() {
    let mut test = test(2);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let pending = || worker(0, WorkerState::Pending { blocker: None });
    let ours = || JobState::Owned(job());
    let created = step(&mut test, &seen(ours(), vec![pending()]), 0);
    assert_eq!(
        (created.status.is_some(), reasons(&created)),
        (false, vec!["Created"])
    );
    assert_eq!(
        created.requeue_at,
        Some(at(5)),
        "if nothing comes by then, why"
    );
    let one = step(
        &mut test,
        &seen(ours(), vec![worker(0, WorkerState::Running), pending()]),
        1,
    );
    assert_eq!(
        (one.status.is_some(), reasons(&one)),
        (false, vec!["Created", "Running"])
    );
    let both = [0, 1].map(|i| worker(i, WorkerState::Running)).to_vec();
    let running = step(&mut test, &seen(ours(), both.clone()), 2);
    assert_eq!(running.status.as_ref().unwrap().phase, Some(Phase::Running));
    assert_eq!(reasons(&running), ["Created", "Running", "Running"]);
    let due = running.requeue_at.unwrap().duration_since(at(0)).as_secs();
    assert!((12..22).contains(&due), "{due}");

    for seconds in 2..due {
        let quiet = step(&mut test, &seen(ours(), both.clone()), seconds);
        assert!(
            quiet.status.is_none() && quiet.events.is_empty(),
            "at {seconds} s"
        );
        assert_eq!(quiet.requeue_at, running.requeue_at);
    }
    let refresh = step(&mut test, &seen(ours(), both.clone()), due);
    assert_eq!(
        refresh.status.unwrap().duration,
        Some(loadtest_api::duration::format(SignedDuration::from_secs(
            due
        )))
    );

    let done = step(
        &mut test,
        &seen(ended(2, JobOutcome::Complete { at: at(24) }), both),
        25,
    );
    let status = done.status.clone().unwrap();
    assert_eq!(reasons(&done), ["Completed"]);
    assert_eq!(
        (status.phase, status.duration.as_deref()),
        (Some(Phase::Completed), Some("24s"))
    );
    assert_eq!(status.completion_time, Some(Time(at(24))));
}

#[test]
fn succeeded_workers_complete_the_test_before_the_job_reports_it() {
    let succeeded = |index, seconds| WorkerStatus {
        ended: Some(at(seconds)),
        ..worker(index, WorkerState::Succeeded)
    };
    let one = plan(
        &test(2),
        &seen(JobState::Owned(job()), vec![succeeded(0, 7)]),
        8,
    );
    assert_eq!(
        one.status.unwrap().phase,
        Some(Phase::Starting),
        "not all have succeeded"
    );
    let twice = plan(
        &test(2),
        &seen(
            JobState::Owned(job()),
            vec![succeeded(0, 7), succeeded(0, 8)],
        ),
        8,
    );
    assert_ne!(
        twice.status.unwrap().phase,
        Some(Phase::Completed),
        "two pods of one worker are not two workers"
    );
    // The watch of Jobs lags behind: a duration could only be guessed.
    let unknown = JobState::Owned(JobStatus {
        started: None,
        ..job()
    });
    let early = plan(
        &test(2),
        &seen(unknown, vec![succeeded(0, 7), succeeded(1, 9)]),
        10,
    );
    assert_ne!(early.status.unwrap().phase, Some(Phase::Completed));
    let both = plan(
        &test(2),
        &seen(
            JobState::Owned(job()),
            vec![succeeded(0, 7), succeeded(1, 9)],
        ),
        10,
    );
    let status = both.status.unwrap();
    assert_eq!(
        (status.phase, status.completions.as_deref()),
        (Some(Phase::Completed), Some("2/2"))
    );
    assert_eq!(
        (
            status.completion_time,
            status.duration.as_deref(),
            status.active
        ),
        (Some(Time(at(9))), Some("9s"), 0)
    );
}

#[test]
fn finished_and_deleted_tests_need_nothing() {
    let mut test = test(1);
    step(
        &mut test,
        &seen(ended(1, JobOutcome::Complete { at: at(3) }), vec![]),
        4,
    );
    for job in [
        JobState::Absent,
        JobState::Deleted(None),
        JobState::NotOwned,
        JobState::Owned(job()),
    ] {
        let plan = plan(&test, &seen(job, vec![]), 100);
        assert!(
            plan.status.is_none()
                && plan.action.is_none()
                && plan.events.is_empty()
                && plan.requeue_at.is_none()
        );
    }
    let mut deleted = self::test(1);
    deleted.metadata.deletion_timestamp = Some(Time(at(0)));
    assert!(!creates(&plan(
        &deleted,
        &seen(JobState::Absent, vec![]),
        0
    )));
}

#[test]
fn counts_and_phase_never_decrease() {
    let mut test = test(3);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let workers = [0, 1, 2].map(|i| worker(i, WorkerState::Running)).to_vec();
    step(
        &mut test,
        &seen(
            JobState::Owned(JobStatus {
                succeeded: 2,
                ..job()
            }),
            workers,
        ),
        1,
    );
    let stale = step(&mut test, &seen(JobState::Owned(job()), vec![]), 20);
    let status = stale.status.unwrap();
    assert_eq!(
        (
            status.succeeded,
            status.completions.as_deref(),
            status.phase
        ),
        (2, Some("2/3"), Some(Phase::Running))
    );
}

#[test]
fn a_start_blocker_is_reported_at_once_and_again_only_when_it_changes() {
    let mut test = test(2);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let stuck = |reason, message: &str| {
        let blocker = Some(StartBlocker {
            reason,
            message: message.into(),
        });
        seen(
            JobState::Owned(job()),
            vec![worker(0, WorkerState::Pending { blocker })],
        )
    };
    let no_image = || stuck(Reason::ImageNotPullable, "ImagePullBackOff: no such image");
    let told = step(&mut test, &no_image(), 1);
    let condition = &told.status.as_ref().unwrap().conditions[0];
    assert_eq!(
        (condition.reason.as_str(), condition.status.as_str()),
        ("ImageNotPullable", "True")
    );
    assert_eq!(
        condition.message,
        "Waiting for 2 workers of Job t to start. Pod t-0-x is waiting: ImagePullBackOff: no such image. \
         Check the workers' image (status.image) and that the nodes can pull it."
    );
    assert_eq!(
        (reasons(&told), told.requeue_at),
        (vec!["Created"], Some(at(5))),
        "not warned of at once"
    );
    assert_eq!(
        reasons(&step(&mut test, &no_image(), 5)),
        ["Created", "ImageNotPullable"]
    );
    assert!(plan(&test, &no_image(), 2).status.is_none());
    assert!(
        plan(&test, &stuck(Reason::Unschedulable, "0/1 nodes"), 2)
            .status
            .is_some()
    );
    let other_words = |seconds| {
        plan(
            &test,
            &stuck(Reason::ImageNotPullable, "ImagePullBackOff: wait 10 s"),
            seconds,
        )
    };
    assert_eq!(
        (other_words(2).status, other_words(2).requeue_at),
        (None, Some(at(4))),
        "words alone are not worth a write each"
    );
    assert!(other_words(4).status.is_some());
}

#[test]
fn warnings_explain_workers_that_do_not_start() {
    let mut test = test(2);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let asked = |workers: &[WorkerStatus], seconds| {
        let workers: Vec<_> = workers.iter().cloned().map(Arc::new).collect();
        object_to_explain(&test, &JobState::Owned(job()), &workers, at(seconds))
    };
    assert_eq!(asked(&[], 19), None, "it may just be slow");
    assert_eq!(
        asked(&[], 20).as_deref(),
        Some("j"),
        "the Job has too few pods"
    );
    let pending = |i| worker(i, WorkerState::Pending { blocker: None });
    assert_eq!(
        asked(&[worker(0, WorkerState::Running), pending(1)], 20).as_deref(),
        Some("p1")
    );
    let blocker = StartBlocker::from_event("FailedCreate", "exceeded quota: q");
    let told = plan(
        &test,
        &Observed {
            blocker,
            ..seen(JobState::Owned(job()), vec![])
        },
        6,
    )
    .status
    .unwrap();
    assert_eq!(told.conditions[0].reason, "PodCreationFailed");
    assert!(
        told.conditions[0]
            .message
            .contains("exceeded quota: q. Raise the namespace's quota"),
        "{}",
        told.conditions[0].message
    );
}

#[test]
fn start_deadline_fails_the_test_with_the_observed_reason() {
    let mut test = with(test(1), &json!({"startDeadlineSeconds": 30}));
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let blocker = Some(StartBlocker {
        reason: Reason::Unschedulable,
        message: "0/1 nodes".into(),
    });
    let stuck = seen(
        JobState::Owned(job()),
        vec![worker(0, WorkerState::Pending { blocker })],
    );
    let waits = step(&mut test, &stuck, 25);
    assert_eq!(
        waits.requeue_at,
        Some(at(30)),
        "looked at again when the deadline is over"
    );
    let late = step(&mut test, &stuck, 30);
    assert_eq!(
        (late.status.as_ref().unwrap().phase, steer(&late)),
        (
            Some(Phase::Stopping),
            Some(JobField::ActiveDeadline(Some(TERMINATE_NOW_SECONDS)))
        )
    );
    let cause = late.status.unwrap().stop_cause.unwrap();
    assert_eq!(cause.reason, "Unschedulable");
    // Text that is added to the condition while the test is stopping does not change the cause.
    test.status.as_mut().unwrap().conditions[0].message += " More.";
    assert_eq!(
        step(&mut test, &stuck, 40).status.unwrap().conditions[0].message,
        cause.message
    );
    // The Job controller has ended the Job; an operator that restarted knows the cause.
    let outcome = JobOutcome::Failed {
        at: at(32),
        reason: "DeadlineExceeded".into(),
        message: "d".into(),
    };
    let status = step(&mut test, &seen(ended(0, outcome), vec![]), 33)
        .status
        .unwrap();
    assert_eq!(
        (status.phase, status.conditions[2].reason.as_str()),
        (Some(Phase::Failed), "Unschedulable")
    );
    assert!(status.conditions[2].message.starts_with(
        "Not all workers started within 30s (startDeadlineSeconds): Pod t-0-x is waiting: 0/1 nodes"
    ));
    assert_eq!((status.failed, status.aborted), (0, 1));
}

#[test]
fn start_deadline_fails_a_blocked_test_and_excludes_suspension() {
    let missing = Observed {
        script: ScriptState::ConfigMapMissing("script".into()),
        ..seen(JobState::Absent, vec![])
    };
    let mut late = with(test(1), &json!({"startDeadlineSeconds": 30}));
    assert_eq!(step(&mut late, &missing, 0).requeue_at, Some(at(30)));
    let status = step(&mut late, &missing, 30).status.unwrap();
    assert_eq!(
        (status.phase, status.conditions[2].reason.as_str()),
        (Some(Phase::Failed), "MissingTestScript")
    );
    assert!(
        !creates(&plan(&late, &seen(JobState::Absent, vec![]), 31)),
        "ended is ended"
    );

    let mut held = with(
        test(1),
        &json!({"startDeadlineSeconds": 30, "suspend": true}),
    );
    let suspended = step(&mut held, &seen(JobState::Absent, vec![]), 0);
    assert!(!creates(&suspended));
    assert_eq!(suspended.status.unwrap().conditions[0].status, "Unknown");
    assert!(
        step(&mut held, &missing, 100).status.is_none(),
        "held for as long as it takes"
    );
    let mut held = with(held, &json!({"suspend": false}));
    assert_eq!(step(&mut held, &missing, 200).requeue_at, Some(at(230)));
}

#[test]
fn a_queued_job_waits_and_a_job_suspended_later_fails_the_test() {
    let mut test = test(1);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let queued = || {
        JobState::Owned(JobStatus {
            suspended: true,
            started: None,
            ..job()
        })
    };
    assert_eq!(
        step(&mut test, &seen(queued(), vec![]), 1)
            .status
            .unwrap()
            .phase,
        Some(Phase::Suspended)
    );
    assert!(
        step(&mut test, &seen(queued(), vec![]), 5000)
            .status
            .is_none()
    );
    let resumed = JobState::Owned(JobStatus {
        started: Some(at(6000)),
        ..job()
    });
    let running = step(
        &mut test,
        &seen(resumed, vec![worker(0, WorkerState::Running)]),
        6001,
    );
    assert_eq!(running.status.unwrap().phase, Some(Phase::Running));
    let status = step(&mut test, &seen(queued(), vec![]), 6010)
        .status
        .unwrap();
    assert_eq!(
        (status.phase, status.conditions[2].reason.as_str()),
        (Some(Phase::Failed), "JobSuspended")
    );
    // And whoever resumes it now does not send load again.
    assert_eq!(
        steer(&plan(&test, &seen(JobState::Owned(job()), vec![]), 6020)),
        Some(JobField::ActiveDeadline(Some(TERMINATE_NOW_SECONDS)))
    );
}

#[test]
fn a_stopped_test_terminates_its_job_and_is_neither_completed_nor_failed() {
    let mut early = with(test(1), &json!({"stop": true}));
    let plan_early = step(&mut early, &seen(JobState::Absent, vec![]), 0);
    assert_eq!(
        (
            plan_early.status.as_ref().unwrap().phase,
            reasons(&plan_early)
        ),
        (Some(Phase::Stopped), vec!["Stopped"])
    );
    // A creation that was on its way is ended.
    assert_eq!(
        steer(&plan(&early, &seen(JobState::Owned(job()), vec![]), 1)),
        Some(JobField::ActiveDeadline(Some(TERMINATE_NOW_SECONDS)))
    );

    let mut test = test(2);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let both = || {
        seen(
            JobState::Owned(job()),
            [0, 1].map(|i| worker(i, WorkerState::Running)).to_vec(),
        )
    };
    step(&mut test, &both(), 1);
    let mut test = with(test, &json!({"stop": true}));
    let stopping = step(&mut test, &both(), 10);
    assert_eq!(
        (stopping.status.as_ref().unwrap().phase, steer(&stopping)),
        (
            Some(Phase::Stopping),
            Some(JobField::ActiveDeadline(Some(TERMINATE_NOW_SECONDS)))
        )
    );
    let outcome = JobOutcome::Failed {
        at: at(12),
        reason: "DeadlineExceeded".into(),
        message: "d".into(),
    };
    let status = step(&mut test, &seen(ended(1, outcome), vec![]), 13)
        .status
        .unwrap();
    let truths: Vec<_> = status
        .conditions
        .iter()
        .map(|c| (c.type_.as_str(), c.status == "True"))
        .collect();
    assert_eq!(
        truths,
        [
            ("Progressing", false),
            ("Completed", false),
            ("Failed", false),
            ("Stopped", true),
            ("Passed", false),
            ("ResultsComplete", false)
        ]
    );
    assert_eq!((status.succeeded, status.failed, status.aborted), (1, 0, 1));
}

#[test]
fn overrunning_workers_and_lost_nodes_are_reported() {
    let mut test = test(2);
    let script = read_script(Analysis {
        expected_duration: Some(SignedDuration::from_secs(120)),
        ..Analysis::default()
    });
    step(
        &mut test,
        &Observed {
            script,
            ..seen(JobState::Absent, vec![])
        },
        0,
    );
    let both = [0, 1].map(|i| worker(i, WorkerState::Running)).to_vec();
    step(&mut test, &seen(JobState::Owned(job()), both.clone()), 1);
    assert_eq!(
        plan(&test, &seen(JobState::Owned(job()), both.clone()), 179)
            .status
            .unwrap()
            .conditions[0]
            .reason,
        "Running"
    );
    let one = vec![
        worker(0, WorkerState::Succeeded),
        worker(1, WorkerState::Running),
    ];
    let overdue = plan(&test, &seen(JobState::Owned(job()), one), 180);
    assert_eq!(reasons(&overdue), ["RunningTooLong"]);
    let condition = overdue.status.unwrap().conditions[0].clone();
    assert!(
        condition.message.contains(
            "Worker t-1-x is still running; the script's phases should have finished after 2m0s"
        ),
        "{}",
        condition.message
    );

    let deleted = Some(Box::new(crate::state::Deletion {
        grace_deadline: at(40),
        version: 7,
        removed: false,
    }));
    let lost = vec![
        worker(0, WorkerState::Running),
        WorkerStatus {
            deleted,
            node: Some("n1".into()),
            ..worker(1, WorkerState::Aborted)
        },
    ];
    let condition = plan(&test, &seen(JobState::Owned(job()), lost), 70)
        .status
        .unwrap()
        .conditions[0]
        .clone();
    assert_eq!(condition.reason, "NodeLost");
    assert!(
        condition
            .message
            .contains("Worker pod t-1-x on n1 should have terminated"),
        "{}",
        condition.message
    );
}

#[test]
fn a_finished_test_is_deleted_after_its_time_to_live_and_not_before() {
    let mut test = with(test(1), &json!({"ttlSecondsAfterFinished": 60}));
    let complete = || ended(1, JobOutcome::Complete { at: at(3) });
    assert!(
        step(&mut test, &seen(complete(), vec![]), 4)
            .action
            .is_none(),
        "the result first"
    );
    let after = plan(&test, &seen(complete(), vec![]), 5);
    assert!(
        matches!(&after.action, Some(Action::PatchJob(patch)) if patch.field == JobField::Ttl(60))
    );
    assert_eq!(after.requeue_at, Some(at(63)));
    let JobState::Owned(job) = complete() else {
        unreachable!()
    };
    assert!(
        plan(
            &test,
            &seen(
                JobState::Owned(JobStatus {
                    ttl: Some(60),
                    ..job
                }),
                vec![]
            ),
            6
        )
        .action
        .is_none()
    );
    assert!(matches!(
        plan(&test, &seen(JobState::Absent, vec![]), 63).action,
        Some(Action::DeleteTest)
    ));
}

#[test]
fn injected_sidecars_do_not_block_completion() {
    let lingering = |state| WorkerStatus {
        ended: Some(at(60)),
        running_since: None,
        pod_outlives_worker: true,
        ..worker(0, state)
    };
    let failed = |seconds| {
        let state = WorkerState::Failed {
            exit_code: Some(1),
            reason: "Error".into(),
            message: Some("Error: x".into()),
        };
        let mut test = test(2);
        let both = vec![lingering(state), worker(1, WorkerState::Running)];
        step(&mut test, &seen(JobState::Owned(job()), both), seconds)
    };
    assert_eq!(steer(&failed(69)), None, "the pod may be about to end");
    let ends = failed(70);
    assert_eq!(
        steer(&ends),
        Some(JobField::ActiveDeadline(Some(TERMINATE_NOW_SECONDS)))
    );
    let condition = &ends.status.unwrap().conditions[0];
    assert_eq!(
        (condition.reason.as_str(), condition.status.as_str()),
        ("WorkerFailed", "False")
    );

    let mut done = test(1);
    let succeeded = seen(
        JobState::Owned(job()),
        vec![lingering(WorkerState::Succeeded)],
    );
    assert_eq!(
        step(&mut done, &succeeded, 61).status.unwrap().phase,
        Some(Phase::Completed)
    );
    let left = step(&mut done, &succeeded, 61);
    assert_eq!((steer(&left), left.requeue_at), (None, Some(at(71))));
    assert_eq!(
        steer(&step(&mut done, &succeeded, 71)),
        Some(JobField::ActiveDeadline(Some(TERMINATE_NOW_SECONDS)))
    );
    let slow = seen(
        JobState::Owned(job()),
        vec![WorkerStatus {
            pod_outlives_worker: false,
            ..lingering(WorkerState::Succeeded)
        }],
    );
    assert_eq!(
        steer(&step(&mut done, &slow, 500)),
        None,
        "a Job that is told slowly ends by itself"
    );
}

#[test]
fn a_changed_deadline_is_patched_into_the_job() {
    let mut test = with(test(1), &json!({"activeDeadlineSeconds": 60}));
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let runs = |deadline| {
        seen(
            JobState::Owned(JobStatus { deadline, ..job() }),
            vec![worker(0, WorkerState::Running)],
        )
    };
    assert_eq!(steer(&plan(&test, &runs(Some(60)), 1)), None);
    assert_eq!(
        steer(&plan(
            &with(test, &json!({"activeDeadlineSeconds": 90})),
            &runs(Some(60)),
            1
        )),
        Some(JobField::ActiveDeadline(Some(90)))
    );
}

#[test]
fn a_blocked_test_reports_the_reason_once_and_watches_the_dependency() {
    let mut test = test(1);
    let missing = Observed {
        script: ScriptState::ConfigMapMissing("script".into()),
        ..seen(JobState::Absent, vec![])
    };
    let told = step(&mut test, &missing, 0);
    assert_eq!(
        (reasons(&told), told.watch.clone()),
        (
            vec!["MissingTestScript"],
            Some(Dependency::ConfigMap("script".into()))
        )
    );
    assert!(told.events[0].warning && !creates(&told));
    assert_eq!(told.requeue_at, Some(at(30)), "in case nobody wakes it");
    assert!(
        step(&mut test, &missing, 1).status.is_none(),
        "no write while nothing changes"
    );
    let key = Observed {
        script: ScriptState::Read {
            config_maps: vec![ConfigMapFiles {
                name: "script".into(),
                keys: vec![],
            }],
            analysis: Arc::default(),
        },
        ..seen(JobState::Absent, vec![])
    };
    assert!(
        step(&mut test, &key, 2).status.unwrap().conditions[0]
            .message
            .contains("(keys: none)")
    );
    let foreign = step(&mut test, &seen(JobState::NotOwned, vec![]), 3);
    assert_eq!(
        (reasons(&foreign), foreign.watch.clone()),
        (vec!["NameConflict"], Some(Dependency::Job("t".into())))
    );
    assert!(!creates(&foreign));
    let refused = step(
        &mut test,
        &seen(JobState::Rejected("exceeded quota".into()), vec![]),
        4,
    );
    assert!(
        refused.status.unwrap().conditions[0]
            .message
            .contains("exceeded quota")
    );
    assert!(
        creates(&step(&mut test, &seen(JobState::Absent, vec![]), 5)),
        "it starts when it can"
    );
}

#[test]
fn above_fifty_workers_one_event_reports_all() {
    let workers = |n: u32| {
        (0..n)
            .map(|i| worker(i, WorkerState::Running))
            .collect::<Vec<_>>()
    };
    let told = |count: i32, n: u32| {
        reasons(&plan(
            &test(count),
            &seen(JobState::Owned(job()), workers(n)),
            1,
        ))
        .len()
    };
    assert_eq!((told(50, 50), told(51, 50), told(51, 51)), (51, 1, 2));
}
