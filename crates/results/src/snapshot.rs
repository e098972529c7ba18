//! Reads the snapshot in the termination message of a worker. Pods write it, so it is untrusted input.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_zlib_with_limit};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::Measurements;
use crate::load::{Generator, Load, LoadPlan};
use crate::measurements::is_custom;
use crate::sketch::{MAX_BINS, MAX_COLLAPSES, MAX_DELAY_COLLAPSES, Sketch};

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
/// The kubelet cuts the message of each container to this, divided by the number of containers in the
/// pod (kubernetes, `normalizeStatus` in `pkg/kubelet/status/status_manager.go`).
const KUBELET_BYTES: usize = 12 << 10;
/// Limits for messages.
const MAX_LISTED: usize = 5;
const MAX_LISTED_CHARS: usize = 60;

/// Why a worker has no usable snapshot.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SnapshotError {
    /// The message has no snapshot.
    #[error("no results")]
    Missing,
    /// A worker of another operator version wrote the snapshot.
    #[error("unsupported result version {0:?}")]
    Version(String),
    /// The kubelet cut the message so early that nothing is left.
    #[error("{}", cut_by_kubelet(*.0))]
    Cut(usize),
    /// The snapshot was modified.
    #[error("corrupt results: {0}")]
    Corrupt(&'static str),
    /// The snapshot has content that no worker writes.
    #[error("malformed results: {0}")]
    Malformed(String),
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(default)]
    r#final: bool,
    #[serde(borrow)]
    first: Option<&'a RawValue>,
    #[serde(borrow)]
    last: Option<&'a RawValue>,
    #[serde(borrow)]
    start: Option<&'a RawValue>,
    #[serde(borrow)]
    load: Option<&'a RawValue>,
    #[serde(borrow)]
    delay: Option<&'a RawValue>,
    #[serde(borrow)]
    generator: Option<&'a RawValue>,
    /// Each value is parsed by itself, so that an invalid one costs only its metric.
    #[serde(borrow)]
    counters: Option<Metrics<'a>>,
    #[serde(borrow)]
    histograms: Option<Metrics<'a>>,
    #[serde(default)]
    dropped: (u32, u32),
    #[serde(default, rename = "lost")]
    dropped_names: Vec<String>,
    #[serde(default, rename = "invalid")]
    invalid_names: Vec<String>,
    #[serde(default)]
    errors: f64,
}

type Metrics<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

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
pub struct Snapshot {
    packed: Result<Box<[u8]>, SnapshotError>,
    /// The length of the whole message, in bytes.
    message_bytes: usize,
}

impl Snapshot {
    /// Finds the snapshot in a termination message.
    #[must_use]
    pub fn from_message(message: &str) -> Option<Self> {
        let line = message
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(PREFIX))?;
        let (version, text) = line.split_once(' ').unwrap_or((line, ""));
        let text = text.trim_end();
        // A cut may leave a part of the last group of four characters.
        let groups = text.get(..text.len() / 4 * 4).unwrap_or(text);
        let packed = if version == VERSION {
            STANDARD
                .decode(groups)
                .map(Vec::into_boxed_slice)
                .map_err(|_| SnapshotError::Corrupt("not base64"))
        } else {
            Err(SnapshotError::Version(version.chars().take(20).collect()))
        };
        Some(Self {
            packed,
            message_bytes: message.len(),
        })
    }

    /// Decodes the measurements of the worker. Of a message that the kubelet cut, the metrics before the
    /// cut are decoded, which are the most important ones.
    ///
    /// # Errors
    /// If a worker of this operator version did not write the snapshot, or if it was modified.
    pub fn decode(&self) -> Result<Measurements, SnapshotError> {
        let packed = self.packed.as_ref().map_err(Clone::clone)?;
        let (json, is_cut) = match decompress_to_vec_zlib_with_limit(packed, MAX_INFLATED_BYTES) {
            Ok(json) => (json, false),
            Err(error) if error.status == TINFLStatus::FailedCannotMakeProgress => {
                let json = complete(error.output).ok_or(SnapshotError::Cut(self.message_bytes))?;
                (json, true)
            }
            Err(_) => {
                return Err(SnapshotError::Corrupt(
                    "too large, or not compressed with zlib",
                ));
            }
        };
        let mut snapshot: Content<'_> =
            serde_json::from_slice(&json).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
        if is_cut {
            snapshot.counters.get_or_insert_default();
            snapshot.histograms.get_or_insert_default();
            snapshot.r#final = false;
        }
        let (load, delay, generator) = (snapshot.load, snapshot.delay, snapshot.generator);
        let mut measurements = measurements(snapshot)
            .ok_or_else(|| SnapshotError::Malformed("no counters or no histograms".into()))?;
        if is_cut {
            measurements.was_cut = true;
            measurements.add_problem(cut_by_kubelet(self.message_bytes));
        }
        measurements.load = Load::of_worker(
            load.and_then(LoadPlan::read),
            delay.and_then(|delay| sketch(delay, MAX_DELAY_COLLAPSES)),
            generator.and_then(Generator::read),
            arrived(&measurements),
        );
        Ok(measurements)
    }
}

/// Completes JSON that was cut: removes what follows the last complete entry of an object, and closes
/// the objects. None if nothing is left.
fn complete(mut json: Vec<u8>) -> Option<Vec<u8>> {
    let (mut open, mut is_string, mut is_escaped) = (Vec::new(), false, false);
    let mut open_lists = 0_usize;
    let mut last_entry = None;
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'{' => {
                open.push(b'}');
                last_entry = Some((at + 1, open.len()));
            }
            b'[' => {
                open.push(b']');
                open_lists += 1;
            }
            b'}' | b']' => {
                open_lists -= usize::from(open.pop() == Some(b']'));
                if open_lists == 0 {
                    last_entry = Some((at + 1, open.len()));
                }
            }
            b',' if open_lists == 0 => {
                last_entry = Some((at, open.len()));
            }
            _ => {}
        }
    }
    let (end, depth) = last_entry?;
    json.truncate(end);
    json.extend(std::iter::repeat_n(b'}', depth));
    Some(json)
}

/// Describes results that the kubelet cut. The length of a message that was cut reveals the number of
/// containers.
fn cut_by_kubelet(message_bytes: usize) -> String {
    let containers = KUBELET_BYTES / message_bytes.max(1);
    if containers > 0 && KUBELET_BYTES / containers == message_bytes {
        format!(
            "the results were cut by the kubelet to {message_bytes} bytes ({containers} containers share 12 KiB)"
        )
    } else {
        format!("the results were cut to {message_bytes} bytes")
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

fn measurements(snapshot: Content<'_>) -> Option<Measurements> {
    let time = |ms: Option<&RawValue>| ms.and_then(number).filter(|ms| (0.0..1e15).contains(ms));
    let start = time(snapshot.start);
    let mut measurements = Measurements {
        workers: 1,
        partial: u32::from(!snapshot.r#final),
        first: time(snapshot.first),
        last: time(snapshot.last),
        starts: start.map(|start| (start, start)),
        dropped: snapshot.dropped.0.saturating_add(snapshot.dropped.1),
        dropped_errors: snapshot.errors.clamp(0.0, f64::MAX),
        ..Measurements::default()
    };
    let mut invalid = snapshot.invalid_names;
    let has_valid_name = |name: &str| name.chars().count() <= MAX_NAME_CHARS;
    for (name, value) in snapshot.counters? {
        let is_valid = |n: &f64| has_valid_name(&name) && (*n >= 0.0 || is_custom(&name));
        match number(value).filter(is_valid) {
            Some(value) => measurements.add_counter(&name, value),
            None => invalid.push(name.into_owned()),
        }
    }
    for (name, value) in snapshot.histograms? {
        let histogram = sketch(value, MAX_COLLAPSES);
        match histogram.filter(|_| has_valid_name(&name)) {
            Some(histogram) => measurements.add_histogram(&name, &histogram),
            None => invalid.push(name.into_owned()),
        }
    }
    for name in snapshot.dropped_names {
        measurements.add_dropped_name(shortened(&name, MAX_NAME_CHARS));
    }
    for name in &invalid {
        measurements.add_invalid_name(shortened(name, MAX_NAME_CHARS));
    }
    if !invalid.is_empty() {
        measurements.add_problem(describe_invalid(&invalid));
    }
    Some(measurements)
}

fn describe_invalid(names: &[String]) -> String {
    let mut listed: Vec<_> = names
        .iter()
        .take(MAX_LISTED)
        .map(|name| shortened(name, MAX_LISTED_CHARS).replace(char::is_control, ""))
        .collect();
    if names.len() > MAX_LISTED {
        listed.push(format!("{} more", names.len() - MAX_LISTED));
    }
    format!(
        "metrics with invalid values were dropped: {}",
        listed.join(", ")
    )
}

fn shortened(name: &str, max_chars: usize) -> &str {
    let end = name
        .char_indices()
        .nth(max_chars)
        .map_or(name.len(), |(at, _)| at);
    name.get(..end).unwrap_or(name)
}

/// A finite number.
fn number(value: &RawValue) -> Option<f64> {
    serde_json::from_str::<f64>(value.get())
        .ok()
        .filter(|n| n.is_finite())
}

/// The virtual users that a worker created or skipped, if it reported them.
fn arrived(measurements: &Measurements) -> Option<f64> {
    let count = |name: &str| match measurements.counter(name) {
        None if measurements.may_be_missing(name) => None,
        counted => Some(counted.unwrap_or_default()),
    };
    Some(count("vusers.created")? + measurements.counter("vusers.skipped").unwrap_or_default())
}

/// None if no worker writes such a histogram.
fn sketch(value: &RawValue, max_collapses: u8) -> Option<Sketch> {
    let Histogram(collapses, min, max, sum, zeros, positive, negative) =
        serde_json::from_str(value.get()).ok()?;
    let sketch = Sketch {
        collapses,
        min,
        max,
        sum,
        zeros,
        positive: bins(&positive)?,
        negative: bins(&negative)?,
    };
    let is_valid = collapses <= max_collapses && zeros <= MAX_COUNT && sketch.is_finite();
    is_valid.then_some(sketch)
}

/// Decodes the first key, followed for each key by the difference of its count from that of the
/// preceding key. None if a key or a count is out of range, or if there are more
/// bins than response times can have.
fn bins(list: &[i64]) -> Option<BTreeMap<i32, u64>> {
    let Some((first, differences)) = list.split_first() else {
        return Some(BTreeMap::new());
    };
    let keys = i32::try_from(*first).ok()?..=MAX_KEY;
    if *keys.start() < -MAX_KEY || differences.len() > keys.clone().count() {
        return None;
    }
    let mut count = 0_u64;
    let mut bins = BTreeMap::new();
    for (key, difference) in keys.zip(differences) {
        count = count
            .checked_add_signed(*difference)
            .filter(|n| *n <= MAX_COUNT)?;
        if count > 0 {
            bins.insert(key, count);
        }
        if bins.len() > MAX_BINS {
            return None;
        }
    }
    Some(bins)
}
