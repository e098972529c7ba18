//! Simulated workers, which leave the messages that real ones leave.

use std::collections::BTreeMap;

use loadtest_api::v1alpha1::Series;
use loadtest_results::testing::message;
use serde_json::{Value, json};

pub(super) const SECONDS: usize = 300;
const STEP_SECONDS: usize = 10;
const START_MS: u64 = 1_767_268_815_000; // 2026-01-01T12:00:15Z

/// What one worker measured, and what it adds to the series.
#[derive(Default)]
struct Measured {
    counters: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Vec<f64>>,
}

/// A run of several workers.
pub(super) struct Run {
    /// The termination messages.
    pub(super) messages: Vec<String>,
    /// The course.
    pub(super) series: Series,
}

/// The size of a worker, and the load that it should send.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) workers: usize,
    /// Virtual users per second and worker, by plan.
    pub(super) planned: f64,
    /// The same, as they arrived.
    pub(super) arrived: f64,
    /// From which second the target is slow.
    pub(super) slow_from: usize,
}

/// A deterministic sequence of numbers from 0 to 1.
struct Random(u64);

impl Random {
    #[allow(clippy::cast_precision_loss)]
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Log-normal, as response times are.
    fn time(&mut self, median: f64, spread: f64) -> f64 {
        let normal = (0..12).map(|_| self.next()).sum::<f64>() - 6.0;
        median * (normal * spread).exp()
    }
}

/// Simulates all workers.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]
pub(super) fn run(sizes: Sizes) -> Run {
    let steps = SECONDS / STEP_SECONDS;
    let mut random = Random(7);
    let mut times = vec![Vec::new(); steps];
    let mut series = Series {
        start: serde_json::from_value(json!("2026-01-01T12:00:15Z")).unwrap(),
        step_seconds: STEP_SECONDS as i64,
        requests: vec![0; steps],
        errors: vec![0; steps],
        vusers_created: vec![0; steps],
        vusers_planned: vec![(sizes.planned * (sizes.workers * STEP_SECONDS) as f64) as i64; steps],
        vusers_active: vec![0; steps],
        ..Series::default()
    };
    let mut messages = Vec::new();
    for worker in 0..sizes.workers {
        let mut measured = Measured::default();
        let mut due = 0.0;
        for second in 0..SECONDS {
            let step = second / STEP_SECONDS;
            due += sizes.arrived;
            let is_slow = second >= sizes.slow_from;
            while due >= 1.0 {
                due -= 1.0;
                let session = measured.session(&mut random, is_slow, &mut times[step]);
                series.requests[step] += session.requests;
                series.errors[step] += session.errors;
                series.vusers_created[step] += 1;
            }
            let length = if is_slow { 2.9 } else { 1.1 };
            series.vusers_active[step] =
                (sizes.arrived * sizes.workers as f64 * length) as i64 + (second % 7) as i64;
        }
        messages.push(measured.message(worker, sizes));
    }
    if let Some(last) = series.vusers_active.last_mut() {
        *last = 0;
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
        let at = |q: f64| {
            let at = (q * (times.len().saturating_sub(1)) as f64) as usize;
            times.get(at).map(|ms| (ms * 10.0).round() / 10.0)
        };
        series.p50.push(at(0.5));
        series.p95.push(at(0.95));
        series.p99.push(at(0.99));
    }
    Run { messages, series }
}

/// What a virtual user added.
struct Session {
    requests: i64,
    errors: i64,
}

impl Measured {
    fn add(&mut self, counter: &str) {
        *self.counters.entry(counter.to_owned()).or_default() += 1;
    }

    fn session(&mut self, random: &mut Random, is_slow: bool, times: &mut Vec<f64>) -> Session {
        let endpoints = [
            ("/api/products", 24.0, 200),
            ("/api/cart", 38.0, 200),
            ("/api/checkout", 85.0, 201),
        ];
        self.add("vusers.created");
        let (mut length, mut session) = (
            1000.0,
            Session {
                requests: 0,
                errors: 0,
            },
        );
        for (endpoint, median, code) in endpoints {
            self.add("http.requests");
            session.requests += 1;
            if is_slow && random.next() < 0.012 {
                let error = if random.next() < 0.8 {
                    "ETIMEDOUT"
                } else {
                    "ECONNRESET"
                };
                self.add(&format!("errors.{error}"));
                self.add(&format!(
                    "plugins.metrics-by-endpoint.{endpoint}.errors.{error}"
                ));
                self.add("vusers.failed");
                session.errors += 1;
                return session;
            }
            let ms = if is_slow {
                random.time(median * 6.5, 0.45)
            } else {
                random.time(median, 0.28)
            };
            let code = if is_slow && random.next() < 0.02 {
                503
            } else {
                code
            };
            self.add("http.responses");
            self.add(&format!("http.codes.{code}"));
            self.add(&format!(
                "plugins.metrics-by-endpoint.{endpoint}.codes.{code}"
            ));
            for name in [
                "http.response_time".into(),
                format!("plugins.metrics-by-endpoint.response_time.{endpoint}"),
            ] {
                self.histograms.entry(name).or_default().push(ms);
            }
            times.push(ms);
            length += ms;
        }
        self.add("vusers.completed");
        self.histograms
            .entry("vusers.session_length".into())
            .or_default()
            .push(length);
        session
    }

    #[allow(clippy::cast_precision_loss)]
    fn message(&self, worker: usize, sizes: Sizes) -> String {
        let planned = sizes.planned * SECONDS as f64;
        let created = self
            .counters
            .get("vusers.created")
            .copied()
            .unwrap_or_default() as f64;
        let lateness = sizes.planned / sizes.arrived;
        let is_late = lateness > 1.05;
        let planned_ms = SECONDS * 1000;
        let histograms: BTreeMap<_, _> = self
            .histograms
            .iter()
            .map(|(name, values)| (name, histogram(values)))
            .collect();
        let start = START_MS + worker as u64 * 6;
        let end = START_MS + planned_ms as u64 + 900;
        let delay = if is_late { 18_000.0 } else { 4.0 };
        let content = json!({
            "final": true, "first": start, "last": end, "start": start,
            "load": [planned, planned, planned_ms, planned_ms as f64 * lateness, 0],
            "delay": [3, 0.4, delay, delay * created / 2.0, 0, bins(&[delay / 2.0, delay], 3), []],
            "generator": [1, if is_late { 994 } else { 310 + worker * 17 }, if is_late { 182.0 } else { 12.4 },
                if is_late { 2870 } else { worker * 3 }, 3000, 1200, 92_000 + worker * 900, 500, 132 + worker, 512],
            "counters": self.counters, "histograms": histograms,
        });
        message(&content.to_string())
    }
}

fn histogram(values: &[f64]) -> Value {
    let (min, max) = values
        .iter()
        .fold((f64::MAX, 0.0), |(min, max), ms| (ms.min(min), ms.max(max)));
    json!([
        0,
        min,
        max,
        values.iter().sum::<f64>(),
        0,
        bins(values, 0),
        []
    ])
}

/// The first key of a sketch, and the differences between the counts of its keys.
#[allow(clippy::cast_possible_truncation)]
fn bins(values: &[f64], collapses: i32) -> Vec<i64> {
    let log_gamma = (1.01_f64 / 0.99).ln() * f64::from(1 << collapses);
    let mut counts = BTreeMap::new();
    for value in values {
        *counts
            .entry((value.ln() / log_gamma).ceil() as i64)
            .or_insert(0) += 1;
    }
    let (first, last) = (
        *counts.keys().next().unwrap(),
        *counts.keys().last().unwrap(),
    );
    let mut bins = vec![first];
    let mut before = 0;
    for key in first..=last {
        let count: i64 = counts.get(&key).copied().unwrap_or_default();
        bins.push(count - before);
        before = count;
    }
    bins
}
