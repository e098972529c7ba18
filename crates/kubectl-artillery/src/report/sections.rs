//! The sections of the HTML page below the key numbers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use loadtest_api::v1alpha1::{Distribution, NamedCount, Threshold};
use maud::{Markup, html};

use super::format::{grouped, grouped_decimal, milliseconds, offset, time, timestamp};
use super::html::{count, optional_ms, optional_value, scroll, share};
use super::plot::{Unit, axis_value, float, log_ticks, number, percent, ticks};
use super::{EntryKind, Report, ResponseTimes, WorkerLine};

/// A browser shows this many without delay.
const MAX_WORKERS: usize = 1000;

/// The distribution of the response times, and the histograms of the results.
pub(super) fn response_times(report: &Report) -> Markup {
    let Some(results) = &report.results else {
        return html! {};
    };
    let row = |path: &str, one: &Distribution| {
        let value = |name: &str, n: Option<f64>| optional_value(&format!("{path}.{name}"), one, n);
        html! { tr {
            th scope="row" { code { (one.name) } }
            td { (count(&format!("{path}.count"), one.count)) }
            td { (value("min", one.min)) }
            td { (value("mean", one.mean)) }
            td { (value("p50", one.p50)) }
            td { (value("p90", one.p90)) }
            td { (value("p95", one.p95)) }
            td { (value("p99", one.p99)) }
            td { (value("p999", one.p999)) }
            td { (value("max", one.max)) }
            td { (one.error_bound) }
        } }
    };
    let columns = [
        "Histogram",
        "Values",
        "min",
        "mean",
        "p50",
        "p90",
        "p95",
        "p99",
        "p99.9",
        "max",
        "Error",
    ];
    html! {
        section aria-labelledby="times" {
            h2 id="times" { "Response times" }
            @if let Some(times) = &report.response_times { (distribution(times, report.response_time())) }
            @if let Some(note) = &report.response_times_note { p.note { (note) } }
            @if !results.histograms.is_empty() {
                (scroll("Histograms", &html! {
                    table.numeric {
                        caption { "Percentiles over the values of all workers" }
                        thead { tr { @for column in columns { th scope="col" { (column) } } } }
                        tbody {
                            @for (at, one) in results.histograms.iter().enumerate() {
                                (row(&format!("results.histograms.{at}"), one))
                            }
                        }
                    }
                }))
            }
            @if !report.other_histograms.is_empty() {
                details {
                    summary { "Further histograms (" (report.other_histograms.len()) ")" }
                    (scroll("Further histograms", &html! {
                        table.numeric {
                            caption { "Histograms of the script, of plugins, and by status code, from the pods of the workers" }
                            thead { tr { @for column in columns { th scope="col" { (column) } } } }
                            tbody { @for (at, one) in report.other_histograms.iter().enumerate() {
                                (row(&format!("otherHistograms.{at}"), one))
                            } }
                        }
                    }))
                }
            }
        }
    }
}

fn distribution(times: &ResponseTimes, summary: Option<&Distribution>) -> Markup {
    let (Some(first), Some(last)) = (times.columns.first(), times.columns.last()) else {
        return html! {};
    };
    #[allow(clippy::cast_precision_loss)]
    let percent_of = |n: u64| n as f64 / times.count.max(1) as f64 * 100.0;
    let highest = times
        .columns
        .iter()
        .map(|one| percent_of(one.count))
        .fold(0.0, f64::max);
    let ticks = ticks(highest, 4.0, false);
    let top = ticks.last().copied().unwrap_or(1.0);
    let width = (last.upper / first.lower).ln();
    let x = |ms: f64| (ms.max(first.lower) / first.lower).ln() / width;
    let ticks_of_time = log_ticks(first.lower, last.upper);
    let is_power = |ms: f64| (ms.log10() - ms.log10().round()).abs() < 1e-9;
    let powers = ticks_of_time.iter().filter(|tick| is_power(**tick)).count();
    // A narrow page has no room for others, if there are enough powers of ten.
    let is_minor = |ms: f64| powers > 1 && !is_power(ms);
    let quantiles = summary.map(|one| [("p50", one.p50), ("p95", one.p95), ("p99", one.p99)]);
    let quantiles: Vec<_> = quantiles
        .into_iter()
        .flatten()
        .filter_map(|(name, ms)| Some((name, ms?)))
        .collect();
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let words = quantiles
        .iter()
        .map(|(name, ms)| format!("{name} {}", milliseconds(*ms)));
    let words = words.collect::<Vec<_>>().join(", ");
    let bound = |ms: f64| milliseconds((ms * 10.0).round() / 10.0);
    html! {
        figure.chart.distribution id="chart-distribution" {
            figcaption {
                h3 { "Distribution" }
                p.note { (grouped(signed(times.count))) " values of " code { (times.name) } ", logarithmic scale"
                    @if times.zeros > 0 { "; " (grouped(signed(times.zeros))) " of them are 0ms and not drawn" } }
            }
            div.frame {
                div.y aria-hidden="true" { @for tick in &ticks {
                    span style={ "bottom:" (percent(*tick, top)) } { (axis_value(*tick, Unit::Percent)) }
                } }
                div.plot {
                    svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img"
                        aria-labelledby="distribution-title distribution-desc" {
                        title id="distribution-title" { "Distribution of the response times" }
                        desc id="distribution-desc" { "From " (bound(first.lower)) " to " (bound(last.upper)) ". " (words) }
                        @for tick in &ticks { path.grid d={ "M0 " (number(1000.0 - tick / top * 1000.0)) "H1000" } {} }
                        @for column in &times.columns {
                            @let (left, right) = (x(column.lower) * 1000.0, x(column.upper) * 1000.0);
                            @let height = percent_of(column.count) / top * 1000.0;
                            rect.column x=(number(left + 1.0)) width=(number((right - left - 2.0).max(1.0)))
                                y=(number(1000.0 - height)) height=(number(height)) {
                                title { (bound(column.lower)) " to " (bound(column.upper)) ": " (grouped(signed(column.count)))
                                    " (" (share(signed(column.count), signed(times.count))) ")" }
                            }
                        }
                        @for (name, ms) in &quantiles {
                            path.marker.(name) d={ "M" (number(x(*ms) * 1000.0)) " 0V1000" } {}
                        }
                    }
                    @for (name, ms) in &quantiles {
                        span.marker.(name).left[x(*ms) > 0.66] style={ "left:" (percent(x(*ms), 1.0)) } aria-hidden="true" {
                            (name) " " (milliseconds(*ms))
                        }
                    }
                }
                div.x aria-hidden="true" {
                    @for tick in &ticks_of_time {
                        span.minor[is_minor(*tick)] style={ "left:" (percent(x(*tick), 1.0)) } { (axis_value(*tick, Unit::Milliseconds)) }
                    }
                }
            }
        }
    }
}

/// The thresholds.
pub(super) fn thresholds(report: &Report) -> Markup {
    let word = |threshold: &Threshold| match (threshold.held, threshold.is_strict()) {
        (Some(true), _) => ("good", "Met"),
        (Some(false), true) => ("bad", "Not met"),
        (Some(false), false) => ("fair", "Not met, not strict"),
        (None, _) if report.is_finished() => ("fair", "Not evaluated"),
        (None, _) => ("open", "Open"),
    };
    html! {
        section aria-labelledby="thresholds" {
            h2 id="thresholds" { "Thresholds" }
            @if report.thresholds.is_empty() {
                p.note { "The test has no thresholds." }
            } @else {
                (scroll("Thresholds", &html! {
                    table.expressions {
                        caption { "Conditions that the results of all workers must meet" }
                        thead { tr { th scope="col" { "Result" } th scope="col" { "Expression" } th scope="col" { "Measured" } } }
                        tbody { @for (at, threshold) in report.thresholds.iter().enumerate() {
                            @let (class, word) = word(threshold);
                            tr {
                                td { span.mark.(class) data-field={ "thresholds." (at) ".held" }
                                    data-value=(threshold.held.map_or(String::new(), |held| held.to_string())) { (word) } }
                                th scope="row" { code { (threshold.expression) } }
                                td { @if let Some(message) = &threshold.message { (message) } @else { span.none { "–" } } }
                            }
                        } }
                    }
                }))
            }
        }
    }
}

/// Status codes and errors.
pub(super) fn counts(report: &Report) -> Markup {
    let Some(results) = &report.results else {
        return html! {};
    };
    let table = |title: &str, caption: &str, path: &str, none: &str, all: &[NamedCount]| {
        let sum = all
            .iter()
            .fold(0_i64, |sum, one| sum.saturating_add(one.count));
        let largest = all.iter().map(|one| one.count).max().unwrap_or(1);
        html! {
            div {
                h3 { (title) }
                @if all.is_empty() { p.note { (none) } } @else {
                    (scroll(title, &html! {
                        table.shares {
                            caption { (caption) }
                            thead { tr { th scope="col" { "Name" } th scope="col" { "Count" } th scope="col" { "Share" } } }
                            tbody { @for (at, one) in all.iter().enumerate() { tr {
                                th scope="row" { code { (one.name) } }
                                td { (count(&format!("{path}.{at}.count"), one.count)) }
                                td { span.track aria-hidden="true" { span.fill.(class_of(title, &one.name))
                                    style={ "width:" (percent(float(one.count), float(largest))) } {} }
                                    (share(one.count, sum)) }
                            } } }
                        }
                    }))
                }
            }
        }
    };
    html! {
        section aria-labelledby="counts" {
            h2 id="counts" { "Status codes and errors" }
            div.pair {
                (table("Status codes", "HTTP responses by status code", "results.codes", "No HTTP response was received.", &results.codes))
                (table("Errors", "Errors by kind; an HTTP status code is not an error", "results.errorsByKind", "There were no errors.",
                    &results.errors_by_kind))
            }
        }
    }
}

/// The color of a status code or an error.
fn class_of(title: &str, name: &str) -> &'static str {
    match (title, name.as_bytes().first()) {
        ("Errors", _) | (_, Some(b'5')) => "red",
        (_, Some(b'4')) => "orange",
        _ => "blue",
    }
}

/// The endpoints, where the plugin metrics-by-endpoint measured them.
pub(super) fn endpoints(report: &Report) -> Markup {
    if report.endpoints.is_empty() {
        return html! {};
    }
    let list = |counts: &[NamedCount]| {
        let counts = counts
            .iter()
            .map(|one| format!("{}: {}", one.name, grouped(one.count)));
        counts.collect::<Vec<_>>().join(", ")
    };
    html! {
        section aria-labelledby="endpoints" {
            h2 id="endpoints" { "Endpoints" }
            (scroll("Endpoints", &html! {
                table.numeric.endpoints {
                    caption { "Measured by the plugin metrics-by-endpoint, the slowest first" }
                    thead { tr { @for column in ["Endpoint", "Responses", "p50", "p95", "p99", "max", "Codes", "Errors"] {
                        th scope="col" { (column) }
                    } } }
                    tbody { @for (at, endpoint) in report.endpoints.iter().enumerate() {
                        @let path = format!("endpoints.{at}.times");
                        tr {
                            th scope="row" { code { (endpoint.name) } }
                            td { (count(&format!("{path}.count"), endpoint.times.count)) }
                            td { (optional_ms(&format!("{path}.p50"), endpoint.times.p50)) }
                            td { (optional_ms(&format!("{path}.p95"), endpoint.times.p95)) }
                            td { (optional_ms(&format!("{path}.p99"), endpoint.times.p99)) }
                            td { (optional_ms(&format!("{path}.max"), endpoint.times.max)) }
                            td { (list(&endpoint.codes)) }
                            td { (list(&endpoint.errors)) }
                        }
                    } }
                }
            }))
        }
    }
}

/// The workers.
pub(super) fn workers(report: &Report) -> Markup {
    if report.workers.is_empty() {
        return html! {
            section aria-labelledby="workers" {
                h2 id="workers" { "Workers" }
                p.note { "No worker pods: they have been deleted, were not created, or could not be read." }
            }
        };
    }
    let results = report.results.as_deref();
    let generators = results.and_then(|results| results.generators.as_ref());
    let saturated = generators.filter(|one| one.saturated_workers().is_some_and(|n| n > 0));
    let worst = saturated.and_then(|generators| generators.worst.as_ref());
    let worst = worst.and_then(|worst| u32::try_from(worst.worker).ok());
    let first = report
        .workers
        .iter()
        .filter_map(|worker| worker.started.as_ref());
    let first = first.min_by_key(|time| time.0);
    let columns = [
        "Worker",
        "Node",
        "State",
        "Requests",
        "Rate",
        "Errors",
        "p95",
        "Users created",
        "Late p99",
        "Event loop",
        "Throttled",
        "Memory",
        "Container start",
    ];
    html! {
        section aria-labelledby="workers" {
            h2 id="workers" { "Workers" }
            (scroll("Workers", &html! {
                table.numeric.workers {
                    caption { "Each worker by itself, as its pod reported it"
                        @if report.workers.len() > MAX_WORKERS { "; the first " (MAX_WORKERS) " of " (report.workers.len()) } }
                    thead { tr { @for column in columns { th scope="col" { (column) } } } }
                    tbody { @for worker in report.workers.iter().take(MAX_WORKERS) {
                        (worker_row(worker, first, worker.index.is_some() && worker.index == worst))
                    } }
                }
            }))
            p.note { "Late: how much later than planned 99% of the virtual users arrived at most. Event loop: how busy that of the busiest "
                "thread was. Throttled: the share of CPU periods in which the CPU limit stopped the worker." }
        }
    }
}

fn worker_row(worker: &WorkerLine, first: Option<&Time>, is_worst: bool) -> Markup {
    let none = || html! { span.none { "–" } };
    let text =
        |text: Option<&String>| html! { @if let Some(text) = text { (text) } @else { (none()) } };
    let results = worker.results.as_ref();
    let start = worker
        .started
        .as_ref()
        .zip(first)
        .map(|(start, first)| offset(start, first));
    html! { tr.problem[worker.is_problem] {
        th scope="row" title=(worker.pod) {
            @match worker.index { Some(index) => (index), None => (worker.pod) }
            @if is_worst { span.mark.fair { "latest" } }
        }
        td { (text(worker.node.as_ref())) }
        td { span.mark.(if worker.is_problem { "bad" } else { "open" }) { (worker.state) }
            @if let Some(detail) = &worker.detail { small { (detail) } }
            @if results.is_some_and(|results| results.partial) { small { "Results are incomplete." } } }
        @if let Some(results) = results {
            td { (grouped(results.requests)) }
            td { (grouped_decimal(results.request_rate)) "/s" }
            td { (grouped(results.errors)) }
            td { (text(results.p95.as_ref())) }
            td { (grouped(results.created_vusers)) @if let Some(planned) = results.planned_vusers { " of " (grouped(planned)) } }
            td { (text(results.arrival_delay.map(milliseconds).as_ref())) }
            td { (text(results.utilization.as_ref())) }
            td { (text(results.throttled.as_ref())) }
            td { (text(results.memory.as_ref())) }
        } @else {
            @for _ in 0..9 { td { (none()) } }
        }
        td { (text(start.as_ref())) }
    } }
}

/// The conditions and the timeline.
pub(super) fn conditions(report: &Report) -> Markup {
    let start = report.started.as_ref().or(report.created.as_ref());
    html! {
        section aria-labelledby="conditions" {
            h2 id="conditions" { "Conditions and events" }
            @if !report.conditions.is_empty() {
                (scroll("Conditions", &html! {
                    table.conditions {
                        caption { "Conditions of the LoadTest" }
                        thead { tr { @for column in ["Condition", "Status", "Reason", "Message"] { th scope="col" { (column) } } } }
                        tbody { @for condition in &report.conditions { tr {
                            th scope="row" { (condition.type_) }
                            td { (condition.status) }
                            td { (condition.reason) }
                            td { (condition.message) }
                        } } }
                    }
                }))
            }
            @if !report.timeline.is_empty() {
                h3 { "Timeline" }
                ol.timeline { @for entry in &report.timeline {
                    li.(match entry.kind {
                        EntryKind::Milestone => "milestone",
                        EntryKind::Condition => "condition",
                        EntryKind::Event => "event",
                        EntryKind::Warning => "warning",
                    }) {
                        @if let Some(at) = &entry.time {
                            time datetime=(timestamp(at)) title=(time(at)) {
                                @match start { Some(start) => (offset(at, start)), None => (time(at)) }
                            }
                        } @else { time { "–" } }
                        div {
                            strong { (entry.title) }
                            @if entry.kind == EntryKind::Warning { " " span.mark.fair { "Warning" } }
                            @if let Some(message) = &entry.message { p { (message) } }
                        }
                    }
                } }
                p.note { "Times are relative to the start of the Job, or to the creation of a test that has not started." }
            }
        }
    }
}

/// The script and the spec.
pub(super) fn sources(report: &Report) -> Markup {
    let spec = serde_yaml::to_string(&report.spec).unwrap_or_else(|error| error.to_string());
    let source = |title: &str, text: &str| {
        html! { details { summary { (title) } pre tabindex="0" aria-label=(title) role="region" { code { (text) } } } }
    };
    html! {
        section aria-labelledby="sources" {
            h2 id="sources" { "Script and spec" }
            @if let Some(script) = &report.script { (source("Script", script)) } @else {
                p.note { "The script is not included: it is not in the LoadTest or a ConfigMap, or could not be read." }
            }
            (source("Spec of the LoadTest", &spec))
        }
    }
}
