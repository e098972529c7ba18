//! The report as JUnit XML, which CI systems show as test cases.
//!
//! An inconclusive test is an `error`, not `skipped`: CI systems show a skipped case as passed, and a test that proves nothing must not
//! pass a pipeline. They count an `error` like a `failure`, but it states that the case itself could not be judged.

use std::fmt::Write;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use loadtest_api::duration;
use loadtest_api::v1alpha1::{ConditionType, Threshold};

use super::Report;
use super::format::timestamp;
use crate::outcome::Outcome;

/// The result of a test case.
enum Case {
    Passed,
    /// The type and the message.
    Failure(String, String),
    Error(String, String),
    /// The message.
    Skipped(String),
}

/// The report: one suite with a case for the completion, one for each threshold, one for the sent load, and one for what else the
/// verdict depends on.
#[must_use]
pub fn junit(report: &Report) -> String {
    let completion = completion(report);
    let is_completed = matches!(completion, Case::Passed);
    let mut cases = vec![("Test completed".to_owned(), completion)];
    for threshold in &report.thresholds {
        cases.push((
            threshold.expression.clone(),
            judged(threshold, is_completed),
        ));
    }
    cases.push(("Planned load delivered".to_owned(), delivery(report)));
    let is_explained = cases
        .iter()
        .any(|(_, case)| matches!(case, Case::Failure(..) | Case::Error(..)));
    cases.push((
        "Results accepted".to_owned(),
        acceptance(report, is_explained),
    ));
    let count = |is: fn(&Case) -> bool| cases.iter().filter(|(_, case)| is(case)).count();
    let counts = format!(
        r#"tests="{}" failures="{}" errors="{}" skipped="{}" time="{}""#,
        cases.len(),
        count(|case| matches!(case, Case::Failure(..))),
        count(|case| matches!(case, Case::Error(..))),
        count(|case| matches!(case, Case::Skipped(_))),
        seconds(report),
    );
    let suite = escape(&format!("{}/{}", report.namespace, report.name));
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, r#"<testsuites name="kubectl artillery" {counts}>"#);
    let began = report.started.as_ref().unwrap_or(&report.generated);
    let began = timestamp(began);
    let began = began.trim_end_matches('Z');
    let _ = writeln!(
        xml,
        r#"  <testsuite name="{suite}" {counts} timestamp="{began}">"#
    );
    properties(&mut xml, report);
    for (at, (name, case)) in cases.iter().enumerate() {
        // Only the completion took time.
        let time = if at == 0 { seconds(report) } else { 0 };
        write_case(&mut xml, &suite, name, time, case);
    }
    let _ = writeln!(xml, "    <system-out>{}</system-out>", escape(&report.why));
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

fn write_case(xml: &mut String, suite: &str, name: &str, time: i64, case: &Case) {
    let _ = write!(
        xml,
        r#"    <testcase classname="{suite}" name="{}" time="{time}""#,
        escape(name)
    );
    let _ = match case {
        Case::Passed => writeln!(xml, "/>"),
        Case::Failure(type_, message) => write_problem(xml, "failure", type_, message),
        Case::Error(type_, message) => write_problem(xml, "error", type_, message),
        Case::Skipped(message) => writeln!(
            xml,
            "><skipped message=\"{}\"/></testcase>",
            escape(message)
        ),
    };
}

fn write_problem(xml: &mut String, element: &str, type_: &str, message: &str) -> std::fmt::Result {
    let (type_, message) = (escape(type_), escape(message));
    writeln!(
        xml,
        r#"><{element} type="{type_}" message="{message}">{message}</{element}></testcase>"#
    )
}

fn completion(report: &Report) -> Case {
    let is = |type_| {
        report
            .condition(type_)
            .is_some_and(|one| one.status == "True")
    };
    let reason = || {
        report
            .reason
            .clone()
            .unwrap_or_else(|| report.verdict.clone())
    };
    if !report.is_finished() {
        return Case::Error(
            reason(),
            format!("The test has not finished: {}", report.why),
        );
    }
    let end = [ConditionType::Failed, ConditionType::Stopped];
    let end = end
        .into_iter()
        .filter(|type_| is(*type_))
        .find_map(|type_| report.condition(type_));
    match end {
        Some(Condition {
            reason, message, ..
        }) => Case::Failure(reason.clone(), message.clone()),
        None if is(ConditionType::Completed) || report.outcome != Outcome::Failed => Case::Passed,
        None => Case::Failure(reason(), report.why.clone()),
    }
}

fn judged(threshold: &Threshold, is_completed: bool) -> Case {
    let message = threshold.message.clone().unwrap_or_default();
    match (threshold.held, threshold.is_strict()) {
        (Some(true), _) => Case::Passed,
        (Some(false), true) => Case::Failure("ThresholdNotMet".into(), message),
        (Some(false), false) => Case::Skipped(format!("Not met, but not strict: {message}")),
        (None, _) if !is_completed => Case::Skipped("The test has not completed.".into()),
        (None, true) => Case::Error("ThresholdNotEvaluated".into(), not_evaluated(message)),
        (None, false) => Case::Skipped(not_evaluated(message)),
    }
}

fn not_evaluated(message: String) -> String {
    if message.is_empty() {
        "The threshold was not evaluated.".to_owned()
    } else {
        message
    }
}

fn delivery(report: &Report) -> Case {
    match report.condition(ConditionType::LoadDelivered) {
        Some(one) if one.status == "True" => Case::Passed,
        Some(one) if one.status == "False" => Case::Error(one.reason.clone(), one.message.clone()),
        Some(one) => Case::Skipped(one.message.clone()),
        None => Case::Skipped(
            "The load is compared with the plan when a test that started has ended.".into(),
        ),
    }
}

/// What the verdict depends on besides the other cases: that something answered, and met the script's expectations, and that no
/// results are missing.
fn acceptance(report: &Report, is_explained: bool) -> Case {
    let reason = || {
        report
            .reason
            .clone()
            .unwrap_or_else(|| report.verdict.clone())
    };
    match report.outcome {
        Outcome::Passed => Case::Passed,
        _ if is_explained => Case::Skipped("Another case has the reason of the verdict.".into()),
        Outcome::Inconclusive => Case::Error(reason(), report.why.clone()),
        Outcome::Failed | Outcome::Unfinished => Case::Failure(reason(), report.why.clone()),
    }
}

fn properties(xml: &mut String, report: &Report) {
    let results = report.results.as_deref();
    let load = results.and_then(|results| results.load.as_ref());
    let all = [
        ("verdict", Some(report.verdict.clone())),
        (
            "requests",
            results.map(|results| results.requests.to_string()),
        ),
        (
            "requestRate",
            results.map(|results| results.request_rate.to_string()),
        ),
        ("p95", results.and_then(|results| results.p95.clone())),
        ("p99", results.and_then(|results| results.p99.clone())),
        ("errors", results.map(|results| results.errors.to_string())),
        ("sent", load.and_then(|load| load.sent.clone())),
    ];
    xml.push_str("    <properties>\n");
    for (name, value) in all {
        if let Some(value) = value {
            let value = escape(&value);
            let _ = writeln!(xml, r#"      <property name="{name}" value="{value}"/>"#);
        }
    }
    xml.push_str("    </properties>\n");
}

fn seconds(report: &Report) -> i64 {
    let duration = report.duration.as_deref().and_then(duration::parse);
    duration.map_or(0, |duration| duration.as_secs())
}

/// Text of XML, also within an attribute. Characters that XML cannot contain are replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\r' => escaped.push_str("&#13;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
