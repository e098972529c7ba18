//! Metrics for Prometheus. No label ever holds the name of an object.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    reconcile_duration: Histogram,
    reconcile_errors: Family<Class, Counter>,
    watch_errors: Family<Resource, Counter>,
    unreadable: Counter,
    leader: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    resource: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("artillery_operator");
        let reconcile_duration = Histogram::new(exponential_buckets(0.001, 4.0, 8));
        let (reconcile_errors, watch_errors) = (Family::default(), Family::default());
        let (unreadable, leader) = (Counter::default(), Gauge::<i64, std::sync::atomic::AtomicI64>::default());
        registry.register_with_unit("reconcile_duration", "Time that reconciles took", Unit::Seconds, reconcile_duration.clone());
        registry.register("reconcile_errors", "Reconciles that failed, by class of the error", reconcile_errors.clone());
        registry.register("watch_errors", "Watches that failed, by resource", watch_errors.clone());
        registry.register("unreadable_loadtests", "LoadTests that could not be parsed", unreadable.clone());
        registry.register("leader", "1 while this replica does the work, else 0", leader.clone());
        Self { registry, reconcile_duration, reconcile_errors, watch_errors, unreadable, leader }
    }
}

impl Metrics {
    /// Counts a reconcile, and its error by class.
    pub fn reconciled(&self, took: Duration, error: Option<&'static str>) {
        self.reconcile_duration.observe(took.as_secs_f64());
        if let Some(class) = error {
            self.reconcile_errors.get_or_create(&Class { class }).inc();
        }
    }

    /// Counts a watch that failed.
    pub fn watch_failed(&self, resource: &'static str) {
        self.watch_errors.get_or_create(&Resource { resource }).inc();
    }

    /// Counts a `LoadTest` that could not be parsed.
    pub fn unreadable(&self) {
        self.unreadable.inc();
    }

    /// Notes whether this replica does the work.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All metrics in the `OpenMetrics` text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_as_prometheus_wants_them() {
        let metrics = Metrics::default();
        metrics.reconciled(Duration::from_millis(5), Some("conflict"));
        metrics.leads(true);
        let text = metrics.text();
        for line in [
            "artillery_operator_reconcile_duration_seconds_count 1",
            "artillery_operator_reconcile_errors_total{class=\"conflict\"} 1",
            "artillery_operator_leader 1",
        ] {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
    }
}
