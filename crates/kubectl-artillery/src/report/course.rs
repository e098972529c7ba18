//! The charts of the course of a test, with a common cursor.

use loadtest_api::v1alpha1::{Results, Series};
use maud::{Markup, html};

use super::format::{axis_time, grouped_decimal, milliseconds, rate, time, timestamp};
use super::html::{count, optional_ms, scroll};
use super::plot::{Chart, Line, Shape, Unit, float};

/// The course of the test.
pub(super) fn course(results: &Results) -> Markup {
    let Some(series) = results
        .series
        .as_ref()
        .filter(|series| !series.requests.is_empty())
    else {
        return html! {
            section aria-labelledby="course" {
                h2 id="course" { "Course of the test" }
                p.note { "No course was recorded: it needs liveResults, and an operator that can reach the workers while they run." }
            }
        };
    };
    let step = series.step_seconds.max(1);
    let steps = series.requests.len();
    let moment = |at: usize| {
        let at = i64::try_from(at).unwrap_or_default();
        let times = [at, at + 1].map(|at| axis_time(at.saturating_mul(step)));
        times.join(" to ")
    };
    let moments: Vec<_> = (0..steps).map(moment).collect();
    html! {
        section.course aria-labelledby="course" data-steps=(steps) {
            h2 id="course" { "Course of the test" }
            p.note { "Each step is " (axis_time(step)) ". The last one can be shorter, so its rates can be lower."
                @if let Some(start) = &series.start { " The first one began at " time datetime=(timestamp(start)) { (time(start)) } "." } }
            div.cursor-control hidden {
                label for="cursor" { "Time" }
                input type="range" id="cursor" min="0" max=(steps.saturating_sub(1)) value="0" step="1"
                    data-moments=(moments.join("|"));
                output for="cursor" {}
            }
            div.charts {
                @for chart in charts(series, steps, step) { (chart.render()) }
            }
            (series_table(series, &moments))
        }
    }
}

fn charts(series: &Series, steps: usize, step_seconds: i64) -> [Chart; 5] {
    let per_second = |counts: &[i64]| -> Vec<_> {
        let rate = |count: &i64| float(*count) / float(step_seconds);
        counts
            .iter()
            .take(steps)
            .map(|count| Some(rate(count)))
            .collect()
    };
    let line = |label, class, shape, values: Vec<Option<f64>>, text: fn(f64) -> String| {
        let text = |value: &Option<f64>| value.map_or_else(|| "–".to_owned(), text);
        let texts = values.iter().map(text).collect();
        Line {
            label,
            class,
            shape,
            values,
            texts,
        }
    };
    let rates =
        |label, class, shape, counts: &[i64]| line(label, class, shape, per_second(counts), rate);
    let times = |label, class, values: &[Option<f64>]| {
        let values = values.iter().take(steps).copied().collect();
        line(label, class, Shape::Line, values, milliseconds)
    };
    let active = series
        .vusers_active
        .iter()
        .take(steps)
        .map(|n| Some(float(*n)))
        .collect();
    let is_planned = series.vusers_planned.iter().any(|n| *n > 0);
    let mut users = vec![rates(
        "created",
        "blue",
        Shape::Area,
        &series.vusers_created,
    )];
    if is_planned {
        users.push(rates(
            "planned",
            "ink",
            Shape::Steps,
            &series.vusers_planned,
        ));
    }
    let chart = |id, title, unit, lines| Chart {
        id,
        title,
        unit,
        lines,
        steps,
        step_seconds,
    };
    [
        chart(
            "chart-times",
            "Response time",
            Unit::Milliseconds,
            vec![
                times("p99", "purple", &series.p99),
                times("p95", "orange", &series.p95),
                times("p50", "blue", &series.p50),
            ],
        ),
        chart(
            "chart-requests",
            "Request rate",
            Unit::PerSecond,
            vec![rates("requests", "blue", Shape::Area, &series.requests)],
        ),
        chart(
            "chart-errors",
            "Errors",
            Unit::PerSecond,
            vec![rates("errors", "red", Shape::Area, &series.errors)],
        ),
        chart("chart-users", "New virtual users", Unit::PerSecond, users),
        chart(
            "chart-active",
            "Active virtual users",
            Unit::Count,
            vec![line(
                "active at the end of the step",
                "blue",
                Shape::Ends,
                active,
                grouped_decimal,
            )],
        ),
    ]
}

fn series_table(series: &Series, moments: &[String]) -> Markup {
    let counts = [
        ("Requests", "requests", &series.requests),
        ("Errors", "errors", &series.errors),
        ("Users planned", "vusersPlanned", &series.vusers_planned),
        ("Users created", "vusersCreated", &series.vusers_created),
        ("Users active", "vusersActive", &series.vusers_active),
    ];
    let times = [
        ("p50", &series.p50),
        ("p95", &series.p95),
        ("p99", &series.p99),
    ];
    html! {
        details {
            summary { "All values as a table" }
            (scroll("All values of the charts", &html! {
                table.numeric {
                    caption { "Counts in each step, and percentiles of the response time" }
                    thead { tr {
                        th scope="col" { "Time" }
                        @for (label, ..) in counts { th scope="col" { (label) } }
                        @for (label, _) in times { th scope="col" { (label) } }
                    } }
                    tbody { @for (at, moment) in moments.iter().enumerate() { tr {
                        th scope="row" { (moment) }
                        @for (_, path, counts) in counts { td {
                            @if let Some(n) = counts.get(at) { (count(&format!("results.series.{path}.{at}"), *n)) }
                        } }
                        @for (path, values) in times { td {
                            (optional_ms(&format!("results.series.{path}.{at}"), values.get(at).copied().flatten()))
                        } }
                    } } }
                }
            }))
        }
    }
}
