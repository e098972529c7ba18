//! A histogram as Artillery keeps it: a sketch of which any quantile can be told within a known error, and that can be merged.

use std::collections::BTreeMap;

/// How often bins can have been folded: to an error of 4 %.
pub(super) const MAX_FOLDS: u8 = 2;

/// A `DDSketch`, with Artillery's parameters. Bin `k` counts the values in (γ^(k-1), γ^k]. Each fold joins two neighbouring
/// bins, as if γ were γ², and so doubles the error; sketches of different folds meet at the coarser.
///
/// Source: `@artilleryio/sketches-js`, `dist/ddsketch/DDSketch.js`, and Artillery, `lib/core/ssms.ts`. Unlike there, a merge
/// does not forget the negative values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sketch {
    pub(super) folds: u8,
    /// The least and the greatest value; None where all were no numbers.
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    /// None where a value was no number.
    pub(super) sum: Option<f64>,
    pub(super) zeros: u64,
    pub(super) positive: BTreeMap<i32, u64>,
    pub(super) negative: BTreeMap<i32, u64>,
}

impl Sketch {
    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        let folds = self.folds.max(other.folds);
        self.fold_to(folds);
        let by = folds - other.folds;
        add_bins(&mut self.positive, &other.positive, by);
        add_bins(&mut self.negative, &other.negative, by);
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.sum = self.sum.zip(other.sum).map(|(a, b)| a + b);
        self.min = self.min.into_iter().chain(other.min).reduce(f64::min);
        self.max = self.max.into_iter().chain(other.max).reduce(f64::max);
    }

    fn fold_to(&mut self, folds: u8) {
        for bins in [&mut self.positive, &mut self.negative] {
            if folds > self.folds {
                let finer = std::mem::take(bins);
                add_bins(bins, &finer, folds - self.folds);
            }
        }
        self.folds = folds;
    }

    /// How many values it has counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        sum(&self.positive)
            .saturating_add(sum(&self.negative))
            .saturating_add(self.zeros)
    }

    /// By how many percent a quantile may be off.
    #[must_use]
    pub fn error_percent(&self) -> u8 {
        1 << self.folds
    }

    /// A value of Artillery's summary by its name there: `min`, `max`, `count`, `mean`, `median`, `p50`, ... `p999`. None for
    /// another name, and where there is none.
    ///
    /// Source: Artillery, `summarizeHistogram` in `lib/core/ssms.ts`.
    #[must_use]
    pub fn summary(&self, name: &str) -> Option<f64> {
        match name {
            "count" => Some(float(self.count())),
            "min" => self.min,
            "max" => self.max,
            "mean" => self
                .sum
                .map(|sum| sum / float(self.count()))
                .filter(|mean| mean.is_finite()),
            "p50" | "median" => self.quantile(0.5),
            "p75" => self.quantile(0.75),
            "p90" => self.quantile(0.9),
            "p95" => self.quantile(0.95),
            "p99" => self.quantile(0.99),
            "p999" => self.quantile(0.999),
            _ => None,
        }
        .map(round)
    }

    /// The names that [`Self::summary`] knows.
    pub const SUMMARIES: [&str; 11] = [
        "min", "max", "count", "mean", "p50", "median", "p75", "p90", "p95", "p99", "p999",
    ];

    /// Source: `getValueAtQuantile`.
    fn quantile(&self, q: f64) -> Option<f64> {
        let rank = q * float(self.count().checked_sub(1)?);
        let (negative, zeros) = (float(sum(&self.negative)), float(self.zeros));
        if rank < negative {
            let from_zero = negative - rank;
            Some(-self.value(key_at(&self.negative, |counted| counted >= from_zero)?))
        } else if rank < negative + zeros {
            Some(0.0)
        } else {
            let above_zero = rank - zeros - negative;
            Some(self.value(key_at(&self.positive, |counted| counted > above_zero)?))
        }
    }

    /// The value that stands for a bin.
    fn value(&self, key: i32) -> f64 {
        let log2_gamma =
            (2.0 * 0.01 / 0.99_f64).ln_1p() / std::f64::consts::LN_2 * f64::from(1 << self.folds);
        (f64::from(key) * log2_gamma).exp2() * 2.0 / (1.0 + log2_gamma.exp2())
    }
}

fn add_bins(to: &mut BTreeMap<i32, u64>, from: &BTreeMap<i32, u64>, folds: u8) {
    for (key, n) in from {
        // Bins 2k-1 and 2k become k.
        let key = (0..folds).fold(*key, |key, _| (key + 1).div_euclid(2));
        let bin = to.entry(key).or_default();
        *bin = bin.saturating_add(*n);
    }
}

fn sum(bins: &BTreeMap<i32, u64>) -> u64 {
    bins.values().fold(0, |sum, n| sum.saturating_add(*n))
}

/// The first bin with which enough is counted, or the last.
fn key_at(bins: &BTreeMap<i32, u64>, enough: impl Fn(f64) -> bool) -> Option<i32> {
    let mut counted = 0_u64;
    let reached = bins.iter().find(|(_, n)| {
        counted = counted.saturating_add(**n);
        enough(float(counted))
    });
    reached
        .or_else(|| bins.last_key_value())
        .map(|(key, _)| *key)
}

/// To 0.1, a half upwards, as `Math.round` does.
pub(super) fn round(value: f64) -> f64 {
    let tenths = value * 10.0;
    let below = tenths.floor();
    let rounded = if tenths - below >= 0.5 {
        below + 1.0
    } else {
        below
    };
    if tenths.is_finite() {
        rounded / 10.0
    } else {
        value
    }
}

/// Counts are far below 2^53, where a float begins to leave out integers.
#[allow(clippy::cast_precision_loss)]
pub(super) fn float(n: u64) -> f64 {
    n as f64
}
