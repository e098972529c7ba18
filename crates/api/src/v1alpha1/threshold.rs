//! A condition that the merged results must meet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A condition that the merged results must meet for the test to pass.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Threshold {
    /// The expression, as in the script's `ensure` or in `spec.thresholds`.
    pub expression: String,

    /// Whether the test passes only if the threshold is met. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,

    /// Whether the threshold was met. Set when the test has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,

    /// The values of the metrics in the expression, or why it could not be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Threshold {
    /// A threshold that was not evaluated yet.
    #[must_use]
    pub fn new(expression: impl Into<String>, strict: bool) -> Self {
        Self {
            expression: expression.into(),
            strict: (!strict).then_some(false),
            held: None,
            message: None,
        }
    }

    /// A threshold that fails the test when it is not met.
    #[must_use]
    pub fn strict(expression: impl Into<String>) -> Self {
        Self::new(expression, true)
    }

    /// Whether the test fails when the threshold is not met.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.strict.unwrap_or(true)
    }
}

/// Words that are not names of metrics in an expression: literals and operators of JavaScript and of Artillery's `filtrex`.
pub const RESERVED_WORDS: [&str; 11] = [
    "true",
    "false",
    "null",
    "undefined",
    "NaN",
    "Infinity",
    "and",
    "or",
    "in",
    "of",
    "not",
];

/// A metric's name as an expression can contain it: in quotes where it is not a plain identifier.
#[must_use]
pub fn quote_metric(name: &str) -> String {
    if name.chars().all(is_identifier_char) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Whether a plain name in an expression can contain this character.
///
/// Source: filtrex, `SYMBOL` in `src/generateParser.js`.
#[must_use]
pub fn is_identifier_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '$' | '_')
}
