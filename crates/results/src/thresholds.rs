//! Evaluates the thresholds of a script's `ensure` and of a LoadTest over the merged results of all
//! workers.

use std::fmt;

use loadtest_api::v1alpha1::Threshold;
use thiserror::Error;

use crate::Measurements;

mod expression;
mod metrics;
mod names;
mod syntax;

use metrics::Metrics;

/// Thresholds beyond this number are not evaluated: a list that long is a mistake.
pub const MAX_THRESHOLDS: usize = 200;

/// In bytes, of all expressions together. What exceeds it is not evaluated, which bounds the time.
const MAX_TOTAL_LENGTH: usize = 256 << 10;
/// In characters. Bounds the size of a status.
const MAX_VALUES_CHARS: usize = 1000;

/// The evaluation of one threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The threshold.
    pub threshold: Threshold,
    /// Whether it is met.
    pub outcome: Outcome,
    /// The metrics that its expression names, with their values.
    pub values: Vec<(String, f64)>,
}

/// Whether a threshold is met.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The threshold is met.
    Met,
    /// The threshold is not met.
    NotMet,
    /// The threshold cannot be evaluated, with the reason. A strict one then fails the test, because
    /// nothing proves that it is met.
    Unknown(String),
}

/// Why a threshold cannot be evaluated, whatever the workers measure.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("threshold `{}`: {reason}", shortened(.expression))]
pub struct ThresholdProblem {
    /// The expression of the threshold.
    pub expression: String,
    /// What is wrong, where, and what to write instead.
    pub reason: String,
}

/// Checks an expression before the test starts, without measurements. Rejected are expressions that
/// are not conditions, and names that Artillery does not have: names that resemble those of Artillery,
/// names in its namespaces, and names without a dot. Processors can emit counters with such names, so
/// names in single quotes are accepted. A metric that no worker reports is found by [`evaluate`].
///
/// # Errors
/// If the expression cannot be evaluated.
pub fn check(expression: &str) -> Result<(), ThresholdProblem> {
    expression::validate(expression).map_err(|reason| ThresholdProblem {
        expression: expression.to_owned(),
        reason,
    })
}

/// An expression within a message.
fn shortened(expression: &str) -> String {
    expression
        .trim()
        .chars()
        .take(MAX_EXPRESSION_CHARS)
        .collect()
}

/// Evaluates all thresholds. The workers must know them too, so that snapshots keep the metrics they
/// name (`keep` in `worker/plugins/results/index.js`).
#[must_use]
pub fn evaluate(thresholds: &[Threshold], measured: &Measurements) -> Vec<Evaluation> {
    let metrics = Metrics::new(measured);
    let mut length = 0;
    let evaluation = |(n, threshold): (usize, &Threshold)| {
        let mut values = Vec::new();
        length += threshold.expression.len();
        let outcome = if n >= MAX_THRESHOLDS {
            Outcome::Unknown(format!(
                "only the first {MAX_THRESHOLDS} thresholds are evaluated"
            ))
        } else if length > MAX_TOTAL_LENGTH {
            Outcome::Unknown(format!(
                "the thresholds are longer than {MAX_TOTAL_LENGTH} bytes together"
            ))
        } else {
            match expression::evaluate(&threshold.expression, &metrics, &mut values) {
                Ok(true) => Outcome::Met,
                Ok(false) => Outcome::NotMet,
                Err(reason) => Outcome::Unknown(reason),
            }
        };
        Evaluation {
            threshold: threshold.clone(),
            outcome,
            values,
        }
    };
    thresholds.iter().enumerate().map(evaluation).collect()
}

/// Whether all strict thresholds are met.
#[must_use]
pub fn passed(evaluations: &[Evaluation]) -> bool {
    evaluations.iter().all(|evaluation| !evaluation.fails())
}

/// Describes at most `max` thresholds that are not met, starting with those that fail the test. Empty
/// if all are met.
#[must_use]
pub fn summarize_failures(evaluations: &[Evaluation], max: usize) -> String {
    let mut failures: Vec<_> = evaluations
        .iter()
        .filter(|evaluation| evaluation.outcome != Outcome::Met)
        .collect();
    failures.sort_by_key(|evaluation| !evaluation.threshold.is_strict());
    let more = failures.len().saturating_sub(max);
    let mut descriptions: Vec<_> = failures
        .into_iter()
        .take(max)
        .map(ToString::to_string)
        .collect();
    if more > 0 {
        descriptions.push(format!("and {more} more"));
    }
    descriptions.join("; ")
}

impl Evaluation {
    /// Whether the test fails because of this threshold.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.threshold.is_strict() && self.outcome != Outcome::Met
    }

    /// The values of the metrics, or why the threshold cannot be evaluated.
    #[must_use]
    pub fn observed_values(&self) -> String {
        let all = match &self.outcome {
            Outcome::Unknown(reason) => reason.clone(),
            _ => self
                .values
                .iter()
                .map(|(name, value)| format!("{name} is {}", readable(*value)))
                .collect::<Vec<_>>()
                .join(", "),
        };
        match all.char_indices().nth(MAX_VALUES_CHARS) {
            Some((end, _)) => format!("{}...", all.get(..end).unwrap_or_default()),
            None => all,
        }
    }
}

/// Limits the length of messages.
const MAX_EXPRESSION_CHARS: usize = 200;

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expression = shortened(&self.threshold.expression);
        match (&self.outcome, self.values.as_slice()) {
            (Outcome::Met, _) => write!(f, "{expression} is met")?,
            (Outcome::Unknown(_), _) => {
                let reason = self.observed_values();
                write!(f, "{expression} cannot be evaluated: {reason}")?;
            }
            (Outcome::NotMet, [(name, value)]) if bound(&expression, name).is_some() => {
                write!(
                    f,
                    "{name} is {}, not {}",
                    readable(*value),
                    bound(&expression, name).unwrap_or_default()
                )?;
            }
            (Outcome::NotMet, []) => write!(f, "{expression} is not met")?,
            (Outcome::NotMet, _) => {
                write!(f, "{expression} is not met: {}", self.observed_values())?;
            }
        }
        if self.threshold.is_strict() {
            Ok(())
        } else {
            write!(f, " (optional)")
        }
    }
}

/// A value without the error of floats: 1.75 instead of 1.7500000000000002.
fn readable(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// What an expression compares a metric with: `< 200`, or `0` for `== 0`. None for more complex
/// expressions.
fn bound<'a>(expression: &'a str, metric: &str) -> Option<&'a str> {
    let rest = expression
        .strip_prefix(metric)
        .or_else(|| expression.strip_prefix(&format!("'{metric}'")))?
        .trim_start();
    let number = rest.trim_start_matches(['<', '>', '=']).trim();
    (number.len() < rest.len() && number.parse::<f64>().is_ok())
        .then(|| rest.strip_prefix("==").map_or(rest, |_| number))
}

#[cfg(test)]
mod tests;
