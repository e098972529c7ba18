//! The metrics that expressions can name.

use loadtest_api::v1alpha1::is_identifier_char;

use crate::{Measurements, Sketch};

/// The measurements by the names that Artillery's `ensure` uses: counters, rates and values of
/// histograms.
///
/// Source: `artillery-plugin-ensure`, `statsToVars` in `plugin.ts`. Differences:
/// - A counter that was never incremented is 0, so that `http.codes.500 == 0` is met if there was no
///   such response. In Artillery it is not met. A name with a prefix in [`FAMILIES`] that Artillery
///   does not have is an error, because it is misspelled.
/// - `http.response_time.p999` is a metric. Artillery reads it as `p99` followed by a 9, and fails.
/// - A rate is the counter divided by the time between the first and the last increment of all
///   workers. In Artillery it is the mean of the rates of all 10 s periods. Workers do not report the
///   rates of plugins.
/// - `apdex` is a metric. In Artillery it never has a value.
pub(super) struct Metrics<'a> {
    measured: &'a Measurements,
    /// Names with characters that identifiers do not have, the longest first.
    unusual_names: Vec<String>,
}

/// Artillery's rates, with the counters that they are computed from.
const RATES: [(&str, &str); 5] = [
    ("http.request_rate", "http.requests"),
    ("http.response_rate", "http.responses"),
    ("websocket.send_rate", "websocket.messages_sent"),
    ("websocket.receive_rate", "websocket.messages_received"),
    ("socketio.emit_rate", "socketio.emit"),
];

/// Prefixes that only Artillery's own counters have.
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
        let mut unusual_names: Vec<_> = measured
            .names()
            .filter(|name| !name.chars().all(is_identifier_char))
            .collect();
        unusual_names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self {
            measured,
            unusual_names,
        }
    }

    /// The metric at the start of a text whose name is not an identifier. Artillery replaces the names
    /// of all metrics before it parses an expression, so an expression can contain
    /// `plugins.metrics-by-endpoint.response_time./api.p95`.
    pub(super) fn strip_unusual_name<'t>(&self, text: &'t str) -> Option<&'t str> {
        let name = self.unusual_names.iter().find(|name| {
            text.strip_prefix(name.as_str())
                .is_some_and(|rest| !rest.starts_with(is_identifier_char))
        })?;
        text.get(..name.len())
    }

    /// The value of a metric, or why it has none.
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
                    Err("no worker measured apdex".into())
                }
            }
            "maxErrorRate" => {
                let (created, completed) = (count("vusers.created")?, count("vusers.completed")?);
                if created > 0.0 {
                    Ok((created - completed) / created * 100.0)
                } else {
                    Err("no virtual users were created".into())
                }
            }
            _ if is_not_a_metric(name) => Err(format!("Artillery has no metric {name}")),
            _ if name.ends_with("_rate") => Err(format!("rate {name} is not reported by workers")),
            _ => Ok(0.0),
        }
    }

    fn counter(&self, name: &str) -> Result<Option<f64>, String> {
        if self.measured.may_be_missing(name) {
            return Err(format!(
                "{name} was dropped by at least one worker for lack of space"
            ));
        }
        Ok(self.measured.counter(name))
    }

    fn summary(&self, histogram: &str, summary: &str) -> Result<f64, String> {
        if self.measured.may_be_missing(histogram) {
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

/// Whether a name cannot be a metric of Artillery, although it looks like one.
fn is_not_a_metric(name: &str) -> bool {
    let is_code = |code: &str| code.len() == 3 && code.bytes().all(|digit| digit.is_ascii_digit());
    FAMILIES.iter().any(|family| name.starts_with(family))
        && !COUNTERS.contains(&name)
        && !name.starts_with("vusers.created_by_name.")
        && !name.strip_prefix("http.codes.").is_some_and(is_code)
}
