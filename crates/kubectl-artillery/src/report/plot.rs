//! Charts as SVG. The lines are stretched to the width of the page and keep their strokes; the labels are HTML, so that they are
//! readable at any width.

use std::fmt::Write;

use maud::{Markup, html};

use super::format::{axis_time, grouped_decimal};

/// The size of the coordinate system of all charts.
const SIZE: f64 = 1000.0;

/// What an axis measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Something per second.
    PerSecond,
    /// Milliseconds.
    Milliseconds,
    /// A number.
    Count,
    /// Percent.
    Percent,
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A value for a whole step: a step line above an area.
    Area,
    /// The same without the area.
    Steps,
    /// A value in the middle of a step. Without a value, the line has a gap.
    Line,
    /// A value at the end of a step.
    Ends,
}

/// A series of a chart.
pub(super) struct Line {
    /// The name.
    pub(super) label: &'static str,
    /// The CSS class with the color.
    pub(super) class: &'static str,
    pub(super) shape: Shape,
    /// One value for each step.
    pub(super) values: Vec<Option<f64>>,
    /// The values as text.
    pub(super) texts: Vec<String>,
}

/// A chart over time.
pub(super) struct Chart {
    /// The id of the chart in the page.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    pub(super) lines: Vec<Line>,
    pub(super) steps: usize,
    pub(super) step_seconds: i64,
}

/// The ticks of an axis from 0, about `target` of them: multiples of 1, 2 or 5 times a power of ten. The last one is not below `max`.
pub(super) fn ticks(max: f64, target: f64, whole: bool) -> Vec<f64> {
    let max = if max.is_finite() && max > 0.0 {
        max
    } else {
        1.0
    };
    let rough = max / target;
    let power = 10_f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= rough * 0.999);
    let step = factor.unwrap_or(10.0) * power;
    let step = if whole { step.max(1.0) } else { step };
    let count = (max / step - 1e-9).ceil().clamp(1.0, 20.0);
    let mut tick = 0.0;
    std::iter::from_fn(|| {
        let value = tick * step;
        tick += 1.0;
        (tick <= count + 1.0).then_some(value)
    })
    .collect()
}

/// The ticks of a time axis, in seconds: at most five or so.
pub(super) fn time_ticks(seconds: i64) -> Vec<i64> {
    const STEPS: [i64; 19] = [
        1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
        86_400, 604_800,
    ];
    let step = STEPS.into_iter().find(|step| seconds / step <= 5);
    let step = step.unwrap_or(seconds / 5).max(1);
    (0..=seconds / step).map(|tick| tick * step).collect()
}

/// The ticks of a logarithmic axis: 1, 2 and 5 times powers of ten, or powers of ten alone where there are many.
pub(super) fn log_ticks(lower: f64, upper: f64) -> Vec<f64> {
    #[allow(clippy::cast_possible_truncation)] // saturates
    let power = |value: f64| value.log10().floor() as i32;
    let powers = power(lower)..=power(upper);
    let all = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10_f64.powi(power)));
    let inside = all.filter(|tick| (lower..=upper).contains(tick));
    let ticks: Vec<_> = inside.collect();
    if ticks.len() <= 8 {
        return ticks;
    }
    let is_power = |tick: &f64| (tick.log10() - tick.log10().round()).abs() < 1e-9;
    ticks.into_iter().filter(is_power).collect()
}

/// A value on an axis, with its unit.
pub(super) fn axis_value(value: f64, unit: Unit) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    let number = |value: f64| match value {
        value if value >= 1e6 => format!("{}M", (value / 1e4).round() / 1e2),
        value if value >= 1e4 => format!("{}k", (value / 1e1).round() / 1e2),
        value => grouped_decimal(value),
    };
    match unit {
        Unit::PerSecond => format!("{}/s", number(rounded)),
        Unit::Milliseconds if rounded >= 1e3 => format!("{} s", grouped_decimal(rounded / 1e3)),
        Unit::Milliseconds => format!("{} ms", grouped_decimal(rounded)),
        Unit::Count => number(rounded),
        Unit::Percent => format!("{rounded}%"),
    }
}

impl Chart {
    /// The chart with its legend.
    pub(super) fn render(&self) -> Markup {
        let highest = self
            .lines
            .iter()
            .flat_map(|line| &line.values)
            .flatten()
            .copied()
            .fold(0.0, f64::max);
        let ticks = ticks(highest, 5.0, self.unit == Unit::Count);
        let top = ticks.last().copied().unwrap_or(1.0);
        let total = i64::try_from(self.steps)
            .unwrap_or(i64::MAX)
            .saturating_mul(self.step_seconds);
        html! {
            figure.chart id=(self.id) {
                figcaption {
                    h3 { (self.title) }
                    ul.legend {
                        @for line in &self.lines {
                            li class=(line.class) {
                                span.swatch.dashed[line.shape == Shape::Steps] aria-hidden="true" {}
                                (line.label)
                                " "
                                b.at data-values=(line.texts.join("|")) {}
                            }
                        }
                    }
                }
                div.frame {
                    div.y aria-hidden="true" {
                        @for tick in &ticks {
                            span style={ "bottom:" (percent(*tick, top)) } { (axis_value(*tick, self.unit)) }
                        }
                    }
                    div.plot {
                        svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img"
                            aria-labelledby={ (self.id) "-title " (self.id) "-desc" } {
                            title id={ (self.id) "-title" } { (self.title) }
                            desc id={ (self.id) "-desc" } { (self.description(total)) }
                            @for tick in &ticks {
                                path.grid d={ "M0 " (number(y(*tick, top))) "H1000" } {}
                            }
                            @for line in &self.lines {
                                @if line.shape == Shape::Area {
                                    path.area.(line.class) d=(area(line, top, self.steps)) {}
                                }
                            }
                            @for line in &self.lines {
                                path.line.(line.class).dashed[line.shape == Shape::Steps] d=(path(line, top, self.steps)) {}
                            }
                        }
                        div.cursor hidden {}
                    }
                    div.x aria-hidden="true" {
                        @for tick in time_ticks(total) {
                            span style={ "left:" (percent(float(tick), float(total))) } { (axis_time(tick)) }
                        }
                    }
                }
            }
        }
    }

    /// The chart in words, for those who cannot see it.
    fn description(&self, total: i64) -> String {
        let mut text = format!("{} steps from 0 to {}.", self.steps, axis_time(total));
        for line in &self.lines {
            let known = || {
                let pairs = line.values.iter().zip(&line.texts);
                pairs.filter_map(|(value, text)| Some(((*value)?, text)))
            };
            let lowest = known().min_by(|(a, _), (b, _)| a.total_cmp(b));
            let highest = known().max_by(|(a, _), (b, _)| a.total_cmp(b));
            let _ = match lowest.zip(highest) {
                Some(((_, lowest), (_, highest))) => {
                    write!(text, " {}: from {lowest} to {highest}.", line.label)
                }
                None => write!(text, " {}: no values.", line.label),
            };
        }
        text
    }
}

/// The outline of a line.
fn path(line: &Line, top: f64, steps: usize) -> String {
    let mut d = String::new();
    let mut is_open = false;
    for (at, value) in line.values.iter().enumerate() {
        let Some(value) = value else {
            is_open = false;
            continue;
        };
        let command = if is_open { 'L' } else { 'M' };
        let [left, middle, right] = [0.0, 0.5, 1.0].map(|part| number(x(at, part, steps)));
        let y = number(y(*value, top));
        let _ = match line.shape {
            Shape::Area | Shape::Steps => write!(d, "{command}{left} {y}H{right}"),
            Shape::Ends if !is_open => write!(d, "M{left} {y}L{right} {y}"),
            Shape::Ends => write!(d, "L{right} {y}"),
            // A line without length is a dot, which a value between two gaps needs.
            Shape::Line if !is_open => write!(d, "M{middle} {y}h0"),
            Shape::Line => write!(d, "L{middle} {y}"),
        };
        is_open = true;
    }
    d
}

fn area(line: &Line, top: f64, steps: usize) -> String {
    let mut d = String::from("M0 1000");
    for (at, value) in line.values.iter().enumerate() {
        let y = y(value.unwrap_or_default(), top);
        let _ = write!(d, "V{}H{}", number(y), number(x(at, 1.0, steps)));
    }
    d + "V1000Z"
}

#[allow(clippy::cast_precision_loss)] // There are few steps.
fn x(at: usize, part: f64, steps: usize) -> f64 {
    (at as f64 + part) / (steps.max(1) as f64) * SIZE
}

fn y(value: f64, top: f64) -> f64 {
    SIZE - (value / top).clamp(0.0, 1.0) * SIZE
}

/// A coordinate with one decimal.
pub(super) fn number(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A position on an axis.
pub(super) fn percent(value: f64, of: f64) -> String {
    let share = if of > 0.0 { value / of } else { 0.0 };
    format!("{}%", (share * 1e4).round() / 1e2)
}

/// A number for a chart, which does not show more digits than a float has.
#[allow(clippy::cast_precision_loss)]
pub(super) fn float(n: i64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_maximum() {
        let cases: [(f64, &[f64]); 5] = [
            (97.0, &[0.0, 20.0, 40.0, 60.0, 80.0, 100.0]),
            (412.0, &[0.0, 100.0, 200.0, 300.0, 400.0, 500.0]),
            (2400.0, &[0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0]),
            (0.0, &[0.0, 0.2, 0.4, 3.0 * 0.2, 0.8, 1.0]),
            (f64::NAN, &[0.0, 0.2, 0.4, 3.0 * 0.2, 0.8, 1.0]),
        ];
        for (max, expected) in cases {
            assert_eq!(ticks(max, 5.0, false), expected, "{max}");
        }
        assert_eq!(ticks(2.0, 5.0, true), [0.0, 1.0, 2.0], "counts are whole");
        for max in [1e-9, 0.3, 7.0, 1e15] {
            let ticks = ticks(max, 5.0, false);
            assert!((2..=7).contains(&ticks.len()), "{ticks:?}");
            assert!(
                ticks.last().is_some_and(|last| *last >= max * 0.999),
                "{ticks:?}"
            );
        }
    }

    #[test]
    fn ticks_of_time_are_few() {
        assert_eq!(time_ticks(300), [0, 60, 120, 180, 240, 300]);
        assert_eq!(time_ticks(10), [0, 2, 4, 6, 8, 10]);
        for seconds in [0, 1, 59, 3601, 86_400, i64::MAX / 2] {
            assert!(time_ticks(seconds).len() <= 7, "{seconds}");
        }
    }

    #[test]
    fn ticks_of_a_logarithmic_axis_lie_within_its_bounds() {
        assert_eq!(log_ticks(3.0, 60.0), [5.0, 10.0, 20.0, 50.0]);
        assert_eq!(
            log_ticks(0.5, 20_000.0),
            [1.0, 10.0, 100.0, 1000.0, 10_000.0]
        );
    }

    #[test]
    fn line_has_a_gap_where_a_value_is_missing() {
        let line = Line {
            label: "p95",
            class: "s1",
            shape: Shape::Line,
            values: vec![Some(1.0), Some(2.0), None, Some(4.0)],
            texts: Vec::new(),
        };
        assert_eq!(path(&line, 4.0, 4), "M125 750h0L375 500M875 0h0");
    }
}
