//! Tests of a test without a Job: what blocks it, and its creation.

use super::*;

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
fn start_deadline_fails_a_blocked_test_and_excludes_suspension() {
    let missing = Observed {
        script: ScriptState::ConfigMapMissing {
            name: "script".into(),
            similar: None,
        },
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
fn a_blocked_test_reports_the_reason_once_and_watches_the_dependency() {
    let mut test = test(1);
    let missing = Observed {
        script: ScriptState::ConfigMapMissing {
            name: "script".into(),
            similar: None,
        },
        ..seen(JobState::Absent, vec![])
    };
    let reported = step(&mut test, &missing, 0);
    assert_eq!(
        (reasons(&reported), reported.watch.clone()),
        (
            vec!["MissingTestScript"],
            Some(Dependency::ConfigMaps(vec!["script".into()]))
        )
    );
    assert!(reported.events[0].warning && !creates(&reported));
    assert_eq!(reported.requeue_at, Some(at(300)), "in case no event comes");
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
            files_hash: FilesHash::default(),
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
fn foreign_worker_files_block_the_start_until_they_are_deleted() {
    let files = |worker_files| Observed {
        worker_files,
        ..seen(JobState::Absent, vec![])
    };
    let mut test = test(1);
    let blocked = step(&mut test, &files(WorkerFiles::Foreign), 0);
    let name = crate::build::config_map_name();
    assert!(blocked.action.is_none());
    assert_eq!(
        (reasons(&blocked), blocked.watch.clone()),
        (
            vec!["NameConflict"],
            Some(Dependency::ConfigMaps(vec![name.clone()]))
        )
    );
    let message = &test.status.as_ref().unwrap().conditions[0].message;
    let command = format!("(kubectl delete configmap -n n {name})");
    assert!(message.contains(&command), "{message}");
    assert!(test.is_pending_for(Reason::NameConflict));
    let again = step(&mut test, &files(WorkerFiles::Foreign), 1);
    assert!(again.status.is_none() && again.action.is_none());

    let deleted = step(&mut test, &files(WorkerFiles::Unknown), 2);
    assert!(matches!(deleted.action, Some(Action::CreateWorkerFiles)));
    assert!(creates(&step(&mut test, &files(WorkerFiles::Verified), 2)));
}

#[test]
fn missing_status_fields_keep_a_test_pending_until_the_crd_has_them() {
    let missing = |count: usize| Observed {
        missing_fields: (0..count).map(|n| format!("status.f{n}")).collect(),
        ..seen(JobState::Absent, vec![])
    };
    let mut test = with(test(1), &json!({"startDeadlineSeconds": 60}));
    let blocked = step(&mut test, &missing(1), 0);
    assert!(!creates(&blocked));
    assert_eq!(reasons(&blocked), ["CrdOutdated"]);
    assert_eq!(blocked.requeue_at, Some(at(60)));
    let status = blocked.status.unwrap();
    assert_eq!(
        (status.phase, status.conditions[0].reason.as_str()),
        (Some(Phase::Pending), "CrdOutdated")
    );
    let message = &status.conditions[0].message;
    assert!(message.contains("would drop status.f0. "), "{message}");
    assert!(message.contains("kubectl apply"), "{message}");
    let more = step(&mut test, &missing(7), 1).status.unwrap();
    let message = &more.conditions[0].message;
    assert!(message.contains("status.f4 and 2 more. "), "{message}");

    let mut late = test.clone();
    let failed = step(&mut late, &missing(1), 60).status.unwrap();
    assert_eq!(
        (failed.phase, failed.conditions[2].reason.as_str()),
        (Some(Phase::Failed), "CrdOutdated")
    );
    assert!(creates(&step(&mut test, &missing(0), 59)));
}

#[test]
fn missing_status_fields_do_not_affect_a_test_that_runs() {
    let mut test = test(1);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let workers = vec![worker(0, WorkerState::Running)];
    let running = seen(JobState::Owned(job()), workers);
    let outdated = Observed {
        missing_fields: ["status.job".to_owned()].into(),
        ..running.clone()
    };
    let (expected, plan) = (plan(&test, &running, 1), plan(&test, &outdated, 1));
    assert_eq!(format!("{plan:?}"), format!("{expected:?}"));
    assert_eq!(plan.status.unwrap().phase, Some(Phase::Running));
}

#[test]
fn a_threshold_that_cannot_be_evaluated_keeps_the_test_from_starting() {
    for (threshold, hint) in [
        ("p95 < 200", "http.response_time.p95"),
        ("http.response_time.p95 < 200ms", "200"),
        ("http.response_time.p95 =< 200", "<="),
        ("http.requests", "http.requests"),
    ] {
        let mut test = with(test(1), &json!({"thresholds": [threshold]}));
        let observed = Observed {
            script: read_script(Analysis::default()),
            ..seen(JobState::Absent, vec![])
        };
        let plan = step(&mut test, &observed, 0);
        assert!(!creates(&plan));
        assert_eq!(reasons(&plan), ["InvalidThreshold"]);
        let message = &plan.events[0].message;
        assert!(
            message.contains(threshold) && message.contains(hint),
            "{message}"
        );
    }
}

#[test]
fn a_suspicious_script_starts_with_a_warning() {
    let mut test = with(test(1), &json!({"target": "host:8080"}));
    let script = "config: {target: x}\nchaos: {}\nscenarios: [{flow: [{get: {url: /}}]}]\n";
    let observed = Observed {
        script: read_script(loadtest_script::analyze(script, "test-script.yaml", None)),
        ..seen(JobState::Absent, vec![])
    };
    let plan = step(&mut test, &observed, 0);
    assert!(creates(&plan));
    let messages: Vec<_> = plan.events.iter().map(|e| e.message.as_str()).collect();
    assert!(messages.iter().any(|m| m.contains("chaos")), "{messages:?}");
    assert!(
        messages.iter().any(|m| m.contains("http://host:8080")),
        "{messages:?}"
    );
}

#[test]
fn a_job_that_cannot_be_read_stays_recorded() {
    let mut queued = test(2);
    step(&mut queued, &seen(JobState::Absent, vec![]), 0);
    let held = JobState::Owned(JobStatus {
        suspended: true,
        started: None,
        ..job()
    });
    step(&mut queued, &seen(held, vec![]), 1);
    assert_eq!(queued.phase(), Some(Phase::Suspended));
    let unreadable = Observed {
        failed_call: Some(crate::state::FailedCall {
            what: "read the Job",
            error: "no answer".into(),
        }),
        ..seen(JobState::Unknown, vec![])
    };
    step(&mut queued, &unreadable, 2);
    let status = queued.status.as_ref().unwrap();
    assert_eq!(
        (status.phase, status.job.as_deref()),
        (Some(Phase::Suspended), Some("t")),
        "the spec must not become editable"
    );
    assert!(status.conditions[0].message.contains("no answer"));
}

#[test]
fn test_that_is_set_aside_keeps_its_phase_until_its_spec_changes() {
    let aside = |test: &mut LoadTest, cause| {
        let plan = set_aside(test, cause, &WorkerConfig::default(), at(1000));
        if let Some(status) = plan.status.clone() {
            test.status = Some(status);
        }
        plan
    };
    let mut pending = test(1);
    let plan = aside(&mut pending, SetAsideCause::UnexpectedEnds(2));
    assert_eq!(reasons(&plan), ["SetAside"]);
    assert!(plan.events[0].warning && plan.action.is_none());
    assert!(pending.is_set_aside());
    assert_eq!(pending.phase(), Some(Phase::Pending));
    let message = &pending.status.as_ref().unwrap().conditions[0].message;
    assert!(message.contains("ended unexpectedly 2 times"), "{message}");
    let again = aside(&mut pending, SetAsideCause::UnexpectedEnds(2));
    assert!(again.status.is_none(), "it is reported once");

    pending.metadata.generation = Some(2);
    assert!(!pending.is_set_aside());
    let started = step(&mut pending, &seen(JobState::Absent, vec![]), 2000);
    assert!(creates(&started));

    let mut running = test(1);
    step(&mut running, &seen(JobState::Absent, vec![]), 0);
    let one = vec![worker(0, WorkerState::Running)];
    step(&mut running, &seen(JobState::Owned(job()), one.clone()), 1);
    aside(&mut running, SetAsideCause::Panic);
    assert_eq!(running.phase(), Some(Phase::Running));
    running.metadata.generation = Some(2);
    step(
        &mut running,
        &seen(JobState::Owned(job()), one.clone()),
        2000,
    );
    let progressing = &running.status.as_ref().unwrap().conditions[0];
    assert_eq!(
        (progressing.status.as_str(), progressing.reason.as_str()),
        ("True", "Running")
    );

    let done = ended(1, JobOutcome::Complete { at: at(20) });
    step(&mut running, &seen(done, one), 2001);
    let plan = aside(&mut running, SetAsideCause::Panic);
    assert!(
        plan.status.is_none() && plan.events.is_empty(),
        "its end is final"
    );
}
