//! Analyzes an Artillery test script without running it: how long its phases take, which thresholds
//! it sets, and what is wrong with it.

use k8s_openapi::jiff::SignedDuration;
use serde_yaml::Value;

use loadtest_api::v1alpha1::Threshold;

mod cli_args;
mod ensure;
mod lint;
mod schema;
#[cfg(test)]
mod tests;
mod yaml;

pub use cli_args::args_override_script;
pub use lint::Problem;

use ensure::thresholds;

/// What is known about a script that can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScriptInfo {
    /// How long its phases take, if that can be determined.
    pub expected_duration: Option<SignedDuration>,
    /// Whether its files need a writable folder.
    pub needs_folder: bool,
    /// The thresholds of its `ensure`. None if the operator cannot read the whole script: each
    /// worker then evaluates them by itself.
    pub ensure: Option<Vec<Threshold>>,
}

/// The result of analyzing a script.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// How long its phases take, if that can be determined.
    pub expected_duration: Option<SignedDuration>,
    /// The thresholds of its `ensure`. None if only Artillery can read the script: JavaScript,
    /// TypeScript, or YAML that Artillery's parser accepts and the operator's does not.
    pub ensure: Option<Vec<Threshold>>,
    /// The first problem found in it.
    pub problem: Option<Problem>,
}

/// Analyzes the text of a script. `file` is its file name, `environment` the selected entry of
/// `config.environments`.
#[must_use]
pub fn analyze(text: &str, file: &str, environment: Option<&str>) -> Analysis {
    let is_data = [".yaml", ".yml", ".json"]
        .iter()
        .any(|end| file.to_lowercase().ends_with(end));
    if !is_data {
        return Analysis::default();
    }
    let environment = environment.filter(|name| !name.is_empty());
    let text = yaml::normalize_for_libyaml(text);
    if lint::is_too_large(&text) {
        return Analysis::default();
    }
    let script = yaml::parse(&text);
    let config = script
        .as_ref()
        .map(|script| yaml::config(script, environment).unwrap_or_default());
    Analysis {
        expected_duration: config.as_ref().and_then(expected_duration),
        ensure: config.as_ref().map(thresholds),
        problem: lint::find_problem(&text, script.as_ref(), environment),
    }
}

/// How long the phases of a `config` take. None if that cannot be determined, for example if a
/// variable sets the length of a phase.
///
/// Source: Artillery, `lib/core/phases.js` and `lib/util/prepare-test-execution-plan.js`.
fn expected_duration(config: &Value) -> Option<SignedDuration> {
    match config.get("phases") {
        Some(phases) => total(phases),
        None => config.is_mapping().then_some(SignedDuration::from_secs(1)),
    }
}

fn total(phases: &Value) -> Option<SignedDuration> {
    phases
        .as_sequence()?
        .iter()
        .try_fold(SignedDuration::ZERO, |total, phase| {
            let length = match phase.get("pause").or_else(|| phase.get("duration")) {
                Some(length) => seconds(length)?,
                None => 1.0,
            };
            total.checked_add(SignedDuration::try_from_secs_f64(length).ok()?)
        })
}

/// A length as Artillery reads it: a number of seconds, or a string in the format of the npm
/// package `ms`, such as `90s` or `1.5 hours`.
fn seconds(length: &Value) -> Option<f64> {
    let text = match length {
        Value::Number(number) => return number.as_f64(),
        Value::String(text) => text.trim(),
        _ => return None,
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 0.001,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit)
}
