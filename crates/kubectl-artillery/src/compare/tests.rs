#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn test(name: &str, p95: f64, errors: i64, verdict: &str, count: i32) -> LoadTest {
    serde_json::from_value(json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
        "metadata": {"name": name}, "spec": {"count": count, "testScript": {"inline": "a"}},
        "status": {"phase": "Completed", "verdict": verdict, "results": {"workersReporting": "1 of 1",
            "workersPartial": 0, "partial": false, "requests": 1000, "requestRate": 20.5, "responses": 1000, "errors": errors,
            "vusersCreated": 1000, "vusersCompleted": 1000, "vusersFailed": 0,
            "histograms": [{"name": "http.response_time", "count": 1000, "p95": p95, "errorBound": "1%"}]}}}))
    .unwrap()
}

fn outcome(condition: &str, after: &LoadTest) -> Outcome {
    let before = test("a", 100.0, 0, "Passed", 2);
    compare(&before, after, &[Condition::parse(condition).unwrap()]).outcome()
}

#[test]
fn a_condition_compares_with_the_baseline_or_with_a_number() {
    let slower = test("b", 110.1, 3, "Passed", 2);
    for (condition, expected) in [
        ("p95 > 1.1x", Outcome::Failed),
        ("p95>1.2x", Outcome::Passed),
        ("p95 > 110ms", Outcome::Failed),
        ("p95 <= 110.1", Outcome::Failed),
        ("errors > 0", Outcome::Failed),
        ("errors > 3", Outcome::Passed),
        ("error_rate >= 1%", Outcome::Passed),
        ("p99 > 1.1x", Outcome::Unfinished),
    ] {
        assert_eq!(outcome(condition, &slower), expected, "{condition}");
    }
    assert_eq!(
        outcome("p95 > 2x", &test("b", 100.0, 0, "Inconclusive", 2)),
        Outcome::Inconclusive
    );
}

#[test]
fn wrong_conditions_are_rejected_with_advice() {
    for wrong in [
        "",
        "p95",
        "p95 >",
        "p95 > fast",
        "latency > 1",
        "p95 > NaN",
        "p95 => 1",
    ] {
        assert!(
            Condition::parse(wrong).unwrap_err().advice.is_some(),
            "{wrong}"
        );
    }
}

#[test]
fn a_comparison_shows_changes_and_differences_of_the_specs() {
    let text = compare(
        &test("before", 100.0, 0, "Passed", 2),
        &test("after", 125.0, 4, "Failed", 3),
        &[],
    )
    .text();
    let rows: Vec<_> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for row in [
        "verdict Passed Failed",
        "p95 100ms 125ms +25.0%",
        "errors 0 4 +4",
        "spec.count 2 3",
        "requests 1000 1000",
    ] {
        assert!(rows.contains(&row.to_owned()), "{row} in\n{text}");
    }
}
