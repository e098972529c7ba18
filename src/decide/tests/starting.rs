//! Tests of a Job whose workers do not all run yet.

use super::*;

#[test]
fn a_start_blocker_is_reported_at_once_and_again_only_when_it_changes() {
    let mut test = test(2);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let stuck = |reason, message: &str| {
        let blocker = Some(StartBlocker {
            reason,
            message: message.into(),
            container: None,
        });
        seen(
            JobState::Owned(job()),
            vec![worker(0, WorkerState::Pending { blocker })],
        )
    };
    let no_image = || stuck(Reason::ImageNotPullable, "ImagePullBackOff: no such image");
    let reported = step(&mut test, &no_image(), 1);
    let condition = &reported.status.as_ref().unwrap().conditions[0];
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
        (reasons(&reported), reported.requeue_at),
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
        object_to_explain(&test, &JobState::Owned(job()), &workers, 0, at(seconds))
    };
    assert_eq!(asked(&[], 4), None, "it may just be slow");
    assert_eq!(
        asked(&[], 5).as_deref(),
        Some("j"),
        "the Job has too few pods"
    );
    let pending = |i| worker(i, WorkerState::Pending { blocker: None });
    assert_eq!(
        asked(&[worker(0, WorkerState::Running), pending(1)], 20).as_deref(),
        Some("p1")
    );
    let blocker = StartBlocker::from_event("FailedCreate", "exceeded quota: q");
    let reported = plan(
        &test,
        &Observed {
            blocker,
            ..seen(JobState::Owned(job()), vec![])
        },
        6,
    )
    .status
    .unwrap();
    assert_eq!(reported.conditions[0].reason, "PodCreationFailed");
    assert!(
        reported.conditions[0]
            .message
            .contains("exceeded quota: q. Raise the namespace's quota"),
        "{}",
        reported.conditions[0].message
    );
}

#[test]
fn start_deadline_fails_the_test_with_the_observed_reason() {
    let mut test = with(test(1), &json!({"startDeadlineSeconds": 30}));
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let blocker = Some(StartBlocker {
        reason: Reason::Unschedulable,
        message: "0/1 nodes".into(),
        container: None,
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
        (late.status.as_ref().unwrap().phase, patched_field(&late)),
        (
            Some(Phase::Stopping),
            Some(JobField::ActiveDeadline(TERMINATE_NOW_SECONDS))
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
    // Whoever resumes it later starts no pods, and whoever has resumed it already does not send load for long.
    for (suspended, field) in [
        (true, JobField::EndWithoutPods),
        (false, JobField::ActiveDeadline(TERMINATE_NOW_SECONDS)),
    ] {
        let left = JobState::Owned(JobStatus { suspended, ..job() });
        assert_eq!(
            patched_field(&plan(&test, &seen(left, vec![]), 6020)),
            Some(field)
        );
    }
}

#[test]
fn a_suspended_job_of_a_finished_test_creates_no_pods_even_if_its_deadline_was_set_before() {
    let mut test = test(1);
    test.status = Some(LoadTestStatus {
        phase: Some(Phase::Stopped),
        observed_generation: Some(1),
        ..LoadTestStatus::default()
    });
    let left = |parallelism| {
        JobState::Owned(JobStatus {
            suspended: true,
            parallelism,
            deadline: Some(TERMINATE_NOW_SECONDS),
            ..job()
        })
    };
    assert_eq!(
        patched_field(&plan(&test, &seen(left(1), vec![]), 1)),
        Some(JobField::EndWithoutPods)
    );
    assert!(
        plan(&test, &seen(left(0), vec![]), 2).action.is_none(),
        "it is patched once"
    );
}

#[test]
fn a_job_that_was_suspended_and_resumed_unnoticed_fails_the_test() {
    let mut running = test(1);
    step(&mut running, &seen(JobState::Absent, vec![]), 0);
    let workers = || vec![worker(0, WorkerState::Running)];
    step(&mut running, &seen(JobState::Owned(job()), workers()), 1);
    assert_eq!(running.phase(), Some(Phase::Running));
    let again = |outcome| {
        JobState::Owned(JobStatus {
            started: Some(at(60)),
            outcome,
            ..job()
        })
    };
    let complete = Some(JobOutcome::Complete { at: at(90) });
    for outcome in [None, complete] {
        let status = step(&mut running.clone(), &seen(again(outcome), workers()), 61)
            .status
            .unwrap();
        assert_eq!(
            (status.phase, status.conditions[2].reason.as_str()),
            (Some(Phase::Failed), "JobSuspended")
        );
        assert!(
            status.conditions[2].message.contains("and then resumed"),
            "{}",
            status.conditions[2].message
        );
    }
    // The view of the Job may also be older than the status.
    let older = JobState::Owned(JobStatus {
        started: None,
        ..job()
    });
    let status = step(&mut running, &seen(older, workers()), 61).status;
    assert!(status.is_none_or(|s| s.phase == Some(Phase::Running)));
}

#[test]
fn a_job_that_may_run_only_some_of_its_workers_at_a_time_is_ended() {
    let mut test = test(2);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let admitted = JobState::Owned(JobStatus {
        parallelism: 1,
        ..job()
    });
    let pending = vec![worker(0, WorkerState::Pending { blocker: None })];
    let ended = step(&mut test, &seen(admitted, pending), 1);
    assert_eq!(
        patched_field(&ended),
        Some(JobField::ActiveDeadline(TERMINATE_NOW_SECONDS))
    );
    let status = ended.status.unwrap();
    assert_eq!(status.phase, Some(Phase::Stopping));
    assert!(
        status.conditions[0]
            .message
            .starts_with("Job t may run only 1 of 2 workers at a time"),
        "{}",
        status.conditions[0].message
    );
}

#[test]
fn a_test_in_a_queue_of_kueue_names_the_queue_and_where_the_reason_is() {
    let mut queued = test(1);
    queued.metadata.labels = Some([("kueue.x-k8s.io/queue-name".into(), "team-a".into())].into());
    step(&mut queued, &seen(JobState::Absent, vec![]), 0);
    let held = JobState::Owned(JobStatus {
        suspended: true,
        started: None,
        ..job()
    });
    let status = step(&mut queued, &seen(held, vec![]), 1).status.unwrap();
    assert_eq!(
        status.conditions[0].message,
        "Job t is suspended: it waits in the queue team-a of Kueue. The test starts when Kueue admits it. For the reason, see: \
         kubectl describe workloads -n n -l kueue.x-k8s.io/job-uid=j"
    );
}

#[test]
fn probes_that_fail_explain_workers_that_run_and_are_not_ready() {
    let mut test = test(2);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let loading = |index| WorkerStatus {
        start: StartHandshake::default(),
        ..worker(index, WorkerState::Running)
    };
    let workers: Vec<_> = [loading(0), loading(1)].map(Arc::new).into();
    let asked =
        |seconds| object_to_explain(&test, &JobState::Owned(job()), &workers, 0, at(seconds));
    assert_eq!(asked(19), None, "they may just be slow");
    assert_eq!(asked(20).as_deref(), Some("p0"));
    let unreachable = StartBlocker::from_event(
        "Unhealthy",
        "Startup probe failed: Get \"http://10.0.0.7:8899/ready\": dial tcp: i/o timeout",
    );
    let observed = Observed {
        blocker: unreachable,
        ..seen(JobState::Owned(job()), vec![loading(0), loading(1)])
    };
    step(&mut test, &observed, 21);
    let condition = &test.status.as_ref().unwrap().conditions[0];
    assert_eq!(condition.reason, "ProbeFailed");
    assert!(
        condition.message.contains("must reach port 8899"),
        "{}",
        condition.message
    );
}

#[test]
fn advice_for_pods_that_cannot_be_created_fits_the_error() {
    for (error, advice) in [
        (
            "pods \"t-0\" is forbidden: exceeded quota: small",
            "Raise the namespace's quota",
        ),
        (
            "pods \"t-0\" is forbidden: violates PodSecurity \"restricted\"",
            "relax the policy",
        ),
        (
            "Internal error occurred: failed calling webhook \"w.example.com\"",
            "admission webhook",
        ),
    ] {
        let mut test = test(1);
        step(&mut test, &seen(JobState::Absent, vec![]), 0);
        let observed = Observed {
            blocker: StartBlocker::from_event("FailedCreate", error),
            ..seen(JobState::Owned(job()), vec![])
        };
        step(&mut test, &observed, 6);
        let message = &test.status.as_ref().unwrap().conditions[0].message;
        assert!(
            message.contains(error) && message.contains(advice),
            "{message}"
        );
    }
}

#[test]
fn a_node_that_does_not_report_is_named() {
    let mut test = test(1);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let silent = WorkerStatus {
        node: Some("windows".into()),
        ..worker(0, WorkerState::Pending { blocker: None })
    };
    step(&mut test, &seen(JobState::Owned(job()), vec![silent]), 600);
    let condition = &test.status.as_ref().unwrap().conditions[0];
    assert_eq!(condition.reason, "StartDeadlineExceeded");
    assert!(
        condition.message.contains("Node windows has not reported"),
        "{}",
        condition.message
    );
}
