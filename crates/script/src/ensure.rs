//! What a script wants ensured.

use serde_yaml::Value;

use loadtest_api::v1alpha1::{Threshold, quote_metric};

const LEGACY: [&str; 5] = ["min", "max", "median", "p95", "p99"];

/// The rules of the `ensure` in a script's `config`, in which the environment that is used has been merged.
///
/// Source: `artillery-plugin-ensure`, `runChecks` in `plugin.ts`. Different from there:
/// - `config.ensure` is judged even where `config.plugins` does not have `ensure`, without which Artillery passes over it.
/// - All metrics of one entry in `thresholds` are judged. There it is the first.
/// - `p95: 0.5` is 0.5. There the legacy keys are cut down to integers.
#[must_use]
pub fn ensured(config: &Value) -> Vec<Threshold> {
    let own = config.get("ensure").filter(|ensure| !ensure.is_null());
    own.or_else(|| config.get("plugins")?.get("ensure"))
        .map(rules)
        .unwrap_or_default()
}

fn rules(ensure: &Value) -> Vec<Threshold> {
    let list = |key| {
        ensure
            .get(key)
            .and_then(Value::as_sequence)
            .into_iter()
            .flatten()
    };
    let thresholds = list("thresholds")
        .filter_map(Value::as_mapping)
        .flatten()
        .map(|(metric, most)| {
            Threshold::strict(format!("{} < {}", quote_metric(&text(metric)), text(most)))
        });
    let conditions = list("conditions")
        .filter(|condition| condition.is_mapping())
        .map(|condition| {
            let expression = condition
                .get("expression")
                .map_or_else(|| NOTHING.to_owned(), text);
            let strict = condition
                .get("strict")
                .and_then(Value::as_bool)
                .unwrap_or(true);
            Threshold::new(expression, strict)
        });
    let legacy = LEGACY.iter().filter_map(|key| {
        Some(Threshold::strict(format!(
            "http.response_time.{key} < {}",
            leading_number(&text(ensure.get(*key)?))
        )))
    });
    let error_rate = ensure
        .get("maxErrorRate")
        .map(|most| Threshold::strict(format!("maxErrorRate <= {}", text(most))));
    thresholds
        .chain(conditions)
        .chain(legacy)
        .chain(error_rate)
        .collect()
}

/// Stands for what is no text and no number, and cannot be evaluated.
const NOTHING: &str = "?";

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => NOTHING.to_owned(),
    }
}

/// As `parseInt` takes it: `200` of `200ms`.
fn leading_number(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    if end == 0 {
        text
    } else {
        text.get(..end).unwrap_or(text)
    }
}
