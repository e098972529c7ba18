//! The results and the verdict of tests that have ended.

use super::*;
use loadtest_api::v1alpha1::Threshold;
use loadtest_api::v1alpha1::Verdict;
use loadtest_results::Snapshot;
use loadtest_results::testing::message;

/// A worker that has succeeded, and measured so many requests.
pub(super) fn measured(index: u32, requests: u32) -> WorkerStatus {
    let json = format!(
        r#"{{"final":true,"first":1000,"last":11000,"counters":{{"http.requests":{requests},"http.responses":{requests},"vusers.created":{requests}}},"histograms":{{}}}}"#
    );
    WorkerStatus {
        snapshot: Snapshot::from_message(&message(&json)).map(Arc::new),
        ended: Some(at(60)),
        ..worker(index, WorkerState::Succeeded)
    }
}

/// How a test of so many workers ends with these thresholds.
pub(super) fn end(count: i32, thresholds: &[&str], workers: Vec<WorkerStatus>) -> (LoadTest, Plan) {
    let mut test = with(test(count), &json!({"thresholds": thresholds}));
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let outcome = JobOutcome::Complete { at: at(61) };
    let plan = step(&mut test, &seen(ended(count, outcome), workers), 61);
    (test, plan)
}

pub(super) fn condition<'a>(test: &'a LoadTest, type_: &str) -> (&'a str, &'a str, &'a str) {
    let condition = test
        .status
        .as_ref()
        .unwrap()
        .conditions
        .iter()
        .find(|c| c.type_ == type_)
        .unwrap();
    (&condition.status, &condition.reason, &condition.message)
}

#[test]
fn results_are_merged_and_evaluated_once() {
    let (test, plan) = end(
        2,
        &["http.requests >= 30", "http.requests < 40"],
        vec![measured(0, 10), measured(1, 20)],
    );
    let status = test.status.as_ref().unwrap();
    let results = status.results.as_ref().unwrap();
    assert_eq!(
        (
            results.requests,
            results.workers_reporting.as_str(),
            results.partial
        ),
        (30, "2 of 2", false)
    );
    assert_eq!(
        (status.verdict, condition(&test, "Passed")),
        (
            Some(Verdict::Passed),
            ("True", "ThresholdsMet", "2 thresholds are met.")
        )
    );
    assert_eq!(
        condition(&test, "ResultsComplete"),
        ("True", "AllWorkersReported", "All workers reported.")
    );
    assert_eq!(reasons(&plan).last(), Some(&"ThresholdsMet"));
    let shown = &status.thresholds.as_ref().unwrap()[0];
    assert_eq!(
        (shown.held, shown.message.as_deref()),
        (Some(true), Some("http.requests is 30"))
    );
}

#[test]
fn an_unmet_threshold_is_reported_with_its_value() {
    let (test, plan) = end(
        2,
        &["http.requests < 25"],
        vec![measured(0, 10), measured(1, 20)],
    );
    let passed = (
        "False",
        "ThresholdsNotMet",
        "Thresholds not met: http.requests is 30, not < 25.",
    );
    assert_eq!(condition(&test, "Passed"), passed);
    let status = test.status.unwrap();
    assert_eq!(
        (status.phase, status.verdict),
        (Some(Phase::Completed), Some(Verdict::Failed))
    );
    let reported = plan.events.last().unwrap();
    assert_eq!(
        (reported.warning, reported.message.as_str()),
        (
            true,
            "Load test did not pass: thresholds not met: http.requests is 30, not < 25."
        )
    );
}

#[test]
fn thresholds_of_the_script_are_fixed_at_the_start() {
    let mut test = test(1);
    let script = read_script(Analysis {
        ensure: Some(vec![Threshold::strict("http.requests > 5")]),
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
    let outcome = JobOutcome::Complete { at: at(61) };
    step(
        &mut test,
        &seen(ended(1, outcome), vec![measured(0, 10)]),
        61,
    );
    assert_eq!(condition(&test, "Passed").2, "The threshold is met.");
}

#[test]
fn partial_results_do_not_meet_thresholds() {
    for missing in [
        vec![],
        vec![WorkerStatus {
            snapshot: Snapshot::from_message("loadtest.v1 damaged").map(Arc::new),
            ..measured(1, 1)
        }],
    ] {
        let workers = [vec![measured(0, 10)], missing].concat();
        let (test, _) = end(2, &["http.requests < 25"], workers.clone());
        assert_eq!(condition(&test, "Passed").1, "ResultsPartial");
        let (status, reason, message) = condition(&test, "ResultsComplete");
        assert_eq!((status, reason), ("False", "ResultsPartial"));
        assert!(
            message.starts_with("1 of 2 workers reported; ") && message.contains("worker 1"),
            "{message}"
        );
        assert_eq!(
            test.status
                .as_ref()
                .unwrap()
                .results
                .as_ref()
                .unwrap()
                .requests,
            10
        );

        let (test, plan) = end(2, &[], workers);
        assert_eq!(
            condition(&test, "Passed"),
            (
                "Unknown",
                "LoadNotDelivered",
                "All workers succeeded, but 1 of 2 workers left no results, so nothing shows that it sent its load (see \
                 LoadDelivered)."
            )
        );
        assert_eq!(
            reasons(&plan).last(),
            Some(&"LoadNotDelivered"),
            "{:?}",
            plan.events
        );
        assert_eq!(condition(&test, "LoadDelivered").1, "WorkersMissing");
    }
}

#[test]
fn a_worker_that_ran_twice_is_counted_once_and_reported() {
    let second = WorkerStatus {
        pod: "t-0-y".into(),
        uid: "q".into(),
        ended: Some(at(70)),
        ..measured(0, 500)
    };
    let (test, _) = end(1, &[], vec![second, measured(0, 10)]);
    let results = test.status.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!((results.requests, results.workers_repeated), (10, 1));
    assert!(
        condition(&test, "ResultsComplete")
            .2
            .contains("Kubernetes ran 1 worker twice; only one of its results is counted")
    );
}

#[test]
fn a_failed_test_has_not_passed_and_shows_partial_results() {
    let mut test = with(test(2), &json!({"thresholds": ["http.requests < 5"]}));
    step(&mut test, &seen(JobState::Absent, vec![]), 0);
    let outcome = JobOutcome::Failed {
        at: at(9),
        reason: "BackoffLimitExceeded".into(),
        message: "m".into(),
    };
    let stopped = WorkerStatus {
        snapshot: measured(0, 10).snapshot,
        ..worker(1, WorkerState::Aborted)
    };
    step(
        &mut test,
        &seen(ended(0, outcome), vec![failed(0, 1, "Error: x"), stopped]),
        9,
    );
    assert_eq!(
        condition(&test, "Passed"),
        (
            "False",
            "NotCompleted",
            "The test failed. http.requests is 10, not < 5."
        )
    );
    assert_eq!(
        test.status
            .as_ref()
            .unwrap()
            .results
            .as_ref()
            .unwrap()
            .requests,
        10
    );

    let mut never = with(super::test(1), &json!({"stop": true}));
    step(&mut never, &seen(JobState::Absent, vec![]), 0);
    assert_eq!(
        (
            condition(&never, "Passed").1,
            never.status.as_ref().unwrap().results.is_none()
        ),
        ("NotCompleted", true)
    );
}

#[test]
fn a_test_without_load_or_answers_has_not_passed() {
    let left = |json: &str| WorkerStatus {
        snapshot: Snapshot::from_message(&message(json)).map(Arc::new),
        ..measured(0, 0)
    };
    let unanswered = r#"{"final":true,"counters":{"http.requests":60,"vusers.created":60,"vusers.failed":60,
        "errors.ECONNREFUSED":60},"histograms":{}}"#;
    let idle = r#"{"final":true,"counters":{},"histograms":{}}"#;
    // A browser's users make no requests that Artillery counts.
    let browser =
        r#"{"final":true,"counters":{"vusers.created":2,"vusers.completed":2},"histograms":{}}"#;
    let silent = WorkerStatus {
        snapshot: None,
        ..measured(0, 0)
    };
    for (worker, thresholds, expected) in [
        (left(unanswered), vec![], "NothingAnswered"),
        (
            left(unanswered),
            vec!["http.codes.500 == 0"],
            "NothingAnswered",
        ),
        (left(idle), vec![], "NothingAnswered"),
        (silent, vec![], "NoResults"),
        (left(browser), vec![], "NoThresholds"),
    ] {
        let (test, plan) = end(1, &thresholds, vec![worker]);
        let (passed, reason, message) = condition(&test, "Passed");
        assert_eq!(reason, expected, "{message}");
        let has_passed = expected == "NoThresholds";
        assert_eq!(passed == "True", has_passed);
        let events = plan.events.iter().map(|e| e.reason.as_str());
        assert_eq!(
            events.filter(|e| *e == expected).count(),
            usize::from(!has_passed)
        );
    }
}

#[test]
fn expectations_of_all_workers_have_one_verdict() {
    let failed = |index, failed: u32| {
        let json = format!(
            r#"{{"final":true,"first":1000,"last":11000,"counters":{{"http.requests":9,"http.responses":9,"vusers.created":9,"plugins.expect.failed":{failed}}},"histograms":{{}}}}"#
        );
        WorkerStatus {
            snapshot: Snapshot::from_message(&message(&json)).map(Arc::new),
            ..measured(index, 9)
        }
    };
    let verdict = |thresholds: &[&str], count: u32| {
        let (test, _) = end(2, thresholds, vec![failed(0, 0), failed(1, count)]);
        let (status, reason, message) = condition(&test, "Passed");
        (status.to_owned(), reason.to_owned(), message.to_owned())
    };
    let (status, reason, message) = verdict(&[], 2);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "ExpectationsNotMet")
    );
    assert!(
        message.starts_with("2 expectations of the script"),
        "{message}"
    );
    assert_eq!(verdict(&["http.requests > 1"], 1).1, "ExpectationsNotMet");
    assert_eq!(
        verdict(&["plugins.expect.failed < 3"], 2).1,
        "ThresholdsMet"
    );
    assert_eq!(verdict(&["http.requests < 1"], 1).1, "ThresholdsNotMet");
    assert_eq!(verdict(&[], 0).1, "NoThresholds");
}
