#![allow(clippy::unwrap_used)]

use loadtest_api::v1alpha1::Threshold;
use serde_json::{Value, json};

use super::*;
use crate::outcome::Outcome;
use crate::view::View;

mod fixtures;
mod hostile;
mod simulation;

use fixtures::{inconclusive, not_started, passed, report, running, slow};
use hostile::{HOSTILE, hostile};

/// All cases, by the name of their files.
fn cases() -> [(&'static str, View); 6] {
    [
        ("slow", slow()),
        ("passed", passed()),
        ("inconclusive", inconclusive()),
        ("not-started", not_started()),
        ("running", running()),
        ("hostile", hostile()),
    ]
}

/// `hack/report-browser/test.sh` opens these files in a browser.
#[test]
fn every_format_names_the_verdict_and_the_numbers_of_the_status() {
    let folder = std::env::var_os("REPORT_DIR").map(std::path::PathBuf::from);
    for (name, view) in cases() {
        let report = report(&view);
        let json = serde_json::to_value(&report).unwrap();
        let status = serde_json::to_value(&view.test.status).unwrap();
        let known = |value: &Value| value.as_array().is_none_or(|all| !all.is_empty());
        for field in ["results", "thresholds", "conditions", "duration"] {
            if known(&json[field]) {
                assert_eq!(json[field], status[field], "{field} of {name}");
            }
        }
        let files = [
            ("html", html(&report)),
            ("md", markdown(&report)),
            ("xml", junit(&report)),
            (
                "report.json",
                serde_json::to_string_pretty(&report).unwrap(),
            ),
        ];
        for (extension, content) in &files {
            let mut expected = vec![report.verdict.clone()];
            expected.extend(report.results.iter().flat_map(|results| {
                [
                    results.requests.to_string(),
                    results.request_rate.to_string(),
                    results.errors.to_string(),
                ]
            }));
            for text in expected {
                assert!(content.contains(&text), "{text} in {name}.{extension}");
            }
            if let Some(folder) = &folder {
                std::fs::create_dir_all(folder).unwrap();
                std::fs::write(folder.join(format!("{name}.{extension}")), content).unwrap();
            }
        }
        if let Some(folder) = &folder {
            let test = serde_json::to_string_pretty(&view.test).unwrap();
            std::fs::write(folder.join(format!("{name}.json")), test).unwrap();
        }
    }
}

#[test]
fn report_explains_the_verdict_by_the_condition_with_the_cause() {
    let explained: Vec<_> = cases()
        .into_iter()
        .take(5)
        .map(|(_, view)| {
            let report = report(&view);
            let why = report.why.split([':', ',', ';']).next().unwrap().to_owned();
            (report.verdict, report.reason.unwrap(), why)
        })
        .collect();
    let expected = [
        ("Failed", "ThresholdsNotMet", "Thresholds not met"),
        ("Passed", "ThresholdsMet", "The threshold is met."),
        ("Inconclusive", "LoadNotDelivered", "The threshold is met"),
        (
            "Failed",
            "ImageNotPullable",
            "Did not start within 60s (startDeadlineSeconds)",
        ),
        ("Running", "Running", "All 2 workers are running."),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(explained, expected);
}

#[test]
fn test_without_a_status_is_pending() {
    let mut view = not_started();
    view.test.status = None;
    let report = report(&view);
    assert_eq!(
        (report.verdict.as_str(), report.outcome),
        ("Pending", Outcome::Unfinished)
    );
    assert!(html(&report).contains("The operator has not reported on this test yet."));
    assert!(junit(&report).contains("<error type=\"Pending\""));
}

#[test]
fn stopped_test_is_not_shown_as_failed() {
    let mut view = slow();
    let status = view.test.status.as_mut().unwrap();
    status.phase = Some(loadtest_api::v1alpha1::Phase::Stopped);
    let report = report(&view);
    assert_eq!(
        (report.verdict.as_str(), report.outcome),
        ("Stopped", Outcome::Failed)
    );
}

#[test]
fn distribution_contains_every_response_time_without_gaps() {
    let report = report(&slow());
    let times = report.response_times.clone().unwrap();
    let counted: u64 = times.columns.iter().map(|column| column.count).sum();
    let total = report.response_time().unwrap().count;
    assert_eq!(i64::try_from(counted + times.zeros), Ok(total));
    assert!((20..=73).contains(&times.columns.len()));
    for pair in times.columns.windows(2) {
        assert!((pair[0].upper / pair[1].lower - 1.0).abs() < 1e-9);
    }
    let summary = report.response_time().unwrap();
    let bounds = times.columns[0].lower..=times.columns.last().unwrap().upper;
    assert!(bounds.contains(&summary.min.unwrap()) && bounds.contains(&summary.max.unwrap()));
    assert_eq!(report.response_times_note, None);
}

#[test]
fn report_states_which_workers_the_distribution_does_not_include() {
    let note = |view: &View| report(view).response_times_note.unwrap();
    assert!(note(&inconclusive()).contains("2 of 4 workers"));
    assert!(note(&running()).contains("follows when the workers have ended"));
    assert!(note(&not_started()).contains("none has left its measurements"));
}

#[test]
fn endpoints_are_sorted_by_their_p95() {
    let endpoints = report(&slow()).endpoints;
    let names: Vec<_> = endpoints.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["/api/checkout", "/api/cart", "/api/products"]);
    let first = &endpoints[0];
    let counted: i64 = first.codes.iter().map(|code| code.count).sum();
    assert_eq!(counted, first.times.count);
    assert_eq!(first.errors[0].name, "ETIMEDOUT");
}

#[test]
fn report_without_results_has_no_charts_and_no_numbers() {
    let page = html(&report(&not_started()));
    for absent in ["<figure", "Key numbers", "id=\"load\""] {
        assert!(!page.contains(absent), "{absent}");
    }
    assert!(page.contains("The test ended before its workers started"));
    assert!(page.contains("configmaps &quot;shop-script&quot; is forbidden"));
}

#[test]
fn texts_of_a_test_cannot_add_markup() {
    let report = report(&hostile());
    let page = html(&report);
    assert!(page.contains("&lt;/script&gt;&lt;img"));
    assert!(!page.contains("<img"));
    assert_eq!(
        (
            page.matches("<script").count(),
            page.matches("</script").count()
        ),
        (1, 1)
    );
    for request in ["http://", "https://", "url(", "@import", "<link rel=\"s"] {
        assert!(!page.contains(request), "{request}");
    }

    let xml = junit(&report);
    assert!(!xml.contains("<img") && !xml.contains('\u{1}'));

    let text = markdown(&report);
    assert!(!text.contains("<img") && !text.contains("</script>"));
    assert!(!text.contains(HOSTILE) && !text.contains(" @team"));
    for table in text.split("\n\n").filter(|block| block.starts_with("| ")) {
        let columns: Vec<_> = table.lines().map(|row| row.matches('|').count()).collect();
        assert!(columns.iter().all(|n| *n == columns[0]), "{table}");
    }
}

#[test]
fn markdown_has_no_invisible_characters_in_numbers() {
    let text = markdown(&report(&slow()));
    assert!(text.contains("| 699.4ms |"));
    assert!(!text.contains('\u{2060}'));
}

#[test]
fn markdown_fits_into_a_comment() {
    let mut view = hostile();
    let status = view.test.status.as_mut().unwrap();
    let mut threshold = Threshold::strict("`|<".repeat(300));
    threshold.message = Some("x".repeat(1000));
    threshold.held = Some(false);
    status.thresholds = Some(vec![threshold; 201]);
    let worker = view.workers[0].clone();
    view.workers = vec![worker; 50];
    let text = markdown(&report(&view));
    let length = text.chars().count();
    assert!(length < 65_536, "{length}");
    assert!(text.contains("more thresholds are not shown."));
    assert!(text.contains("50 more workers with a problem are not shown."));
}

/// The names of the test cases with the elements that they contain.
fn junit_cases(view: &View) -> Vec<(String, String)> {
    let xml = junit(&report(view));
    let cases = xml.lines().filter(|line| line.contains("<testcase"));
    let part = |text: &str, from: &str, to: &[char]| {
        let rest = text.split_once(from).map_or("", |(_, rest)| rest);
        rest.split(to).next().unwrap_or_default().to_owned()
    };
    let case = |line: &str| {
        let result = part(line, "><", &[' ']);
        (part(line, " name=\"", &['"']), result)
    };
    cases.map(case).collect()
}

#[test]
fn junit_has_a_case_for_everything_that_the_verdict_depends_on() {
    let results = |view: &View| -> Vec<_> {
        let cases = junit_cases(view).into_iter();
        cases.map(|(_, result)| result).collect()
    };
    let names: Vec<_> = junit_cases(&slow())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        [
            "Test completed",
            "http.response_time.p95 &lt; 500",
            "http.response_time.p99 &lt; 2000",
            "http.codes.503 &lt; 100",
            "maxErrorRate &lt; 5",
            "Planned load delivered",
            "Results accepted"
        ]
    );
    assert_eq!(
        results(&slow()),
        ["", "failure", "", "failure", "", "", "skipped"]
    );
    assert_eq!(results(&passed()), ["", "", "", ""]);
    assert_eq!(results(&inconclusive()), ["", "", "error", "skipped"]);
    assert_eq!(
        results(&not_started()),
        ["failure", "skipped", "skipped", "skipped"]
    );
    assert_eq!(
        results(&running()),
        ["error", "skipped", "skipped", "skipped"]
    );
    assert!(junit(&report(&slow())).contains(r#"tests="7" failures="2" errors="0" skipped="1""#));
}

#[test]
fn junit_fails_also_when_no_threshold_explains_the_verdict() {
    let mut view = passed();
    let status = view.test.status.as_mut().unwrap();
    status.verdict = Some(loadtest_api::v1alpha1::Verdict::Failed);
    status.conditions[1] = serde_json::from_value(json!({
        "type": "Passed", "status": "False", "reason": "ExpectationsNotMet", "message": "3 expectations not met.",
        "lastTransitionTime": "2026-01-01T12:05:21Z"
    }))
    .unwrap();
    let last = junit_cases(&view).pop().unwrap();
    assert_eq!(last, ("Results accepted".to_owned(), "failure".to_owned()));
}

#[test]
fn threshold_that_is_not_strict_does_not_fail_the_suite() {
    let mut view = passed();
    let status = view.test.status.as_mut().unwrap();
    let mut threshold = Threshold::new("http.response_time.p95 < 1", false);
    threshold.held = Some(false);
    status.thresholds = Some(vec![threshold]);
    let xml = junit(&report(&view));
    assert!(xml.contains(r#"failures="0" errors="0" skipped="1""#));
}
