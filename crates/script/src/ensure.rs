//! The thresholds that a script sets in `config.ensure`.

use serde_yaml::Value;

use loadtest_api::v1alpha1::{Threshold, quote_metric};

const LEGACY: [&str; 5] = ["min", "max", "median", "p95", "p99"];

/// The thresholds of the `ensure` in a script's `config`, into which the selected environment has
/// been merged.
///
/// Source: `artillery-plugin-ensure`, `runChecks` in `plugin.ts`. Differences:
/// - `config.ensure` counts even if `config.plugins` has no `ensure`. Artillery ignores it then.
/// - All metrics of an entry in `thresholds` count. Artillery takes only the first.
/// - `p95: 0.5` means 0.5. Artillery truncates the legacy keys to integers.
#[must_use]
pub fn thresholds(config: &Value) -> Vec<Threshold> {
    let ensure = config.get("ensure").filter(|ensure| !ensure.is_null());
    ensure
        .or_else(|| config.get("plugins")?.get("ensure"))
        .map(of_ensure)
        .unwrap_or_default()
}

fn of_ensure(ensure: &Value) -> Vec<Threshold> {
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
        .map(|(metric, max)| {
            Threshold::strict(format!("{} < {}", quote_metric(&text(metric)), text(max)))
        });
    let conditions = list("conditions")
        .filter(|condition| condition.is_mapping())
        .map(|condition| {
            let expression = condition
                .get("expression")
                .map_or_else(|| INVALID.to_owned(), text);
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
        .map(|max| Threshold::strict(format!("maxErrorRate <= {}", text(max))));
    thresholds
        .chain(conditions)
        .chain(legacy)
        .chain(error_rate)
        .collect()
}

/// Stands for a value that is neither a string nor a number. No expression with it can be
/// evaluated.
const INVALID: &str = "?";

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => INVALID.to_owned(),
    }
}

/// The number at the start of a text, as `parseInt` reads it: `200` of `200ms`.
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
