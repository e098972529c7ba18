//! Prometheus metrics. Labels have a small, fixed set of values, except for the results of recently finished tests.

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

pub(crate) use self::format::Format;
use self::format::to_prometheus_text;
use self::process::Process;
use crate::runtime::api_error::ErrorClass;
use crate::runtime::lock;
use loadtest_api::v1alpha1::{LoadTest, Phase};

mod format;
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
    missing_fields: Gauge,
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
pub(crate) struct ApiRequest {
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
        let missing_fields = Gauge::default();
        registry.register(
            "crd_missing_fields",
            "Fields of this version's CRD that the installed CRD does not have",
            missing_fields.clone(),
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
            missing_fields,
            phase_changes,
            time_to_job,
            time_to_running,
            tests,
        }
    }
}

impl Metrics {
    /// Records the start of a reconcile.
    pub(crate) fn reconcile_started(&self) {
        self.reconciles_in_flight.inc();
    }

    /// Records the end of a reconcile, and the class of its error.
    pub(crate) fn reconcile_finished(&self, took: Duration, error: Option<ErrorClass>) {
        self.reconciles_in_flight.dec();
        self.reconcile_duration.observe(took.as_secs_f64());
        if let Some(class) = error.map(ErrorClass::as_str) {
            self.reconcile_errors
                .get_or_create(&ClassLabel { class })
                .inc();
        }
    }

    /// Counts a watch that failed.
    pub(crate) fn watch_failed(&self, resource: &'static str) {
        self.watch_errors
            .get_or_create(&ResourceLabel { resource })
            .inc();
    }

    /// Counts a request to the API server.
    pub(crate) fn record_request(&self, request: &ApiRequest) {
        self.api_requests.get_or_create(request).inc();
    }

    /// Counts a `LoadTest` that could not be parsed.
    pub(crate) fn load_test_invalid(&self) {
        self.invalid_load_tests.inc();
    }

    /// Records whether this replica is the leader.
    pub fn set_leader(&self, is_leader: bool) {
        self.leader.set(i64::from(is_leader));
    }

    /// Records how many fields the installed CRD does not have.
    pub(crate) fn record_missing_fields(&self, count: usize) {
        self.missing_fields
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Records the age of a test when its Job is created.
    pub(crate) fn job_created(&self, age: Duration) {
        self.time_to_job.observe(age.as_secs_f64());
    }

    /// Records a phase change, and the age of a test when its workers run.
    pub(crate) fn record_phase(&self, before: Option<Phase>, after: Option<Phase>, age: Duration) {
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
    pub(crate) fn add_source(&self, tests: impl Fn() -> TestsAtScrape + Send + Sync + 'static) {
        lock(&self.tests.0).push(Box::new(tests));
    }

    /// Renders all metrics.
    #[must_use]
    pub(crate) fn render(&self, format: Format) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        match format {
            Format::Prometheus => to_prometheus_text(&text),
            Format::OpenMetrics => text,
        }
    }
}

/// The LoadTests of one watch scope, or of all.
#[derive(Debug, Default)]
pub(crate) struct TestsAtScrape {
    /// The phase of each.
    pub phases: Vec<Option<Phase>>,
    /// Those that have started, which includes those that have finished.
    pub started: Vec<Arc<LoadTest>>,
}

/// Returns the LoadTests of one watch scope.
type Source = Box<dyn Fn() -> TestsAtScrape + Send + Sync>;

/// The sources of LoadTests. A standby replica has none and reports no LoadTests.
#[derive(Clone, Default)]
struct Tests(Arc<Mutex<Vec<Source>>>);

impl fmt::Debug for Tests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tests").finish_non_exhaustive()
    }
}

impl Tests {
    fn all(&self) -> Option<TestsAtScrape> {
        let sources = lock(&self.0);
        let mut all = TestsAtScrape::default();
        for source in sources.iter() {
            let tests = source();
            all.phases.extend(tests.phases);
            all.started.extend(tests.started);
        }
        (!sources.is_empty()).then_some(all)
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
        for phase in tests.phases {
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
mod tests;
