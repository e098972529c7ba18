//! Metrics for Prometheus. But for the results of the tests that ended last, no label holds the name of an object, and the
//! values of each are few.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
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
use loadtest_api::v1alpha1::{LoadTest, Phase};

mod process;
mod results;

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    reconcile_duration: Histogram,
    reconciles_in_flight: Gauge,
    reconcile_errors: Family<Class, Counter>,
    watch_errors: Family<Resource, Counter>,
    api_requests: Family<ApiRequest, Counter>,
    unreadable: Counter,
    leader: Gauge,
    phase_changes: Family<InPhase, Counter>,
    time_to_job: Histogram,
    time_to_running: Histogram,
    tests: Tests,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

/// A request to the API server, in words from small fixed sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiRequest {
    /// What it asked for, such as `list`.
    pub verb: &'static str,
    /// Of which resource, such as `loadtests/status`.
    pub resource: &'static str,
    /// The HTTP status of the answer, or 0 where there was none.
    pub code: u16,
}

/// The phases of tests, and `New` for tests that have none yet.
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

/// The resources whose watches are counted.
const WATCHED: [&str; 3] = ["loadtests", "jobs", "pods"];

/// Up to how many seconds a test may take to begin and still be told from slower ones.
const STARTUP_BUCKETS: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::default();
        all.register_collector(Box::new(Process::new()));
        let registry = all.sub_registry_with_prefix("artillery_operator");

        let version: Family<Version, Gauge> = Family::default();
        version
            .get_or_create(&Version {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        registry.register(
            "build_info",
            "Always 1; the operator's version is in the label",
            version,
        );
        let leader = Gauge::default();
        registry.register(
            "leader",
            "1 while this replica does the work, else 0",
            leader.clone(),
        );

        let reconcile_duration = Histogram::new(exponential_buckets(0.001, 4.0, 8));
        registry.register_with_unit(
            "reconcile_duration",
            "Time that reconciles took",
            Unit::Seconds,
            reconcile_duration.clone(),
        );
        let reconciles_in_flight = Gauge::default();
        registry.register(
            "reconciles_in_flight",
            "Reconciles under way",
            reconciles_in_flight.clone(),
        );
        let reconcile_errors: Family<Class, Counter> = Family::default();
        registry.register(
            "reconcile_errors",
            "Reconciles that failed, by class of the error",
            reconcile_errors.clone(),
        );
        let watch_errors: Family<Resource, Counter> = Family::default();
        registry.register(
            "watch_errors",
            "Watches that failed, by resource",
            watch_errors.clone(),
        );
        let api_requests = Family::default();
        registry.register(
            "api_requests",
            "Requests to the API server; code 0: not answered",
            api_requests.clone(),
        );
        let unreadable = Counter::default();
        registry.register(
            "unreadable_loadtests",
            "LoadTests that could not be parsed",
            unreadable.clone(),
        );

        let tests = Tests::default();
        registry.register_collector(Box::new(LoadTestsByPhase(tests.clone())));
        registry.register_collector(Box::new(results::Finished(tests.clone())));
        let phase_changes: Family<InPhase, Counter> = Family::default();
        registry.register(
            "phase_changes",
            "LoadTests that came into a phase",
            phase_changes.clone(),
        );
        let [time_to_job, time_to_running] = [(); 2].map(|()| Histogram::new(STARTUP_BUCKETS));
        registry.register_with_unit(
            "time_to_job",
            "Time from the creation of a LoadTest to that of its Job",
            Unit::Seconds,
            time_to_job.clone(),
        );
        registry.register_with_unit(
            "time_to_running",
            "Time from the creation of a LoadTest until all its workers had started",
            Unit::Seconds,
            time_to_running.clone(),
        );

        // A series that begins with its first error would hide that error from rate().
        for class in ErrorClass::ALL {
            let class = class.as_str();
            drop(reconcile_errors.get_or_create(&Class { class }));
        }
        for resource in WATCHED {
            drop(watch_errors.get_or_create(&Resource { resource }));
        }
        for phase in PHASES.into_iter().flatten() {
            drop(phase_changes.get_or_create(&InPhase {
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
            unreadable,
            leader,
            phase_changes,
            time_to_job,
            time_to_running,
            tests,
        }
    }
}

/// The text formats of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4, which everything reads.
    Plain,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format for a client that accepts this.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Plain
        }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    /// Notes that a reconcile begins.
    pub fn reconcile_started(&self) {
        self.reconciles_in_flight.inc();
    }

    /// Counts a reconcile that ended, and its error by class.
    pub fn reconcile_finished(&self, took: Duration, error: Option<ErrorClass>) {
        self.reconciles_in_flight.dec();
        self.reconcile_duration.observe(took.as_secs_f64());
        if let Some(class) = error.map(ErrorClass::as_str) {
            self.reconcile_errors.get_or_create(&Class { class }).inc();
        }
    }

    /// Counts a watch that failed.
    pub fn watch_failed(&self, resource: &'static str) {
        self.watch_errors
            .get_or_create(&Resource { resource })
            .inc();
    }

    /// Counts a request to the API server.
    pub fn record_request(&self, request: &ApiRequest) {
        self.api_requests.get_or_create(request).inc();
    }

    /// Counts a `LoadTest` that could not be parsed.
    pub fn load_test_invalid(&self) {
        self.unreadable.inc();
    }

    /// Notes whether this replica does the work.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Counts a Job that was created for a test of this age.
    pub fn job_created(&self, age: Duration) {
        self.time_to_job.observe(age.as_secs_f64());
    }

    /// Counts a phase that was written for a test of this age.
    pub fn record_phase(&self, before: Option<Phase>, after: Option<Phase>, age: Duration) {
        let Some(phase) = after.filter(|_| before != after) else {
            return;
        };
        self.phase_changes
            .get_or_create(&InPhase {
                phase: phase.as_str(),
            })
            .inc();
        if phase == Phase::Running {
            self.time_to_running.observe(age.as_secs_f64());
        }
    }

    /// Lets the tests be looked at whenever metrics are read. Called once for each scope that is worked in.
    pub fn add_source(&self, tests: impl Fn() -> Vec<Arc<LoadTest>> + Send + Sync + 'static) {
        self.tests
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(tests));
    }

    /// All metrics.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        match format {
            Format::Plain => to_prometheus_text(&text),
            Format::OpenMetrics => text,
        }
    }
}

/// Prometheus' own text format, from `OpenMetrics`: there a counter's help and type go without the `_total` of its
/// samples, and there are two kinds of lines more.
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

/// Gives the tests of one scope.
type Scope = Box<dyn Fn() -> Vec<Arc<LoadTest>> + Send + Sync>;

/// The tests that there are. A replica that does not work knows none, and says nothing.
#[derive(Clone, Default)]
struct Tests(Arc<Mutex<Vec<Scope>>>);

impl fmt::Debug for Tests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tests").finish_non_exhaustive()
    }
}

impl Tests {
    fn all(&self) -> Option<Vec<Arc<LoadTest>>> {
        let scopes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!scopes.is_empty()).then(|| scopes.iter().flat_map(|tests| tests()).collect())
    }
}

/// The tests, counted by phase when metrics are read.
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
            "LoadTests that there are, by phase.",
            None,
            MetricType::Gauge,
        )?;
        for (phase, count) in PHASES.into_iter().zip(counts) {
            family
                .encode_family(&InPhase { phase: name(phase) })?
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

    /// Metrics of which each has at least one series.
    fn used() -> Metrics {
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
    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn counts_have_their_lines() {
        let metrics = used();
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
        let text = metrics.render(Format::Plain);
        has(
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
    fn tests_are_counted_anew_each_time_and_over_all_scopes() {
        let metrics = Metrics::default();
        assert!(
            !metrics
                .render(Format::Plain)
                .contains("artillery_operator_loadtests{"),
            "a replica that does not work"
        );
        let there = Arc::new(Mutex::new(vec![test(None), test(Some(Phase::Running))]));
        let counted = there.clone();
        metrics.add_source(move || counted.lock().unwrap().clone());
        metrics.add_source(|| vec![test(Some(Phase::Running))]);
        let line =
            |phase, count| format!("artillery_operator_loadtests{{phase=\"{phase}\"}} {count}");
        has(
            &metrics.render(Format::Plain),
            &[&line("New", 1), &line("Running", 2), &line("Failed", 0)],
        );
        there.lock().unwrap().clear();
        has(
            &metrics.render(Format::Plain),
            &[&line("New", 0), &line("Running", 1)],
        );
    }

    #[test]
    fn the_plain_format_names_counters_as_their_samples() {
        let open = "# HELP a_seconds Help: a total.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\n\
                    # HELP b Help.\n# TYPE b gauge\nb{c=\"# EOF\"} 1\n# EOF\n";
        let expected = "# HELP a_seconds_total Help: a total.\n# TYPE a_seconds_total counter\na_seconds_total 1\n\
                        # HELP b Help.\n# TYPE b gauge\nb{c=\"# EOF\"} 1\n";
        assert_eq!(to_prometheus_text(open), expected);
    }

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Plain);
        assert!(used().render(Format::OpenMetrics).ends_with("# EOF\n"));
    }

    /// The names in a text that begin as the operator's metrics do.
    fn named(text: &str) -> BTreeSet<&str> {
        let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        text.split(word)
            .filter(|w| w.starts_with("artillery_operator_") || w.starts_with("process_"))
            .collect()
    }

    #[test]
    fn the_documentation_names_every_metric_and_what_is_used_elsewhere_exists() {
        let text = used().render(Format::Plain);
        let families: BTreeSet<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let operations = include_str!("../../docs/operator/metrics.md");
        let documented = named(operations);
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
        for name in uses.into_iter().flat_map(named) {
            let family = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|s| name.strip_suffix(s))
                .unwrap_or(name);
            assert!(
                families.contains(family) || families.contains(name),
                "there is no metric {name}"
            );
        }
    }
}
