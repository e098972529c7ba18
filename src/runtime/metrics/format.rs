//! The exposition formats of metrics.

use std::collections::HashSet;

/// The exposition formats of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The Prometheus text format, version 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format for the value of an `Accept` header.
    #[must_use]
    pub(crate) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Returns the media type of the format.
    #[must_use]
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Converts `OpenMetrics` to the Prometheus text format, which uses the sample name of a counter (`_total`) in HELP and
/// TYPE lines and has no UNIT and EOF lines.
pub(super) fn to_prometheus_text(open_metrics: &str) -> String {
    let type_of_counter =
        |line| str::strip_prefix(line, "# TYPE ").and_then(|l| l.strip_suffix(" counter"));
    let counters: HashSet<&str> = open_metrics.lines().filter_map(type_of_counter).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics
        .lines()
        .filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF")
    {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(name) => {
                text.extend(["# ", kind, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}
