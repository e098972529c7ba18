//! The drawing of a test: pure, so that tests can read what a user sees.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::duration;
use loadtest_api::v1alpha1::{ConditionType, LoadTest, Phase, Results, Series};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, Borders, Chart, Dataset, Gauge, GraphType, Paragraph, Row, Table, Wrap,
};

use super::Focus;
use crate::text::{self, milliseconds};
use crate::watch::Model;

// Only the 16 colors that the theme of a terminal defines, so that they are readable on a light and on a dark background.
const GOOD: Color = Color::Green;
const WARNING: Color = Color::Yellow;
const BAD: Color = Color::Red;
const FIRST: Color = Color::Cyan;
const SECOND: Color = Color::Magenta;

/// The height of a terminal from which charts and lists have room for more lines.
const TALL: u16 = 34;

/// Draws a test.
pub(in crate::watch) fn draw(frame: &mut Frame, model: &Model, focus: &Focus, now: Timestamp) {
    let area = frame.area();
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    let Some(test) = &model.test else {
        let text = format!(
            "Waiting for LoadTest {}/{} ...",
            model.namespace, model.name
        );
        frame.render_widget(Paragraph::new(text), body);
        footer(frame, foot, model, focus);
        return;
    };
    header(frame, head, test, now);
    footer(frame, foot, model, focus);
    let series = series(test);
    let charts = match (series.is_some(), area.height) {
        (false, _) => 0,
        (true, height) if height >= TALL => height / 3,
        (true, _) => 7,
    };
    let [plots, lists] =
        Layout::vertical([Constraint::Length(charts), Constraint::Min(0)]).areas(body);
    if let Some(series) = series {
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)])
                .areas(plots);
        load_chart(frame, left, series);
        times_chart(frame, right, series);
    }
    let findings = findings(test);
    let [top, bottom] = Layout::vertical([
        Constraint::Length(
            u16::try_from(findings.len() + 1)
                .unwrap_or(u16::MAX)
                .min(lists.height / 2),
        ),
        Constraint::Min(0),
    ])
    .areas(lists);
    if !findings.is_empty() {
        frame.render_widget(
            Paragraph::new(findings).block(titled("Thresholds and errors")),
            top,
        );
    }
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(bottom);
    workers(frame, left, model, focus);
    events(frame, right, model, now);
}

fn titled(title: &str) -> Block<'_> {
    let style = Style::new().add_modifier(Modifier::BOLD);
    Block::new()
        .borders(Borders::TOP)
        .title(Line::styled(format!(" {title} "), style))
}

fn series(test: &LoadTest) -> Option<&Series> {
    let results = test.status.as_ref()?.results.as_deref()?;
    results
        .series
        .as_ref()
        .filter(|series| !series.requests.is_empty())
}

fn phase_style(test: &LoadTest) -> Style {
    let color = match text::phase(test) {
        Phase::Running | Phase::Completed => GOOD,
        Phase::Failed => BAD,
        _ => WARNING,
    };
    Style::new().fg(color).add_modifier(Modifier::BOLD)
}

/// Name, phase and reason; progress; the main numbers.
fn header(frame: &mut Frame, area: Rect, test: &LoadTest, now: Timestamp) {
    let [title, reason, gauge, first, second] =
        Layout::vertical([Constraint::Length(1); 5]).areas(area);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let status = test.status.clone().unwrap_or_default();
    let name = test.metadata.name.clone().unwrap_or_default();
    let namespace = test.metadata.namespace.clone().unwrap_or_default();
    let count = test.spec.count;
    let workers = if count == 1 { "worker" } else { "workers" };
    let (why, message) = text::explanation(test);
    let line = Line::from(vec![
        Span::styled(format!("{namespace}/{name}  "), bold),
        Span::styled(text::phase(test).as_str(), phase_style(test)),
        Span::raw(format!(
            "  {count} {workers}  {}",
            as_of(status.results.as_deref(), now)
        )),
    ]);
    frame.render_widget(line, title);
    let why = if why == text::phase(test).as_str() {
        String::new()
    } else {
        format!("{why}: ")
    };
    frame.render_widget(Line::from(format!("{why}{message}")), reason);
    let has_load = text::phase(test) != Phase::Starting;
    if let Some(elapsed) = text::elapsed(&status, now).filter(|_| has_load) {
        let expected = status.expected_duration.as_deref().unwrap_or("unknown");
        let label = format!("{} of {expected}", duration::format(elapsed));
        let gauge_widget = Gauge::default()
            .ratio(text::progress(&status, now).unwrap_or_default())
            .label(label)
            .gauge_style(Style::new().fg(FIRST));
        frame.render_widget(gauge_widget, gauge);
    }
    if let Some(results) = &status.results {
        let [one, two] = figures(results);
        frame.render_widget(one, first);
        frame.render_widget(two, second);
    }
}

/// How old the numbers are, and of how many workers.
fn as_of(results: Option<&Results>, now: Timestamp) -> String {
    let Some(results) = results else {
        return String::new();
    };
    let age = results
        .as_of
        .as_ref()
        .map(|time| now.duration_since(time.0).max(SignedDuration::ZERO));
    let age = age.map_or_else(String::new, |age| {
        format!(", {} ago", duration::format(age))
    });
    format!("results of {}{age}", results.workers_reporting)
}

fn figures(results: &Results) -> [Line<'static>; 2] {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let figure = |name: &str, value: String, style: Style| {
        [
            Span::raw(format!("{name} ")),
            Span::styled(format!("{value}   "), style),
        ]
    };
    let errors = if results.errors > 0 {
        bold.fg(BAD)
    } else {
        bold
    };
    let sent = results.load.as_ref().and_then(|load| load.sent.clone());
    let saturated = results
        .generators
        .as_ref()
        .and_then(loadtest_api::v1alpha1::Generators::saturated_workers);
    let sent_style = if saturated > Some(0) {
        bold.fg(WARNING)
    } else {
        bold
    };
    let times = results.response_time();
    let percentile = |value: Option<f64>| milliseconds(value);
    let first = [
        figure("requests", results.requests.to_string(), bold),
        figure("rate", format!("{}/s", results.request_rate), bold),
        figure("errors", results.errors.to_string(), errors),
        figure("sent", sent.unwrap_or_else(|| "-".into()), sent_style),
        figure(
            "saturated",
            saturated.map_or_else(|| "-".into(), |n| n.to_string()),
            sent_style,
        ),
    ];
    let second = [
        figure("p50", percentile(times.and_then(|one| one.p50)), bold),
        figure("p95", percentile(times.and_then(|one| one.p95)), bold),
        figure("p99", percentile(times.and_then(|one| one.p99)), bold),
        figure(
            "vusers",
            format!(
                "{} created, {} completed, {} failed",
                results.vusers_created, results.vusers_completed, results.vusers_failed
            ),
            bold,
        ),
    ];
    [Line::from(first.concat()), Line::from(second.concat())]
}

/// Requests and planned virtual users per second.
fn load_chart(frame: &mut Frame, area: Rect, series: &Series) {
    let rate = |counts: &[i64]| points(counts.iter().map(|n| Some(per_second(*n, series))), series);
    let (sent, planned) = (rate(&series.requests), rate(&series.vusers_planned));
    let lines = [
        ("requests", FIRST, &sent[..]),
        ("planned users", SECOND, &planned[..]),
    ];
    chart(frame, area, "Per second", &lines, "");
}

/// Response times.
fn times_chart(frame: &mut Frame, area: Rect, series: &Series) {
    let [p50, p95, p99] = [&series.p50, &series.p95, &series.p99]
        .map(|values| points(values.iter().copied(), series));
    let lines = [
        ("p99", SECOND, &p99[..]),
        ("p95", WARNING, &p95[..]),
        ("p50", FIRST, &p50[..]),
    ];
    chart(frame, area, "Response time", &lines, "ms");
}

#[allow(clippy::cast_precision_loss)] // drawn
fn per_second(count: i64, series: &Series) -> f64 {
    count as f64 / series.step_seconds.max(1) as f64
}

/// The points of a chart: seconds since the begin of the series, and the value.
#[allow(clippy::cast_precision_loss)] // drawn
fn points(values: impl Iterator<Item = Option<f64>>, series: &Series) -> Vec<(f64, f64)> {
    let step = series.step_seconds.max(1) as f64;
    values
        .enumerate()
        .filter_map(|(at, value)| Some((at as f64 * step, value?)))
        .collect()
}

/// The name of a line of a chart, its color and its points.
type NamedLine<'a> = (&'a str, Color, &'a [(f64, f64)]);

fn chart(frame: &mut Frame, area: Rect, title: &str, lines: &[NamedLine<'_>], unit: &str) {
    let all = || lines.iter().flat_map(|(_, _, points)| points.iter());
    let end = all().map(|point| point.0).fold(10.0, f64::max);
    let top = nice_top(all().map(|point| point.1).fold(0.0, f64::max));
    let mut legend = vec![Span::styled(
        format!(" {title}  "),
        Style::new().add_modifier(Modifier::BOLD),
    )];
    legend.extend(
        lines
            .iter()
            .map(|(name, color, _)| Span::styled(format!("{name} "), Style::new().fg(*color))),
    );
    let datasets = lines.iter().map(|(_, color, points)| {
        Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(*color))
            .data(points)
    });
    #[allow(clippy::cast_possible_truncation)] // seconds
    let end_label = duration::format(SignedDuration::from_secs(end as i64));
    let chart = Chart::new(datasets.collect())
        .block(Block::new().borders(Borders::TOP).title(Line::from(legend)))
        .x_axis(
            Axis::default()
                .bounds([0.0, end])
                .labels(["0s".to_owned(), end_label]),
        )
        .y_axis(
            Axis::default()
                .bounds([0.0, top])
                .labels(["0".to_owned(), format!("{top}{unit}")]),
        );
    frame.render_widget(chart, area);
}

/// A round number above a value, so that no line touches the border.
pub(in crate::watch) fn nice_top(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step > 1.05 * value)
        .unwrap_or(value)
}

/// Thresholds, errors and conditions that need attention.
fn findings(test: &LoadTest) -> Vec<Line<'static>> {
    let Some(status) = &test.status else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    let broken = [
        ConditionType::LoadDelivered,
        ConditionType::LiveResultsAvailable,
        ConditionType::EventsRecorded,
    ];
    for condition in broken
        .into_iter()
        .filter_map(|type_| status.condition(type_))
    {
        if condition.status == "False" {
            let text = format!("{}: {}", condition.reason, condition.message);
            lines.push(Line::styled(text, Style::new().fg(WARNING)));
        }
    }
    for one in status.thresholds.iter().flatten() {
        let (mark, style) = match one.held {
            Some(true) => ("met     ", Style::new().fg(GOOD)),
            Some(false) => ("not met ", Style::new().fg(BAD)),
            None => ("        ", Style::new()),
        };
        let value = one.message.as_deref().unwrap_or_default();
        lines.push(Line::from(vec![
            Span::styled(mark, style),
            Span::raw(format!("{}   {value}", one.expression)),
        ]));
    }
    let results = status.results.as_deref();
    for error in results.map_or(&[][..], |results| &results.errors_by_kind) {
        let text = format!("{:>7} {}", error.count, error.name);
        lines.push(Line::styled(text, Style::new().fg(BAD)));
    }
    let codes = results.map_or(&[][..], |results| &results.codes);
    if !codes.is_empty() {
        let codes = codes
            .iter()
            .map(|code| format!("{}: {}", code.name, code.count));
        lines.push(Line::from(format!(
            "codes   {}",
            codes.collect::<Vec<_>>().join("  ")
        )));
    }
    lines
}

/// The workers: first those with problems.
fn workers(frame: &mut Frame, area: Rect, model: &Model, focus: &Focus) {
    let mut workers = model.workers_by_index();
    workers.sort_by_key(|worker| !worker.is_problem);
    let worst = model.test.as_ref().and_then(|test| {
        test.status
            .as_ref()?
            .results
            .as_ref()?
            .generators
            .as_ref()?
            .worst
            .clone()
    });
    let rows = workers
        .iter()
        .skip(focus.first_worker)
        .take(usize::from(area.height))
        .map(|worker| {
            let style = if worker.is_problem {
                Style::new().fg(BAD)
            } else {
                Style::new()
            };
            let index = worker
                .index
                .map_or_else(|| "-".into(), |index| index.to_string());
            let load = worst
                .as_ref()
                .filter(|worst| u32::try_from(worst.worker).ok() == worker.index)
                .and_then(|worst| worst.utilization.clone().map(|busy| format!("busy {busy}")));
            let detail = worker.detail.clone().or(load).unwrap_or_default();
            let node = worker.node.clone().unwrap_or_default();
            Row::new([index, worker.state.clone(), node, detail]).style(style)
        });
    let widths = [
        Constraint::Length(5),
        Constraint::Length(13),
        Constraint::Length(12),
        Constraint::Min(0),
    ];
    let running = workers
        .iter()
        .filter(|worker| worker.state == "Running")
        .count();
    let title = format!("Workers: {} pods, {running} running", workers.len());
    let header =
        Row::new(["#", "state", "node", ""]).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(
        Table::new(rows, widths)
            .header(header)
            .block(titled(&title)),
        area,
    );
}

/// The events that fit, the newest first.
fn events(frame: &mut Frame, area: Rect, model: &Model, now: Timestamp) {
    let mut lines = Vec::new();
    for event in model
        .events_by_time()
        .into_iter()
        .rev()
        .take(usize::from(area.height))
    {
        let age = event
            .time
            .map(|time| now.duration_since(time).max(SignedDuration::ZERO));
        let age = age.map_or_else(String::new, duration::format);
        let style = if event.is_warning {
            Style::new().fg(WARNING)
        } else {
            Style::new()
        };
        lines.push(Line::styled(
            format!("{age:>6} {}: {}", event.reason, event.message),
            style,
        ));
    }
    let paragraph = Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .block(titled("Events"));
    frame.render_widget(paragraph, area);
}

/// The keys, or what needs an answer.
fn footer(frame: &mut Frame, area: Rect, model: &Model, focus: &Focus) {
    let alert = Style::new().fg(Color::Black).bg(Color::Yellow);
    let line = if focus.asks_to_stop {
        Line::styled(
            " Stop the test? y: stop   d: leave it running   any other key: back ",
            alert,
        )
    } else if let Some(problem) = model.problems.values().next() {
        Line::styled(
            format!(" Connection to the API server lost ({problem}); trying again every second "),
            alert,
        )
    } else if let Some(note) = model.notes.first() {
        Line::styled(format!(" {note} "), alert)
    } else {
        Line::styled(
            "q: leave (the test keeps running)   s: stop the test   up/down: workers",
            Style::new().add_modifier(Modifier::DIM),
        )
    };
    frame.render_widget(line, area);
}
