//! Histograms as Artillery keeps them: mergeable sketches that give any quantile within a known
//! error.

use std::collections::BTreeMap;

use loadtest_api::v1alpha1::{Distribution, LAYOUT_SHIFT};

/// How often a worker may collapse the bins of a histogram, which limits the error to 4 %.
pub(crate) const MAX_COLLAPSES: u8 = 2;
/// The same for arrival delays: 8 %.
pub(crate) const MAX_DELAY_COLLAPSES: u8 = 3;

/// The maximum number of bins on each side of zero. They cover a range of 1 to 10^17. Bounds the memory that manipulated results
/// take.
pub(crate) const MAX_BINS: usize = 2048;

/// A `DDSketch` with Artillery's parameters. Bin `k` counts the values in (γ^(k-1), γ^k]. A collapse
/// joins each two neighboring bins, which squares γ and doubles the error. Merging two sketches
/// collapses the finer one to the coarser.
///
/// Source: `@artilleryio/sketches-js`, `dist/ddsketch/DDSketch.js`, and Artillery, `lib/core/ssms.ts`.
/// Unlike there, a merge keeps the negative values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sketch {
    pub(crate) collapses: u8,
    /// The smallest and the largest value; None if no value was a number.
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    /// None if a value was not a number.
    pub(crate) sum: Option<f64>,
    pub(crate) zeros: u64,
    pub(crate) positive: BTreeMap<i32, u64>,
    pub(crate) negative: BTreeMap<i32, u64>,
}

impl Sketch {
    /// Adds the values of another sketch.
    pub fn merge(&mut self, other: &Self) {
        let collapses = self.collapses.max(other.collapses);
        self.collapse_to(collapses);
        let by = collapses - other.collapses;
        add_bins(&mut self.positive, &other.positive, by);
        add_bins(&mut self.negative, &other.negative, by);
        self.zeros = self.zeros.saturating_add(other.zeros);
        // JSON has no infinite numbers.
        let sum = self.sum.zip(other.sum).map(|(a, b)| a + b);
        self.sum = sum.map(|sum| sum.clamp(f64::MIN, f64::MAX));
        self.min = self.min.into_iter().chain(other.min).reduce(f64::min);
        self.max = self.max.into_iter().chain(other.max).reduce(f64::max);
    }

    /// The values that were added since an earlier state of this sketch. Its minimum and maximum are those of whole bins.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let collapses = self.collapses.max(earlier.collapses);
        let [mut since, mut before] = [self, earlier].map(Self::clone);
        since.collapse_to(collapses);
        before.collapse_to(collapses);
        subtract_bins(&mut since.positive, &before.positive);
        subtract_bins(&mut since.negative, &before.negative);
        since.zeros = since.zeros.saturating_sub(before.zeros);
        since.sum = since.sum.zip(before.sum).map(|(a, b)| a - b);
        (since.min, since.max) = (since.quantile(0.0), since.quantile(1.0));
        since
    }

    fn collapse_to(&mut self, collapses: u8) {
        for bins in [&mut self.positive, &mut self.negative] {
            if collapses > self.collapses {
                let finer = std::mem::take(bins);
                add_bins(bins, &finer, collapses - self.collapses);
            }
        }
        self.collapses = collapses;
    }

    /// Whether every bin has a value that a float can represent.
    pub(crate) fn is_finite(&self) -> bool {
        [&self.positive, &self.negative]
            .into_iter()
            .filter_map(|bins| bins.last_key_value())
            .all(|(key, _)| self.value(*key).is_finite())
    }

    /// The number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        sum(&self.positive)
            .saturating_add(sum(&self.negative))
            .saturating_add(self.zeros)
    }

    /// The relative error of quantiles, in percent.
    #[must_use]
    pub fn error_percent(&self) -> u8 {
        1 << self.collapses
    }

    /// A value of Artillery's summary, by its name in [`Self::SUMMARIES`]. None for other names, and
    /// if the sketch has no such value.
    ///
    /// Source: Artillery, `summarizeHistogram` in `lib/core/ssms.ts`.
    #[must_use]
    pub fn summary(&self, name: &str) -> Option<f64> {
        self.value_of(name, round)
    }

    /// A value like that of [`Self::summary`], of the histogram with this name. The scores of layout shifts are rounded to 0.001:
    /// a page is good below 0.1.
    #[must_use]
    pub fn summary_of(&self, histogram: &str, name: &str) -> Option<f64> {
        if histogram.starts_with(LAYOUT_SHIFT) {
            return self.value_of(name, |value| round(value * 100.0) / 100.0);
        }
        self.summary(name)
    }

    fn value_of(&self, name: &str, round: impl Fn(f64) -> f64) -> Option<f64> {
        match name {
            "count" => Some(float(self.count())),
            "min" => self.min,
            "max" => self.max,
            "mean" => self.sum.map(|sum| sum / float(self.count())),
            "p50" | "median" => self.quantile(0.5),
            "p75" => self.quantile(0.75),
            "p90" => self.quantile(0.9),
            "p95" => self.quantile(0.95),
            "p99" => self.quantile(0.99),
            "p999" => self.quantile(0.999),
            _ => None,
        }
        .map(round)
        .filter(|value| value.is_finite())
    }

    /// All values of the summary, as the status shows them.
    #[must_use]
    pub fn distribution(&self, name: &str) -> Distribution {
        let summary = |value: &str| self.summary_of(name, value);
        Distribution {
            name: name.to_owned(),
            count: i64::try_from(self.count()).unwrap_or(i64::MAX),
            min: summary("min"),
            max: summary("max"),
            mean: summary("mean"),
            p50: summary("p50"),
            p90: summary("p90"),
            p95: summary("p95"),
            p99: summary("p99"),
            p999: summary("p999"),
            error_bound: format!("{}%", self.error_percent()),
        }
    }

    /// The names that [`Self::summary`] accepts.
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

    /// The bins that are not empty, with their lower and upper bounds and their counts, from the smallest values to the largest. Zero
    /// has a bin of its own. All bins on one side of zero have the same ratio of their bounds.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        let bound = |key: i32| (f64::from(key) * self.log2_gamma()).exp2();
        let negative = self.negative.iter().rev();
        let negative = negative.map(move |(key, n)| (-bound(*key), -bound(*key - 1), *n));
        let zeros = (self.zeros > 0).then_some((0.0, 0.0, self.zeros));
        let positive = self.positive.iter();
        let positive = positive.map(move |(key, n)| (bound(*key - 1), bound(*key), *n));
        negative.chain(zeros).chain(positive)
    }

    /// The value that represents a bin.
    fn value(&self, key: i32) -> f64 {
        let log2_gamma = self.log2_gamma();
        (f64::from(key) * log2_gamma).exp2() * 2.0 / (1.0 + log2_gamma.exp2())
    }

    fn log2_gamma(&self) -> f64 {
        (2.0 * 0.01 / 0.99_f64).ln_1p() / std::f64::consts::LN_2 * f64::from(1 << self.collapses)
    }
}

fn add_bins(to: &mut BTreeMap<i32, u64>, from: &BTreeMap<i32, u64>, collapses: u8) {
    for (key, n) in from {
        // Bins 2k-1 and 2k become k.
        let key = (0..collapses).fold(*key, |key, _| (key + 1).div_euclid(2));
        let bin = to.entry(key).or_default();
        *bin = bin.saturating_add(*n);
        // Joins the values next to zero, as DDSketch's collapsing store does. The result does not depend on the order.
        if to.len() > MAX_BINS
            && let Some((_, smallest)) = to.pop_first()
            && let Some(mut next) = to.first_entry()
        {
            let joined = next.get().saturating_add(smallest);
            *next.get_mut() = joined;
        }
    }
}

fn subtract_bins(from: &mut BTreeMap<i32, u64>, earlier: &BTreeMap<i32, u64>) {
    from.retain(|key, n| {
        *n = n.saturating_sub(earlier.get(key).copied().unwrap_or_default());
        *n > 0
    });
}

fn sum(bins: &BTreeMap<i32, u64>) -> u64 {
    bins.values().fold(0, |sum, n| sum.saturating_add(*n))
}

/// The first bin at which the cumulative count is enough, or the last bin.
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

/// Rounds to 0.1, and halves up, like `Math.round`.
pub(crate) fn round(value: f64) -> f64 {
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

/// Counts are far below 2^53, up to which a float represents every integer.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_contain_the_values_of_their_bins_in_ascending_order() {
        let sketch = Sketch {
            collapses: 1,
            zeros: 3,
            positive: BTreeMap::from([(-2, 4), (5, 1)]),
            negative: BTreeMap::from([(1, 2), (7, 9)]),
            ..Sketch::default()
        };
        let buckets: Vec<_> = sketch.buckets().collect();
        let counts: Vec<_> = buckets.iter().map(|(_, _, n)| *n).collect();
        assert_eq!(counts, [9, 2, 3, 4, 1]);
        let values = [
            -sketch.value(7),
            -sketch.value(1),
            0.0,
            sketch.value(-2),
            sketch.value(5),
        ];
        for ((lower, upper, _), value) in buckets.iter().zip(values) {
            assert!(
                *lower <= value && value <= *upper,
                "{lower} {value} {upper}"
            );
        }
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert_eq!(
            sketch.buckets().map(|(_, _, n)| n).sum::<u64>(),
            sketch.count()
        );
    }
}
