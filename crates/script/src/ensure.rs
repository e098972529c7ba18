//! The thresholds that a script sets in `config.ensure`.

use loadtest_api::v1alpha1::{Threshold, quote_metric};

use crate::yaml::{Node, Value};
use crate::{rule, shorten};

/// As many as are evaluated, and one more, so that an excess is noticed.
const MAX_RULES: usize = 201;

/// In bytes, of all rules together. They become part of the status.
const MAX_TOTAL_LENGTH: usize = 64 << 10;

const LEGACY: [&str; 5] = ["min", "max", "median", "p95", "p99"];

/// The `ensure` of a `config`, as far as it can be read.
#[derive(Default)]
pub(crate) struct Ensure {
    pub(crate) thresholds: Vec<Threshold>,
    /// What is not read, with its offset.
    pub(crate) warnings: Vec<(String, usize)>,
}

/// Analyzes the `ensure` in a script's `config`, into which the selected environment has been
/// merged.
///
/// Source: `artillery-plugin-ensure`, `runChecks` in `plugin.ts`. Differences:
/// - `config.ensure` counts even if `config.plugins` has no `ensure`. Artillery ignores it then, so a
///   rule that cannot be evaluated does not fail the test.
/// - All metrics of an entry in `thresholds` count. Artillery takes only the first.
/// - `p95: 0.5` means 0.5. Artillery truncates the legacy keys to integers.
/// - Expressions of JavaScript are read where their meaning is clear.
pub(crate) fn analyze(config: &Node) -> Ensure {
    let plugin = config.get("plugins").and_then(|all| all.get("ensure"));
    let own = config.get("ensure").filter(|ensure| !ensure.is_null());
    let Some(ensure) = own.or(plugin) else {
        return Ensure::default();
    };
    let mut reader = Reader {
        is_enabled: plugin.is_some(),
        length: 0,
        result: Ensure::default(),
    };
    if ensure.is_list() {
        reader.warn(
            ensure,
            "config.ensure is a list, of which Artillery reads nothing; use the keys thresholds or \
             conditions",
        );
    }
    for key in ["thresholds", "conditions"] {
        if let Some(list) = ensure.get(key).filter(|list| !list.is_list()) {
            reader.warn(
                list,
                format!("config.ensure.{key} is not a list and is not read"),
            );
        }
    }
    let list = |key| ensure.get(key).map_or(&[][..], |list| list.items());
    for (n, item) in list("thresholds").iter().enumerate() {
        if !item.is_map() {
            reader.warn(
                item,
                format!("config.ensure.thresholds[{n}] is not read: it has no metric"),
            );
        }
        for entry in item.entries() {
            reader.rule(
                &entry.value,
                bound(&quote_metric(&entry.key), "<", &entry.value.display()),
                true,
            );
        }
    }
    for (n, item) in list("conditions").iter().enumerate() {
        if !item.is_map() {
            let message =
                format!("config.ensure.conditions[{n}] is not read: it has no expression");
            reader.warn(item, message);
            continue;
        }
        let expression = item.get("expression");
        let is_strict = !matches!(
            item.get("strict").map(|strict| &strict.value),
            Some(Value::Bool(false))
        );
        let text = expression.map_or_else(|| INVALID.to_owned(), |expression| expression.display());
        reader.rule(expression.unwrap_or(item), text, is_strict);
    }
    for key in LEGACY {
        if let Some(max) = ensure.get(key) {
            let metric = format!("http.response_time.{key}");
            let max_text = max.display();
            let operator = if max_text.trim_start().starts_with("<=") {
                "<="
            } else {
                "<"
            };
            let number = max_text
                .trim_start()
                .trim_start_matches(['<', '='])
                .trim_start();
            reader.rule(
                max,
                format!("{metric} {operator} {}", leading_number(number)),
                true,
            );
        }
    }
    if let Some(max) = ensure.get("maxErrorRate") {
        reader.rule(max, bound("maxErrorRate", "<=", &max.display()), true);
    }
    reader.result
}

struct Reader {
    /// Whether Artillery evaluates the rules.
    is_enabled: bool,
    /// The length of all rules.
    length: usize,
    result: Ensure,
}

impl Reader {
    fn warn(&mut self, node: &Node, message: impl Into<String>) {
        if self.result.warnings.len() <= crate::MAX_WARNINGS {
            self.result.warnings.push((message.into(), node.at));
        }
    }

    fn rule(&mut self, node: &Node, expression: String, is_strict: bool) {
        if self.result.thresholds.len() == MAX_RULES {
            return;
        }
        crate::count_work(expression.len());
        self.length = self.length.saturating_add(expression.len());
        let is_within_limits = self.length <= MAX_TOTAL_LENGTH;
        let read = if is_within_limits {
            rule::read(&expression)
        } else {
            Err(format!(
                "the rules are longer than {MAX_TOTAL_LENGTH} bytes together"
            ))
        };
        match read {
            Ok(expression) => {
                self.result
                    .thresholds
                    .push(Threshold::new(expression, is_strict));
            }
            Err(reason) => {
                let message = format!(
                    "config.ensure: the rule `{}` cannot be evaluated: {reason}",
                    shorten(&expression)
                );
                self.warn(node, message);
                let is_strict = is_strict && self.is_enabled;
                // Part of an expression that is too long cannot be evaluated either.
                let kept = if !is_within_limits || expression.len() > rule::MAX_LENGTH {
                    shorten(&expression)
                } else {
                    expression
                };
                self.result.thresholds.push(Threshold::new(kept, is_strict));
            }
        }
    }
}

/// A rule that limits a metric. The limit may contain its own operator: `< 500`.
fn bound(metric: &str, operator: &str, max: &str) -> String {
    let max = max.trim();
    if max.starts_with('<') {
        format!("{metric} {max}")
    } else {
        format!("{metric} {operator} {max}")
    }
}

/// Stands for a value that is neither a string nor a number. No expression with it can be
/// evaluated.
const INVALID: &str = "?";

impl Node {
    /// The value in an expression or a message.
    pub(crate) fn display(&self) -> String {
        match &self.value {
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => INVALID.to_owned(),
        }
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
