//! Tests of running workers: status writes, events, and changes of the Job.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;
use crate::decide::running::refresh_interval;

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
        assert!((12..37).contains(&wait), "{wait}");
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
        let late = step(&mut test, &running, due + 25 + 3);
        assert_eq!(
            late.requeue_at.unwrap().duration_since(first).as_secs(),
            50,
            "a late one does not postpone the next"
        );
    }
    assert!(seconds.iter().all(|n| (20..70).contains(n)), "{seconds:?}");
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
    assert_eq!(
        reasons(&done),
        ["Completed", "NoResults"],
        "the workers left no results"
    );
    assert_eq!(
        (status.phase, status.duration.as_deref()),
        (Some(Phase::Completed), Some("24s"))
    );
    assert_eq!(status.completion_time, Some(Time(at(24))));
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
    test.status.as_mut().unwrap().load_start_time = Some(MicroTime(at(0)));
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
fn a_changed_deadline_is_patched_into_the_job() {
    let mut test = with(test(1), &json!({"activeDeadlineSeconds": 60}));
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let runs = |deadline| {
        seen(
            JobState::Owned(JobStatus { deadline, ..job() }),
            vec![worker(0, WorkerState::Running)],
        )
    };
    assert_eq!(patched_field(&plan(&test, &runs(Some(60)), 1)), None);
    assert_eq!(
        patched_field(&plan(
            &with(test, &json!({"activeDeadlineSeconds": 90})),
            &runs(Some(60)),
            1
        )),
        Some(JobField::ActiveDeadline(90))
    );
}

#[test]
fn above_fifty_workers_one_event_reports_all() {
    let workers = |n: u32| {
        (0..n)
            .map(|i| worker(i, WorkerState::Running))
            .collect::<Vec<_>>()
    };
    let reported = |count: i32, n: u32| {
        reasons(&plan(
            &test(count),
            &seen(JobState::Owned(job()), workers(n)),
            1,
        ))
        .len()
    };
    assert_eq!(
        (reported(50, 50), reported(51, 50), reported(51, 51)),
        (51, 1, 2)
    );
}
