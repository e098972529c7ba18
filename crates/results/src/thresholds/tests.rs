#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use proptest::prelude::*;

use super::*;

/// 200 responses of 5 ms in 10 s, of ten virtual users of which one did not complete.
fn measured() -> Measurements {
    let json = r#"{"final":true,"first":1000,"last":11000,"lost":["custom.lost"],"counters":{
        "http.requests":200,"http.responses":200,"http.codes.200":197,"http.codes.503":3,"vusers.created":10,"vusers.completed":9,
        "apdex.satisfied":6,"apdex.tolerated":2,"plugins.metrics-by-endpoint./a (get).codes.200":4},
        "histograms":{"http.response_time":[0,1,50.5,1000,0,[81,200],[]],
        "plugins.metrics-by-endpoint.response_time./a":[0,2,3,400,0,[81,9],[]]}}"#;
    let message = format!(
        "loadtest.v1 {}",
        STANDARD.encode(compress_to_vec_zlib(json.as_bytes(), 6))
    );
    crate::Snapshot::from_message(&message)
        .unwrap()
        .decode()
        .unwrap()
}

fn judged(expression: &str) -> Evaluation {
    evaluate(&[Threshold::strict(expression)], &measured()).remove(0)
}

#[test]
fn expressions_have_artillerys_meaning() {
    for holds in [
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
        // Where Artillery's own is a trap.
        "http.codes.500 == 0 and custom.never < 1",
        "1 < 2 and(2 < 3)",
        &format!("{}1 < 2", "(1 < 2) and ".repeat(60)),
    ] {
        assert_eq!(judged(holds).outcome, Outcome::Met, "{holds}");
    }
    for broken in [
        "http.response_time.p95 < 5",
        "http.codes.503 == 0",
        "http.requests > 200 or 1 > 2",
        "not (1 < 2)",
    ] {
        assert_eq!(judged(broken).outcome, Outcome::NotMet, "{broken}");
    }
}

#[test]
fn what_cannot_be_judged_has_not_passed() {
    let deep = format!("{}1{} < 2", "(".repeat(60), ")".repeat(60));
    let long = format!("1 < 2{}", " ".repeat(5000));
    for (expression, why) in [
        ("", "the expression is incomplete"),
        ("http.requests >", "the expression is incomplete"),
        ("http.requests", "a number is used as a condition"),
        ("not http.codes.500 > 5", "a number is used as a condition"),
        ("1 < 2 < 3", "a condition is used as a number"),
        ("1 < (1, 2)", "a list is used as a number"),
        ("(1 < 2", "a closing parenthesis is missing"),
        ("1 < 2)", "')' is not expected"),
        ("1 < 2 3", "'3' is not expected"),
        ("1. < 2", "1. is not a number"),
        ("1e3 < 2000", "1e3 is not a number"),
        ("'http.requests < 3", "a closing ' is missing"),
        ("\"a\" == \"a\"", "'\"' is not expected"),
        ("http.requests ~= 2", "'~' is not expected"),
        ("http.requests > 1 ? 1 : 0", "'?' is not expected"),
        ("http.requests < {{ $env.MOST }}", "'{' is not expected"),
        ("http.requests < null", "null is not expected"),
        ("random() < 2", "random"),
        ("random(1) < 2", "random() is not a function of 1 numbers"),
        ("http.codes.503 / http.codes.500 > 1", "division by zero"),
        (
            "socketio.response_time.p95 < 100",
            "no worker measured socketio.response_time",
        ),
        (
            "http.response_time.p95 < 100 or socketio.response_time.p95 < 100",
            "no worker measured socketio.response_time",
        ),
        (
            "http.code.500 == 0",
            "Artillery has no metric http.code.500",
        ),
        (
            "http.response_time.p98 < 100",
            "Artillery has no metric http.response_time.p98",
        ),
        (
            "custom.my_rate < 100",
            "rate custom.my_rate is not reported",
        ),
        (
            "custom.lost == 0",
            "custom.lost was dropped by at least one worker",
        ),
        (
            "custom.lost.p95 < 5",
            "custom.lost was dropped by at least one worker",
        ),
        (
            "plugins.metrics-by-endpoint.response_time./b.p99 < 6",
            "was not measured; if it is no name, spaces are needed",
        ),
        ("http.requests-http.responses == 0", "spaces are needed"),
        (&deep, "nested too deep"),
        (&long, "longer than 4096"),
    ] {
        let judged = judged(expression);
        assert!(
            matches!(&judged.outcome, Outcome::Unknown(told) if told.contains(why) || why == "random"),
            "{expression}: {judged}"
        );
        assert!(judged.fails() && !passed(&[judged]), "{expression}");
    }
    let many = evaluate(
        &vec![Threshold::strict("1 < 2"); MAX_THRESHOLDS + 1],
        &measured(),
    );
    assert!(!passed(&many) && passed(many.get(..MAX_THRESHOLDS).unwrap()));
}

#[test]
fn a_broken_rule_is_told_with_its_value() {
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
            "x <",
            "x < cannot be evaluated: the expression is incomplete",
        ),
    ] {
        assert_eq!(judged(expression).to_string(), message);
    }
    let rules = [
        Threshold::new("http.codes.503 == 0", false),
        Threshold::strict("1 < 2"),
        Threshold::strict("http.requests < 200"),
        Threshold::strict("2 < 1"),
    ];
    let judged = evaluate(&rules, &measured());
    assert_eq!(
        summarize_failures(&judged, 9),
        "http.requests is 200, not < 200; 2 < 1 is not met; http.codes.503 is 3, not 0 (optional)"
    );
    assert_eq!(
        summarize_failures(&judged, 1),
        "http.requests is 200, not < 200; and 2 more"
    );
    assert!(!passed(&judged) && passed(judged.get(..2).unwrap()) && passed(&[]));
    assert_eq!(summarize_failures(judged.get(1..2).unwrap(), 9), "");
}

proptest! {
    #[test]
    fn any_expression_is_judged_without_a_panic(text in ".{0,80}", tokens in prop::collection::vec(prop::sample::select(vec![
        "http.requests", "plugins.metrics-by-endpoint.response_time./a.p99", "'a\\'", "1", "0.5", "+", "-", "*", "/", "%", "^", "(", ")", ",",
        "<", "<=", "==", "!=", "and", "or", "not", "in", "max(", "é", " ",
    ]), 0..30)) {
        for expression in [text, tokens.join(" "), tokens.concat()] {
            let _ = judged(&expression).to_string();
        }
    }
}

#[test]
fn expressions_without_a_number_are_unknown() {
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
