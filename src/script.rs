//! What can be told of a test script without running it: pure.

use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;
use serde_yaml::Value;

use crate::verdict::{Rule, ensured};

mod check;

pub use check::{Fault, fault};

/// What is known of a script that can be run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// How long its phases take, where that can be told.
    pub expected_duration: Option<SignedDuration>,
    /// Whether its files need a folder that can be written to.
    pub needs_folder: bool,
    /// What its `ensure` asks for. None where the operator cannot read all of the script: then each worker judges itself.
    pub ensure: Option<Vec<Rule>>,
}

/// What there is to know of a script.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// How long its phases take, where that can be told.
    pub expected_duration: Option<SignedDuration>,
    /// What its `ensure` asks for. None of a script in JavaScript or TypeScript, which only Artillery can read.
    pub ensure: Option<Vec<Rule>>,
    /// What is wrong with it.
    pub fault: Option<Fault>,
}

/// Reads a script, of this file name and in the environment that is used.
#[must_use]
pub fn read(text: &str, file: &str, environment: Option<&str>) -> Read {
    let is_data = [".yaml", ".yml", ".json"].iter().any(|end| file.to_lowercase().ends_with(end));
    if !is_data {
        return Read::default();
    }
    Read {
        expected_duration: Durations::parse(text).of(environment),
        ensure: Some(ensured(text, environment)),
        fault: fault(text),
    }
}

/// Whether an argument of `artillery run` brings more configuration, which the operator does not read.
#[must_use]
pub fn is_of_config(argument: &str) -> bool {
    let name = argument.split('=').next().unwrap_or_default();
    ["--config", "-c", "--overrides", "--input", "-i"].contains(&name)
}

/// How long the phases of a script take. None where that cannot be told: a script that does not parse, a phase whose length
/// comes from a variable.
///
/// Source: Artillery, `lib/core/phases.js` and `lib/util/prepare-test-execution-plan.js`.
#[derive(Clone, Debug, Default)]
struct Durations {
    own: Option<SignedDuration>,
    /// Of the environments that have phases of their own.
    environments: BTreeMap<String, Option<SignedDuration>>,
}

impl Durations {
    fn parse(script: &str) -> Self {
        let script = serde_yaml::from_str(script).unwrap_or(Value::Null);
        let Some(config) = script.get("config") else { return Self::default() };
        let environments = config.get("environments").and_then(Value::as_mapping).into_iter().flatten();
        Self {
            own: config.get("phases").map_or(Some(SignedDuration::from_secs(1)), sum),
            environments: environments
                .filter_map(|(name, environment)| Some((name.as_str()?.to_owned(), sum(environment.get("phases")?))))
                .collect(),
        }
    }

    fn of(&self, environment: Option<&str>) -> Option<SignedDuration> {
        environment.and_then(|name| self.environments.get(name)).copied().unwrap_or(self.own)
    }
}

fn sum(phases: &Value) -> Option<SignedDuration> {
    phases.as_sequence()?.iter().try_fold(SignedDuration::ZERO, |sum, phase| {
        let length = match phase.get("pause").or_else(|| phase.get("duration")) {
            Some(length) => seconds(length)?,
            None => 1.0,
        };
        sum.checked_add(SignedDuration::try_from_secs_f64(length).ok()?)
    })
}

/// A length as Artillery reads it: a number of seconds, or a text of the npm package `ms`, such as `90s` or `1.5 hours`.
fn seconds(length: &Value) -> Option<f64> {
    let text = match length {
        Value::Number(number) => return number.as_f64(),
        Value::String(text) => text.trim(),
        _ => return None,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn expected_duration(script: &str, environment: Option<&str>) -> Option<SignedDuration> {
        Durations::parse(script).of(environment)
    }

    const SCRIPT: &str = "
config:
  target: http://x
  phases: [{duration: 60, arrivalRate: 5}, {pause: '30s'}, {duration: 1.5 min, arrivalRate: 1}]
  environments:
    short: {phases: [{duration: 2}]}
    same: {target: http://y}
";

    #[test]
    fn the_phases_tell_how_long_it_takes() {
        let seconds = |script, environment| expected_duration(script, environment).map(|d| d.as_secs());
        assert_eq!(seconds(SCRIPT, None), Some(180));
        assert_eq!(seconds(SCRIPT, Some("short")), Some(2));
        assert_eq!(seconds(SCRIPT, Some("same")), Some(180));
        assert_eq!(seconds(SCRIPT, Some("none")), Some(180));
        assert_eq!(seconds("config: {target: x}", None), Some(1), "Artillery's own default");
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        for script in [
            "",
            ":",
            "config: {phases: 3}",
            "config: {phases: [{duration: '{{ $env.D }}'}]}",
            "config: {phases: [{duration: -1e400}]}",
        ] {
            assert!(expected_duration(script, None).is_none_or(|d| d.is_zero() || d.as_secs() == 1), "{script}");
        }
        assert_eq!(expected_duration("config: {phases: [{duration: '{{ $env.D }}'}]}", None), None);
    }
}
