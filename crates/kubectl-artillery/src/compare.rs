//! `compare`: the results of two tests side by side, and how their specs differ.

use std::fmt::Write;

use kube::ResourceExt;
use loadtest_api::v1alpha1::{LoadTest, Results};
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Compare, Output};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::run::serialized;
use crate::session::Session;
use crate::text;

/// The metrics that are compared, and that conditions can name.
pub const METRICS: [&str; 14] = [
    "p50",
    "p90",
    "p95",
    "p99",
    "p999",
    "mean",
    "max",
    "requests",
    "request_rate",
    "responses",
    "errors",
    "error_rate",
    "vusers_failed",
    "sent",
];

/// The comparison of two tests.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The name of the test that is compared with.
    pub baseline: String,
    /// The name of the test that is compared.
    pub test: String,
    /// The verdicts of both.
    pub verdicts: [Option<String>; 2],
    /// The values of both.
    pub metrics: Vec<Metric>,
    /// The fields of the spec that differ.
    pub spec: Vec<Difference>,
    /// The conditions, and whether they hold.
    pub conditions: Vec<Judged>,
}

/// A metric of both tests: milliseconds, counts, rates per second, or percent.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// One of [`METRICS`].
    pub name: &'static str,
    /// The value of the baseline.
    pub baseline: Option<f64>,
    /// The value of the test.
    pub test: Option<f64>,
}

/// A field of the spec that differs.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The path of the field.
    pub field: String,
    /// Its value in the baseline.
    pub baseline: Value,
    /// Its value in the test.
    pub test: Value,
}

/// A condition of `--fail-if`.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// The condition.
    pub condition: String,
    /// Whether it holds. Not set if a value is missing.
    pub holds: Option<bool>,
}

/// Compares two tests, and prints the comparison.
///
/// # Errors
/// A test does not exist, or has no results; a condition cannot be parsed.
pub async fn run(session: &Session, args: &Compare) -> Result<Outcome> {
    let conditions: Vec<Condition> = args
        .fail_if
        .iter()
        .map(|text| Condition::parse(text))
        .collect::<Result<_>>()?;
    let baseline = session.test(&args.baseline).await?;
    let test = session.test(&args.name).await?;
    for one in [&baseline, &test] {
        if one
            .status
            .as_ref()
            .is_none_or(|status| status.results.is_none())
        {
            let name = one.name_any();
            return Err(Error::new(format!(
                "LoadTest {}/{name} has no results.",
                session.namespace
            ))
            .advice(format!(
                "Follow it: kubectl artillery watch {name} -n {}",
                session.namespace
            )));
        }
    }
    let comparison = compare(&baseline, &test, &conditions);
    match args.output {
        Output::Text => print!("{}", comparison.text()),
        output => print!("{}", serialized(&comparison, output)?),
    }
    Ok(comparison.outcome())
}

/// Compares two tests.
#[must_use]
pub fn compare(baseline: &LoadTest, test: &LoadTest, conditions: &[Condition]) -> Comparison {
    let results = |test: &LoadTest| {
        test.status
            .as_ref()
            .and_then(|status| status.results.clone())
    };
    let (before, after) = (results(baseline), results(test));
    let value = |results: &Option<Box<Results>>, name| {
        results.as_ref().and_then(|results| metric(results, name))
    };
    let metrics: Vec<_> = METRICS
        .into_iter()
        .map(|name| Metric {
            name,
            baseline: value(&before, name),
            test: value(&after, name),
        })
        .collect();
    let judged = conditions.iter().map(|condition| Judged {
        condition: condition.text.clone(),
        holds: metrics
            .iter()
            .find(|metric| metric.name == condition.metric)
            .and_then(|metric| condition.holds(metric)),
    });
    let conditions = judged.collect();
    // Whether a test was stopped or suspended is part of its course.
    let spec = |test: &LoadTest| {
        let mut spec = test.spec.clone();
        (spec.stop, spec.suspend) = (None, None);
        serde_json::to_value(&spec).unwrap_or_default()
    };
    let specs = [spec(baseline), spec(test)];
    let mut spec = Vec::new();
    differences(&specs[0], &specs[1], "spec", &mut spec);
    let verdict = |test: &LoadTest| {
        test.status
            .as_ref()
            .and_then(|status| status.verdict)
            .map(|verdict| verdict.as_str().to_owned())
    };
    Comparison {
        baseline: baseline.name_any(),
        test: test.name_any(),
        verdicts: [verdict(baseline), verdict(test)],
        metrics,
        spec,
        conditions,
    }
}

/// The value of a metric.
#[allow(clippy::cast_precision_loss)] // counts are far below 2^53
fn metric(results: &Results, name: &str) -> Option<f64> {
    let times = results.response_time();
    match name {
        "p50" => times?.p50,
        "p90" => times?.p90,
        "p95" => times?.p95,
        "p99" => times?.p99,
        "p999" => times?.p999,
        "mean" => times?.mean,
        "max" => times?.max,
        "requests" => Some(results.requests as f64),
        "request_rate" => Some(results.request_rate),
        "responses" => Some(results.responses as f64),
        "errors" => Some(results.errors as f64),
        "error_rate" => {
            (results.requests > 0).then(|| 100.0 * results.errors as f64 / results.requests as f64)
        }
        "vusers_failed" => Some(results.vusers_failed as f64),
        "sent" => results
            .load
            .as_ref()?
            .sent
            .as_ref()?
            .trim_end_matches('%')
            .parse()
            .ok(),
        _ => None,
    }
}

fn differences(one: &Value, other: &Value, path: &str, found: &mut Vec<Difference>) {
    if let (Some(fields), Some(others)) = (one.as_object(), other.as_object()) {
        let mut names: Vec<_> = fields.keys().chain(others.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let path = format!("{path}.{name}");
            differences(
                &fields.get(name).cloned().unwrap_or_default(),
                &others.get(name).cloned().unwrap_or_default(),
                &path,
                found,
            );
        }
    } else if one != other {
        found.push(Difference {
            field: path.to_owned(),
            baseline: one.clone(),
            test: other.clone(),
        });
    }
}

/// A condition: a metric of the test, compared with a number, or with a multiple of the baseline's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    metric: &'static str,
    operator: &'static str,
    number: f64,
    is_factor: bool,
}

impl Condition {
    /// Parses `p95 > 1.1x` or `errors > 0`.
    ///
    /// # Errors
    /// The text has another form, or an unknown metric.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(format!("--fail-if {text:?} is not a condition."))
                .advice("Write METRIC OPERATOR NUMBER, such as 'errors > 0', or relative to the baseline, such as 'p95 > 1.1x'.")
        };
        let at = text.find(['<', '>', '=', '!']).ok_or_else(wrong)?;
        let (name, rest) = text.split_at(at);
        let operator = ["<=", ">=", "==", "!=", "<", ">"]
            .into_iter()
            .find(|one| rest.starts_with(one))
            .ok_or_else(wrong)?;
        let number = rest.get(operator.len()..).unwrap_or_default().trim();
        let (number, is_factor) = match number.strip_suffix(['x', 'X']) {
            Some(factor) => (factor.trim(), true),
            None => (
                number.trim_end_matches("ms").trim_end_matches('%').trim(),
                false,
            ),
        };
        let name = name.trim();
        let metric = METRICS
            .into_iter()
            .find(|metric| *metric == name)
            .ok_or_else(|| {
                Error::new(format!("--fail-if {text:?}: there is no metric {name:?}."))
                    .advice(format!("The metrics are {}.", METRICS.join(", ")))
            })?;
        let number: f64 = number.parse().map_err(|_| wrong())?;
        if !number.is_finite() {
            return Err(wrong());
        }
        Ok(Self {
            text: text.to_owned(),
            metric,
            operator,
            number,
            is_factor,
        })
    }

    /// Whether the condition holds, if the values exist.
    fn holds(&self, metric: &Metric) -> Option<bool> {
        let value = metric.test?;
        let limit = if self.is_factor {
            metric.baseline? * self.number
        } else {
            self.number
        };
        Some(match self.operator {
            "<" => value < limit,
            "<=" => value <= limit,
            ">" => value > limit,
            ">=" => value >= limit,
            "!=" => (value - limit).abs() > f64::EPSILON,
            _ => (value - limit).abs() <= f64::EPSILON,
        })
    }
}

impl Comparison {
    /// 1 if a condition holds, 2 if one cannot be evaluated, 3 if a test is inconclusive, because then its numbers do not describe the
    /// requested load.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.conditions.iter().any(|one| one.holds == Some(true)) {
            return Outcome::Failed;
        }
        if self.conditions.iter().any(|one| one.holds.is_none()) {
            return Outcome::Unfinished;
        }
        let inconclusive = Some("Inconclusive".to_owned());
        if self.verdicts.contains(&inconclusive) {
            return Outcome::Inconclusive;
        }
        Outcome::Passed
    }

    fn text(&self) -> String {
        let verdict = |at: usize| self.verdicts[at].clone().unwrap_or_else(|| "-".into());
        let mut rows = vec![
            vec![
                String::new(),
                self.baseline.clone(),
                self.test.clone(),
                "change".into(),
            ],
            vec!["verdict".into(), verdict(0), verdict(1)],
        ];
        for metric in &self.metrics {
            if metric.baseline.is_none() && metric.test.is_none() {
                continue;
            }
            let unit = match metric.name {
                "p50" | "p90" | "p95" | "p99" | "p999" | "mean" | "max" => "ms",
                "request_rate" => "/s",
                "error_rate" | "sent" => "%",
                _ => "",
            };
            let value = |value: Option<f64>| {
                value.map_or_else(|| "-".into(), |value| format!("{}{unit}", rounded(value)))
            };
            rows.push(vec![
                metric.name.into(),
                value(metric.baseline),
                value(metric.test),
                change(metric),
            ]);
        }
        let mut text = text::table(&rows);
        if self.spec.is_empty() {
            text.push_str("\nThe specs are equal.\n");
        } else {
            text.push_str("\nDifferences of the specs\n");
            let rows: Vec<_> = self
                .spec
                .iter()
                .map(|one| {
                    vec![
                        format!("  {}", one.field),
                        short(&one.baseline),
                        short(&one.test),
                    ]
                })
                .collect();
            text.push_str(&text::table(&rows));
        }
        for one in &self.conditions {
            let holds = match one.holds {
                Some(true) => "holds: failed",
                Some(false) => "does not hold",
                None => "cannot be evaluated: a value is missing",
            };
            let _ = writeln!(text, "\n{} {holds}", one.condition);
        }
        if self.outcome() == Outcome::Inconclusive {
            text.push_str("\nA test is inconclusive: it did not send the planned load, so its numbers cannot be compared.\n");
        }
        text
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The relative change, where it makes sense.
fn change(metric: &Metric) -> String {
    let (Some(before), Some(after)) = (metric.baseline, metric.test) else {
        return String::new();
    };
    if before == 0.0 {
        return if after == 0.0 {
            String::new()
        } else {
            format!("+{}", rounded(after))
        };
    }
    let percent = 100.0 * (after - before) / before;
    if percent.abs() < 0.05 {
        String::new()
    } else {
        format!("{percent:+.1}%")
    }
}

/// A value of a spec in one line.
fn short(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = if value.is_null() {
        "-".to_owned()
    } else {
        value.to_string()
    };
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests;
