//! The metrics that expressions can name.

use loadtest_api::v1alpha1::is_identifier_char;

use crate::{Measurements, Sketch};

/// The measurements by the names that Artillery's `ensure` has for them: counters, rates, and values of histograms.
///
/// Source: `artillery-plugin-ensure`, `statsToVars` in `plugin.ts`. Different from there:
/// - A counter that nothing was counted for is 0, so that `http.codes.500 == 0` holds without one. There it does not. But a
///   name below `http.`, `vusers.`, `websocket.` or `socketio.` that Artillery has no counter for is a slip of the pen.
/// - `http.response_time.p999` can be named. There it is taken for `p99` with a 9 after it, and fails.
/// - A rate is the counter over the time between the first and the last count of all workers. There it is the mean of the
///   rates of all 10 s. Rates of plugins' own cannot be told.
/// - `apdex` can be named. There it never has a value.
pub(super) struct Metrics<'a> {
    measured: &'a Measurements,
    /// Names with characters that no name in an expression has, the longest first.
    odd: Vec<String>,
}

/// Artillery's rates, with the counters that they are counted with.
const RATES: [(&str, &str); 5] = [
    ("http.request_rate", "http.requests"),
    ("http.response_rate", "http.responses"),
    ("websocket.send_rate", "websocket.messages_sent"),
    ("websocket.receive_rate", "websocket.messages_received"),
    ("socketio.emit_rate", "socketio.emit"),
];

/// Artillery's counters, in families that have no others.
const FAMILIES: [&str; 4] = ["http.", "vusers.", "websocket.", "socketio."];
const COUNTERS: [&str; 10] = [
    "http.requests",
    "http.responses",
    "http.downloaded_bytes",
    "vusers.created",
    "vusers.completed",
    "vusers.failed",
    "vusers.skipped",
    "websocket.messages_sent",
    "websocket.messages_received",
    "socketio.emit",
];

impl<'a> Metrics<'a> {
    pub(super) fn new(measured: &'a Measurements) -> Self {
        let mut odd: Vec<_> = measured
            .names()
            .filter(|name| !name.chars().all(is_identifier_char))
            .collect();
        odd.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self { measured, odd }
    }

    /// The metric that a text begins with, where its name is not one of letters, digits and dots: `ensure` replaces the names
    /// of all metrics before it reads an expression, so `plugins.metrics-by-endpoint.response_time./api.p95` can be written.
    pub(super) fn strip_unusual_name<'t>(&self, text: &'t str) -> Option<&'t str> {
        let name = self.odd.iter().find(|name| {
            text.strip_prefix(name.as_str())
                .is_some_and(|rest| !rest.starts_with(is_identifier_char))
        })?;
        text.get(..name.len())
    }

    /// The value of a metric, or why there is none.
    pub(super) fn value(&self, name: &str) -> Result<f64, String> {
        if let Some(value) = self.counter(name)? {
            return Ok(value);
        }
        if let Some((histogram, summary)) = name
            .rsplit_once('.')
            .filter(|(_, summary)| Sketch::SUMMARIES.contains(summary))
        {
            return self.summary(histogram, summary);
        }
        if let Some((_, counter)) = RATES.iter().find(|(rate, _)| *rate == name) {
            let rate = self.counter(counter)?.unwrap_or_default() / self.measured.seconds();
            return Ok((rate * 10.0).round() / 10.0);
        }
        let count = |name: &str| Ok::<_, String>(self.counter(name)?.unwrap_or_default());
        match name {
            "apdex" => {
                let (satisfied, tolerated) = (count("apdex.satisfied")?, count("apdex.tolerated")?);
                let all = satisfied + tolerated + count("apdex.frustrated")?;
                if all > 0.0 {
                    Ok((satisfied + tolerated / 2.0) / all)
                } else {
                    Err("apdex was not measured".into())
                }
            }
            "maxErrorRate" => {
                let (created, completed) = (count("vusers.created")?, count("vusers.completed")?);
                if created > 0.0 {
                    Ok((created - completed) / created * 100.0)
                } else {
                    Err("no virtual user was created".into())
                }
            }
            _ if is_unknown(name) => Err(format!("Artillery has no metric {name}")),
            _ if name.ends_with("_rate") => Err(format!("rate {name} is not reported by workers")),
            _ => Ok(0.0),
        }
    }

    fn counter(&self, name: &str) -> Result<Option<f64>, String> {
        if self.measured.is_lost(name) {
            return Err(format!(
                "{name} was dropped by at least one worker for lack of space"
            ));
        }
        Ok(self.measured.counter(name))
    }

    fn summary(&self, histogram: &str, summary: &str) -> Result<f64, String> {
        if self.measured.is_lost(histogram) {
            return Err(format!(
                "{histogram} was dropped by at least one worker for lack of space"
            ));
        }
        let sketch = self
            .measured
            .histogram(histogram)
            .ok_or_else(|| format!("no worker measured {histogram}"))?;
        sketch
            .summary(summary)
            .ok_or_else(|| format!("{histogram} has no {summary}"))
    }
}

fn is_unknown(name: &str) -> bool {
    let is_code = |code: &str| code.len() == 3 && code.bytes().all(|digit| digit.is_ascii_digit());
    FAMILIES.iter().any(|family| name.starts_with(family))
        && !COUNTERS.contains(&name)
        && !name.starts_with("vusers.created_by_name.")
        && !name.strip_prefix("http.codes.").is_some_and(is_code)
}
