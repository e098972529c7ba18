#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use k8s_openapi::jiff::Timestamp;
use loadtest_api::v1alpha1::LoadTest;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::lines::Printed;
use super::screen::{Focus, draw, nice_top};
use super::{Model, Source, Update};
use crate::view::{EventLine, Worker};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-01-01T00:00:42Z")
}

/// A test of four workers that runs for 32 s.
fn running() -> LoadTest {
    let status = json!({"phase": "Running", "loadStartTime": "2026-01-01T00:00:10.000000Z", "expectedDuration": "60s",
        "conditions": [
            {"type": "Progressing", "status": "True", "reason": "Running", "message": "4 of 4 workers run.",
                "lastTransitionTime": "2026-01-01T00:00:10Z"},
            {"type": "LoadDelivered", "status": "False", "reason": "WorkersSaturated",
                "message": "Worker 2 was throttled in 95% of its CPU periods.", "lastTransitionTime": "2026-01-01T00:00:30Z"}],
        "thresholds": [{"expression": "http.response_time.p95 < 200"}],
        "results": {"live": true, "asOf": "2026-01-01T00:00:39Z", "workersReporting": "4 of 4", "workersPartial": 4, "partial": true,
            "requests": 612, "requestRate": 20.4, "responses": 610, "codes": [{"name": "200", "count": 610}], "errors": 2,
            "errorsByKind": [{"name": "ETIMEDOUT", "count": 2}], "vusersCreated": 612, "vusersCompleted": 608, "vusersFailed": 2,
            "p95": "10.1ms", "p99": "24.8ms",
            "histograms": [{"name": "http.response_time", "count": 610, "p50": 2.0, "p95": 10.1, "p99": 24.8, "errorBound": "1%"}],
            "load": {"sent": "51%", "createdVusers": 612, "skippedVusers": 0},
            "generators": {"saturated": "1 of 4", "worst": {"worker": 2, "utilization": "99%"}},
            "series": {"stepSeconds": 10, "requests": [208, 200, 204], "errors": [0, 0, 2], "vusersCreated": [208, 200, 204],
                "vusersPlanned": [212, 201, 199], "vusersActive": [0, 1, 2], "p50": [2.0, 2.0, 2.0], "p95": [7.9, 10.1, null],
                "p99": [15.0, 23.8, 24.8]}}});
    load_test(&status)
}

fn load_test(status: &Value) -> LoadTest {
    serde_json::from_value(json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
        "metadata": {"name": "checkout", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"count": 4, "testScript": {"config": {"configMap": "c"}}}, "status": status}))
    .unwrap()
}

fn worker(index: u32) -> Worker {
    Worker {
        index: Some(index),
        pod: format!("checkout-{index}"),
        node: Some("node-1".into()),
        state: "Running".into(),
        is_problem: false,
        detail: None,
        started: None,
        ended: None,
        measured: None,
    }
}

fn model(test: LoadTest, workers: u32) -> Model {
    let mut model = Model::new("shop", "checkout");
    model.apply(Update::Test(Box::new(test))).unwrap();
    for index in 0..workers {
        model
            .apply(Update::Worker(Box::new(worker(index))))
            .unwrap();
    }
    let event = EventLine {
        time: Some(at("2026-01-01T00:00:30Z")),
        is_warning: true,
        reason: "WorkersSaturated".into(),
        message: "Worker 2 was throttled.".into(),
    };
    model.apply(Update::Event("e".into(), event)).unwrap();
    model
}

/// What a terminal of this size shows.
fn frame(model: &Model, focus: &Focus, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, model, focus, now()))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        for x in 0..width {
            text.push_str(buffer[(x, y)].symbol());
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_screen_shows_what_matters_at_both_sizes() {
    for (width, height) in [(80, 24), (200, 50)] {
        let text = frame(&model(running(), 4), &Focus::default(), width, height);
        for expected in [
            "shop/checkout  Running  4 workers  results of 4 of 4, 3s ago",
            "32s of 60s",
            "requests 612",
            "rate 20.4/s",
            "errors 2",
            "sent 51%",
            "saturated 1",
            "p95 10.1ms",
            "WorkersSaturated: Worker 2 was throttled in 95% of its CPU periods",
            "http.response_time.p95 < 200",
            "2 ETIMEDOUT",
            "Workers: 4 pods, 4 running",
            "node-1",
            "Response time",
            "Events",
            "q: leave",
        ] {
            assert!(
                text.contains(expected),
                "{expected} at {width}x{height} in\n{text}"
            );
        }
    }
}

#[test]
fn any_size_and_any_state_can_be_drawn() {
    let tests = [
        running(),
        load_test(&json!(null)),
        load_test(&json!({"phase": "Pending"})),
    ];
    for test in tests {
        let model = model(test, 3);
        for (width, height) in [(1, 1), (10, 3), (39, 7), (80, 8), (300, 100)] {
            frame(&model, &Focus::default(), width, height);
        }
    }
    frame(&Model::new("shop", "checkout"), &Focus::default(), 80, 24);
}

#[test]
fn workers_with_problems_come_first_among_a_thousand() {
    let mut model = model(running(), 1000);
    let failed = Worker {
        state: "OOMKilled".into(),
        is_problem: true,
        ..worker(999)
    };
    model.apply(Update::Worker(Box::new(failed))).unwrap();
    let text = frame(&model, &Focus::default(), 80, 24);
    assert!(text.contains("OOMKilled"), "{text}");
    let last = Focus {
        first_worker: 999,
        ..Focus::default()
    };
    assert!(frame(&model, &last, 80, 24).contains("998"));
}

#[test]
fn a_lost_connection_is_shown_until_it_is_restored() {
    let mut model = model(running(), 1);
    let lost = "Connection to the API server lost (refused)";
    let problem = Update::Connection(Source::Test, Some("refused".into()));
    model.apply(problem).unwrap();
    assert!(frame(&model, &Focus::default(), 80, 24).contains(lost));
    model.apply(Update::Connection(Source::Test, None)).unwrap();
    assert!(!frame(&model, &Focus::default(), 80, 24).contains(lost));
}

#[test]
fn lines_appear_for_changes_warnings_and_when_due() {
    let mut model = model(running(), 1);
    let mut printed = Printed::default();
    let lines = printed.next(&model, false, now());
    let expected = [
        "Warning WorkersSaturated: Worker 2 was throttled.",
        "   42s  Running    32s of 60s  612 requests  20.4/s  2 errors  p95 10.1ms  p99 24.8ms  sent 51%  \
         WorkersSaturated: Worker 2 was throttled in 95% of its CPU periods.",
    ];
    assert_eq!(lines, expected);
    assert_eq!(printed.next(&model, false, now()), Vec::<String>::new());
    assert_eq!(printed.next(&model, true, now()).len(), 1);
    let problem = Update::Connection(Source::Test, Some("refused".into()));
    model.apply(problem).unwrap();
    let mut text = String::new();
    for line in printed.next(&model, true, now()) {
        writeln!(text, "{line}").unwrap();
    }
    assert_eq!(
        text,
        "Connection to the API server lost (refused); trying again every second.\n"
    );
}

#[test]
fn axes_end_at_round_numbers() {
    let tops = [0.0, 0.3, 1.0, 7.0, 20.4, 51.0, 999.0, f64::NAN].map(nice_top);
    assert_eq!(
        format!("{tops:?}"),
        "[1.0, 0.5, 1.5, 10.0, 30.0, 70.0, 1500.0, 1.0]"
    );
}
