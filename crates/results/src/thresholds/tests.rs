#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

mod before_the_start;

/// 200 responses of 5 ms in 10 s to ten virtual users, one of which did not complete.
fn measured() -> Measurements {
    let json = r#"{"final":true,"first":1000,"last":11000,"lost":["custom.dropped"],"invalid":["custom.text"],"counters":{
        "http.requests":200,"http.responses":200,"http.codes.200":197,"http.codes.503":3,"vusers.created":10,"vusers.completed":9,
        "apdex.satisfied":6,"apdex.tolerated":2,"plugins.metrics-by-endpoint./a (get).codes.200":4},
        "histograms":{"http.response_time":[0,1,50.5,1000,0,[81,200],[]],
        "plugins.metrics-by-endpoint.response_time./a":[0,2,3,400,0,[81,9],[]]}}"#;
    crate::Snapshot::from_message(&crate::testing::message(json))
        .unwrap()
        .decode()
        .unwrap()
}

fn evaluate_one(expression: &str) -> Evaluation {
    evaluate(&[Threshold::strict(expression)], &measured()).remove(0)
}

#[test]
fn expressions_mean_what_they_mean_in_artillery() {
    for met in [
        "http.response_time.p95 < 5.1",
        "http.response_time.p999 <= 5 and http.response_time.max == 50.5",
        "http.response_time.median == http.response_time.p50",
        "http.codes.503 / http.responses * 100 < 2",
        "(vusers.created - vusers.completed)/vusers.created * 100 <= 10",
        "1 + 2 * 3 ^ 2 == 19 and 2 ^ 3 ^ 2 == 64 and -2 ^ 2 == 4 and 7 % 4 - 3 == 0",
        "1 > 2 and 1 > 2 or 2 > 1",
        "not (http.codes.503 > 3) and not not (1 < 2)",
        "http.codes.503 in (1, 2, 3) and http.codes.503 not in (4, 5)",
        "max(http.codes.503, 7, 1) == 7 and round(2.5) == 3 and floor(-1.5) == -2 and sqrt(abs(-16)) == 4 and min(2) == 2",
        "'http.codes.200' != http.codes.503",
        "http.request_rate == 20 and http.response_rate > 19.9",
        "apdex == 0.875 and maxErrorRate == 10",
        "plugins.metrics-by-endpoint.response_time./a.p99 < 6 and plugins.metrics-by-endpoint./a (get).codes.200 == 4",
        // Deliberate differences from Artillery.
        "http.codes.500 == 0 and errors.ETIMEDOUT == 0 and vusers.skipped == 0",
        "plugins.metrics-by-endpoint./a (get).codes.500 == 0 and apdex.frustrated == 0",
        "load.created == 10 and load.skipped == 0 and 'load.created' == 10",
        "1 < 2 and(2 < 3)",
        &format!("{}1 < 2", "(1 < 2) and ".repeat(60)),
    ] {
        assert_eq!(evaluate_one(met).outcome, Outcome::Met, "{met}");
    }
    for not_met in [
        "http.response_time.p95 < 5",
        "http.codes.503 == 0",
        "http.requests > 200 or 1 > 2",
        "not (1 < 2)",
    ] {
        assert_eq!(evaluate_one(not_met).outcome, Outcome::NotMet, "{not_met}");
    }
}

#[test]
fn threshold_that_cannot_be_evaluated_fails_the_test() {
    let deep = format!("{}1{} < 2", "(".repeat(60), ")".repeat(60));
    let long = format!("1 < 2{}", " ".repeat(5000));
    for (expression, reason) in [
        ("", "the expression is incomplete"),
        ("http.requests >", "the expression is incomplete"),
        ("http.requests", "a number is used as a condition"),
        ("not http.codes.500 > 5", "a number is used as a condition"),
        ("1 < 2 < 3", "a condition is used as a number"),
        ("1 < (1, 2)", "a list is used as a number"),
        ("(1 < 2", "missing closing parenthesis"),
        ("1 < 2)", "unexpected ')'"),
        ("1 < 2 3", "unexpected '3'"),
        ("1. < 2", "1. is not a number"),
        ("1e3 < 2000", "1e3 is not a number"),
        ("'http.requests < 3", "missing closing '"),
        ("\"a\" == \"a\"", "unexpected '\"'"),
        ("http.requests ~= 2", "unexpected '~'"),
        ("http.requests > 1 ? 1 : 0", "unexpected '?'"),
        ("http.requests < {{ $env.MOST }}", "unexpected '{'"),
        ("http.requests < null", "unexpected null"),
        ("random() < 2", "unexpected ')'"),
        ("random(1) < 2", "random() with 1 argument is not supported"),
        ("http.codes.503 / http.codes.500 > 1", "division by zero"),
        (
            "socketio.response_time.p95 < 100",
            "no worker reported socketio.response_time",
        ),
        (
            "http.response_time.p95 < 100 or socketio.response_time.p95 < 100",
            "no worker reported socketio.response_time",
        ),
        (
            "http.code.500 == 0",
            "Artillery has no metric http.code.500",
        ),
        (
            "http.response_time.p98 < 100",
            "Artillery has no metric http.response_time.p98",
        ),
        ("custom.never < 1", "no worker reported custom.never"),
        ("logins == 0", "no worker reported logins"),
        ("load.planned > 0", "the planned load is unknown"),
        (
            "load.arrival_delay.p99 < 200",
            "load.arrival_delay is unknown",
        ),
        ("load.other < 1", "the operator has no metric load.other"),
        ("p95 < 200", "did you mean http.response_time.p95?"),
        ("'p95' < 200", "did you mean http.response_time.p95?"),
        ("errors < 1", "Artillery has no metric errors"),
        ("http.other == 0", "Artillery has no metric http.other"),
        (
            "plugins.expect.failed == 0",
            "no worker reported plugins.expect.failed",
        ),
        (
            "'plugins.metrics-by-endpoint./b.codes.500' == 0",
            "no worker reported plugins.metrics-by-endpoint./b.codes.500",
        ),
        (
            "custom.text == 0",
            "at least one worker counted a value in custom.text that is not valid",
        ),
        (
            "custom.my_rate < 100",
            "rate custom.my_rate is not reported by workers",
        ),
        (
            "custom.dropped == 0",
            "custom.dropped was dropped by at least one worker for lack of space",
        ),
        (
            "custom.dropped.p95 < 5",
            "custom.dropped was dropped by at least one worker for lack of space",
        ),
        (
            "plugins.metrics-by-endpoint.response_time./b.p99 < 6",
            "no worker reported plugins.metrics-by-endpoint.response_time./b; to subtract or divide",
        ),
        (
            "http.requests-http.responses == 0",
            "put spaces around - and /",
        ),
        (&deep, "nested too deeply"),
        (&long, "longer than 4096"),
    ] {
        let evaluation = evaluate_one(expression);
        assert!(
            matches!(&evaluation.outcome, Outcome::Unknown(found) if found.contains(reason)),
            "{expression}: {evaluation}"
        );
        assert!(evaluation.fails() && !passed(&[evaluation]), "{expression}");
    }
    let many = evaluate(
        &vec![Threshold::strict("1 < 2"); MAX_THRESHOLDS + 1],
        &measured(),
    );
    assert!(!passed(&many) && passed(many.get(..MAX_THRESHOLDS).unwrap()));
}

#[test]
fn failed_threshold_is_described_with_its_values() {
    for (expression, message) in [
        (
            "http.response_time.p95 < 4",
            "http.response_time.p95 is 5, not < 4",
        ),
        (
            "http.response_time.max<=50",
            "http.response_time.max is 50.5, not <=50",
        ),
        ("http.codes.503 == 0", "http.codes.503 is 3, not 0"),
        (
            "http.codes.503 > 5 and vusers.failed == 0",
            "http.codes.503 > 5 and vusers.failed == 0 is not met: http.codes.503 is 3, vusers.failed is 0",
        ),
        ("2 < 1", "2 < 1 is not met"),
        (
            "http.requests < 5 or 1 > 2",
            "http.requests < 5 or 1 > 2 is not met: http.requests is 200",
        ),
        (
            "http.requests <",
            "http.requests < cannot be evaluated: the expression is incomplete: a number or metric is missing after `<`",
        ),
    ] {
        assert_eq!(evaluate_one(expression).to_string(), message);
    }
    let thresholds = [
        Threshold::new("http.codes.503 == 0", false),
        Threshold::strict("1 < 2"),
        Threshold::strict("http.requests < 200"),
        Threshold::strict("2 < 1"),
    ];
    let evaluations = evaluate(&thresholds, &measured());
    assert_eq!(
        summarize_failures(&evaluations, 9),
        "http.requests is 200, not < 200; 2 < 1 is not met; http.codes.503 is 3, not 0 (optional)"
    );
    assert_eq!(
        summarize_failures(&evaluations, 1),
        "http.requests is 200, not < 200; and 2 more"
    );
    assert!(!passed(&evaluations) && passed(evaluations.get(..2).unwrap()) && passed(&[]));
    assert_eq!(summarize_failures(evaluations.get(1..2).unwrap(), 9), "");
}

proptest! {
    #[test]
    fn any_expression_is_evaluated_without_a_panic(text in ".{0,80}", tokens in prop::collection::vec(prop::sample::select(vec![
        "http.requests", "plugins.metrics-by-endpoint.response_time./a.p99", "'a\\'", "1", "0.5", "+", "-", "*", "/", "%", "^", "(", ")", ",",
        "<", "<=", "==", "!=", "and", "or", "not", "in", "max(", "é", " ",
    ]), 0..30)) {
        for expression in [text, tokens.join(" "), tokens.concat()] {
            let _ = check(&expression).map_err(|problem| problem.to_string());
            let _ = evaluate_one(&expression).to_string();
        }
    }
}

#[test]
fn longest_metric_at_the_start_of_a_text_is_meant() {
    let mut measured = measured();
    for (name, value) in [
        ("a-", 1.0),
        ("a-b", 2.0),
        ("a-b-c", 3.0),
        ("a-b/c d", 4.0),
        ("a-c", 5.0),
    ] {
        measured.add_counter(name, value);
    }
    for (expression, value) in [
        ("a-b == 2", "a-b is 2"),
        ("a-b-c == 3", "a-b-c is 3"),
        // Only a-b is the name of a metric here.
        ("a-b-cd == 0", "no worker reported cd"),
        ("a-b/c d == 4", "a-b/c d is 4"),
        ("a-b / 2 == 1", "a-b is 2"),
        ("a-c == 5", "a-c is 5"),
        ("a- == 1", "a- is 1"),
    ] {
        let evaluation = evaluate(&[Threshold::strict(expression)], &measured).remove(0);
        let values = evaluation.observed_values();
        assert!(values.starts_with(value), "{expression}: {values}");
    }
}

#[test]
fn thresholds_beyond_the_limits_are_not_evaluated() {
    let names: Vec<_> = (0..=50).map(|n| format!("custom.c{n}")).collect();
    let sum = |n: usize| format!("{} >= 0", names[..n].join(" + "));
    assert_eq!(check(&sum(50)), Ok(()));
    let error = check(&sum(51)).unwrap_err();
    assert_eq!(error.reason, "the expression names more than 50 metrics");

    let long = format!("http.requests >= 0{}", " ".repeat(4000));
    let all: Vec<_> = (0..70).map(|_| Threshold::strict(long.as_str())).collect();
    let evaluations = evaluate(&all, &measured());
    let evaluated = evaluations.iter().filter(|one| one.outcome == Outcome::Met);
    assert_eq!(evaluated.count(), MAX_TOTAL_LENGTH / long.len());
    assert!(!passed(&evaluations));
}

#[test]
fn values_in_a_message_are_limited() {
    let name = "n".repeat(1000);
    let mut measured = measured();
    measured.add_counter(&name, 1.0);
    let evaluation = evaluate(&[Threshold::strict(format!("{name} > 1"))], &measured).remove(0);
    assert_eq!(evaluation.observed_values().len(), MAX_VALUES_CHARS + 3);
}

#[test]
fn threshold_without_a_number_cannot_be_evaluated() {
    let thresholds = [
        "a < ?",
        "http.response_time.p99 < ?",
        "maxErrorRate <= {{ x }}",
    ]
    .map(Threshold::strict);
    for evaluation in evaluate(&thresholds, &measured()) {
        assert!(
            matches!(evaluation.outcome, Outcome::Unknown(_)),
            "{evaluation}"
        );
    }
}

#[test]
fn values_are_shown_without_the_error_of_floats() {
    let shown = [
        1.750_000_000_000_000_2,
        0.1 + 0.2,
        1234.5,
        1e-9,
        123_456_789.0,
    ]
    .map(readable);
    assert_eq!(
        format!("{shown:?}"),
        "[1.75, 0.3, 1234.5, 1e-9, 123456789.0]"
    );
}
