//! Which thresholds are accepted before a test starts.

use super::*;

#[test]
fn threshold_that_artillery_can_measure_is_accepted_before_the_start() {
    for good in [
        "http.response_time.p95 < 200",
        "  http.response_time.2xx.p999<=200.5 and http.tls.max < 5 ",
        "http.codes.500 == 0 and errors.ETIMEDOUT == 0 and 'errors.Failed capture or match' < 3",
        "errors.EMINE < 1 and vusers.created_by_name.Login > 5 and vusers.session_length.mean > 0",
        "(vusers.created - vusers.completed) / vusers.created * 100 <= 10",
        "http.codes.503 / (http.responses - http.requests) < 0.01 and sqrt(vusers.failed - 9) < 1",
        "http.request_rate > 20 and websocket.send_rate > 1 and socketio.emit > 0 and apdex > 0.9",
        "maxErrorRate < 1 and plugins.expect.failed == 0 and plugins.expect.ok.statusCode > 1",
        "'browser.page.LCP.The shop.p75' < 2500 and browser.page.CLS.https://t:8/a?b=NUMBER.p75 < 0.1",
        "browser.page.LCP.http://t.p95 < 2500 and browser.http_requests > 1 and browser.step.a.p99 < 5",
        "plugins.metrics-by-endpoint.response_time./a.p99 < 6 and plugins.metrics-by-endpoint./a (get).codes.200 == 4",
        "plugins.metrics-by-endpoint./b-c?d=(e).errors.ETIMEDOUT == 0 or (1 > 2)",
        // Metrics of processors.
        "checkout.failed == 0 and checkout.duration.p95 < 5 and my-shop.orders > 3 and socketiov3.x > 1",
        "'logins' > 5 and 'errors' == 0 and 'http.request' < 5 and 'a b' in (1, 2)",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
}

#[test]
fn metric_that_artillery_does_not_have_is_rejected_with_a_suggestion() {
    for (expression, suggestion) in [
        ("p95 < 200", "http.response_time.p95"),
        ("p50 < 200", "http.response_time.p50"),
        ("p999 < 200", "http.response_time.p999"),
        ("median < 200", "http.response_time.median"),
        ("min < 200", "http.response_time.min"),
        ("avg < 200", "http.response_time.mean"),
        ("latency < 200", "http.response_time.p95"),
        ("latency.p99 < 200", "http.response_time.p99"),
        ("http.response_times.p95 < 1", "http.response_time.p95"),
        (
            "http.response_time.2x.p95 < 1",
            "http.response_time.2xx.p95",
        ),
        ("http.response_time.avg < 1", "http.response_time.mean"),
        ("http.response_time.p99.9 < 1", "http.response_time.p999"),
        ("http.responseTime.max < 1", "http.response_time.max"),
        ("http.p95 < 1", "http.response_time.p95"),
        ("errors < 1", "vusers.failed"),
        ("failures == 0", "vusers.failed"),
        ("error_rate < 1", "maxErrorRate"),
        ("errorRate < 1", "maxErrorRate"),
        ("maxerrorrate < 1", "maxErrorRate"),
        ("rps > 100", "http.request_rate"),
        ("requests > 100", "http.requests"),
        ("http.request > 100", "http.requests"),
        ("HTTP.Requests > 100", "http.requests"),
        ("http.reqeusts > 100", "http.requests"),
        ("vusers.fail == 0", "vusers.failed"),
        ("vuser.failed == 0", "vusers.failed"),
        ("http.code.500 == 0", "http.codes.500"),
        ("http.status.404 == 0", "http.codes.404"),
        ("codes.500 == 0", "http.codes.500"),
        ("http.codes.5xx == 0", "http.codes.500"),
        ("errors.ETIMEOUT == 0", "errors.ETIMEDOUT"),
        ("error.ECONNRESET == 0", "errors.ECONNRESET"),
        ("http.errors.ECONNRESET == 0", "errors.ECONNRESET"),
        ("load.planed > 1", "load.planned"),
        ("load.vusers > 1", "load.created"),
        ("dropped_iterations == 0", "load.skipped"),
        ("arrival_delay.p99 < 1", "load.arrival_delay.p99"),
        ("load.delay.p99 < 1", "load.arrival_delay.p99"),
        ("load.arrival_delays.max < 1", "load.arrival_delay.max"),
        ("apdx > 0.9", "apdex"),
        ("p95 - p50 < 5", "http.response_time.p95"),
        ("p95-p50 < 5", "put spaces around - and /"),
    ] {
        let problem = check(expression).unwrap_err();
        assert!(problem.reason.contains(suggestion), "{problem}");
        assert_eq!(problem.expression, expression);
    }
    for (expression, reason) in [
        ("logins > 5", "if a processor emits logins, write 'logins'"),
        ("my-logins > 5", "if a processor emits my-logins"),
        ("http.other == 0", "Artillery has no metric http.other"),
        ("vusers.x.p95 < 1", "Artillery has no metric vusers.x.p95"),
        (
            "browser.page.LCP.p75 < 2500",
            "browser.page.LCP is a histogram of each page; add the page, such as 'browser.page.LCP.http://example.com/.p75'",
        ),
        ("browser.page.cls < 1", "'browser.page.CLS.http://"),
        ("load.rate > 1", "the operator has no metric load.rate"),
        (
            "load.arrival_delay < 5",
            "load.arrival_delay is a histogram",
        ),
        (
            "http.response_time < 5",
            "http.response_time is a histogram; name one of its values, such as http.response_time.p95",
        ),
        (
            "http.response_time.p98 < 5",
            "p98 is not one of min, max, count, mean, p50",
        ),
        ("1 < 2", "the expression names no metric"),
        (
            "http.requests-http.responses == 0",
            "put spaces around - and /",
        ),
    ] {
        let problem = check(expression).unwrap_err();
        assert!(problem.reason.contains(reason), "{problem}");
    }
    assert_eq!(
        check("p95 < 200").unwrap_err().to_string(),
        "threshold `p95 < 200`: Artillery has no metric p95; did you mean http.response_time.p95?"
    );
}

#[test]
fn malformed_threshold_is_rejected_with_the_correction() {
    for (expression, reasons) in [
        ("", ["the expression is incomplete", "it is empty"]),
        ("   ", ["the expression is incomplete", "it is empty"]),
        (
            "http.response_time.p95 < 200ms",
            ["200ms is not a number", "write 200"],
        ),
        (
            "http.response_time.p95 < 1.5s",
            ["1.5s is not a number", "write 1500"],
        ),
        (
            "http.response_time.p95 < 200 ms",
            ["unexpected 'm' at `ms`", "without a unit"],
        ),
        ("http.requests > 1e3", ["1e3 is not a number", "write 1000"]),
        (
            "http.requests > 1_000",
            ["1_000 is not a number", "write 1000"],
        ),
        ("http.requests > 1,000", ["unexpected ','", "separators"]),
        ("maxErrorRate < .5", [".5 is not a number", "write 0.5"]),
        ("maxErrorRate < 5%", ["incomplete", "percentage"]),
        (
            "http.response_time.p95 =< 200",
            [
                "unexpected '=' at `=< 200`",
                "=< is not an operator; use <=",
            ],
        ),
        ("http.requests => 5", ["unexpected '='", "use >="]),
        ("http.requests < = 5", ["unexpected '='", "without a space"]),
        ("http.requests = 5", ["unexpected '='", "use =="]),
        ("http.requests === 5", ["=== is not an operator", "use =="]),
        ("http.requests !== 5", ["!== is not an operator", "use !="]),
        ("http.requests <> 5", ["<> is not an operator", "use !="]),
        (
            "http.requests > 1 && vusers.failed == 0",
            ["unexpected '&'", "use and"],
        ),
        (
            "http.requests > 1 || vusers.failed == 0",
            ["unexpected '|'", "use or"],
        ),
        (
            "http.requests > 1 AND vusers.failed == 0",
            ["unexpected 'A'", "write and instead of AND"],
        ),
        ("!(http.requests > 1)", ["unexpected '!'", "use not"]),
        ("http.requests: 5", ["unexpected ':'", "such as <"]),
        (
            "http.requests below 5",
            ["unexpected 'b'", "compare with <"],
        ),
        (
            "http.requests < {{ $env.MOST }}",
            ["unexpected '{'", "templates are not evaluated"],
        ),
        (
            "http.requests < '200'",
            ["'200' is the name of a metric", "write 200"],
        ),
        (
            "http.requests",
            [
                "a number is used as a condition",
                "such as http.requests > 0",
            ],
        ),
        (
            "0 < http.requests < 5",
            ["a condition is used as a number", "combine comparisons"],
        ),
        ("(http.requests > 5", ["missing closing parenthesis", ""]),
        ("http.requests > 5)", ["unexpected ')'", ""]),
        ("'http.requests > 5", ["missing closing '", ""]),
        (
            "avg(http.response_time.p95) < 5",
            ["avg() with 1 argument", "the functions are abs"],
        ),
        ("http.requests < ?", ["unexpected '?'", ""]),
    ] {
        let problem = check(expression).unwrap_err();
        for reason in reasons {
            assert!(problem.reason.contains(reason), "{problem}");
        }
    }
}

#[test]
fn accepted_threshold_without_measurements_is_never_met_by_a_metric_of_a_processor() {
    let nothing = Measurements::default();
    for expression in [
        "checkout.failed == 0",
        "checkout.failed < 5",
        "'logins' < 5",
        "not (checkout.failed > 5)",
        "http.codes.500 == 0 or checkout.failed == 0",
        "plugins.expect.failed == 0",
        "apdex.frustrated == 0",
        "browser.step.a.p95 < 5",
    ] {
        assert_eq!(check(expression), Ok(()));
        let evaluation = evaluate(&[Threshold::strict(expression)], &nothing).remove(0);
        assert!(
            matches!(&evaluation.outcome, Outcome::Unknown(reason) if reason.starts_with("no worker reported ")),
            "{evaluation}"
        );
    }
    for expression in ["http.codes.500 == 0", "errors.ETIMEDOUT == 0"] {
        let evaluation = evaluate(&[Threshold::strict(expression)], &nothing).remove(0);
        assert_eq!(evaluation.outcome, Outcome::Met);
    }
}
