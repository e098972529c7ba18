#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use super::*;

fn test(phase: Option<Phase>) -> Arc<LoadTest> {
    let test = serde_json::json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": "t"},
        "spec": {"testScript": {}}, "status": {"phase": phase}});
    Arc::new(serde_json::from_value(test).unwrap())
}

/// Returns metrics with at least one series each.
fn scrape(tests: &[Arc<LoadTest>]) -> TestsAtScrape {
    TestsAtScrape {
        phases: tests.iter().map(|test| test.phase()).collect(),
        started: tests.to_vec(),
    }
}

fn populated() -> Metrics {
    let metrics = Metrics::default();
    metrics.add_source(|| scrape(&[test(None), results::tests::finished("a", 1)]));
    metrics.record_request(&ApiRequest {
        verb: "get",
        resource: "jobs",
        code: 404,
    });
    metrics.reconcile_started();
    metrics.reconcile_finished(Duration::from_millis(5), Some(ErrorClass::Conflict));
    metrics.set_leader(true);
    metrics
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "{line} in:\n{text}");
    }
}

#[test]
fn recorded_values_are_rendered() {
    let metrics = populated();
    metrics.job_created(Duration::from_millis(700));
    metrics.record_phase(
        Some(Phase::Starting),
        Some(Phase::Running),
        Duration::from_secs(3),
    );
    metrics.record_phase(
        Some(Phase::Running),
        Some(Phase::Running),
        Duration::from_secs(13),
    );
    let text = metrics.render(Format::Prometheus);
    assert_has(
        &text,
        &[
            "artillery_operator_build_info{version=\"0.1.0\"} 1"
                .replace("0.1.0", env!("CARGO_PKG_VERSION"))
                .as_str(),
            "artillery_operator_reconcile_duration_seconds_count 1",
            "artillery_operator_reconcile_errors_total{class=\"conflict\"} 1",
            "artillery_operator_reconcile_errors_total{class=\"deadline\"} 0",
            "artillery_operator_watch_errors_total{resource=\"pods\"} 0",
            "artillery_operator_api_requests_total{verb=\"get\",resource=\"jobs\",code=\"404\"} 1",
            "artillery_operator_reconciles_in_flight 0",
            "artillery_operator_leader 1",
            "artillery_operator_phase_changes_total{phase=\"Running\"} 1",
            "artillery_operator_time_to_job_seconds_bucket{le=\"1.0\"} 1",
            "artillery_operator_time_to_running_seconds_sum 3.0",
        ],
    );
}

#[test]
fn load_tests_are_counted_at_each_scrape_over_all_scopes() {
    let metrics = Metrics::default();
    assert!(
        !metrics
            .render(Format::Prometheus)
            .contains("artillery_operator_loadtests{"),
        "a standby replica"
    );
    let existing = Arc::new(Mutex::new(vec![test(None), test(Some(Phase::Running))]));
    let source = existing.clone();
    metrics.add_source(move || scrape(&source.lock().unwrap()));
    metrics.add_source(|| scrape(&[test(Some(Phase::Running))]));
    let line = |phase, count| format!("artillery_operator_loadtests{{phase=\"{phase}\"}} {count}");
    assert_has(
        &metrics.render(Format::Prometheus),
        &[&line("New", 1), &line("Running", 2), &line("Failed", 0)],
    );
    existing.lock().unwrap().clear();
    assert_has(
        &metrics.render(Format::Prometheus),
        &[&line("New", 0), &line("Running", 1)],
    );
}

#[test]
fn prometheus_format_names_counters_like_their_samples() {
    let open = "# HELP a_seconds Help: a total.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\n\
                # HELP b Help.\n# TYPE b gauge\nb{c=\"# EOF\"} 1\n# EOF\n";
    let expected = "# HELP a_seconds_total Help: a total.\n# TYPE a_seconds_total counter\na_seconds_total 1\n\
                    # HELP b Help.\n# TYPE b gauge\nb{c=\"# EOF\"} 1\n";
    assert_eq!(to_prometheus_text(open), expected);
}

#[test]
fn format_follows_the_accept_header() {
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    assert_eq!(Format::accepted("*/*"), Format::Prometheus);
    assert!(populated().render(Format::OpenMetrics).ends_with("# EOF\n"));
}

/// Returns the words of a text that have a prefix of the operator's metrics.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(word)
        .filter(|w| w.starts_with("artillery_operator_") || w.starts_with("process_"))
        .collect()
}

#[test]
fn documentation_lists_every_metric_and_alerts_use_existing_ones() {
    let text = populated().render(Format::Prometheus);
    let families: BTreeSet<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let operations = include_str!("../../../docs/operator/metrics.md");
    let documented = metric_names(operations);
    let undocumented: Vec<_> = families.difference(&documented).collect();
    assert!(
        undocumented.is_empty(),
        "not in docs/operator/metrics.md: {undocumented:?}"
    );
    let uses = [
        include_str!("../../../config/prometheus/alerts.yaml"),
        include_str!("../../../config/prometheus/dashboard.json"),
        operations,
    ];
    for name in uses.into_iter().flat_map(metric_names) {
        let family = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|s| name.strip_suffix(s))
            .unwrap_or(name);
        assert!(
            families.contains(family) || families.contains(name),
            "unknown metric {name}"
        );
    }
}
