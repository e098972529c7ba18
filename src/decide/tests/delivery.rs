//! Whether the load of a test was delivered, and what that means for its verdict.

use loadtest_api::v1alpha1::{DeliveredLoad, Verdict};
use loadtest_results::testing::message;
use loadtest_results::{Measurements, Snapshot};
use proptest::prelude::*;

use super::verdict::{condition, end};
use super::*;

mod rule;

/// The keys of a snapshot that describe a load.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    /// `[planned, due, plannedMs, actualMs, random]`.
    load: [f64; 5],
    created: u32,
    skipped: u32,
    /// All virtual users arrived so many ms late.
    delay_ms: f64,
    generator: &'static str,
}

/// A worker that sent 8000 virtual users in 20 s, as planned.
const HEALTHY: Reported = Reported {
    load: [8000.0, 8000.0, 20_000.0, 20_040.0, 0.0],
    created: 8000,
    skipped: 0,
    delay_ms: 3.0,
    generator: "[1,400,25,0,204,0,9000,1000,120,512]",
};

/// The same worker with a CPU limit of 300m.
pub(super) const THROTTLED: Reported = Reported {
    load: [8000.0, 8000.0, 20_000.0, 57_400.0, 0.0],
    delay_ms: 36_600.0,
    generator: "[1,990,182,315,323,41200,17100,300,143,512]",
    ..HEALTHY
};

/// A worker that was to create 100 virtual users in 5 s, each for 2 s, with `maxVusers: 2`.
const SKIPPING: Reported = Reported {
    load: [100.0, 100.0, 5000.0, 5010.0, 0.0],
    created: 6,
    skipped: 94,
    ..HEALTHY
};

impl Reported {
    /// The termination message of a worker. Its requests took 76 ms, and its sessions 2 s.
    fn message(&self, is_final: bool) -> String {
        // The bin of a sketch that was collapsed three times.
        #[allow(clippy::cast_possible_truncation)]
        let key = (self.delay_ms.ln() / (8.0 * (1.01_f64 / 0.99).ln())).ceil() as i32;
        let (arrived, ms) = (self.created + self.skipped, self.delay_ms);
        message(&format!(
            r#"{{"final":{is_final},"first":1000,"last":21000,"load":{:?},"delay":[3,0,{ms},{ms},0,[{key},{arrived}],[]],
            "generator":{},"counters":{{"vusers.created":{created},"vusers.skipped":{},"http.requests":{created},
            "http.responses":{created}}},"histograms":{{"http.response_time":[0,76,76,76,0,[217,{created}],[]],
            "vusers.session_length":[0,2000,2000,2000,0,[381,{created}],[]]}}}}"#,
            self.load,
            self.generator,
            self.skipped,
            created = self.created
        ))
    }

    pub(super) fn worker(&self, index: u32) -> WorkerStatus {
        WorkerStatus {
            snapshot: Snapshot::from_message(&self.message(true)).map(Arc::new),
            ended: Some(at(60)),
            ..worker(index, WorkerState::Succeeded)
        }
    }

    fn measured(&self) -> Measurements {
        Snapshot::from_message(&self.message(true))
            .unwrap()
            .decode()
            .unwrap()
    }
}

#[test]
fn saturated_worker_makes_a_test_inconclusive_with_figures_and_advice() {
    let (test, plan) = end(
        1,
        &["http.response_time.p95 < 500"],
        vec![THROTTLED.worker(0)],
    );
    let status = test.status.as_ref().unwrap();
    assert_eq!(
        (status.phase, status.verdict),
        (Some(Phase::Completed), Some(Verdict::Inconclusive))
    );
    assert_eq!(
        condition(&test, "Passed"),
        (
            "Unknown",
            "LoadNotDelivered",
            "The threshold is met, but the worker was saturated: the load took 57.4s instead of 20s (see LoadDelivered)."
        )
    );
    let advice = "One worker with 300m CPU sent 139 virtual users/s; 400/s needs 900m, or 3 workers with load: Divide.";
    let message = format!(
        "The worker was saturated: the load took 57.4s instead of 20s. Worker 0 was throttled in 98% of its CPU periods. {advice}"
    );
    assert_eq!(
        condition(&test, "LoadDelivered"),
        ("False", "WorkersSaturated", message.as_str())
    );
    let results = status.results.as_ref().unwrap();
    let load = results.load.as_ref().unwrap();
    assert_eq!(
        (
            load.sent.as_deref(),
            load.planned_vusers,
            load.created_vusers
        ),
        (Some("35%"), Some(8000), 8000)
    );
    assert_eq!(
        (load.planned_seconds, load.actual_seconds),
        (Some(20.0), Some(57.4))
    );
    let delay = load.arrival_delay.as_ref().unwrap();
    assert!(
        (34_000.0..39_000.0).contains(&delay.p99.unwrap()),
        "{delay:?}"
    );
    let generators = serde_json::to_value(&results.generators).unwrap();
    assert_eq!(
        generators,
        json!({"saturated": "1 of 1", "advice": advice, "worst": {"worker": 0, "plannedRate": 400.0, "arrivalRate": 139.4,
            "threads": 1, "utilization": "99%", "eventLoopDelay": "182ms", "throttled": "98%", "throttledTime": "41.2s",
            "cpu": "298m", "cpuLimit": "300m", "memory": "143Mi", "memoryLimit": "512Mi"}})
    );
    let reported: Vec<_> = plan.events.iter().map(|e| (e.warning, e.reason)).collect();
    assert_eq!(
        reported[reported.len() - 3..],
        [
            (false, Reason::Completed),
            (true, Reason::WorkersSaturated),
            (true, Reason::LoadNotDelivered)
        ]
    );
    let [saturated, verdict] = plan.events.last_chunk().unwrap();
    assert_eq!(saturated.message, message);
    assert!(
        verdict
            .message
            .starts_with("Load test is inconclusive: the threshold is met, but")
    );
}

#[test]
fn skipped_virtual_users_make_a_test_inconclusive_unless_they_are_accepted() {
    let (test, plan) = end(
        1,
        &["http.response_time.p95 < 500"],
        vec![SKIPPING.worker(0)],
    );
    assert_eq!(
        condition(&test, "Passed").2,
        "The threshold is met, but 94 of 100 planned virtual users were skipped because maxVusers was reached (see LoadDelivered)."
    );
    let (status, reason, message) = condition(&test, "LoadDelivered");
    assert_eq!((status, reason), ("False", "VusersSkipped"));
    assert!(
        message.contains("20 virtual users/s with sessions of 2s need a maxVusers of about"),
        "{message}"
    );
    let events = reasons(&plan);
    assert_eq!(
        events.iter().filter(|e| **e == "VusersSkipped").count(),
        1,
        "{events:?}"
    );
    let results = test.status.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!(
        results.load.as_ref().and_then(|load| load.sent.as_deref()),
        Some("6%")
    );

    let mut accepting = with(
        super::test(1),
        &json!({"loadTolerance": {"skippedPercent": 94}}),
    );
    step(&mut accepting, &seen(JobState::Absent, vec![]), 0);
    let outcome = JobOutcome::Complete { at: at(61) };
    step(
        &mut accepting,
        &seen(ended(1, outcome), vec![SKIPPING.worker(0)]),
        61,
    );
    assert_eq!(condition(&accepting, "Passed").0, "True");
    let (status, reason, message) = condition(&accepting, "LoadDelivered");
    assert_eq!((status, reason), ("True", "AsPlanned"));
    assert!(
        message.ends_with("spec.loadTolerance accepts 94 that maxVusers skipped."),
        "{message}"
    );
}

#[test]
fn verdict_depends_on_thresholds_first_and_then_on_the_load() {
    let without_plan = super::verdict::measured(0, 8000);
    for (worker, thresholds, verdict, passed, delivered) in [
        (
            HEALTHY.worker(0),
            &[][..],
            Verdict::Passed,
            "NoThresholds",
            "AsPlanned",
        ),
        (
            HEALTHY.worker(0),
            &["load.skipped == 0", "load.created == load.planned"],
            Verdict::Passed,
            "ThresholdsMet",
            "AsPlanned",
        ),
        (
            HEALTHY.worker(0),
            &["load.arrival_delay.p99 < 2"],
            Verdict::Failed,
            "ThresholdsNotMet",
            "AsPlanned",
        ),
        (
            THROTTLED.worker(0),
            &[],
            Verdict::Inconclusive,
            "LoadNotDelivered",
            "WorkersSaturated",
        ),
        (
            THROTTLED.worker(0),
            &["http.response_time.p95 < 50"],
            Verdict::Failed,
            "ThresholdsNotMet",
            "WorkersSaturated",
        ),
        (
            SKIPPING.worker(0),
            &["load.skipped == 0"],
            Verdict::Failed,
            "ThresholdsNotMet",
            "VusersSkipped",
        ),
        (
            without_plan.clone(),
            &[],
            Verdict::Passed,
            "NoThresholds",
            "PlanUnknown",
        ),
        // Nothing proves a threshold about an unknown plan.
        (
            without_plan,
            &["load.planned > 0"],
            Verdict::Failed,
            "ThresholdsNotMet",
            "PlanUnknown",
        ),
    ] {
        let (test, _) = end(1, thresholds, vec![worker]);
        assert_eq!(
            (
                test.status.as_ref().unwrap().verdict,
                condition(&test, "Passed").1,
                condition(&test, "LoadDelivered").1
            ),
            (Some(verdict), passed, delivered),
            "{thresholds:?}"
        );
    }
}

#[test]
fn violated_threshold_of_a_saturated_test_points_at_the_workers() {
    let (test, _) = end(
        1,
        &["http.response_time.p95 < 50"],
        vec![THROTTLED.worker(0)],
    );
    let message = condition(&test, "Passed").2;
    assert!(
        message.ends_with("latencies may include their own delay (see LoadDelivered)."),
        "{message}"
    );
}

#[test]
fn healthy_load_is_delivered_with_all_its_virtual_users() {
    let (test, plan) = end(2, &[], vec![HEALTHY.worker(0), HEALTHY.worker(1)]);
    let (status, reason, message) = condition(&test, "LoadDelivered");
    assert_eq!((status, reason), ("True", "AsPlanned"));
    assert!(
        message
            == ("16000 of 16000 planned virtual users were created, 99% of them at most 2.8ms late."),
        "{message}"
    );
    let results = test.status.as_ref().unwrap().results.as_ref().unwrap();
    let load = results.load.clone().unwrap();
    assert_eq!(
        DeliveredLoad {
            arrival_delay: None,
            ..load
        },
        DeliveredLoad {
            sent: Some("100%".into()),
            planned_vusers: Some(16_000),
            created_vusers: 16_000,
            skipped_vusers: 0,
            planned_seconds: Some(20.0),
            actual_seconds: Some(20.0),
            arrival_delay: None,
        }
    );
    assert_eq!(results.generators.as_ref().unwrap().advice, None);
    assert_eq!(reasons(&plan).last(), Some(&"Completed"));
}

#[test]
fn worst_of_several_workers_is_shown() {
    let workers = (0..4).map(|index| match index {
        2 => THROTTLED.worker(index),
        _ => HEALTHY.worker(index),
    });
    let (test, _) = end(4, &[], workers.collect());
    let message = condition(&test, "LoadDelivered").2;
    assert!(
        message.starts_with("1 of 4 workers was saturated: the load took 57.4s instead of 20s. Worker 2 was throttled"),
        "{message}"
    );
    let results = test.status.as_ref().unwrap().results.as_ref().unwrap();
    let generators = results.generators.as_ref().unwrap();
    assert_eq!(
        (
            generators.saturated.as_str(),
            generators.worst.as_ref().unwrap().worker
        ),
        ("1 of 4", 2)
    );
    assert_eq!(generators.saturated_workers(), Some(1));
    // Three workers sent all of their load, and one 35 %.
    assert_eq!(results.load.as_ref().unwrap().sent.as_deref(), Some("84%"));
}

#[test]
fn test_that_did_not_complete_raises_no_false_alarm() {
    // A worker that was stopped after 8 of 20 s, a moment after the arrival of a virtual user was due.
    let stopped = Reported {
        load: [8000.0, 3200.0, 20_000.0, 8000.0, 0.0],
        created: 3180,
        ..HEALTHY
    };
    for (reported, expected) in [
        (stopped.clone(), ("Unknown", "NotCompleted")),
        (
            Reported {
                load: [8000.0, 3200.0, 20_000.0, 8000.0, 0.0],
                created: 1000,
                ..THROTTLED
            },
            ("False", "WorkersSaturated"),
        ),
    ] {
        let mut test = test(2);
        step(&mut test, &seen(JobState::Absent, vec![]), 0);
        let outcome = JobOutcome::Failed {
            at: at(9),
            reason: "BackoffLimitExceeded".into(),
            message: "m".into(),
        };
        let aborted = WorkerStatus {
            snapshot: Snapshot::from_message(&reported.message(false)).map(Arc::new),
            ..worker(1, WorkerState::Aborted)
        };
        let plan = step(
            &mut test,
            &seen(ended(0, outcome), vec![failed(0, 1, "Error: x"), aborted]),
            9,
        );
        let (status, reason, message) = condition(&test, "LoadDelivered");
        assert_eq!((status, reason), expected, "{message}");
        assert_eq!(condition(&test, "Passed").1, "NotCompleted");
        let is_reported = reasons(&plan).contains(&"WorkersSaturated");
        assert_eq!(is_reported, reason == "WorkersSaturated");
    }
}

#[test]
fn missing_events_about_the_load_are_recorded_after_the_end() {
    let (mut test, plan) = end(1, &[], vec![THROTTLED.worker(0)]);
    let failing = Observed {
        failed_events: Some("down".into()),
        ..seen(
            ended(1, JobOutcome::Complete { at: at(61) }),
            vec![THROTTLED.worker(0)],
        )
    };
    let status = test.status.as_mut().unwrap();
    status.conditions.push(
        loadtest_api::conditions::set_conditions(
            &[],
            vec![ConditionUpdate::new(
                ConditionType::EventsRecorded,
                Some(false),
                Reason::RequestFailed,
                "down",
            )],
            Some(1),
            at(61),
        )
        .remove(0),
    );
    let again = super::plan(&test, &failing, 62);
    for event in &plan.events {
        if ["Completed", "WorkersSaturated", "LoadNotDelivered"].contains(&event.reason.as_str()) {
            assert!(again.events.contains(event), "{event:?} in {again:?}");
        }
    }
}

fn reported() -> impl Strategy<Value = Reported> {
    let generators = prop::sample::select(vec![
        HEALTHY.generator,
        THROTTLED.generator,
        "[null,null,null,null,null,null,null,null,null,null]",
    ]);
    (
        0..3000_u32,
        0..3000_u32,
        0..400_u32,
        0..3000_u32,
        0..40_u32,
        1..20_000_u32,
        generators,
    )
        .prop_map(
            |(planned, created, skipped, random, actual, delay, generator)| Reported {
                load: [planned, planned, 20_000, actual * 1000, random].map(f64::from),
                created,
                skipped,
                delay_ms: f64::from(delay),
                generator,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_never_passes_while_its_load_was_not_delivered(
        workers in prop::collection::vec(reported(), 1..4), missing in 0..2, has_threshold in any::<bool>(),
    ) {
        let count = i32::try_from(workers.len()).unwrap() + missing;
        let thresholds: &[&str] = if has_threshold { &["http.codes.500 == 0"] } else { &[] };
        let workers = (0..).zip(&workers).map(|(index, reported)| reported.worker(index)).collect();
        let (test, plan) = end(count, thresholds, workers);
        let (delivered, reason, message) = condition(&test, "LoadDelivered");
        let (passed, _, _) = condition(&test, "Passed");
        prop_assert!(!(passed == "True" && delivered == "False"), "{reason}: {message}");
        let warned = plan.events.iter().any(|event| event.reason.as_str() == reason && event.warning);
        prop_assert_eq!(warned, delivered == "False" && reason != "WorkersMissing");
        prop_assert!(!message.contains("NaN") && !message.contains("inf"), "{message}");
    }
}
