//! Whether a test has passed: pure. What the script's `ensure` and the test's own thresholds ask for is judged once, over
//! the results of all workers.

use std::fmt;

use crate::api::v1alpha1::Threshold;
use crate::results::Measurements;

mod ensure;
mod expression;
mod metrics;

pub use ensure::ensured;

use metrics::Metrics;

/// Beyond, nothing is judged: a list that long is a mistake.
pub const MOST_RULES: usize = 200;

/// Something that has to hold: an expression of Artillery's `ensure`, such as `http.response_time.p95 < 200`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The expression.
    pub expression: String,
    /// Whether the test fails if it does not hold. Else it is only told.
    pub strict: bool,
}

impl Rule {
    /// A rule that has to hold.
    #[must_use]
    pub fn strict(expression: impl Into<String>) -> Self {
        Self {
            expression: expression.into(),
            strict: true,
        }
    }
}

impl From<&Threshold> for Rule {
    fn from(threshold: &Threshold) -> Self {
        Self {
            expression: threshold.expression.clone(),
            strict: threshold.strict.unwrap_or(true),
        }
    }
}

impl From<Rule> for Threshold {
    fn from(rule: Rule) -> Self {
        Self {
            expression: rule.expression,
            strict: (!rule.strict).then_some(false),
            held: None,
            message: None,
        }
    }
}

/// How a rule was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What was judged.
    pub rule: Rule,
    /// With what outcome.
    pub outcome: Outcome,
    /// The metrics that it names, with their values.
    pub values: Vec<(String, f64)>,
}

/// The outcome for a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It holds.
    Held,
    /// It does not.
    Broken,
    /// It cannot be told, and why. So it has not held: what nobody has measured cannot pass.
    Unjudged(String),
}

/// Judges all rules. The workers must have been given the rules too (`keep` in `src/worker/results.js`, which reads the
/// script's own by itself), so that they keep what these name.
#[must_use]
pub fn judge(rules: &[Rule], measured: &Measurements) -> Vec<Judged> {
    let metrics = Metrics::new(measured);
    let judged = |(n, rule): (usize, &Rule)| {
        let mut values = Vec::new();
        let outcome = match expression::evaluate(&rule.expression, &metrics, &mut values) {
            _ if n >= MOST_RULES => {
                Outcome::Unjudged(format!("there are more than {MOST_RULES} thresholds"))
            }
            Ok(true) => Outcome::Held,
            Ok(false) => Outcome::Broken,
            Err(why) => Outcome::Unjudged(why),
        };
        Judged {
            rule: rule.clone(),
            outcome,
            values,
        }
    };
    rules.iter().enumerate().map(judged).collect()
}

/// Whether all that is strict has held.
#[must_use]
pub fn passed(judged: &[Judged]) -> bool {
    judged.iter().all(|judged| !judged.fails())
}

/// What has not held, in words: at most so many, those that fail the test first. Empty where all has.
#[must_use]
pub fn told(judged: &[Judged], most: usize) -> String {
    let mut broken: Vec<_> = judged
        .iter()
        .filter(|judged| judged.outcome != Outcome::Held)
        .collect();
    broken.sort_by_key(|judged| !judged.rule.strict);
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

impl Judged {
    /// Whether the test fails for it.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.rule.strict && self.outcome != Outcome::Held
    }

    /// What was found: the values of the metrics, or why it cannot be judged.
    #[must_use]
    pub fn found(&self) -> String {
        match &self.outcome {
            Outcome::Unjudged(why) => why.clone(),
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
const MOST_SHOWN: usize = 200;

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expression: String = self
            .rule
            .expression
            .trim()
            .chars()
            .take(MOST_SHOWN)
            .collect();
        match (&self.outcome, self.values.as_slice()) {
            (Outcome::Held, _) => write!(f, "{expression} holds")?,
            (Outcome::Unjudged(why), _) => write!(f, "{expression} cannot be judged: {why}")?,
            (Outcome::Broken, [(name, value)]) if bound(&expression, name).is_some() => {
                write!(
                    f,
                    "{name} is {value}, not {}",
                    bound(&expression, name).unwrap_or_default()
                )?;
            }
            (Outcome::Broken, []) => write!(f, "{expression} does not hold")?,
            (Outcome::Broken, _) => write!(f, "{expression} does not hold: {}", self.found())?,
        }
        if self.rule.strict {
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
