//! The report as Markdown that fits into the comment of a pull request, as GitHub and GitLab render it.

use std::fmt::Write;

use loadtest_api::v1alpha1::{ConditionType, NamedCount, Results, Threshold};

use super::Report;
use super::format::{milliseconds, shortened, time};
use super::plot::float;
use crate::outcome::Outcome;

/// How many rows a table has at most.
const MAX_ROWS: usize = 20;
/// Beyond this length, tables have no further rows. GitHub accepts comments of up to 65,536 characters, and what is not in rows has
/// less than 24,000.
const MAX_BYTES: usize = 40_000;
const MAX_CHARS: usize = 400;

/// Blocks of rising height.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The report.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let symbol = match report.outcome {
        Outcome::Passed => "✅",
        Outcome::Failed if report.verdict == "Stopped" => "⏹️",
        Outcome::Failed => "❌",
        Outcome::Inconclusive => "⚠️",
        Outcome::Unfinished => "⏳",
    };
    let mut out = format!(
        "## {symbol} Load test {}: {}\n\n{}\n",
        code(&report.name),
        report.verdict,
        text(&report.why)
    );
    if let Some(results) = &report.results {
        numbers(&mut out, report, results);
        load(&mut out, report);
        course(&mut out, results);
    } else {
        out.push_str("\nNo results: nothing was measured.\n");
    }
    thresholds(&mut out, report);
    if let Some(results) = &report.results {
        counts(&mut out, "Status codes", &results.codes);
        counts(&mut out, "Errors", &results.errors_by_kind);
    }
    endpoints(&mut out, report);
    workers(&mut out, report);
    if !report.missing.is_empty() {
        out.push_str("\n**Not included**\n\n");
        let line = |sentence: &String| format!("- {}", text(sentence));
        rows(&mut out, &report.missing, "problems", line);
    }
    footer(&mut out, report);
    out
}

fn numbers(out: &mut String, report: &Report, results: &Results) {
    let none = || "–".to_owned();
    let p50 = report.response_time().and_then(|times| times.p50);
    let load = results.load.as_ref();
    let sent = load.and_then(|load| load.sent.clone());
    let cells = [
        ("Requests", results.requests.to_string()),
        ("Rate", format!("{}/s", results.request_rate)),
        ("p50", p50.map_or_else(none, milliseconds)),
        ("p95", results.p95.clone().unwrap_or_else(none)),
        ("p99", results.p99.clone().unwrap_or_else(none)),
        ("Errors", results.errors.to_string()),
        ("Virtual users", results.vusers_created.to_string()),
        ("Sent", sent.unwrap_or_else(none)),
        ("Duration", report.duration.clone().unwrap_or_else(none)),
    ];
    let row = |cells: &mut dyn Iterator<Item = String>| {
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    if results.live {
        out.push_str("\nThe test is running; these are its results so far.\n");
    } else if results.partial {
        let _ = writeln!(
            out,
            "\nResults are incomplete: {} workers reported.",
            text(&results.workers_reporting)
        );
    }
    out.push('\n');
    out.push_str(&row(&mut cells.iter().map(|(name, _)| (*name).to_owned())));
    out.push_str(&row(&mut cells.iter().map(|_| "---:".to_owned())));
    out.push_str(&row(&mut cells.iter().map(|(_, value)| text(value))));
}

fn load(out: &mut String, report: &Report) {
    let condition = report.condition(ConditionType::LoadDelivered);
    match condition {
        Some(one) if one.status == "False" => {
            let _ = writeln!(out, "\n> **Load not delivered.** {}", text(&one.message));
        }
        Some(one) => {
            let _ = writeln!(out, "\n{}", text(&one.message));
        }
        None => {}
    }
}

fn course(out: &mut String, results: &Results) {
    let Some(series) = &results.series else {
        return;
    };
    let counts = |counts: &[i64]| counts.iter().map(|n| Some(float(*n))).collect::<Vec<_>>();
    let lines = [
        ("requests", counts(&series.requests)),
        ("p95     ", series.p95.clone()),
        ("errors  ", counts(&series.errors)),
    ];
    if series.requests.len() < 2 {
        return;
    }
    let _ = writeln!(
        out,
        "\nCourse, in steps of {}s:\n\n```text",
        series.step_seconds
    );
    for (label, values) in lines {
        let _ = writeln!(out, "{label} {}", sparkline(&values));
    }
    out.push_str("```\n");
}

/// One block for each value, the lowest only for zero; a space where it is missing.
fn sparkline(values: &[Option<f64>]) -> String {
    let highest = values.iter().flatten().copied().fold(0.0, f64::max);
    let block = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) => {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
            let at = (value / highest.max(f64::MIN_POSITIVE) * 7.0).ceil() as usize;
            BLOCKS.get(at).copied().unwrap_or('█')
        }
    };
    values.iter().take(120).map(block).collect()
}

fn thresholds(out: &mut String, report: &Report) {
    if report.thresholds.is_empty() {
        return;
    }
    let word = |threshold: &Threshold| match (threshold.held, threshold.is_strict()) {
        (Some(true), _) => "✅ met",
        (Some(false), true) => "❌ not met",
        (Some(false), false) => "⚠️ not met, not strict",
        (None, _) if report.is_finished() => "⚠️ not evaluated",
        (None, _) => "⏳ open",
    };
    let mut all: Vec<_> = report.thresholds.iter().collect();
    // Those that are not met must not be among the rows that do not fit.
    all.sort_by_key(|threshold| threshold.held == Some(true));
    out.push_str("\n| Threshold | Result | Measured |\n| --- | --- | --- |\n");
    rows(out, &all, "thresholds", |threshold| {
        format!(
            "| {} | {} | {} |",
            code(&threshold.expression),
            word(threshold),
            text(threshold.message.as_deref().unwrap_or("–"))
        )
    });
}

/// Adds a row for each item, as long as there is room.
fn rows<T>(out: &mut String, items: &[T], what: &str, row: impl Fn(&T) -> String) {
    let mut shown = 0;
    for item in items.iter().take(MAX_ROWS) {
        let row = row(item);
        if out.len() + row.len() > MAX_BYTES {
            break;
        }
        let _ = writeln!(out, "{row}");
        shown += 1;
    }
    if shown < items.len() {
        let _ = writeln!(out, "\n{} more {what} are not shown.", items.len() - shown);
    }
}

fn counts(out: &mut String, title: &str, counts: &[NamedCount]) {
    if counts.is_empty() {
        return;
    }
    let shown = counts.iter().take(MAX_ROWS);
    let list: Vec<_> = shown
        .map(|one| format!("{} {}", code(&one.name), one.count))
        .collect();
    let _ = writeln!(out, "\n**{title}:** {}", list.join(", "));
}

fn endpoints(out: &mut String, report: &Report) {
    if report.endpoints.is_empty() {
        return;
    }
    out.push_str(
        "\n| Endpoint | Responses | p50 | p95 | p99 |\n| --- | ---: | ---: | ---: | ---: |\n",
    );
    let ms = |ms: Option<f64>| ms.map_or_else(|| "–".to_owned(), milliseconds);
    rows(out, &report.endpoints, "endpoints", |endpoint| {
        let times = &endpoint.times;
        format!(
            "| {} | {} | {} | {} | {} |",
            code(&endpoint.name),
            times.count,
            ms(times.p50),
            ms(times.p95),
            ms(times.p99)
        )
    });
}

/// Only the workers with a problem: a test can have thousands of others.
fn workers(out: &mut String, report: &Report) {
    let problems: Vec<_> = report
        .workers
        .iter()
        .filter(|worker| worker.is_problem)
        .collect();
    if problems.is_empty() {
        return;
    }
    out.push_str("\n| Worker | Node | State | Message |\n| --- | --- | --- | --- |\n");
    rows(out, &problems, "workers with a problem", |worker| {
        let index = worker.index.map(|index| index.to_string());
        format!(
            "| {} | {} | {} | {} |",
            text(&index.unwrap_or_else(|| worker.pod.clone())),
            text(worker.node.as_deref().unwrap_or("–")),
            text(&worker.state),
            text(worker.detail.as_deref().unwrap_or("–"))
        )
    });
}

fn footer(out: &mut String, report: &Report) {
    let workers = report.spec.count;
    let s = if workers == 1 { "" } else { "s" };
    let started = report
        .started
        .as_ref()
        .map(|started| format!(", started {}", time(started)));
    let image = report.versions.worker_image.as_ref();
    let _ = writeln!(
        out,
        "\n<sub>{workers} worker{s} in namespace {}{}{}. kubectl artillery {}</sub>",
        code(&report.namespace),
        started.unwrap_or_default(),
        image
            .map(|image| format!(", image {}", code(image)))
            .unwrap_or_default(),
        text(&report.versions.plugin),
    );
}

/// Text without any meaning in Markdown: no markup, no HTML, no end of a table's cell, and no mention of a person or an issue.
fn text(text: &str) -> String {
    let mut escaped = String::new();
    for c in shortened(text.trim(), MAX_CHARS).chars() {
        escape(&mut escaped, c);
        // A word joiner is not visible, and ends a mention.
        if matches!(c, '@' | '#') {
            escaped.push('\u{2060}');
        }
    }
    // The begin of a list, a heading or a quotation.
    let is_list = |line: &str| {
        let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < line.len() && (rest.starts_with(". ") || rest.starts_with(") "))
    };
    if escaped.starts_with(['-', '+', '=']) || is_list(&escaped) {
        escaped.insert(0, '\u{2060}');
    }
    escaped
}

/// Text as code. In Markdown's own code, a table's cell cannot contain every text.
fn code(text: &str) -> String {
    let mut escaped = String::from("<code>");
    for c in shortened(text, MAX_CHARS).chars() {
        escape(&mut escaped, c);
    }
    escaped + "</code>"
}

fn escape(escaped: &mut String, c: char) {
    match c {
        '&' => escaped.push_str("&amp;"),
        '<' => escaped.push_str("&lt;"),
        '>' => escaped.push_str("&gt;"),
        '|' => escaped.push_str("&#124;"),
        '\\' | '`' | '*' | '_' | '[' | ']' | '!' | '~' | '$' | '@' | '#' => {
            escaped.push('\\');
            escaped.push(c);
        }
        c if c.is_whitespace() || c.is_control() => escaped.push(' '),
        c => escaped.push(c),
    }
}
