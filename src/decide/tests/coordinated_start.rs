//! Workers that begin their load together.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;

/// A worker to which the instant was sent.
fn with_start(worker: WorkerStatus, change: impl FnOnce(&mut StartHandshake)) -> WorkerStatus {
    let mut worker = worker;
    change(&mut worker.start);
    worker
}

/// A worker that runs and has not received the instant.
fn waits(index: u32, ready: bool) -> WorkerStatus {
    let state = if ready {
        StartState::Ready
    } else {
        StartState::Loading
    };
    let worker = worker(index, WorkerState::Running);
    WorkerStatus {
        start: StartHandshake {
            state,
            instant: None,
            ..worker.start
        },
        ..worker
    }
}

fn started(plan: &Plan) -> Option<(i64, Vec<&str>)> {
    match &plan.action {
        Some(Action::SendStartTime(start)) => {
            let pods = start.pods.iter().map(|pod| pod.name.as_str()).collect();
            Some((
                start
                    .at
                    .duration_since(at(0))
                    .as_millis()
                    .try_into()
                    .unwrap(),
                pods,
            ))
        }
        _ => None,
    }
}

fn progress(test: &LoadTest) -> (&str, &str) {
    let condition = &test.status.as_ref().unwrap().conditions[0];
    (&condition.reason, &condition.message)
}

/// A test whose Job is there.
fn begun(count: i32) -> LoadTest {
    let mut test = test(count);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    test
}

/// A test whose start at this instant is recorded.
fn recorded(count: i32, instant: Timestamp) -> LoadTest {
    let mut test = begun(count);
    let status = test.status.as_mut().unwrap();
    status.phase = Some(Phase::Running);
    status.load_start_time = Some(MicroTime(instant));
    test
}

fn load_start(test: &LoadTest) -> Option<Timestamp> {
    test.status.as_ref()?.load_start_time.as_ref().map(|t| t.0)
}

fn ours(workers: Vec<WorkerStatus>) -> Observed {
    seen(JobState::Owned(job()), workers)
}

#[test]
fn all_workers_receive_one_instant_when_all_are_ready() {
    let mut test = begun(2);
    let plan = step(&mut test, &ours(vec![waits(0, true), waits(1, false)]), 3);
    assert_eq!(
        (started(&plan), reasons(&plan)),
        (None, vec!["Created", "Running", "Running"])
    );
    assert_eq!(progress(&test).0, "Starting", "most are ready in a moment");
    step(&mut test, &ours(vec![waits(0, true), waits(1, false)]), 5);
    let message = "All 2 workers are running; the synchronized start waits for t-1-x to become ready (1 ready so far).";
    assert_eq!(
        (progress(&test), test.status.as_ref().unwrap().phase),
        (("WaitingForWorkers", message), Some(Phase::Starting))
    );

    let plan = step(&mut test, &ours(vec![waits(0, true), waits(1, true)]), 6);
    assert_eq!(
        started(&plan),
        Some((8016, vec!["t-0-x", "t-1-x"])),
        "2 s ahead, and eight milliseconds for each"
    );
    let instant = at(8) + SignedDuration::from_millis(16);
    assert_eq!(
        (load_start(&test), progress(&test).0),
        (Some(instant), "Running"),
        "the plan that sends the instant records it"
    );

    let sent = |index| with_start(waits(index, true), |start| start.instant = Some(instant));
    let plan = step(&mut test, &ours(vec![sent(0), sent(1)]), 7);
    assert!(plan.action.is_none() && plan.status.is_none());
}

#[test]
fn a_restarted_operator_sends_the_remaining_workers_the_same_instant() {
    let mut test = recorded(3, at(9));
    let sent = with_start(waits(1, true), |start| start.instant = Some(at(9)));
    // A worker that is no longer ready gets the instant as well.
    let plan = step(
        &mut test,
        &ours(vec![waits(0, true), sent, waits(2, false)]),
        30,
    );
    assert_eq!(started(&plan), Some((9000, vec!["t-0-x", "t-2-x"])));
    assert_eq!(load_start(&test), Some(at(9)));
}

#[test]
fn a_recorded_instant_that_nobody_received_is_kept_while_there_is_time_to_send_it() {
    let both = || ours(vec![waits(0, true), waits(1, true)]);
    let mut in_time = recorded(2, at(9));
    let plan = step(&mut in_time, &both(), 7);
    assert_eq!(started(&plan), Some((9000, vec!["t-0-x", "t-1-x"])));
    assert_eq!(load_start(&in_time), Some(at(9)));
    for seconds in [8, 30] {
        let mut late = recorded(2, at(9));
        let plan = step(&mut late, &both(), seconds);
        let instant = at(seconds + 2) + SignedDuration::from_millis(16);
        assert_eq!(started(&plan).unwrap().1, ["t-0-x", "t-1-x"]);
        assert_eq!(load_start(&late), Some(instant));
        assert!(matches!(plan.action, Some(Action::SendStartTime(start)) if start.at == instant));
    }
}

#[test]
fn an_annotation_that_is_not_recorded_is_overwritten() {
    let forged = |index| with_start(waits(index, true), |start| start.instant = Some(at(1)));
    let mut test = begun(2);
    let plan = step(&mut test, &ours(vec![forged(0), waits(1, false)]), 3);
    assert_eq!(
        (started(&plan), load_start(&test)),
        (None, None),
        "nothing is sent before all workers are ready"
    );
    let plan = step(&mut test, &ours(vec![forged(0), waits(1, true)]), 6);
    assert_eq!(started(&plan), Some((8016, vec!["t-0-x", "t-1-x"])));

    let mut test = recorded(2, at(9));
    let sent = with_start(waits(1, true), |start| start.instant = Some(at(9)));
    let plan = step(&mut test, &ours(vec![forged(0), sent.clone()]), 8);
    assert_eq!(started(&plan), Some((9000, vec!["t-0-x"])));
    let begun = with_start(forged(0), |start| start.state = StartState::Acknowledged);
    let plan = step(&mut test, &ours(vec![begun, sent]), 8);
    assert_eq!(started(&plan), None, "it has begun its load");
}

#[test]
fn unacknowledged_starts_are_sent_again_and_reported_when_late() {
    let mut test = recorded(3, at(5));
    let sent = |index, attempt| {
        with_start(waits(index, true), |start| {
            start.instant = Some(at(5));
            start.attempt = attempt;
        })
    };
    let knows = |index| {
        with_start(sent(index, 1), |start| {
            start.state = StartState::Acknowledged;
        })
    };
    let plan = step(&mut test, &ours(vec![sent(0, 1), sent(1, 1), knows(2)]), 4);
    let before = at(5) - SignedDuration::from_millis(350);
    assert_eq!(
        (started(&plan), plan.requeue_at),
        (None, Some(before)),
        "once more before it is time"
    );
    let plan = step(&mut test, &ours(vec![sent(0, 1), sent(1, 2), knows(2)]), 5);
    let after = at(5) + SignedDuration::from_millis(1500);
    assert_eq!(
        (started(&plan), plan.requeue_at),
        (Some((5000, vec!["t-0-x"])), Some(at(5))),
        "no watch event announces what was sent"
    );
    let checked = super::plan(&test, &ours(vec![sent(0, 2), sent(1, 2), knows(2)]), 5);
    assert_eq!((started(&checked), checked.requeue_at), (None, Some(after)));
    assert!(matches!(plan.action, Some(Action::SendStartTime(start)) if start.attempt == 2));
    let behind = with_start(sent(0, 1), |start| start.ack_deadline = None);
    assert_eq!(
        started(&super::plan(
            &test,
            &ours(vec![behind, sent(1, 2), knows(2)]),
            5
        )),
        None,
        "the watch does not show it yet"
    );
    let slow = with_start(sent(0, 1), |start| start.ack_deadline = Some(at(6)));
    let waits = super::plan(&test, &ours(vec![slow, sent(1, 2), knows(2)]), 5);
    assert_eq!(
        (started(&waits), waits.requeue_at),
        (None, Some(at(6))),
        "its acknowledgement is not due"
    );
    let none_knows = vec![sent(0, 1), sent(1, 1), sent(2, 1)];
    assert_eq!(
        started(&super::plan(&test, &ours(none_knows), 5)),
        Some((5000, vec!["t-0-x", "t-1-x", "t-2-x"]))
    );
    let ended = WorkerStatus {
        ended: Some(at(7)),
        ..sent(0, 2)
    };
    let plan = step(
        &mut test,
        &ours(vec![ended.clone(), sent(1, 2), knows(2)]),
        7,
    );
    assert_eq!(
        (started(&plan), progress(&test).0),
        (Some((5000, vec!["t-1-x"])), "Running")
    );

    let new_node = WorkerStatus {
        running_since: Some(at(-20)),
        ..sent(1, 7)
    };
    for now in [15, 19] {
        let plan = step(
            &mut test,
            &ours(vec![ended.clone(), new_node.clone(), knows(2)]),
            now,
        );
        assert_eq!(
            (progress(&test).0, reasons(&plan)),
            ("Running", vec![]),
            "its kubelet may not have run the readiness probe"
        );
    }
    let plan = step(
        &mut test,
        &ours(vec![ended.clone(), new_node, knows(2)]),
        20,
    );
    let (reason, message) = progress(&test);
    assert_eq!(
        (reason, reasons(&plan)),
        ("StartNotAcknowledged", vec!["StartNotAcknowledged"])
    );
    assert!(
        message.contains("Worker t-1-x has not acknowledged the start time "),
        "{message}"
    );
    let plan = step(
        &mut test,
        &ours(vec![ended.clone(), sent(1, 7), knows(2)]),
        100,
    );
    assert_eq!(started(&plan), None, "retries end");
    let plan = step(&mut test, &ours(vec![ended, knows(1), knows(2)]), 101);
    assert_eq!((progress(&test).0, reasons(&plan)), ("Running", vec![]));
}

#[test]
fn ended_workers_do_not_hold_the_start() {
    let mut test = with(begun(2), &json!({"failurePolicy": "Continue"}));
    let failed = WorkerStatus {
        ended: Some(at(2)),
        ..with_start(failed(0, 1, "Error: x"), |start| start.instant = None)
    };
    let plan = step(&mut test, &ours(vec![failed.clone(), waits(1, true)]), 3);
    assert_eq!(started(&plan).unwrap().1, ["t-1-x"]);
    let plan = step(
        &mut test,
        &ours(vec![
            failed.clone(),
            WorkerStatus {
                ended: Some(at(3)),
                ..failed
            },
        ]),
        4,
    );
    assert_eq!((started(&plan), progress(&test).0), (None, "Running"));
}

#[test]
fn start_deadline_fails_the_test_and_lists_workers_that_are_not_ready() {
    let mut test = with(begun(2), &json!({"startDeadlineSeconds": 30}));
    let both = ours(vec![
        waits(0, true),
        WorkerStatus {
            node: Some("n1".into()),
            ..waits(1, false)
        },
    ]);
    assert_eq!(step(&mut test, &both, 29).requeue_at, Some(at(30)));
    let late = step(&mut test, &both, 30);
    assert_eq!(
        (patched_field(&late), started(&late)),
        (Some(JobField::ActiveDeadline(TERMINATE_NOW_SECONDS)), None)
    );
    let (reason, message) = progress(&test);
    assert_eq!(reason, "StartDeadlineExceeded");
    assert!(
        message.contains("did not happen within 30s (startDeadlineSeconds): it waited for t-1-x on n1 to become ready (1 ready so far)"),
        "{message}"
    );
}

#[test]
fn single_workers_and_immediate_starts_do_not_wait() {
    for (mut test, workers) in [
        (begun(1), vec![waits(0, false)]),
        (
            with(begun(2), &json!({"start": "Immediate"})),
            vec![waits(0, false), waits(1, false)],
        ),
    ] {
        let plan = step(&mut test, &ours(workers), 1);
        assert_eq!(
            (plan.action.is_none(), progress(&test).0),
            (true, "Running")
        );
    }
}

#[test]
fn waiting_for_the_start_does_not_count_as_load() {
    let mut test = recorded(2, at(200));
    test.status.as_mut().unwrap().expected_duration = Some("1m40s".into());
    let sent = |index| {
        with_start(waits(index, true), |start| {
            start.instant = Some(at(200));
            start.state = StartState::Acknowledged;
        })
    };
    let both = ours(vec![sent(0), sent(1)]);
    step(&mut test, &both, 200);
    step(&mut test, &both, 359);
    assert_eq!(progress(&test).0, "Running");
    step(&mut test, &both, 360);
    assert_eq!(progress(&test).0, "RunningTooLong");
}

#[test]
fn workers_that_are_ready_start_even_after_the_deadline() {
    // The operator was away while the workers waited.
    let mut test = test(2);
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let ready = |index| WorkerStatus {
        start: StartHandshake {
            state: StartState::Ready,
            ..StartHandshake::default()
        },
        ..worker(index, WorkerState::Running)
    };
    let late = step(&mut test, &ours(vec![ready(0), ready(1)]), 700);
    assert!(matches!(late.action, Some(Action::SendStartTime(_))));
    assert_eq!(test.phase(), Some(Phase::Running));
    let failed = Observed {
        failed_call: Some(crate::state::FailedCall {
            what: "send the start time to the workers' pods",
            error: "frozen".into(),
        }),
        ..ours(vec![ready(0), ready(1)])
    };
    step(&mut test, &failed, 701);
    assert_eq!(test.phase(), Some(Phase::Stopping));
    let message = &test.status.as_ref().unwrap().conditions[0].message;
    assert!(message.contains("frozen"), "{message}");
}
