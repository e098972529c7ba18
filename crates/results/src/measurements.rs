//! What workers have measured, of one or of many.

use std::collections::{BTreeMap, BTreeSet};

use super::sketch::Sketch;

/// How many metrics are kept. A worker has at most what fits in 4096 bytes; hostile ones could all have others.
const MAX_COUNTERS: usize = 4000;
const MAX_HISTOGRAMS: usize = 200;
const MAX_LOST: usize = 50;

/// In the place of a name: any metric may have been lost.
const ANY: &str = "*";

/// What one worker has measured, or many have together: the merge is commutative and associative, so it may be done in any
/// order, and takes no more memory than one worker with all their metrics. Sums of decimals may differ in the last digit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements {
    /// Of how many workers.
    pub workers: u32,
    /// Of how many of them not all: they had not ended, or did not end well.
    pub partial: u32,
    /// How many metrics their snapshots had no room for, at most, as workers may have dropped the same. None that
    /// [`Results`](super::Results) or the workers' thresholds name, but for those that [`Self::is_lost`] tells.
    pub dropped: u32,
    /// When the first and the last counter was counted, in ms since 1970.
    pub(super) first: Option<f64>,
    pub(super) last: Option<f64>,
    /// When the load of the first and of the last worker began, by their clocks, in ms since 1970.
    pub(super) starts: Option<(f64, f64)>,
    pub(super) counters: BTreeMap<Key, f64>,
    pub(super) histograms: BTreeMap<Key, Sketch>,
    /// The sum of `errors.*` that had no room.
    pub(super) dropped_errors: f64,
    pub(super) lost: BTreeSet<String>,
    /// Whether there were more metrics than are kept.
    pub(super) too_many: bool,
}

/// A metric, the more important first: custom ones must not push out Artillery's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u8, String);

impl Key {
    fn new(name: &str) -> Self {
        let custom = ![
            "vusers.",
            "http.",
            "websocket.",
            "socketio.",
            "browser.",
            "errors.",
        ]
        .iter()
        .any(|p| name.starts_with(p));
        // Of these there may be any number.
        let many = ["vusers.created_by_name.", "errors."]
            .iter()
            .any(|p| name.starts_with(p));
        Self(if custom { 2 } else { u8::from(many) }, name.to_owned())
    }

    pub(super) fn name(&self) -> &str {
        &self.1
    }
}

impl Measurements {
    /// Adds what others have measured.
    pub fn merge(&mut self, other: &Self) {
        self.workers = self.workers.saturating_add(other.workers);
        self.partial = self.partial.saturating_add(other.partial);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.first = self.first.into_iter().chain(other.first).reduce(f64::min);
        self.last = self.last.into_iter().chain(other.last).reduce(f64::max);
        let starts = self.starts.into_iter().chain(other.starts);
        self.starts = starts.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
        self.dropped_errors += other.dropped_errors;
        for (key, value) in &other.counters {
            self.add_counter(key.name(), *value);
        }
        for (key, histogram) in &other.histograms {
            self.add_histogram(key.name(), histogram);
        }
        for name in &other.lost {
            self.add_lost(name);
        }
        self.too_many |= other.too_many;
    }

    pub(super) fn add_counter(&mut self, name: &str, value: f64) {
        *self.counters.entry(Key::new(name)).or_default() += value;
        if self.counters.len() > MAX_COUNTERS {
            self.counters.pop_last();
            self.too_many = true;
        }
    }

    pub(super) fn add_histogram(&mut self, name: &str, histogram: &Sketch) {
        self.histograms
            .entry(Key::new(name))
            .and_modify(|known| known.merge(histogram))
            .or_insert_with(|| histogram.clone());
        if self.histograms.len() > MAX_HISTOGRAMS {
            self.histograms.pop_last();
            self.too_many = true;
        }
    }

    /// Of too many it is not kept which: then each may be.
    pub(super) fn add_lost(&mut self, name: &str) {
        self.lost.insert(name.to_owned());
        if self.lost.len() > MAX_LOST || self.lost.contains(ANY) {
            self.lost = BTreeSet::from([ANY.to_owned()]);
        }
    }

    /// Whether a worker may have measured it, and had no room to tell.
    #[must_use]
    pub fn is_lost(&self, name: &str) -> bool {
        let is_kept = self.counter(name).is_some() || self.histogram(name).is_some();
        self.lost.contains(name) || self.lost.contains(ANY) || (self.too_many && !is_kept)
    }

    /// What a counter was counted to; None where it never was.
    #[must_use]
    pub fn counter(&self, name: &str) -> Option<f64> {
        self.counters.get(&Key::new(name)).copied()
    }

    /// A histogram.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Option<&Sketch> {
        self.histograms.get(&Key::new(name))
    }

    /// The names of all counters and of all values of histograms, as in Artillery's expressions.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let of_histogram =
            |key: &Key| Sketch::SUMMARIES.map(|summary| format!("{}.{summary}", key.name()));
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

    /// Counters whose names begin with this, by the rest of their names.
    pub(super) fn counters_below<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.counters
            .iter()
            .filter_map(move |(key, value)| Some((key.name().strip_prefix(prefix)?, *value)))
    }

    /// How many seconds lie between the first count and the last, and at least one, as in Artillery's rates
    /// (`_aggregateRates` in `lib/core/ssms.ts`).
    #[must_use]
    pub fn seconds(&self) -> f64 {
        let span = self
            .first
            .zip(self.last)
            .map_or(0.0, |(first, last)| (last - first) / 1000.0);
        span.max(1.0)
    }
}
