//! Workers that begin their load together.

use super::*;

/// A worker that runs and has not been told to begin.
fn waits(index: u32, ready: bool) -> Worker {
    let readiness = if ready {
        Readiness::CouldBegin
    } else {
        Readiness::Loads
    };
    Worker {
        readiness,
        start_at: None,
        ..worker(index, WorkerState::Running)
    }
}

fn started(plan: &Plan) -> Option<(i64, Vec<&str>)> {
    match &plan.change {
        Some(Change::StartWorkers(start)) => {
            let pods = start.pods.iter().map(|(pod, _)| pod.as_str()).collect();
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
    step(&mut test, &seen(SeenJob::None, vec![]), 0);
    test
}

fn ours(workers: Vec<Worker>) -> Observed {
    seen(SeenJob::Ours(job()), workers)
}

#[test]
fn all_are_told_one_instant_once_all_are_ready() {
    let mut test = begun(2);
    let plan = step(&mut test, &ours(vec![waits(0, true), waits(1, false)]), 3);
    assert_eq!(
        (started(&plan), reasons(&plan)),
        (None, vec!["Created", "Running", "Running"])
    );
    assert_eq!(progress(&test).0, "Starting", "most are ready in a moment");
    step(&mut test, &ours(vec![waits(0, true), waits(1, false)]), 5);
    let message = "all 2 workers run, to begin together; waiting until t-1-x is ready";
    assert_eq!(
        (progress(&test), test.status.as_ref().unwrap().phase),
        (("WaitingForWorkers", message), Some(Phase::Starting))
    );

    let plan = step(&mut test, &ours(vec![waits(0, true), waits(1, true)]), 6);
    assert_eq!(
        started(&plan),
        Some((7816, vec!["t-0-x", "t-1-x"])),
        "1.8 s ahead, and eight milliseconds for each"
    );
    assert!(
        plan.status.is_none(),
        "who is missing is written now and then"
    );
    assert_eq!(test.status.as_ref().unwrap().load_start_time, None);

    let told = |index| Worker {
        start_at: Some(at(8)),
        ..waits(index, true)
    };
    let plan = step(&mut test, &ours(vec![told(0), told(1)]), 7);
    assert_eq!(
        (plan.change.is_none(), progress(&test).0),
        (true, "Running")
    );
    assert_eq!(test.status.unwrap().load_start_time.unwrap().0, at(8));
}

#[test]
fn an_operator_that_was_ended_while_it_told_them_tells_the_rest_the_same() {
    let mut test = begun(3);
    let told = Worker {
        start_at: Some(at(9)),
        ..waits(1, true)
    };
    // One that is no longer ready is told as well: it is as late as it is.
    let plan = step(
        &mut test,
        &ours(vec![waits(0, true), told, waits(2, false)]),
        30,
    );
    assert_eq!(started(&plan), Some((9000, vec!["t-0-x", "t-2-x"])));
}

#[test]
fn who_does_not_say_that_it_knows_is_told_again_and_named_when_it_is_late() {
    let mut test = begun(3);
    let told = |index, times| Worker {
        start_at: Some(at(5)),
        told: times,
        ..waits(index, true)
    };
    let knows = |index| Worker {
        readiness: Readiness::KnowsStart,
        ..told(index, 1)
    };
    let plan = step(&mut test, &ours(vec![told(0, 1), told(1, 1), knows(2)]), 4);
    let before = at(5) - SignedDuration::from_millis(350);
    assert_eq!(
        (started(&plan), plan.look_again),
        (None, Some(before)),
        "once more before it is time"
    );
    let plan = step(&mut test, &ours(vec![told(0, 1), told(1, 2), knows(2)]), 5);
    let after = at(5) + SignedDuration::from_millis(1500);
    assert_eq!(
        (started(&plan), plan.look_again),
        (Some((5000, vec!["t-0-x"])), Some(after))
    );
    assert!(matches!(plan.change, Some(Change::StartWorkers(start)) if start.times == 2));
    let behind = Worker {
        answer_due: None,
        ..told(0, 1)
    };
    assert_eq!(
        started(&super::plan(
            &test,
            &ours(vec![behind, told(1, 2), knows(2)]),
            5
        )),
        None,
        "the watch does not show it yet"
    );
    let slow = Worker {
        answer_due: Some(at(6)),
        ..told(0, 1)
    };
    let waits = super::plan(&test, &ours(vec![slow, told(1, 2), knows(2)]), 5);
    assert_eq!(
        (started(&waits), waits.look_again),
        (None, Some(at(6))),
        "its answer is not due"
    );
    let none_knows = vec![told(0, 1), told(1, 1), told(2, 1)];
    assert_eq!(
        started(&super::plan(&test, &ours(none_knows), 5)),
        Some((5000, vec!["t-0-x", "t-1-x", "t-2-x"]))
    );
    let ended = Worker {
        ended: Some(at(7)),
        ..told(0, 2)
    };
    let plan = step(
        &mut test,
        &ours(vec![ended.clone(), told(1, 2), knows(2)]),
        7,
    );
    assert_eq!(
        (started(&plan), progress(&test).0),
        (Some((5000, vec!["t-1-x"])), "Running")
    );

    let plan = step(
        &mut test,
        &ours(vec![ended.clone(), told(1, 7), knows(2)]),
        15,
    );
    let (reason, message) = progress(&test);
    assert_eq!(
        (reason, reasons(&plan)),
        ("WorkersLate", vec!["WorkersLate"])
    );
    assert!(
        message.contains("worker t-1-x does not say that it knows to begin at "),
        "{message}"
    );
    let plan = step(
        &mut test,
        &ours(vec![ended.clone(), told(1, 7), knows(2)]),
        100,
    );
    assert_eq!(started(&plan), None, "but not for ever");
    let plan = step(&mut test, &ours(vec![ended, knows(1), knows(2)]), 101);
    assert_eq!((progress(&test).0, reasons(&plan)), ("Running", vec![]));
}

#[test]
fn nobody_waits_for_one_that_has_ended() {
    let mut test = with(begun(2), &json!({"failurePolicy": "Continue"}));
    let failed = Worker {
        ended: Some(at(2)),
        start_at: None,
        ..failed(0, 1, "Error: x")
    };
    let plan = step(&mut test, &ours(vec![failed.clone(), waits(1, true)]), 3);
    assert_eq!(started(&plan).unwrap().1, ["t-1-x"]);
    let plan = step(
        &mut test,
        &ours(vec![
            failed.clone(),
            Worker {
                ended: Some(at(3)),
                ..failed
            },
        ]),
        4,
    );
    assert_eq!((started(&plan), progress(&test).0), (None, "Running"));
}

#[test]
fn who_is_never_ready_ends_the_test_in_time_and_is_named() {
    let mut test = with(begun(2), &json!({"startDeadlineSeconds": 30}));
    let both = ours(vec![
        waits(0, true),
        Worker {
            node: Some("n1".into()),
            ..waits(1, false)
        },
    ]);
    assert_eq!(step(&mut test, &both, 29).look_again, Some(at(30)));
    let late = step(&mut test, &both, 30);
    assert_eq!(
        (steer(&late), started(&late)),
        (Some(Setting::Deadline(Some(AT_ONCE))), None)
    );
    let (reason, message) = progress(&test);
    assert_eq!(reason, "StartDeadlineExceeded");
    assert!(
        message.contains("not all workers began within 30 s: waiting until t-1-x on n1 is ready"),
        "{message}"
    );
}

#[test]
fn one_alone_and_those_that_need_not_wait_begin_when_they_can() {
    for (mut test, workers) in [
        (begun(1), vec![waits(0, false)]),
        (
            with(begun(2), &json!({"start": "Immediate"})),
            vec![waits(0, false), waits(1, false)],
        ),
    ] {
        let plan = step(&mut test, &ours(workers), 1);
        assert_eq!(
            (plan.change.is_none(), progress(&test).0),
            (true, "Running")
        );
    }
}

#[test]
fn the_time_that_workers_waited_is_not_counted_as_load() {
    let mut test = begun(2);
    test.status.as_mut().unwrap().expected_duration = Some("1m40s".into());
    let told = |index| Worker {
        start_at: Some(at(200)),
        readiness: Readiness::KnowsStart,
        ..waits(index, true)
    };
    let both = ours(vec![told(0), told(1)]);
    step(&mut test, &both, 200);
    step(&mut test, &both, 359);
    assert_eq!(progress(&test).0, "Running");
    step(&mut test, &both, 360);
    assert_eq!(progress(&test).0, "Overdue");
}
