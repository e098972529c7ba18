//! Tests of how a test ends, and of what follows.

use super::*;

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
fn missing_events_of_a_finished_test_are_recorded_with_those_of_its_workers() {
    let succeeded = |index| WorkerStatus {
        ended: Some(at(7)),
        ..worker(index, WorkerState::Succeeded)
    };
    let mut seen = seen(
        ended(2, JobOutcome::Complete { at: at(8) }),
        vec![succeeded(0), succeeded(1)],
    );
    let mut test = test(2);
    seen.failed_events = Some("denied".into());
    let end = step(&mut test, &seen, 8);
    assert!(test.is_finished() && test.misses_events());
    seen.failed_events = None;
    let later = step(&mut test, &seen, 9);
    assert_eq!(reasons(&later), reasons(&end));
    assert_eq!(later.events, end.events);
    assert!(!test.misses_events());
    assert!(plan(&test, &seen, 10).events.is_empty());
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
        patched_field(&plan(&early, &seen(JobState::Owned(job()), vec![]), 1)),
        Some(JobField::ActiveDeadline(TERMINATE_NOW_SECONDS))
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
        (
            stopping.status.as_ref().unwrap().phase,
            patched_field(&stopping)
        ),
        (
            Some(Phase::Stopping),
            Some(JobField::ActiveDeadline(TERMINATE_NOW_SECONDS))
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
            ("Ready", false),
            ("Stalled", true),
            ("Stopped", true),
            ("Passed", false),
            ("ResultsComplete", false),
            ("LoadDelivered", false)
        ]
    );
    assert_eq!((status.succeeded, status.failed, status.aborted), (1, 0, 1));
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
            container: None,
        };
        let mut test = test(2);
        let both = vec![lingering(state), worker(1, WorkerState::Running)];
        step(&mut test, &seen(JobState::Owned(job()), both), seconds)
    };
    assert_eq!(
        patched_field(&failed(69)),
        None,
        "the pod may be about to end"
    );
    let ends = failed(70);
    assert_eq!(
        patched_field(&ends),
        Some(JobField::ActiveDeadline(TERMINATE_NOW_SECONDS))
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
    assert_eq!(
        (patched_field(&left), left.requeue_at),
        (None, Some(at(71)))
    );
    assert_eq!(
        patched_field(&step(&mut done, &succeeded, 71)),
        Some(JobField::ActiveDeadline(TERMINATE_NOW_SECONDS))
    );
    let slow = seen(
        JobState::Owned(job()),
        vec![WorkerStatus {
            pod_outlives_worker: false,
            ..lingering(WorkerState::Succeeded)
        }],
    );
    assert_eq!(
        patched_field(&step(&mut done, &slow, 500)),
        None,
        "a Job that is reported slowly ends by itself"
    );
}

#[test]
fn an_ended_test_whose_phase_is_missing_stays_as_it_was_recorded() {
    let mut done = test(1);
    let outcome = JobOutcome::Complete { at: at(20) };
    step(&mut done, &seen(JobState::Absent, vec![]), 0);
    step(&mut done, &seen(ended(1, outcome), vec![]), 20);
    assert_eq!(done.phase(), Some(Phase::Completed));
    // As a backup or an older version may leave it.
    done.status.as_mut().unwrap().phase = None;
    let later = plan(&done, &seen(JobState::Absent, vec![]), 100);
    assert!(later.status.is_none() && later.action.is_none() && later.events.is_empty());
}
