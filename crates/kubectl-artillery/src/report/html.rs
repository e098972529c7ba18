//! The report as one HTML page. It needs no other file and no network, and shows everything without JavaScript.

use std::fmt::Display;

use loadtest_api::v1alpha1::{ConditionType, DeliveredLoad, Distribution, Results, WorstGenerator};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::format::{
    grouped, grouped_decimal, milliseconds, offset, rate, seconds, time, timestamp,
};
use super::plot::{float, percent};
use super::{Report, course, sections};
use crate::outcome::Outcome;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// No request is possible, whatever the strings of a test contain.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
     form-action 'none'";

/// The page.
#[must_use]
pub fn html(report: &Report) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "kubectl-artillery " (report.versions.plugin) };
                title { (report.name) ": " (report.verdict) " – load test report" }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(report))
                main {
                    @if let Some(results) = &report.results {
                        (key_numbers(report, results))
                        (load(report, results))
                        (course::course(results))
                    } @else {
                        (no_results(report))
                        (sections::conditions(report))
                    }
                    (sections::response_times(report))
                    (sections::thresholds(report))
                    (sections::counts(report))
                    (sections::endpoints(report))
                    (sections::workers(report))
                    @if report.results.is_some() { (sections::conditions(report)) }
                    (sections::sources(report))
                }
                (footer(report))
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// A value of the status: `path` is where it is, `exact` as it is there, and `shown` for reading.
pub(super) fn value(path: &str, exact: impl Display, shown: impl Display) -> Markup {
    html! { span.value data-field=(path) data-value=(exact) { (shown) } }
}

/// A count of the status.
pub(super) fn count(path: &str, n: i64) -> Markup {
    value(path, n, grouped(n))
}

/// A number of milliseconds of the status.
pub(super) fn optional_ms(path: &str, ms: Option<f64>) -> Markup {
    html! {
        @if let Some(ms) = ms { (value(path, ms, milliseconds(ms))) } @else { span.none { "–" } }
    }
}

/// A value of a histogram of the status.
pub(super) fn optional_value(path: &str, of: &Distribution, number: Option<f64>) -> Markup {
    match number {
        Some(number) if !of.is_time() => value(path, number, grouped_decimal(number)),
        _ => optional_ms(path, number),
    }
}

/// A box that scrolls sideways by itself, also by keyboard.
pub(super) fn scroll(label: &str, content: &Markup) -> Markup {
    html! { div.scroll role="region" aria-label=(label) tabindex="0" { (content) } }
}

/// The CSS class of an outcome, and its symbol.
fn tone(report: &Report) -> (&'static str, &'static str) {
    match report.outcome {
        Outcome::Passed => ("passed", "M3 8.5l3.2 3.2L13 5"),
        Outcome::Failed if report.verdict == "Stopped" => ("stopped", "M5 5h6v6H5z"),
        Outcome::Failed => ("failed", "M4 4l8 8M12 4l-8 8"),
        Outcome::Inconclusive => ("inconclusive", "M8 3.5v5.5M8 12v.4"),
        Outcome::Unfinished => (
            "unfinished",
            "M8 2a6 6 0 1 1 0 12 6 6 0 0 1 0-12M8 5v3.2l2.2 1.3",
        ),
    }
}

fn header(report: &Report) -> Markup {
    let (class, symbol) = tone(report);
    let workers = report.spec.count;
    html! {
        header.top.(class) {
            p.kind { "Load test report" }
            h1 { (report.name) }
            p.verdict {
                span.badge {
                    svg viewBox="0 0 16 16" aria-hidden="true" { path d=(symbol) {} }
                    span data-field="verdict" data-value=(report.verdict) { (report.verdict) }
                }
                @if let Some(reason) = &report.reason {
                    @if *reason != report.verdict { code.reason { (reason) } }
                }
            }
            p.why { (report.why) }
            dl.facts {
                div { dt { "Namespace" } dd { (report.namespace) } }
                div { dt { "Workers" } dd { (workers) } }
                @if let Some(target) = &report.spec.target { div { dt { "Target" } dd { (target) } } }
                @if let Some(environment) = &report.spec.environment {
                    div { dt { "Environment" } dd { (environment) } }
                }
                @if let Some(started) = &report.started {
                    div { dt { "Started" } dd { time datetime=(timestamp(started)) { (time(started)) } } }
                } @else if let Some(created) = &report.created {
                    div { dt { "Created" } dd { time datetime=(timestamp(created)) { (time(created)) } } }
                }
                @if let Some(completed) = &report.completed {
                    div { dt { "Finished" } dd { time datetime=(timestamp(completed)) { (time(completed)) } } }
                }
            }
        }
        @if !report.missing.is_empty() {
            aside.missing aria-label="What this report does not include" {
                h2 { "What this report does not include" }
                ul { @for sentence in &report.missing { li { (sentence) } } }
            }
        }
    }
}

fn no_results(report: &Report) -> Markup {
    let sentence = match (report.is_finished(), &report.started) {
        (true, None) => {
            "The test ended before its workers started, so no load was sent and nothing was measured."
        }
        (true, Some(_)) => "The test has no results: no worker reported what it measured.",
        (false, _) => "There are no results yet. They appear once the workers send their load.",
    };
    html! {
        section.notice aria-labelledby="no-results" {
            h2 id="no-results" { "No results" }
            p { (sentence) }
            p { "The conditions and events below show what happened." }
        }
    }
}

/// Where the status has the response times.
fn response_time_path(results: &Results) -> Option<String> {
    let name = &results.response_time()?.name;
    let at = results
        .histograms
        .iter()
        .position(|one| one.name == *name)?;
    Some(format!("results.histograms.{at}"))
}

fn key_numbers(report: &Report, results: &Results) -> Markup {
    let times = report.response_time();
    let tile = |class: &str, label: &str, content: Markup| {
        html! { div class=(class) { dt { (label) } dd { (content) } } }
    };
    let text = |path: &str, text: Option<&String>| {
        html! { @if let Some(text) = text { (value(path, text, text)) } @else { span.none { "–" } } }
    };
    let p50 = times.and_then(|times| times.p50);
    let p50 = match response_time_path(results) {
        Some(at) => optional_ms(&format!("{at}.p50"), p50),
        None => optional_ms("", None),
    };
    let quantiles = [
        ("p50", p50),
        ("p95", text("results.p95", results.p95.as_ref())),
        ("p99", text("results.p99", results.p99.as_ref())),
    ];
    let load = results.load.as_ref();
    let sent = load.and_then(|load| load.sent.as_ref());
    html! {
        section.numbers aria-labelledby="numbers" {
            h2 id="numbers" { "Key numbers" }
            @if results.live {
                p.note { "The test is running: these are the results until "
                    @match &results.as_of { Some(at) => (time(at)), None => "now" } "." }
            } @else if results.partial {
                p.note { "Results are incomplete: " (value("results.workersReporting", &results.workers_reporting,
                    &results.workers_reporting)) " workers reported." }
            }
            dl.tiles {
                (tile("tile wide", "Response time", html! {
                    @for (name, content) in quantiles { span.quantile { small { (name) } (content) } }
                }))
                (tile("tile", "Requests", count("results.requests", results.requests)))
                (tile("tile", "Request rate", html! {
                    (value("results.requestRate", results.request_rate, grouped_decimal(results.request_rate)))
                    span.unit { "/s" }
                }))
                (tile("tile", "Errors", html! {
                    (count("results.errors", results.errors))
                    @if results.errors > 0 && results.requests > 0 {
                        small { (share(results.errors, results.requests)) " of requests" }
                    }
                }))
                (tile("tile", "Virtual users", html! {
                    (count("results.vusersCreated", results.vusers_created))
                    small { (count("results.vusersFailed", results.vusers_failed)) " failed" }
                }))
                (tile("tile", "Load sent", html! {
                    (text("results.load.sent", sent))
                    small { "of the plan" }
                }))
                (tile("tile", "Duration", text("duration", report.duration.as_ref())))
            }
        }
    }
}

/// `0.4%`: at least two digits below one percent, so that a few are not shown as none.
pub(super) fn share(part: i64, of: i64) -> String {
    let percent = float(part) / float(of.max(1)) * 100.0;
    match percent {
        0.0 => "0%".to_owned(),
        small if small < 0.01 => "<0.01%".to_owned(),
        small if small < 1.0 => format!("{small:.2}%"),
        percent => format!("{percent:.1}%"),
    }
}

fn load(report: &Report, results: &Results) -> Markup {
    let Some(load) = &results.load else {
        return html! {};
    };
    let condition = report.condition(ConditionType::LoadDelivered);
    let advice = report.advice();
    let is_short = condition.is_some_and(|condition| condition.status == "False");
    // The message ends with the advice, which has its own place here.
    let message = condition.map(|condition| {
        let message = condition.message.as_str();
        let without = advice.and_then(|advice| message.strip_suffix(advice));
        without.unwrap_or(message).trim_end()
    });
    html! {
        section aria-labelledby="load" {
            h2 id="load" { "Planned and sent load" }
            (bars(load))
            @if let Some(message) = message {
                p.short[is_short] { @if is_short { strong { "Not delivered. " } } (message) }
            }
            @if let Some(advice) = advice { p.advice { strong { "Advice. " } (advice) } }
            dl.facts {
                @if let Some(planned) = load.planned_seconds {
                    div { dt { "Planned duration" } dd { (value("results.load.plannedSeconds", planned, seconds(planned))) } }
                }
                @if let Some(actual) = load.actual_seconds {
                    div { dt { "Actual duration" } dd { (value("results.load.actualSeconds", actual, seconds(actual))) } }
                }
                @if let Some(delay) = &load.arrival_delay {
                    @for (name, ms) in [("p50", delay.p50), ("p99", delay.p99), ("max", delay.max)] {
                        div { dt { "Arrival delay " (name) }
                            dd { (optional_ms(&format!("results.load.arrivalDelay.{name}"), ms)) } }
                    }
                }
                @if let Some(skew) = results.start_skew_milliseconds {
                    div { dt { "Start skew" } dd { (value("results.startSkewMilliseconds", skew, format!("{skew}ms"))) } }
                }
                @if let Some(generators) = &results.generators {
                    div { dt { "Workers too late" }
                        dd { (value("results.generators.saturated", &generators.saturated, &generators.saturated)) } }
                }
            }
            @if let Some(worst) = results.generators.as_ref().and_then(|generators| generators.worst.as_ref()) {
                (latest(worst))
            }
        }
    }
}

/// The planned and the created virtual users as bars of one scale.
fn bars(load: &DeliveredLoad) -> Markup {
    let largest = load
        .planned_vusers
        .unwrap_or_default()
        .max(load.created_vusers)
        .max(1);
    let width = |n: i64| format!("width:{}", percent(float(n), float(largest)));
    let bar = |label: &str, class: &str, path: &str, n: i64| {
        html! {
            div.bar.(class) {
                dt { (label) }
                dd { span.track { span.fill style=(width(n)) {} } (count(path, n)) }
            }
        }
    };
    html! {
        dl.bars {
            @if let Some(planned) = load.planned_vusers {
                (bar("Planned virtual users", "planned", "results.load.plannedVusers", planned))
            }
            (bar("Created", "created", "results.load.createdVusers", load.created_vusers))
            @if load.skipped_vusers > 0 {
                (bar("Skipped by maxVusers", "skipped", "results.load.skippedVusers", load.skipped_vusers))
            }
        }
    }
}

fn latest(worst: &WorstGenerator) -> Markup {
    let per_second = |per_second: Option<f64>| per_second.map(rate);
    let facts = [
        ("Planned rate", per_second(worst.planned_rate)),
        ("Arrival rate", per_second(worst.arrival_rate)),
        ("Threads", worst.threads.map(|threads| threads.to_string())),
        ("Event loop busy", worst.utilization.clone()),
        ("Event-loop delay p99", worst.event_loop_delay.clone()),
        ("Throttled CPU periods", worst.throttled.clone()),
        ("Throttled for", worst.throttled_time.clone()),
        ("CPU", of(worst.cpu.as_ref(), worst.cpu_limit.as_ref())),
        (
            "Memory",
            of(worst.memory.as_ref(), worst.memory_limit.as_ref()),
        ),
    ];
    html! {
        details {
            summary { "Worker with the largest delay: " (worst.worker) }
            dl.facts {
                @for (label, fact) in facts {
                    @if let Some(fact) = fact { div { dt { (label) } dd { (fact) } } }
                }
            }
        }
    }
}

/// `298m of 300m`.
fn of(used: Option<&String>, limit: Option<&String>) -> Option<String> {
    let used = used?;
    Some(match limit {
        Some(limit) => format!("{used} of {limit}"),
        None => used.clone(),
    })
}

fn footer(report: &Report) -> Markup {
    let age = report
        .completed
        .as_ref()
        .map(|completed| offset(&report.generated, completed));
    html! {
        footer {
            h2 { "Versions" }
            dl.facts {
                div { dt { "kubectl artillery" } dd { (report.versions.plugin) } }
                @if let Some(image) = &report.versions.worker_image { div { dt { "Worker image" } dd { (image) } } }
                div { dt { "API" } dd { (report.versions.api) } }
                div { dt { "Report made" } dd {
                    time datetime=(timestamp(&report.generated)) { (time(&report.generated)) }
                    @if let Some(age) = age { " (" (age) " after the end)" }
                } }
            }
        }
    }
}
