//! Reads the snapshot in the termination message of a worker. Pods write it, so it is untrusted input.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use serde::Deserialize;
use thiserror::Error;

use crate::Measurements;
use crate::sketch::{MAX_COLLAPSES, Sketch};

const PREFIX: &str = "loadtest.v";
const VERSION: &str = "1";
/// Protects against decompression bombs. Leaves room for histograms with wide gaps.
const MAX_INFLATED_BYTES: usize = 256 << 10;
/// Above the bin of the largest float.
const MAX_KEY: i32 = 36_000;
/// 2^53, the limit of exact integers in JavaScript.
const MAX_COUNT: u64 = 1 << 53;
/// Artillery, `MAX_METRIC_NAME_LENGTH` in `lib/core/ssms.ts`.
const MAX_NAME_CHARS: usize = 1024;

/// Why a worker has no usable snapshot.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SnapshotError {
    /// The message has no snapshot.
    #[error("no results")]
    Missing,
    /// A worker of another operator version wrote the snapshot.
    #[error("unsupported result version {0:?}")]
    Version(String),
    /// The snapshot was truncated or modified.
    #[error("corrupt results: {0}")]
    Corrupt(&'static str),
    /// The snapshot has content that no worker writes.
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
    #[serde(default, rename = "lost")]
    dropped_names: Vec<String>,
    #[serde(default)]
    errors: f64,
}

/// Collapses, min, max, sum, zeros, positive bins, negative bins.
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

/// The snapshot of a worker, or why it has none. It stays compressed until it is decoded, because the
/// operator keeps the snapshots of all workers until their test has finished.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot(Result<Box<[u8]>, SnapshotError>);

impl Snapshot {
    /// Finds the snapshot in a termination message.
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
            packed.map_err(|_| SnapshotError::Corrupt("not base64")),
        ))
    }

    /// Decodes the measurements of the worker.
    ///
    /// # Errors
    /// If a worker of this operator version did not write the snapshot, or if it was modified.
    pub fn decode(&self) -> Result<Measurements, SnapshotError> {
        let packed = self.0.as_ref().map_err(Clone::clone)?;
        let json = decompress_to_vec_zlib_with_limit(packed, MAX_INFLATED_BYTES).map_err(|_| {
            SnapshotError::Corrupt("truncated, too large, or not compressed with zlib")
        })?;
        let snapshot: Content =
            serde_json::from_slice(&json).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
        measurements(snapshot).map_err(|problem| SnapshotError::Malformed(problem.to_owned()))
    }
}

/// The end of the worker's log: a termination message without its snapshot.
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
        .chain(&snapshot.dropped_names);
    if names
        .into_iter()
        .any(|name| name.chars().count() > MAX_NAME_CHARS)
    {
        return Err("a metric name is too long");
    }
    let time = |ms: Option<f64>| ms.filter(|ms| (0.0..1e15).contains(ms));
    let mut measurements = Measurements {
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
        measurements.add_counter(&name, value);
    }
    for (name, histogram) in snapshot.histograms {
        measurements.add_histogram(&name, &sketch(histogram)?);
    }
    for name in snapshot.dropped_names {
        measurements.add_dropped_name(&name);
    }
    Ok(measurements)
}

fn sketch(
    Histogram(collapses, min, max, sum, zeros, positive, negative): Histogram,
) -> Result<Sketch, &'static str> {
    if collapses > MAX_COLLAPSES {
        return Err("a histogram is collapsed too often");
    }
    if zeros > MAX_COUNT {
        return Err("a count is out of range");
    }
    Ok(Sketch {
        collapses,
        min,
        max,
        sum,
        zeros,
        positive: bins(&positive)?,
        negative: bins(&negative)?,
    })
}

/// Decodes the first key, followed for each key by the difference of its count from that of the
/// preceding key.
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
