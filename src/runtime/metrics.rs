//! Prometheus metrics. Labels have a small, fixed set of values, except for the results of recently finished tests.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use self::process::Process;
use crate::runtime::api_error::ErrorClass;
use crate::runtime::lock;
use loadtest_api::v1alpha1::{LoadTest, Phase};

mod process;
mod results;

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    reconcile_duration: Histogram,
    reconciles_in_flight: Gauge,
    reconcile_errors: Family<ClassLabel, Counter>,
    watch_errors: Family<ResourceLabel, Counter>,
    api_requests: Family<ApiRequest, Counter>,
    invalid_load_tests: Counter,
    leader: Gauge,
    phase_changes: Family<PhaseLabel, Counter>,
    time_to_job: Histogram,
    time_to_running: Histogram,
    tests: Tests,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabel {
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

/// The labels of a request to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiRequest {
    /// The verb, such as `list`.
    pub verb: &'static str,
    /// The resource, such as `loadtests/status`.
    pub resource: &'static str,
    /// The HTTP status of the response, or 0 without a response.
    pub code: u16,
}

/// The phases of tests. None stands for tests without a status, which are reported as `New`.
const PHASES: [Option<Phase>; 9] = [
    None,
    Some(Phase::Pending),
    Some(Phase::Suspended),
    Some(Phase::Starting),
    Some(Phase::Running),
    Some(Phase::Stopping),
    Some(Phase::Completed),
    Some(Phase::Failed),
    Some(Phase::Stopped),
];

fn name(phase: Option<Phase>) -> &'static str {
    phase.map_or("New", Phase::as_str)
}

/// The resources that the operator watches.
const WATCHED_RESOURCES: [&str; 3] = ["loadtests", "jobs", "pods"];

/// The histogram buckets of startup times, in seconds.
const STARTUP_BUCKETS: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::default();
        all.register_collector(Box::new(Process::new()));
        let registry = all.sub_registry_with_prefix("artillery_operator");

        let version: Family<VersionLabel, Gauge> = Family::default();
        version
            .get_or_create(&VersionLabel {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        registry.register(
            "build_info",
            "Constant 1, labeled with the operator's version",
            version,
        );
        let leader = Gauge::default();
        registry.register(
            "leader",
            "Whether this replica is the leader",
            leader.clone(),
        );

        let reconcile_duration = Histogram::new(exponential_buckets(0.001, 4.0, 8));
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of reconciles",
            Unit::Seconds,
            reconcile_duration.clone(),
        );
        let reconciles_in_flight = Gauge::default();
        registry.register(
            "reconciles_in_flight",
            "Reconciles in flight",
            reconciles_in_flight.clone(),
        );
        let reconcile_errors: Family<ClassLabel, Counter> = Family::default();
        registry.register(
            "reconcile_errors",
            "Failed reconciles, by error class",
            reconcile_errors.clone(),
        );
        let watch_errors: Family<ResourceLabel, Counter> = Family::default();
        registry.register(
            "watch_errors",
            "Failed watches, by resource",
            watch_errors.clone(),
        );
        let api_requests = Family::default();
        registry.register(
            "api_requests",
            "Requests to the API server; code 0 means no response",
            api_requests.clone(),
        );
        let invalid_load_tests = Counter::default();
        registry.register(
            "unreadable_loadtests",
            "LoadTests that could not be parsed",
            invalid_load_tests.clone(),
        );

        let tests = Tests::default();
        registry.register_collector(Box::new(LoadTestsByPhase(tests.clone())));
        registry.register_collector(Box::new(results::Finished(tests.clone())));
        let phase_changes: Family<PhaseLabel, Counter> = Family::default();
        registry.register(
            "phase_changes",
            "Phase changes of LoadTests, by new phase",
            phase_changes.clone(),
        );
        let [time_to_job, time_to_running] = [(); 2].map(|()| Histogram::new(STARTUP_BUCKETS));
        registry.register_with_unit(
            "time_to_job",
            "Time from the creation of a LoadTest to the creation of its Job",
            Unit::Seconds,
            time_to_job.clone(),
        );
        registry.register_with_unit(
            "time_to_running",
            "Time from the creation of a LoadTest until all its workers run",
            Unit::Seconds,
            time_to_running.clone(),
        );

        // Series are initialized to 0, because rate() misses the first increment of a new series.
        for class in ErrorClass::ALL {
            let class = class.as_str();
            drop(reconcile_errors.get_or_create(&ClassLabel { class }));
        }
        for resource in WATCHED_RESOURCES {
            drop(watch_errors.get_or_create(&ResourceLabel { resource }));
        }
        for phase in PHASES.into_iter().flatten() {
            drop(phase_changes.get_or_create(&PhaseLabel {
                phase: phase.as_str(),
            }));
        }
        Self {
            registry: all,
            reconcile_duration,
            reconciles_in_flight,
            reconcile_errors,
            watch_errors,
            api_requests,
            invalid_load_tests,
            leader,
            phase_changes,
            time_to_job,
            time_to_running,
            tests,
        }
    }
}

/// The exposition formats of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format for the value of an `Accept` header.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Returns the media type of the format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    /// Records the start of a reconcile.
    pub fn reconcile_started(&self) {
        self.reconciles_in_flight.inc();
    }

    /// Records the end of a reconcile, and the class of its error.
    pub fn reconcile_finished(&self, took: Duration, error: Option<ErrorClass>) {
        self.reconciles_in_flight.dec();
        self.reconcile_duration.observe(took.as_secs_f64());
        if let Some(class) = error.map(ErrorClass::as_str) {
            self.reconcile_errors
                .get_or_create(&ClassLabel { class })
                .inc();
        }
    }

    /// Counts a watch that failed.
    pub fn watch_failed(&self, resource: &'static str) {
        self.watch_errors
            .get_or_create(&ResourceLabel { resource })
            .inc();
    }

    /// Counts a request to the API server.
    pub fn record_request(&self, request: &ApiRequest) {
        self.api_requests.get_or_create(request).inc();
    }

    /// Counts a `LoadTest` that could not be parsed.
    pub fn load_test_invalid(&self) {
        self.invalid_load_tests.inc();
    }

    /// Records whether this replica is the leader.
    pub fn set_leader(&self, is_leader: bool) {
        self.leader.set(i64::from(is_leader));
    }

    /// Records the age of a test when its Job is created.
    pub fn job_created(&self, age: Duration) {
        self.time_to_job.observe(age.as_secs_f64());
    }

    /// Records a phase change, and the age of a test when its workers run.
    pub fn record_phase(&self, before: Option<Phase>, after: Option<Phase>, age: Duration) {
        let Some(phase) = after.filter(|_| before != after) else {
            return;
        };
        self.phase_changes
            .get_or_create(&PhaseLabel {
                phase: phase.as_str(),
            })
            .inc();
        if phase == Phase::Running {
            self.time_to_running.observe(age.as_secs_f64());
        }
    }

    /// Registers a source of LoadTests, one for each watch scope. Sources are read at each scrape.
    pub fn add_source(&self, tests: impl Fn() -> Vec<Arc<LoadTest>> + Send + Sync + 'static) {
        lock(&self.tests.0).push(Box::new(tests));
    }

    /// Renders all metrics.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        match format {
            Format::Prometheus => to_prometheus_text(&text),
            Format::OpenMetrics => text,
        }
    }
}

/// Converts `OpenMetrics` to the Prometheus text format, which uses the sample name of a counter (`_total`) in HELP and
/// TYPE lines and has no UNIT and EOF lines.
fn to_prometheus_text(open_metrics: &str) -> String {
    let type_of_counter =
        |line| str::strip_prefix(line, "# TYPE ").and_then(|l| l.strip_suffix(" counter"));
    let counters: HashSet<&str> = open_metrics.lines().filter_map(type_of_counter).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics
        .lines()
        .filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF")
    {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(name) => {
                text.extend(["# ", kind, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// Returns the LoadTests of one watch scope.
type Source = Box<dyn Fn() -> Vec<Arc<LoadTest>> + Send + Sync>;

/// The sources of LoadTests. A standby replica has none and reports no LoadTests.
#[derive(Clone, Default)]
struct Tests(Arc<Mutex<Vec<Source>>>);

impl fmt::Debug for Tests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tests").finish_non_exhaustive()
    }
}

impl Tests {
    fn all(&self) -> Option<Vec<Arc<LoadTest>>> {
        let sources = lock(&self.0);
        (!sources.is_empty()).then(|| sources.iter().flat_map(|tests| tests()).collect())
    }
}

/// Collects the number of LoadTests by phase.
#[derive(Debug)]
struct LoadTestsByPhase(Tests);

impl Collector for LoadTestsByPhase {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(tests) = self.0.all() else {
            return Ok(());
        };
        let mut counts = [0_u64; PHASES.len()];
        for test in tests {
            let phase = test.status.as_ref().and_then(|s| s.phase);
            if let Some(place) = PHASES.iter().position(|p| *p == phase) {
                counts[place] += 1;
            }
        }
        let mut family = encoder.encode_descriptor(
            "loadtests",
            "Existing LoadTests, by phase.",
            None,
            MetricType::Gauge,
        )?;
        for (phase, count) in PHASES.into_iter().zip(counts) {
            family
                .encode_family(&PhaseLabel { phase: name(phase) })?
                .encode_gauge(&count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    fn test(phase: Option<Phase>) -> Arc<LoadTest> {
        let test = serde_json::json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": "t"},
            "spec": {"testScript": {}}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(test).unwrap())
    }

    /// Returns metrics with at least one series each.
    fn populated() -> Metrics {
        let metrics = Metrics::default();
        metrics.add_source(|| vec![test(None), results::tests::finished("a", 1)]);
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
        metrics.add_source(move || source.lock().unwrap().clone());
        metrics.add_source(|| vec![test(Some(Phase::Running))]);
        let line =
            |phase, count| format!("artillery_operator_loadtests{{phase=\"{phase}\"}} {count}");
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
        let operations = include_str!("../../docs/operator/metrics.md");
        let documented = metric_names(operations);
        let undocumented: Vec<_> = families.difference(&documented).collect();
        assert!(
            undocumented.is_empty(),
            "not in docs/operator/metrics.md: {undocumented:?}"
        );
        let uses = [
            include_str!("../../config/prometheus/alerts.yaml"),
            include_str!("../../config/prometheus/dashboard.json"),
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
}
