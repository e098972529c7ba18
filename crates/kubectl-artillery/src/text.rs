//! Text for people: tables, colors, and the lines and the result of a test.

use std::fmt::Write;
use std::io::IsTerminal;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::duration;
use loadtest_api::v1alpha1::{
    ConditionType, Distribution, LoadTest, LoadTestStatus, NamedCount, Phase, Results, Verdict,
};

/// Whether to use colors on a stream: on a terminal, unless `NO_COLOR` is set.
///
/// Source: <https://no-color.org>.
#[must_use]
pub fn use_colors(stream: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_set("NO_COLOR")
}

/// A color of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Something is as it should be.
    Good,
    /// Something needs attention.
    Warning,
    /// Something failed.
    Bad,
    /// What matters less.
    Dim,
    /// A heading.
    Bold,
}

/// Colors a text, if `colors`.
#[must_use]
pub fn paint(text: &str, color: Color, colors: bool) -> String {
    if !colors {
        return text.to_owned();
    }
    let code = match color {
        Color::Good => "32",
        Color::Warning => "33",
        Color::Bad => "31",
        Color::Dim => "2",
        Color::Bold => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The color of a verdict.
#[must_use]
pub fn verdict_color(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Passed => Color::Good,
        Verdict::Failed => Color::Bad,
        Verdict::Inconclusive => Color::Warning,
    }
}

/// A table with aligned columns, two spaces apart. The last column is as wide as it is.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<_> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Milliseconds as the columns of kubectl show them: `8.9ms`.
#[must_use]
pub fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value}ms"))
}

/// The time since the workers began their load, or since the Job started.
#[must_use]
pub fn elapsed(status: &LoadTestStatus, now: Timestamp) -> Option<SignedDuration> {
    let start = status
        .load_start_time
        .as_ref()
        .map(|time| time.0)
        .or(status.start_time.as_ref().map(|time| time.0))?;
    let end = status.completion_time.as_ref().map_or(now, |time| time.0);
    Some(end.duration_since(start).max(SignedDuration::ZERO))
}

/// The share of the expected duration that is over, from 0 to 1.
#[must_use]
pub fn progress(status: &LoadTestStatus, now: Timestamp) -> Option<f64> {
    let expected = duration::parse(status.expected_duration.as_deref()?)?.as_secs_f64();
    let elapsed = elapsed(status, now)?.as_secs_f64();
    (expected > 0.0).then(|| (elapsed / expected).clamp(0.0, 1.0))
}

/// The condition that explains where the test stands: its reason and its message.
#[must_use]
pub fn explanation(test: &LoadTest) -> (String, String) {
    let Some(status) = &test.status else {
        return (
            String::new(),
            "the operator has not seen the test yet".into(),
        );
    };
    let is_finished = test.phase().is_some_and(Phase::is_terminal);
    let type_ = if is_finished {
        ConditionType::Passed
    } else {
        ConditionType::Progressing
    };
    let condition = status.condition(type_).or_else(|| status.progressing());
    condition.map_or_else(Default::default, |condition| {
        (condition.reason.clone(), condition.message.clone())
    })
}

/// The phase, or Pending where the operator has not written one.
#[must_use]
pub fn phase(test: &LoadTest) -> Phase {
    test.phase().unwrap_or(Phase::Pending)
}

/// One line about where a test stands.
#[must_use]
pub fn progress_line(test: &LoadTest, now: Timestamp) -> String {
    let phase = phase(test);
    let age = duration::format(SignedDuration::try_from(test.age(now)).unwrap_or_default());
    let head = format!("{age:>6}  {:<9}", phase.as_str());
    let status = test.status.clone().unwrap_or_default();
    let (_, message) = explanation(test);
    if phase != Phase::Running {
        return format!("{head}  {message}");
    }
    let mut parts = Vec::new();
    if let Some(elapsed) = elapsed(&status, now) {
        let expected = status.expected_duration.as_deref().unwrap_or("unknown");
        parts.push(format!("{} of {expected}", duration::format(elapsed)));
    }
    match &status.results {
        Some(results) => parts.push(numbers(results)),
        None => parts.push(message),
    }
    let broken = [
        ConditionType::LoadDelivered,
        ConditionType::LiveResultsAvailable,
    ];
    for condition in broken
        .into_iter()
        .filter_map(|type_| status.condition(type_))
    {
        if condition.status == "False" {
            parts.push(format!("{}: {}", condition.reason, condition.message));
        }
    }
    format!("{head}  {}", parts.join("  "))
}

/// The main numbers of results, in one line.
fn numbers(results: &Results) -> String {
    let mut text = format!(
        "{} requests  {}/s  {} errors",
        results.requests, results.request_rate, results.errors
    );
    for (name, value) in [("p95", &results.p95), ("p99", &results.p99)] {
        if let Some(value) = value {
            let _ = write!(text, "  {name} {value}");
        }
    }
    let load = results.load.as_ref();
    if let Some(sent) = load.and_then(|load| load.sent.as_ref()) {
        let _ = write!(text, "  sent {sent}");
    }
    text
}

/// The end of a test: its verdict, why, and its numbers.
#[must_use]
pub fn result(test: &LoadTest, colors: bool) -> String {
    let status = test.status.clone().unwrap_or_default();
    let (_, message) = explanation(test);
    let mut text = String::new();
    let head = match status.verdict {
        Some(verdict) => paint(verdict.as_str(), verdict_color(verdict), colors),
        None => paint(phase(test).as_str(), Color::Bold, colors),
    };
    let _ = writeln!(text, "\n{head}: {message}");
    if let Some(condition) = status.condition(ConditionType::LoadDelivered)
        && condition.status == "False"
    {
        let _ = writeln!(text, "{}: {}", condition.reason, condition.message);
    }
    for failed in &status.failed_workers {
        let index = failed
            .index
            .map_or_else(String::new, |index| format!("worker {index}, "));
        let message = failed.message.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {index}pod {}: {} {message}",
            failed.pod, failed.reason
        );
    }
    if let Some(results) = &status.results {
        let _ = write!(text, "\n{}", results_table(results, &status));
    }
    if let Some(thresholds) = status.thresholds.as_ref().filter(|all| !all.is_empty()) {
        let rows: Vec<_> = thresholds
            .iter()
            .map(|one| {
                let held = match one.held {
                    Some(true) => "met",
                    Some(false) => "not met",
                    None => "unknown",
                };
                let message = one.message.clone().unwrap_or_default();
                vec![format!("  {held}"), one.expression.clone(), message]
            })
            .collect();
        let _ = write!(text, "\nThresholds\n{}", table(&rows));
    }
    text
}

fn results_table(results: &Results, status: &LoadTestStatus) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![format!("  {name}"), value]);
    let workers = &results.workers_reporting;
    let partial = if results.partial { ", incomplete" } else { "" };
    row("workers", format!("{workers} reported{partial}"));
    if let Some(duration) = &status.duration {
        row("duration", duration.clone());
    }
    let rate = results.request_rate;
    row("requests", format!("{} ({rate}/s)", results.requests));
    row("responses", with_names(results.responses, &results.codes));
    row(
        "errors",
        with_names(results.errors, &results.errors_by_kind),
    );
    let (created, completed) = (results.vusers_created, results.vusers_completed);
    let failed = results.vusers_failed;
    row(
        "vusers",
        format!("{created} created, {completed} completed, {failed} failed"),
    );
    if let Some(times) = results.response_time() {
        row("response time", percentiles(times));
    }
    if let Some(load) = &results.load {
        let sent = load.sent.as_deref().unwrap_or("unknown");
        let skipped = match load.skipped_vusers {
            0 => String::new(),
            skipped => format!(", {skipped} skipped"),
        };
        row("sent", format!("{sent} of the planned load{skipped}"));
    }
    table(&rows)
}

fn with_names(total: i64, counts: &[NamedCount]) -> String {
    let named: Vec<_> = counts
        .iter()
        .map(|one| format!("{}: {}", one.name, one.count))
        .collect();
    if named.is_empty() {
        total.to_string()
    } else {
        format!("{total} ({})", named.join(", "))
    }
}

fn percentiles(times: &Distribution) -> String {
    let values = [
        ("p50", times.p50),
        ("p95", times.p95),
        ("p99", times.p99),
        ("max", times.max),
    ];
    let values = values.map(|(name, value)| format!("{name} {}", milliseconds(value)));
    values.join(", ")
}
