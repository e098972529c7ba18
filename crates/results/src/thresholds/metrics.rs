//! The metrics that expressions can name.

use loadtest_api::v1alpha1::is_identifier_char;

use super::names::{
    ARRIVAL_DELAY, LOAD_CREATED, LOAD_PLANNED, LOAD_SKIPPED, RATES, is_zero_when_uncounted,
    misspelling, problem,
};
use crate::{Measurements, Sketch};

/// The measurements by the names that Artillery's `ensure` uses: counters, rates and values of
/// histograms.
///
/// Source: `artillery-plugin-ensure`, `statsToVars` in `plugin.ts`. Differences:
/// - A counter of Artillery that was never incremented is 0, so that `http.codes.500 == 0` is met if
///   there was no such response. In Artillery it is not met. Any other counter that no worker
///   reported has no value, because it may be misspelled.
/// - `http.response_time.p999` is a metric. Artillery reads it as `p99` followed by a 9, and fails.
/// - A rate is the counter divided by the time between the first and the last increment of all
///   workers. In Artillery it is the mean of the rates of all 10 s periods. Workers do not report the
///   rates of plugins.
/// - `apdex` is a metric. In Artillery it never has a value.
/// - `load.*` are metrics of the operator.
pub(super) struct Metrics<'a> {
    /// None before the test starts: each metric that can exist then has some value.
    measured: Option<&'a Measurements>,
    /// Names with characters that identifiers do not have, in order. Each has the position of the longest other name that it
    /// begins with.
    unusual_names: Vec<(String, Option<usize>)>,
}

impl<'a> Metrics<'a> {
    pub(super) fn new(measured: &'a Measurements) -> Self {
        let mut names: Vec<_> = measured
            .names()
            .filter(|name| !name.chars().all(is_identifier_char))
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut unusual_names: Vec<(String, Option<usize>)> = Vec::new();
        for name in names {
            let mut start = unusual_names.len().checked_sub(1);
            while let Some((shorter, before)) = start.and_then(|n| unusual_names.get(n))
                && !name.starts_with(shorter.as_str())
            {
                start = *before;
            }
            unusual_names.push((name, start));
        }
        Self {
            measured: Some(measured),
            unusual_names,
        }
    }

    /// The metrics of a test that has not started.
    pub(super) fn unmeasured() -> Self {
        Self {
            measured: None,
            unusual_names: Vec::new(),
        }
    }

    pub(super) fn is_measured(&self) -> bool {
        self.measured.is_some()
    }

    /// The metric at the start of a text whose name is not an identifier. Artillery replaces the names
    /// of all metrics before it parses an expression, so an expression can contain
    /// `plugins.metrics-by-endpoint.response_time./api.p95`.
    pub(super) fn strip_unusual_name<'t>(&self, text: &'t str) -> Option<&'t str> {
        // All names that the text begins with are on the chain of the last name that is not after the text.
        let after = self
            .unusual_names
            .partition_point(|(name, _)| name.as_str() <= text);
        let mut at = after.checked_sub(1);
        let (last, _) = self.unusual_names.get(at?)?;
        let pairs = last.bytes().zip(text.bytes());
        let common = pairs.take_while(|(a, b)| a == b).count();
        while let Some((name, shorter)) = at.and_then(|n| self.unusual_names.get(n)) {
            let rest = text.get(name.len()..).filter(|_| name.len() <= common);
            if rest.is_some_and(|rest| !rest.starts_with(is_identifier_char)) {
                return text.get(..name.len());
            }
            at = *shorter;
        }
        None
    }

    /// The value of a metric, or why it has none. A name in quotes is taken literally before the
    /// start, even if it resembles a metric of Artillery.
    pub(super) fn value(&self, name: &str, is_quoted: bool) -> Result<f64, String> {
        match self.measured {
            Some(measured) => Values(measured).value(name),
            None if is_quoted && name.parse::<f64>().is_ok() => Err(format!(
                "'{name}' is the name of a metric, because it is in quotes; write {name}"
            )),
            None => problem(name).filter(|_| !is_quoted).map_or(Ok(1.0), Err),
        }
    }
}

struct Values<'a>(&'a Measurements);

impl Values<'_> {
    fn value(&self, name: &str) -> Result<f64, String> {
        if let Some(value) = self.load(name) {
            return value;
        }
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
            let rate = self.counter(counter)?.unwrap_or_default() / self.0.seconds();
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
                    Err("no worker reported apdex".into())
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
            _ if is_zero_when_uncounted(name, |prefix| self.0.has_prefix(prefix)) => Ok(0.0),
            _ => Err(misspelling(name).unwrap_or_else(|| {
                if name.ends_with("_rate") {
                    format!("rate {name} is not reported by workers")
                } else {
                    format!(
                        "no worker reported {name}; a counter that may stay 0 must be emitted with the value 0"
                    )
                }
            })),
        }
    }

    /// A value of the planned or sent load. None for other names.
    fn load(&self, name: &str) -> Option<Result<f64, String>> {
        let count = |counter: &str| Ok(self.counter(counter)?.unwrap_or_default());
        match name {
            LOAD_PLANNED => Some(self.0.plan().map(|plan| plan.vusers).ok_or_else(|| {
                "the planned load is unknown: not all workers reported a plan of the script's phases"
                    .to_owned()
            })),
            LOAD_CREATED => Some(count("vusers.created")),
            LOAD_SKIPPED => Some(count("vusers.skipped")),
            _ => {
                let (histogram, summary) = name.rsplit_once('.')?;
                let is_delay = histogram == ARRIVAL_DELAY && Sketch::SUMMARIES.contains(&summary);
                is_delay.then(|| self.arrival_delay(summary))
            }
        }
    }

    fn arrival_delay(&self, summary: &str) -> Result<f64, String> {
        let delay = self.0.load.delay.as_ref();
        delay
            .filter(|_| !self.0.load.is_delay_incomplete)
            .ok_or_else(|| {
                format!(
                    "{ARRIVAL_DELAY} is unknown: not all workers reported a plan of the script's phases"
                )
            })?
            .summary(summary)
            .ok_or_else(|| format!("{ARRIVAL_DELAY} has no {summary}"))
    }

    fn counter(&self, name: &str) -> Result<Option<f64>, String> {
        self.0
            .missing_reason(name)
            .map_or_else(|| Ok(self.0.counter(name)), Err)
    }

    fn summary(&self, histogram: &str, summary: &str) -> Result<f64, String> {
        if let Some(reason) = self.0.missing_reason(histogram) {
            return Err(reason);
        }
        let sketch = self.0.histogram(histogram).ok_or_else(|| {
            misspelling(&format!("{histogram}.{summary}"))
                .unwrap_or_else(|| format!("no worker reported {histogram}"))
        })?;
        sketch
            .summary_of(histogram, summary)
            .ok_or_else(|| format!("{histogram} has no {summary}"))
    }
}
