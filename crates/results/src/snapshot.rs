//! Reads what a worker has left in its termination message. Pods write it, so nothing in it is taken for granted.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use serde::Deserialize;
use thiserror::Error;

use super::Measurements;
use super::sketch::{MAX_FOLDS, Sketch};

const PREFIX: &str = "loadtest.v";
const VERSION: &str = "1";
/// What a snapshot may become when it is inflated. Real ones are below 10 kB, or above if a histogram has a wide gap.
const MAX_INFLATED: usize = 256 << 10;
/// Beyond the bin of the greatest float.
const MAX_KEY: i32 = 36_000;
/// 2^53: above it JavaScript does not count by ones.
const MAX_COUNT: u64 = 1 << 53;
/// The most characters of a metric's name (Artillery, `MAX_METRIC_NAME_LENGTH` in `lib/core/ssms.ts`).
const MAX_NAME: usize = 1024;

/// Why a snapshot cannot be read.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SnapshotError {
    /// There is no snapshot in the message.
    #[error("no results")]
    Missing,
    /// A worker of another version of the operator wrote it.
    #[error("unsupported result version {0:?}")]
    Version(String),
    /// Cut off, or changed on its way.
    #[error("corrupt results: {0}")]
    Damaged(&'static str),
    /// It has something that no worker writes.
    #[error("malformed results: {0}")]
    Malformed(String),
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    r#final: bool,
    first: Option<f64>,
    last: Option<f64>,
    start: Option<f64>,
    counters: BTreeMap<String, f64>,
    histograms: BTreeMap<String, Histogram>,
    #[serde(default)]
    dropped: (u32, u32),
    #[serde(default)]
    lost: Vec<String>,
    #[serde(default)]
    errors: f64,
}

/// Folds, min, max, sum, zeros, positive bins, negative bins.
#[derive(Deserialize)]
struct Histogram(
    u8,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    u64,
    Vec<i64>,
    Vec<i64>,
);

/// A snapshot as it is kept until its test has ended, or what is wrong with it: packed as it came, but for its base64, which
/// makes it a third longer.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot(Result<Box<[u8]>, SnapshotError>);

impl Snapshot {
    /// The snapshot of a termination message, if it has one.
    #[must_use]
    pub fn from_message(message: &str) -> Option<Self> {
        let line = message
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(PREFIX))?;
        let (version, text) = line.split_once(' ').unwrap_or((line, ""));
        if version != VERSION {
            return Some(Self(Err(SnapshotError::Version(
                version.chars().take(20).collect(),
            ))));
        }
        let packed = STANDARD.decode(text.trim_end()).map(Vec::into_boxed_slice);
        Some(Self(
            packed.map_err(|_| SnapshotError::Damaged("not base64")),
        ))
    }

    /// The measurements of the worker.
    ///
    /// # Errors
    /// Where it is not one that a worker has written.
    pub fn decode(&self) -> Result<Measurements, SnapshotError> {
        let packed = self.0.as_ref().map_err(Clone::clone)?;
        let json = decompress_to_vec_zlib_with_limit(packed, MAX_INFLATED)
            .map_err(|_| SnapshotError::Damaged("not deflated, not whole, or too large"))?;
        let snapshot: Content =
            serde_json::from_slice(&json).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
        measurements(snapshot).map_err(|why| SnapshotError::Malformed(why.to_owned()))
    }
}

/// What the worker said in words: a termination message without its snapshot.
#[must_use]
pub fn log_tail(message: &str) -> String {
    message
        .lines()
        .filter(|line| !line.starts_with(PREFIX))
        .collect::<Vec<_>>()
        .join("\n")
}

fn measurements(snapshot: Content) -> Result<Measurements, &'static str> {
    let names = snapshot
        .counters
        .keys()
        .chain(snapshot.histograms.keys())
        .chain(&snapshot.lost);
    if names
        .into_iter()
        .any(|name| name.chars().count() > MAX_NAME)
    {
        return Err("a name is too long");
    }
    let time = |ms: Option<f64>| ms.filter(|ms| (0.0..1e15).contains(ms));
    let mut all = Measurements {
        workers: 1,
        partial: u32::from(!snapshot.r#final),
        first: time(snapshot.first),
        last: time(snapshot.last),
        starts: time(snapshot.start).map(|start| (start, start)),
        dropped: snapshot.dropped.0.saturating_add(snapshot.dropped.1),
        dropped_errors: snapshot.errors,
        ..Measurements::default()
    };
    for (name, value) in snapshot.counters {
        all.add_counter(&name, value);
    }
    for (name, histogram) in snapshot.histograms {
        all.add_histogram(&name, &sketch(histogram)?);
    }
    for name in snapshot.lost {
        all.add_lost(&name);
    }
    Ok(all)
}

fn sketch(
    Histogram(folds, min, max, sum, zeros, positive, negative): Histogram,
) -> Result<Sketch, &'static str> {
    if folds > MAX_FOLDS {
        return Err("a histogram is folded too often");
    }
    if zeros > MAX_COUNT {
        return Err("a count is out of range");
    }
    Ok(Sketch {
        folds,
        min,
        max,
        sum,
        zeros,
        positive: bins(&positive)?,
        negative: bins(&negative)?,
    })
}

/// The first key, then of each key how much its count differs from that of the key before.
fn bins(list: &[i64]) -> Result<BTreeMap<i32, u64>, &'static str> {
    let Some((first, differences)) = list.split_first() else {
        return Ok(BTreeMap::new());
    };
    let keys = i32::try_from(*first).unwrap_or(i32::MIN)..=MAX_KEY;
    if *keys.start() < -MAX_KEY || differences.len() > keys.clone().count() {
        return Err("a bin is out of range");
    }
    let mut count = 0_u64;
    let mut bins = BTreeMap::new();
    for (key, difference) in keys.zip(differences) {
        count = count
            .checked_add_signed(*difference)
            .filter(|n| *n <= MAX_COUNT)
            .ok_or("a count is out of range")?;
        if count > 0 {
            bins.insert(key, count);
        }
    }
    Ok(bins)
}
