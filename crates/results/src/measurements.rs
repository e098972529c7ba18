//! The measurements of one worker, or of many merged.

use std::collections::{BTreeMap, BTreeSet};

use crate::load::{Generator, Load, LoadPlan};
use crate::sketch::Sketch;

/// Limits the memory that malicious workers can claim by reporting different metrics each. A single
/// worker is limited by the size of its termination message.
const MAX_COUNTERS: usize = 4000;
const MAX_HISTOGRAMS: usize = 200;
const MAX_DROPPED_NAMES: usize = 50;
const MAX_PROBLEMS: usize = 10;

/// Instead of a name: any metric may be missing.
const ANY: &str = "*";

/// The measurements of one worker, or of many merged. The merge is commutative and associative, so
/// the order of the workers does not matter, except for the last digit of sums of decimals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements {
    /// The number of workers merged.
    pub workers: u32,
    /// The number of workers with a partial snapshot: they had not finished, or failed.
    pub partial: u32,
    /// Upper bound of the number of metrics that did not fit into the snapshots; workers may have
    /// dropped the same ones. Metrics that the results or thresholds need are among them only if
    /// [`Self::may_be_missing`] returns true.
    pub dropped: u32,
    /// When the first and the last counter was incremented, in ms since 1970.
    pub(crate) first: Option<f64>,
    pub(crate) last: Option<f64>,
    /// When the load of the first and of the last worker started, by their own clocks, in ms since
    /// 1970.
    pub(crate) starts: Option<(f64, f64)>,
    pub(crate) counters: BTreeMap<MetricKey, f64>,
    pub(crate) histograms: BTreeMap<MetricKey, Sketch>,
    pub(crate) load: Load,
    /// The sum of the dropped `errors.*` counters.
    pub(crate) dropped_errors: f64,
    /// The names of dropped metrics that the results or thresholds need.
    pub(crate) dropped_names: BTreeSet<String>,
    /// The names of metrics that were dropped because a value is not a number, or a counter of Artillery's own is negative.
    pub(crate) invalid_names: BTreeSet<String>,
    /// Whether metrics were discarded because of the limits above.
    pub(crate) over_limit: bool,
    /// Whether the kubelet cut the results of a worker. Any metric of that worker may be missing.
    pub(crate) was_cut: bool,
    /// Descriptions of what is wrong with the results of a worker, except that they are partial.
    pub problems: BTreeSet<String>,
}

/// A metric name with its priority, the most important first, so that custom metrics cannot displace
/// those of Artillery.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MetricKey(u8, String);

/// The lowest priority.
const CUSTOM: u8 = 2;

/// Whether a metric is none of Artillery's own.
pub(crate) fn is_custom(name: &str) -> bool {
    ![
        "vusers.",
        "http.",
        "websocket.",
        "socketio.",
        "browser.",
        "errors.",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

impl MetricKey {
    fn new(name: &str) -> Self {
        // Scripts and failures can create any number of these.
        let unbounded = ["vusers.created_by_name.", "errors."]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        Self(
            if is_custom(name) {
                CUSTOM
            } else {
                u8::from(unbounded)
            },
            name.to_owned(),
        )
    }

    pub(crate) fn name(&self) -> &str {
        &self.1
    }
}

impl Measurements {
    /// Adds the measurements of other workers.
    pub fn merge(&mut self, other: &Self) {
        let is_of_one_worker = self.workers == 0 || other.workers == 0;
        self.load.merge(&other.load, is_of_one_worker);
        self.workers = self.workers.saturating_add(other.workers);
        self.partial = self.partial.saturating_add(other.partial);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.first = self.first.into_iter().chain(other.first).reduce(f64::min);
        self.last = self.last.into_iter().chain(other.last).reduce(f64::max);
        let starts = self.starts.into_iter().chain(other.starts);
        self.starts = starts.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
        self.dropped_errors = (self.dropped_errors + other.dropped_errors).clamp(0.0, f64::MAX);
        for (key, value) in &other.counters {
            self.add_counter(key.name(), *value);
        }
        for (key, histogram) in &other.histograms {
            self.add_histogram(key.name(), histogram);
        }
        for name in &other.dropped_names {
            self.add_dropped_name(name);
        }
        for name in &other.invalid_names {
            self.add_invalid_name(name);
        }
        self.over_limit |= other.over_limit;
        self.was_cut |= other.was_cut;
        for problem in &other.problems {
            self.add_problem(problem.clone());
        }
    }

    /// What was measured since an earlier state of the same workers, in a period of so many seconds.
    #[must_use]
    pub fn since(&self, earlier: &Self, seconds: f64) -> Self {
        let mut since = self.clone();
        for (key, value) in &mut since.counters {
            *value -= earlier.counters.get(key).copied().unwrap_or_default();
        }
        for (key, histogram) in &mut since.histograms {
            if let Some(before) = earlier.histograms.get(key) {
                *histogram = histogram.since(before);
            }
        }
        since
            .histograms
            .retain(|_, histogram| histogram.count() > 0);
        since.dropped_errors -= earlier.dropped_errors;
        (since.first, since.last) = (Some(0.0), Some(seconds * 1000.0));
        since
    }

    /// What the load of a worker is judged by, and nothing else.
    #[must_use]
    pub fn load_only(&self) -> Self {
        let counters = ["vusers.created", "vusers.skipped"];
        let counters = counters.into_iter().filter_map(|name| {
            let key = MetricKey::new(name);
            let value = *self.counters.get(&key)?;
            Some((key, value))
        });
        Self {
            counters: counters.collect(),
            load: self.load.clone(),
            ..Self::default()
        }
    }

    pub(crate) fn add_counter(&mut self, name: &str, value: f64) {
        let counter = self.counters.entry(MetricKey::new(name)).or_default();
        // JSON has no infinite numbers.
        *counter = (*counter + value).clamp(f64::MIN, f64::MAX);
        if self.counters.len() > MAX_COUNTERS {
            self.counters.pop_last();
            self.over_limit = true;
        }
    }

    pub(crate) fn add_histogram(&mut self, name: &str, histogram: &Sketch) {
        self.histograms
            .entry(MetricKey::new(name))
            .and_modify(|known| known.merge(histogram))
            .or_insert_with(|| histogram.clone());
        if self.histograms.len() > MAX_HISTOGRAMS {
            self.histograms.pop_last();
            self.over_limit = true;
        }
    }

    pub(crate) fn add_dropped_name(&mut self, name: &str) {
        add_name(&mut self.dropped_names, name);
    }

    pub(crate) fn add_invalid_name(&mut self, name: &str) {
        add_name(&mut self.invalid_names, name);
    }

    pub(crate) fn add_problem(&mut self, problem: String) {
        self.problems.insert(problem);
        if self.problems.len() > MAX_PROBLEMS {
            self.problems.pop_last();
        }
    }

    /// Whether a worker may have measured this metric without reporting it.
    #[must_use]
    pub fn may_be_missing(&self, name: &str) -> bool {
        self.missing_reason(name).is_some()
    }

    /// Why a worker may have measured this metric without reporting it. None if all workers reported
    /// what they measured.
    pub(crate) fn missing_reason(&self, name: &str) -> Option<String> {
        let contains = |names: &BTreeSet<String>| names.contains(name) || names.contains(ANY);
        let is_kept = self.counter(name).is_some() || self.histogram(name).is_some();
        if self.invalid_names.contains(name) {
            Some(format!(
                "at least one worker counted a value in {name} that is not valid"
            ))
        } else if contains(&self.invalid_names) {
            Some(format!(
                "{name} may be missing: too many metrics have values that are not valid"
            ))
        } else if contains(&self.dropped_names) || (self.over_limit && !is_kept) {
            Some(format!(
                "{name} was dropped by at least one worker for lack of space"
            ))
        } else {
            self.was_cut.then(|| {
                format!("{name} may be missing: the kubelet cut the results of at least one worker")
            })
        }
    }

    /// The value of a counter; None if no worker incremented it.
    #[must_use]
    pub fn counter(&self, name: &str) -> Option<f64> {
        self.counters.get(&MetricKey::new(name)).copied()
    }

    /// A histogram; None if no worker has one of this name.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Option<&Sketch> {
        self.histograms.get(&MetricKey::new(name))
    }

    /// The plan of the load, if every worker reported one, with what it is compared with.
    #[must_use]
    pub fn plan(&self) -> Option<LoadPlan> {
        self.load.plan()
    }

    /// How late virtual users arrived, in ms, as far as workers reported it.
    #[must_use]
    pub fn arrival_delay(&self) -> Option<&Sketch> {
        self.load.delay.as_ref()
    }

    /// What a worker measured about itself. None for merged measurements of several workers.
    #[must_use]
    pub fn generator(&self) -> Option<&Generator> {
        self.load.generator.as_ref()
    }

    /// The names of all counters and of all values of histograms, as Artillery's expressions write them.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let of_histogram =
            |key: &MetricKey| Sketch::SUMMARIES.map(|summary| format!("{}.{summary}", key.name()));
        let histograms = self
            .histograms
            .keys()
            .flat_map(of_histogram)
            .collect::<Vec<_>>();
        self.counters
            .keys()
            .map(|key| key.name().to_owned())
            .chain(histograms)
    }

    /// Whether a worker reported a metric whose name begins with a prefix.
    pub(crate) fn has_prefix(&self, prefix: &str) -> bool {
        fn has<V>(metrics: &BTreeMap<MetricKey, V>, prefix: &str) -> bool {
            (0..=CUSTOM).any(|priority| {
                let first = MetricKey(priority, prefix.to_owned());
                let found = metrics.range(first..).next();
                found.is_some_and(|(key, _)| key.0 == priority && key.name().starts_with(prefix))
            })
        }
        has(&self.counters, prefix) || has(&self.histograms, prefix)
    }

    /// The counters whose names start with a prefix, by the rest of their names.
    pub(crate) fn counters_below<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.counters
            .iter()
            .filter_map(move |(key, value)| Some((key.name().strip_prefix(prefix)?, *value)))
    }

    /// The histograms whose names start with a prefix, with their whole names.
    pub(crate) fn histograms_below<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Sketch)> {
        let all = self.histograms.iter();
        let all = all.map(|(key, sketch)| (key.name(), sketch));
        all.filter(move |(name, _)| name.starts_with(prefix))
    }

    /// The seconds between the first and the last increment of a counter, at least one, as for
    /// Artillery's rates (`_aggregateRates` in `lib/core/ssms.ts`).
    #[must_use]
    pub fn seconds(&self) -> f64 {
        let span = self
            .first
            .zip(self.last)
            .map_or(0.0, |(first, last)| (last - first) / 1000.0);
        span.max(1.0)
    }
}

/// Beyond the limit the names are replaced by [`ANY`].
fn add_name(names: &mut BTreeSet<String>, name: &str) {
    names.insert(name.to_owned());
    if names.len() > MAX_DROPPED_NAMES || names.contains(ANY) {
        *names = BTreeSet::from([ANY.to_owned()]);
    }
}
