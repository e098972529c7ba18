//! Metrics with the results of recently finished tests.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::Tests;
use loadtest_api::v1alpha1::{
    ArrivalDelay, DeliveredLoad, Distribution, LoadTest, Results, Verdict,
};

/// The maximum number of tests whose results are shown. Each test adds series to Prometheus.
const MAX_FINISHED: usize = 100;

#[derive(Debug)]
pub(super) struct Finished(pub(super) Tests);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TestLabels {
    namespace: String,
    loadtest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuantileLabels {
    namespace: String,
    loadtest: String,
    quantile: &'static str,
}

/// Computes the value of a gauge. None if it is unknown.
type Value = fn(&LoadTest, &Results) -> Option<f64>;

/// The series of one test and one quantile, in milliseconds.
type Quantiles = fn(&Results) -> Vec<(&'static str, Option<f64>)>;

/// Quantiles cannot be encoded as summaries (prometheus-client has none).
const QUANTILES: [(&str, &str, Quantiles); 2] = [
    (
        "loadtest_response_time",
        "Response time quantiles.",
        |results| {
            let times = results.response_time();
            let quantile = |of: fn(&Distribution) -> Option<f64>| times.and_then(of);
            vec![
                ("0.5", quantile(|times| times.p50)),
                ("0.95", quantile(|times| times.p95)),
                ("0.99", quantile(|times| times.p99)),
            ]
        },
    ),
    (
        "loadtest_arrival_delay",
        "Quantiles of the delay with which virtual users arrived.",
        |results| {
            let delay = load(results).and_then(|load| load.arrival_delay.as_ref());
            let quantile = |of: fn(&ArrivalDelay) -> Option<f64>| delay.and_then(of);
            vec![
                ("0.5", quantile(|delay| delay.p50)),
                ("0.99", quantile(|delay| delay.p99)),
                ("1", quantile(|delay| delay.max)),
            ]
        },
    ),
];

/// Counts stay far below 2^53, so the conversion to f64 is exact.
#[allow(clippy::cast_precision_loss)]
const GAUGES: [(&str, &str, Value); 13] = [
    ("loadtest_passed", "Whether the test passed.", |test, _| {
        Some(has_verdict(test, Verdict::Passed))
    }),
    (
        "loadtest_inconclusive",
        "Whether no threshold is violated, but the load was not delivered.",
        |test, _| Some(has_verdict(test, Verdict::Inconclusive)),
    ),
    (
        "loadtest_requests",
        "Requests sent by the workers.",
        |_, results| Some(results.requests as f64),
    ),
    (
        "loadtest_request_rate",
        "Requests per second.",
        |_, results| Some(results.request_rate),
    ),
    (
        "loadtest_errors",
        "Errors of all kinds. HTTP status codes are not errors.",
        |_, results| Some(results.errors as f64),
    ),
    (
        "loadtest_vusers_completed",
        "Virtual users that completed their scenario.",
        |_, results| Some(results.vusers_completed as f64),
    ),
    (
        "loadtest_vusers_failed",
        "Virtual users that failed.",
        |_, results| Some(results.vusers_failed as f64),
    ),
    (
        "loadtest_vusers_planned",
        "Virtual users that the script's phases plan.",
        |_, results| Some(load(results)?.planned_vusers? as f64),
    ),
    (
        "loadtest_vusers_created",
        "Virtual users that were created.",
        |_, results| Some(load(results)?.created_vusers as f64),
    ),
    (
        "loadtest_vusers_skipped",
        "Virtual users that were not created because maxVusers was reached.",
        |_, results| Some(load(results)?.skipped_vusers as f64),
    ),
    (
        "loadtest_planned_load_seconds",
        "Duration of the script's phases by plan.",
        |_, results| load(results)?.planned_seconds,
    ),
    (
        "loadtest_actual_load_seconds",
        "Time that the script's phases took on the slowest worker.",
        |_, results| load(results)?.actual_seconds,
    ),
    (
        "loadtest_saturated_workers",
        "Workers that sent their load too late.",
        |_, results| {
            let generators = results.generators.as_ref()?;
            generators.saturated_workers().map(f64::from)
        },
    ),
];

fn has_verdict(test: &LoadTest, verdict: Verdict) -> f64 {
    let has = test
        .status
        .as_ref()
        .is_some_and(|s| s.verdict == Some(verdict));
    f64::from(u8::from(has))
}

fn load(results: &Results) -> Option<&DeliveredLoad> {
    results.load.as_ref()
}

/// Returns the tests with results that finished last, newest first.
fn latest(tests: Vec<Arc<LoadTest>>) -> Vec<Arc<LoadTest>> {
    let completed = |test: &Arc<LoadTest>| {
        test.status
            .as_ref()
            .and_then(|s| s.completion_time.as_ref())
            .map(|t| t.0)
    };
    let mut tests: Vec<_> = tests
        .into_iter()
        .filter(|t| results(t).is_some() && completed(t).is_some())
        .collect();
    tests
        .sort_by_cached_key(|test| std::cmp::Reverse((completed(test), test.metadata.uid.clone())));
    tests.truncate(MAX_FINISHED);
    tests
}

fn results(test: &LoadTest) -> Option<&Results> {
    test.status.as_ref()?.results.as_deref()
}

impl Collector for Finished {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(tests) = self.0.all().map(|tests| latest(tests.started)) else {
            return Ok(());
        };
        let names = |test: &LoadTest| {
            let metadata = test.metadata.clone();
            (
                metadata.namespace.unwrap_or_default(),
                metadata.name.unwrap_or_default(),
            )
        };
        for (gauge, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(gauge, help, None, MetricType::Gauge)?;
            for test in &tests {
                let Some(value) = results(test).and_then(|results| value(test, results)) else {
                    continue;
                };
                let (namespace, loadtest) = names(test);
                family
                    .encode_family(&TestLabels {
                        namespace,
                        loadtest,
                    })?
                    .encode_gauge(&value)?;
            }
        }
        for (name, help, quantiles) in QUANTILES {
            let mut family =
                encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            for test in &tests {
                for (quantile, ms) in results(test).map(quantiles).unwrap_or_default() {
                    let Some(ms) = ms else { continue };
                    let (namespace, loadtest) = names(test);
                    family
                        .encode_family(&QuantileLabels {
                            namespace,
                            loadtest,
                            quantile,
                        })?
                        .encode_gauge(&(ms / 1000.0))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::{Format, Metrics, TestsAtScrape};
    use super::*;
    use loadtest_api::v1alpha1::Generators;

    /// Returns a test that finished `seconds` after a fixed instant.
    pub(in crate::runtime::metrics) fn finished(name: &str, seconds: i64) -> Arc<LoadTest> {
        let time = k8s_openapi::jiff::Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let results = Results {
            requests: 12,
            request_rate: 1.5,
            errors: 2,
            load: Some(DeliveredLoad {
                planned_vusers: Some(8000),
                created_vusers: 7900,
                skipped_vusers: 100,
                planned_seconds: Some(20.0),
                actual_seconds: Some(57.4),
                arrival_delay: Some(ArrivalDelay {
                    p99: Some(36_600.0),
                    ..ArrivalDelay::default()
                }),
                ..DeliveredLoad::default()
            }),
            generators: Some(Generators {
                saturated: "3 of 4".into(),
                ..Generators::default()
            }),
            ..Results::default()
        };
        let mut results = serde_json::to_value(results).unwrap();
        results["histograms"] = json!([{"name": "http.response_time", "count": 12, "p50": 20.0, "p95": 48.9, "errorBound": "1%"}]);
        let test = json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
            "metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"testScript": {}},
            "status": {"phase": "Completed", "verdict": "Passed", "completionTime": time.to_string(), "results": results}});
        Arc::new(serde_json::from_value(test).unwrap())
    }

    #[test]
    fn results_of_the_latest_tests_are_shown() {
        let metrics = Metrics::default();
        metrics.add_source(|| TestsAtScrape {
            phases: Vec::new(),
            started: (0..150).map(|n| finished(&format!("t{n}"), n)).collect(),
        });
        let text = metrics.render(Format::Prometheus);
        let lines = |name: &str| {
            text.lines()
                .filter(|l| l.starts_with(&format!("artillery_operator_{name}{{")))
                .count()
        };
        assert_eq!(
            (
                lines("loadtest_passed"),
                lines("loadtest_response_time_seconds")
            ),
            (MAX_FINISHED, 2 * MAX_FINISHED)
        );
        for line in [
            r#"artillery_operator_loadtest_passed{namespace="n",loadtest="t149"} 1.0"#,
            r#"artillery_operator_loadtest_errors{namespace="n",loadtest="t50"} 2.0"#,
            r#"artillery_operator_loadtest_inconclusive{namespace="n",loadtest="t149"} 0.0"#,
            r#"artillery_operator_loadtest_vusers_planned{namespace="n",loadtest="t149"} 8000.0"#,
            r#"artillery_operator_loadtest_vusers_created{namespace="n",loadtest="t149"} 7900.0"#,
            r#"artillery_operator_loadtest_vusers_skipped{namespace="n",loadtest="t149"} 100.0"#,
            r#"artillery_operator_loadtest_planned_load_seconds{namespace="n",loadtest="t149"} 20.0"#,
            r#"artillery_operator_loadtest_actual_load_seconds{namespace="n",loadtest="t149"} 57.4"#,
            r#"artillery_operator_loadtest_arrival_delay_seconds{namespace="n",loadtest="t149",quantile="0.99"} 36.6"#,
            r#"artillery_operator_loadtest_saturated_workers{namespace="n",loadtest="t149"} 3.0"#,
            r#"artillery_operator_loadtest_response_time_seconds{namespace="n",loadtest="t149",quantile="0.95"} 0.0489"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in:\n{text}");
        }
        assert!(
            !text.contains(r#"loadtest="t49""#),
            "an older test is not shown"
        );
    }
}
