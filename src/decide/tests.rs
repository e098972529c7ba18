#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::progress::{Outcome, Readiness, WorkerState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

mod failures;
mod together;
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

fn job() -> TestJob {
    TestJob {
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

fn worker(index: u32, state: WorkerState) -> Worker {
    let started = !matches!(state, WorkerState::Pending { .. });
    Worker {
        pod: format!("t-{index}-x"),
        uid: format!("p{index}"),
        index: Some(index),
        node: None,
        started,
        running_since: (state == WorkerState::Running).then(|| at(0)),
        ended: None,
        readiness: if started {
            Readiness::KnowsStart
        } else {
            Readiness::Loads
        },
        start_at: started.then(|| at(0)),
        told: u8::MAX,
        told_at: None,
        answer_due: Some(at(0)),
        snapshot: None,
        lingers: false,
        deleted: None,
        state,
    }
}

fn failed(index: u32, code: i32, message: &str) -> Worker {
    worker(
        index,
        WorkerState::Failed {
            exit_code: Some(code),
            reason: "Error".into(),
            message: Some(message.into()),
        },
    )
}

fn seen(job: SeenJob, workers: Vec<Worker>) -> Observed {
    let workers = workers.into_iter().map(Arc::new).collect();
    Observed {
        job,
        workers,
        script: Script::Found(Found::default()),
        obstacle: None,
        refresh: REFRESH,
    }
}

fn plan(test: &LoadTest, observed: &Observed, seconds: i64) -> Plan {
    decide(test, observed, &WorkerSettings::default(), at(seconds))
}

/// Decides, and writes what is to be written, as the operator does.
fn step(test: &mut LoadTest, observed: &Observed, seconds: i64) -> Plan {
    let plan = plan(test, observed, seconds);
    if let Some(status) = plan.status.clone() {
        test.status = Some(status);
    }
    plan
}

fn ended(succeeded: i32, outcome: Outcome) -> SeenJob {
    SeenJob::Ours(TestJob {
        active: 0,
        succeeded,
        outcome: Some(outcome),
        ..job()
    })
}

fn creates(plan: &Plan) -> bool {
    matches!(plan.change, Some(Change::CreateJob(_)))
}

fn steer(plan: &Plan) -> Option<Setting> {
    match &plan.change {
        Some(Change::SteerJob(steer)) => Some(steer.to),
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
fn many_running_tests_are_refreshed_less_often_and_not_all_at_once() {
    assert_eq!(
        [0, 400, 401, 10_000].map(|n| refresh_every(n).as_secs()),
        [10, 10, 11, 250]
    );
    let every = SignedDuration::from_secs(25);
    let mut seconds = [0; 25];
    for i in 0..1000 {
        let mut test = test(1);
        test.metadata.uid = Some(format!("uid-{i}"));
        let running = Observed {
            refresh: every,
            ..seen(SeenJob::Ours(job()), vec![worker(0, WorkerState::Running)])
        };
        let first = step(&mut test, &running, 1).look_again.unwrap();
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
                .look_again
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
fn the_record_comes_before_the_job_and_is_written_again_with_every_attempt() {
    let mut test = test(2);
    let first = step(&mut test, &seen(SeenJob::None, vec![]), 0);
    assert_eq!(first.status.as_ref().unwrap().phase, Some(Phase::Starting));
    assert!(
        matches!(&first.change, Some(Change::CreateJob(job)) if job.metadata.name.as_deref() == Some("t"))
    );
    assert!(first.events.is_empty(), "the Job is not there yet");
    // The operator ended before it created the Job: the write proves that what it sees now is not out of date.
    let again = plan(&test, &seen(SeenJob::None, vec![]), 5);
    assert!(again.status.is_some() && creates(&again));
}

#[test]
fn a_whole_run_takes_three_writes_besides_refreshes() {
    let mut test = test(2);
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let pending = || worker(0, WorkerState::Pending { obstacle: None });
    let ours = || SeenJob::Ours(job());
    let created = step(&mut test, &seen(ours(), vec![pending()]), 0);
    assert_eq!(
        (created.status.is_some(), reasons(&created)),
        (false, vec!["Created"])
    );
    assert_eq!(
        created.look_again,
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
    let due = running.look_again.unwrap().duration_since(at(0)).as_secs();
    assert!((12..22).contains(&due), "{due}");

    for seconds in 2..due {
        let quiet = step(&mut test, &seen(ours(), both.clone()), seconds);
        assert!(
            quiet.status.is_none() && quiet.events.is_empty(),
            "at {seconds} s"
        );
        assert_eq!(quiet.look_again, running.look_again);
    }
    let refresh = step(&mut test, &seen(ours(), both.clone()), due);
    assert_eq!(
        refresh.status.unwrap().duration,
        Some(crate::duration::format(SignedDuration::from_secs(due)))
    );

    let done = step(
        &mut test,
        &seen(ended(2, Outcome::Complete { at: at(24) }), both),
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
fn the_end_is_told_by_the_workers_before_the_job_tells_it() {
    let succeeded = |index, seconds| Worker {
        ended: Some(at(seconds)),
        ..worker(index, WorkerState::Succeeded)
    };
    let one = plan(
        &test(2),
        &seen(SeenJob::Ours(job()), vec![succeeded(0, 7)]),
        8,
    );
    assert_eq!(
        one.status.unwrap().phase,
        Some(Phase::Starting),
        "not all have succeeded"
    );
    let twice = plan(
        &test(2),
        &seen(SeenJob::Ours(job()), vec![succeeded(0, 7), succeeded(0, 8)]),
        8,
    );
    assert_ne!(
        twice.status.unwrap().phase,
        Some(Phase::Completed),
        "two pods of one worker are not two workers"
    );
    // The watch of Jobs lags behind: a duration could only be guessed.
    let unknown = SeenJob::Ours(TestJob {
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
        &seen(SeenJob::Ours(job()), vec![succeeded(0, 7), succeeded(1, 9)]),
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
fn an_ended_or_deleted_test_needs_nothing() {
    let mut test = test(1);
    step(
        &mut test,
        &seen(ended(1, Outcome::Complete { at: at(3) }), vec![]),
        4,
    );
    for job in [
        SeenJob::None,
        SeenJob::Gone(None),
        SeenJob::Foreign,
        SeenJob::Ours(job()),
    ] {
        let plan = plan(&test, &seen(job, vec![]), 100);
        assert!(
            plan.status.is_none()
                && plan.change.is_none()
                && plan.events.is_empty()
                && plan.look_again.is_none()
        );
    }
    let mut deleted = self::test(1);
    deleted.metadata.deletion_timestamp = Some(Time(at(0)));
    assert!(!creates(&plan(&deleted, &seen(SeenJob::None, vec![]), 0)));
}

#[test]
fn counts_and_phase_never_run_backwards() {
    let mut test = test(3);
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let workers = [0, 1, 2].map(|i| worker(i, WorkerState::Running)).to_vec();
    step(
        &mut test,
        &seen(
            SeenJob::Ours(TestJob {
                succeeded: 2,
                ..job()
            }),
            workers,
        ),
        1,
    );
    let stale = step(&mut test, &seen(SeenJob::Ours(job()), vec![]), 20);
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
fn an_obstacle_is_told_at_once_and_only_when_it_changes() {
    let mut test = test(2);
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let stuck = |reason, message: &str| {
        let obstacle = Some(Obstacle {
            reason,
            message: message.into(),
        });
        seen(
            SeenJob::Ours(job()),
            vec![worker(0, WorkerState::Pending { obstacle })],
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
        "starting 2 workers in the Job t; t-0-x waits: ImagePullBackOff: no such image: check the workers' image (status.image) and that the nodes can pull it"
    );
    assert_eq!(
        (reasons(&told), told.look_again),
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
        (other_words(2).status, other_words(2).look_again),
        (None, Some(at(4))),
        "words alone are not worth a write each"
    );
    assert!(other_words(4).status.is_some());
}

#[test]
fn workers_that_do_not_come_forward_are_asked_about_and_what_events_say_is_told() {
    let mut test = test(2);
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let asked = |workers: &[Worker], seconds| {
        let workers: Vec<_> = workers.iter().cloned().map(Arc::new).collect();
        object_in_doubt(&test, &SeenJob::Ours(job()), &workers, at(seconds))
    };
    assert_eq!(asked(&[], 19), None, "it may just be slow");
    assert_eq!(
        asked(&[], 20).as_deref(),
        Some("j"),
        "the Job has too few pods"
    );
    let pending = |i| worker(i, WorkerState::Pending { obstacle: None });
    assert_eq!(
        asked(&[worker(0, WorkerState::Running), pending(1)], 20).as_deref(),
        Some("p1")
    );
    let obstacle = Obstacle::from_event("FailedCreate", "exceeded quota: q");
    let told = plan(
        &test,
        &Observed {
            obstacle,
            ..seen(SeenJob::Ours(job()), vec![])
        },
        6,
    )
    .status
    .unwrap();
    assert_eq!(told.conditions[0].reason, "PodsRefused");
    assert!(
        told.conditions[0]
            .message
            .contains("exceeded quota: q: raise the namespace's quota"),
        "{}",
        told.conditions[0].message
    );
}

#[test]
fn who_cannot_start_in_time_fails_with_the_reason_found() {
    let mut test = with(test(1), &json!({"startDeadlineSeconds": 30}));
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let obstacle = Some(Obstacle {
        reason: Reason::Unschedulable,
        message: "0/1 nodes".into(),
    });
    let stuck = seen(
        SeenJob::Ours(job()),
        vec![worker(0, WorkerState::Pending { obstacle })],
    );
    let waits = step(&mut test, &stuck, 25);
    assert_eq!(
        waits.look_again,
        Some(at(30)),
        "looked at again when the deadline is over"
    );
    let late = step(&mut test, &stuck, 30);
    assert_eq!(
        (late.status.as_ref().unwrap().phase, steer(&late)),
        (
            Some(Phase::Stopping),
            Some(Setting::Deadline(Some(AT_ONCE)))
        )
    );
    // The Job controller has ended it; the reason is kept, also by an operator that was not there.
    let outcome = Outcome::Failed {
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
    assert!(
        status.conditions[2]
            .message
            .starts_with("not all workers ran within 30 s: t-0-x waits: 0/1 nodes")
    );
    assert_eq!((status.failed, status.aborted), (0, 1));
}

#[test]
fn what_is_missing_for_too_long_fails_the_test_and_suspension_does_not_count() {
    let missing = Observed {
        script: Script::NoConfigMap("script".into()),
        ..seen(SeenJob::None, vec![])
    };
    let mut late = with(test(1), &json!({"startDeadlineSeconds": 30}));
    assert_eq!(step(&mut late, &missing, 0).look_again, Some(at(30)));
    let status = step(&mut late, &missing, 30).status.unwrap();
    assert_eq!(
        (status.phase, status.conditions[2].reason.as_str()),
        (Some(Phase::Failed), "MissingTestScript")
    );
    assert!(
        !creates(&plan(&late, &seen(SeenJob::None, vec![]), 31)),
        "ended is ended"
    );

    let mut held = with(
        test(1),
        &json!({"startDeadlineSeconds": 30, "suspend": true}),
    );
    let suspended = step(&mut held, &seen(SeenJob::None, vec![]), 0);
    assert!(!creates(&suspended));
    assert_eq!(suspended.status.unwrap().conditions[0].status, "Unknown");
    assert!(
        step(&mut held, &missing, 100).status.is_none(),
        "held for as long as it takes"
    );
    let mut held = with(held, &json!({"suspend": false}));
    assert_eq!(step(&mut held, &missing, 200).look_again, Some(at(230)));
}

#[test]
fn a_job_held_by_a_queue_waits_and_one_held_later_is_ended() {
    let mut test = test(1);
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let queued = || {
        SeenJob::Ours(TestJob {
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
    let resumed = SeenJob::Ours(TestJob {
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
        steer(&plan(&test, &seen(SeenJob::Ours(job()), vec![]), 6020)),
        Some(Setting::Deadline(Some(AT_ONCE)))
    );
}

#[test]
fn a_stopped_test_ends_its_job_and_is_neither_completed_nor_failed() {
    let mut early = with(test(1), &json!({"stop": true}));
    let plan_early = step(&mut early, &seen(SeenJob::None, vec![]), 0);
    assert_eq!(
        (
            plan_early.status.as_ref().unwrap().phase,
            reasons(&plan_early)
        ),
        (Some(Phase::Stopped), vec!["Stopped"])
    );
    // A creation that was on its way is ended.
    assert_eq!(
        steer(&plan(&early, &seen(SeenJob::Ours(job()), vec![]), 1)),
        Some(Setting::Deadline(Some(AT_ONCE)))
    );

    let mut test = test(2);
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let both = || {
        seen(
            SeenJob::Ours(job()),
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
            Some(Setting::Deadline(Some(AT_ONCE)))
        )
    );
    let outcome = Outcome::Failed {
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
fn who_runs_long_after_its_load_is_told_and_who_is_on_a_lost_node() {
    let mut test = test(2);
    let script = Script::Found(Found {
        expected_duration: Some(SignedDuration::from_secs(120)),
        ..Found::default()
    });
    step(
        &mut test,
        &Observed {
            script,
            ..seen(SeenJob::None, vec![])
        },
        0,
    );
    let both = [0, 1].map(|i| worker(i, WorkerState::Running)).to_vec();
    step(&mut test, &seen(SeenJob::Ours(job()), both.clone()), 1);
    assert_eq!(
        plan(&test, &seen(SeenJob::Ours(job()), both.clone()), 179)
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
    let overdue = plan(&test, &seen(SeenJob::Ours(job()), one), 180);
    assert_eq!(reasons(&overdue), ["Overdue"]);
    let condition = overdue.status.unwrap().conditions[0].clone();
    assert!(
        condition
            .message
            .contains("worker t-1-x still runs, though the phases of the script take only 2m0s"),
        "{}",
        condition.message
    );

    let deleted = Some(Box::new(crate::progress::Deletion {
        due: at(40),
        version: 7,
        gone: false,
    }));
    let lost = vec![
        worker(0, WorkerState::Running),
        Worker {
            deleted,
            node: Some("n1".into()),
            ..worker(1, WorkerState::Aborted)
        },
    ];
    let condition = plan(&test, &seen(SeenJob::Ours(job()), lost), 70)
        .status
        .unwrap()
        .conditions[0]
        .clone();
    assert_eq!(condition.reason, "NodeLost");
    assert!(
        condition
            .message
            .contains("worker t-1-x on n1 was to have ended"),
        "{}",
        condition.message
    );
}

#[test]
fn after_its_time_an_ended_test_is_deleted_and_nothing_is_lost_before() {
    let mut test = with(test(1), &json!({"ttlSecondsAfterFinished": 60}));
    let complete = || ended(1, Outcome::Complete { at: at(3) });
    assert!(
        step(&mut test, &seen(complete(), vec![]), 4)
            .change
            .is_none(),
        "the result first"
    );
    let after = plan(&test, &seen(complete(), vec![]), 5);
    assert!(matches!(&after.change, Some(Change::SteerJob(s)) if s.to == Setting::Ttl(60)));
    assert_eq!(after.look_again, Some(at(63)));
    let SeenJob::Ours(job) = complete() else {
        unreachable!()
    };
    assert!(
        plan(
            &test,
            &seen(
                SeenJob::Ours(TestJob {
                    ttl: Some(60),
                    ..job
                }),
                vec![]
            ),
            6
        )
        .change
        .is_none()
    );
    assert!(matches!(
        plan(&test, &seen(SeenJob::None, vec![]), 63).change,
        Some(Change::DeleteTest)
    ));
}

#[test]
fn what_others_put_into_the_pods_does_not_keep_a_test_from_ending() {
    let lingering = |state| Worker {
        ended: Some(at(60)),
        running_since: None,
        lingers: true,
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
        step(&mut test, &seen(SeenJob::Ours(job()), both), seconds)
    };
    assert_eq!(steer(&failed(69)), None, "the pod may be about to end");
    let ends = failed(70);
    assert_eq!(steer(&ends), Some(Setting::Deadline(Some(AT_ONCE))));
    let condition = &ends.status.unwrap().conditions[0];
    assert_eq!(
        (condition.reason.as_str(), condition.status.as_str()),
        ("WorkerFailed", "False")
    );

    let mut done = test(1);
    let succeeded = seen(
        SeenJob::Ours(job()),
        vec![lingering(WorkerState::Succeeded)],
    );
    assert_eq!(
        step(&mut done, &succeeded, 61).status.unwrap().phase,
        Some(Phase::Completed)
    );
    let left = step(&mut done, &succeeded, 61);
    assert_eq!((steer(&left), left.look_again), (None, Some(at(71))));
    assert_eq!(
        steer(&step(&mut done, &succeeded, 71)),
        Some(Setting::Deadline(Some(AT_ONCE)))
    );
    let slow = seen(
        SeenJob::Ours(job()),
        vec![Worker {
            lingers: false,
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
fn a_deadline_that_changes_reaches_the_job() {
    let mut test = with(test(1), &json!({"activeDeadlineSeconds": 60}));
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    let runs = |deadline| {
        seen(
            SeenJob::Ours(TestJob { deadline, ..job() }),
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
        Some(Setting::Deadline(Some(90)))
    );
}

#[test]
fn what_keeps_a_test_from_starting_is_told_once_and_waited_for() {
    let mut test = test(1);
    let missing = Observed {
        script: Script::NoConfigMap("script".into()),
        ..seen(SeenJob::None, vec![])
    };
    let told = step(&mut test, &missing, 0);
    assert_eq!(
        (reasons(&told), told.wait_for.clone()),
        (
            vec!["MissingTestScript"],
            Some(WaitFor::ConfigMap("script".into()))
        )
    );
    assert!(told.events[0].warning && !creates(&told));
    assert_eq!(told.look_again, Some(at(30)), "in case nobody wakes it");
    assert!(
        step(&mut test, &missing, 1).status.is_none(),
        "no write while nothing changes"
    );
    let key = Observed {
        script: Script::NoKey {
            config_map: "s".into(),
            keys: vec![],
        },
        ..seen(SeenJob::None, vec![])
    };
    assert!(
        step(&mut test, &key, 2).status.unwrap().conditions[0]
            .message
            .contains("(it has: none)")
    );
    let foreign = step(&mut test, &seen(SeenJob::Foreign, vec![]), 3);
    assert_eq!(
        (reasons(&foreign), foreign.wait_for.clone()),
        (vec!["NameConflict"], Some(WaitFor::Job("t".into())))
    );
    assert!(!creates(&foreign));
    let refused = step(
        &mut test,
        &seen(SeenJob::Refused("exceeded quota".into()), vec![]),
        4,
    );
    assert!(
        refused.status.unwrap().conditions[0]
            .message
            .contains("exceeded quota")
    );
    assert!(
        creates(&step(&mut test, &seen(SeenJob::None, vec![]), 5)),
        "it starts when it can"
    );
}

#[test]
fn above_fifty_workers_one_event_tells_of_all() {
    let workers = |n: u32| {
        (0..n)
            .map(|i| worker(i, WorkerState::Running))
            .collect::<Vec<_>>()
    };
    let told = |count: i32, n: u32| {
        reasons(&plan(
            &test(count),
            &seen(SeenJob::Ours(job()), workers(n)),
            1,
        ))
        .len()
    };
    assert_eq!((told(50, 50), told(51, 50), told(51, 51)), (51, 1, 2));
}
