//! Whether a test has passed: pure. What the script's `ensure` and the test's own thresholds ask for is judged once, over
//! the results of all workers.

use std::fmt;

use loadtest_api::v1alpha1::Threshold;

use crate::Measurements;

mod expression;
mod metrics;

use metrics::Metrics;

/// Beyond, nothing is judged: a list that long is a mistake.
pub const MAX_THRESHOLDS: usize = 200;

/// How a rule was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// What was judged.
    pub threshold: Threshold,
    /// With what outcome.
    pub outcome: Outcome,
    /// The metrics that it names, with their values.
    pub values: Vec<(String, f64)>,
}

/// The outcome for a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It holds.
    Met,
    /// It does not.
    NotMet,
    /// It cannot be told, and why. So it has not held: what nobody has measured cannot pass.
    Unknown(String),
}

/// Judges all rules. The workers must have been given the rules too (`keep` in `src/worker/results.js`, which reads the
/// script's own by itself), so that they keep what these name.
#[must_use]
pub fn evaluate(thresholds: &[Threshold], measured: &Measurements) -> Vec<Evaluation> {
    let metrics = Metrics::new(measured);
    let judged = |(n, threshold): (usize, &Threshold)| {
        let mut values = Vec::new();
        let outcome = match expression::evaluate(&threshold.expression, &metrics, &mut values) {
            _ if n >= MAX_THRESHOLDS => {
                Outcome::Unknown(format!("there are more than {MAX_THRESHOLDS} thresholds"))
            }
            Ok(true) => Outcome::Met,
            Ok(false) => Outcome::NotMet,
            Err(why) => Outcome::Unknown(why),
        };
        Evaluation {
            threshold: threshold.clone(),
            outcome,
            values,
        }
    };
    thresholds.iter().enumerate().map(judged).collect()
}

/// Whether all that is strict has held.
#[must_use]
pub fn passed(judged: &[Evaluation]) -> bool {
    judged.iter().all(|judged| !judged.fails())
}

/// What has not held, in words: at most so many, those that fail the test first. Empty where all has.
#[must_use]
pub fn summarize_failures(judged: &[Evaluation], most: usize) -> String {
    let mut broken: Vec<_> = judged
        .iter()
        .filter(|judged| judged.outcome != Outcome::Met)
        .collect();
    broken.sort_by_key(|judged| !judged.threshold.is_strict());
    let more = broken.len().saturating_sub(most);
    let mut words: Vec<_> = broken
        .into_iter()
        .take(most)
        .map(ToString::to_string)
        .collect();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join("; ")
}

impl Evaluation {
    /// Whether the test fails for it.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.threshold.is_strict() && self.outcome != Outcome::Met
    }

    /// What was found: the values of the metrics, or why it cannot be evaluated.
    #[must_use]
    pub fn observed_values(&self) -> String {
        match &self.outcome {
            Outcome::Unknown(why) => why.clone(),
            _ => self
                .values
                .iter()
                .map(|(name, value)| format!("{name} is {value}"))
                .collect::<Vec<_>>()
                .join(", "),
        }
    }
}

/// The most characters of an expression that are shown.
const MAX_SHOWN: usize = 200;

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expression: String = self
            .threshold
            .expression
            .trim()
            .chars()
            .take(MAX_SHOWN)
            .collect();
        match (&self.outcome, self.values.as_slice()) {
            (Outcome::Met, _) => write!(f, "{expression} is met")?,
            (Outcome::Unknown(why), _) => write!(f, "{expression} cannot be evaluated: {why}")?,
            (Outcome::NotMet, [(name, value)]) if bound(&expression, name).is_some() => {
                write!(
                    f,
                    "{name} is {value}, not {}",
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

/// What follows the metric in an expression that compares it: `< 200`, or `0` for `== 0`.
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
