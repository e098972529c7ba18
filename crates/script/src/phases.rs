//! How long the phases of a script take.

use k8s_openapi::jiff::SignedDuration;

use crate::yaml::{Node, Value};

/// The phases of a `config`, as far as they can be read.
#[derive(Default)]
pub(crate) struct Phases {
    /// How long they take. None if that cannot be determined, for example if a variable sets the
    /// length of a phase.
    pub(crate) duration: Option<SignedDuration>,
    /// What keeps Artillery from running them, with its offset.
    pub(crate) problem: Option<(String, usize)>,
    /// What is probably not meant, with its offset.
    pub(crate) warnings: Vec<(String, usize)>,
}

/// How long a phase takes.
enum Length {
    Seconds(f64),
    /// Artillery does not run the phase.
    Skipped,
    /// Artillery does not end the phase.
    Endless,
    Unknown,
    /// Artillery refuses the value of the key.
    Invalid(&'static str),
}

/// Source: Artillery 2.0.34, `lib/util/prepare-test-execution-plan.ts`, `lib/dist.ts` and
/// `lib/core/phases.ts`.
pub(crate) fn analyze(config: &Node) -> Phases {
    let Some(phases) = config.get("phases") else {
        return Phases {
            duration: config.is_map().then_some(SignedDuration::from_secs(1)),
            ..Phases::default()
        };
    };
    if !phases.is_list() {
        return Phases::default();
    }
    let mut result = Phases {
        duration: Some(SignedDuration::ZERO),
        ..Phases::default()
    };
    let mut has_load = false;
    for (n, phase) in phases.items().iter().enumerate() {
        let without_unit = ["duration", "pause"].into_iter().find_map(|key| {
            let text = phase.get(key)?.text()?;
            let number = number_of_text(text.trim());
            let is_fraction = number.is_finite() && number.fract() != 0.0;
            (is_fraction && milliseconds(text).is_some()).then(|| (key, crate::shorten(text)))
        });
        if let Some((key, text)) = without_unit {
            let message = format!(
                "config.phases[{n}]: {key} `{text}` is in milliseconds; for seconds use {text}s"
            );
            warn(&mut result.warnings, message, phase.at);
        }
        let length = length(phase);
        has_load |= !matches!(length, Length::Skipped) && !is_idle(phase);
        let seconds = match length {
            Length::Seconds(seconds) => Some(seconds),
            Length::Skipped => Some(0.0),
            Length::Unknown => None,
            Length::Endless => {
                let message = format!(
                    "config.phases[{n}]: Artillery does not end a phase without a `duration` above 0"
                );
                warn(&mut result.warnings, message, phase.at);
                None
            }
            Length::Invalid(key) => {
                let value = phase.get(key).map_or(phase, |value| value);
                let message = format!(
                    "config.phases[{n}]: invalid {key} `{}`: Artillery would not run the script; \
                     use a whole number of seconds, or a text such as 90s",
                    crate::shorten(&value.as_key().unwrap_or_default())
                );
                result.problem.get_or_insert((message, value.at));
                None
            }
        };
        result.duration = result.duration.and_then(|total| {
            total.checked_add(SignedDuration::try_from_secs_f64(seconds?.max(0.0)).ok()?)
        });
    }
    if !has_load {
        let message = "config.phases: no phase creates virtual users".to_owned();
        warn(&mut result.warnings, message, phases.at);
    }
    result
}

/// Adds a warning, unless there are more than are reported.
fn warn(warnings: &mut Vec<(String, usize)>, message: String, at: usize) {
    if warnings.len() <= crate::MAX_WARNINGS {
        warnings.push((message, at));
    }
}

/// Source: Artillery, `lib/core/is-idle-phase.ts`.
fn is_idle(phase: &Node) -> bool {
    let is_zero = |key| phase.get(key).is_some_and(|value| number(value) == 0.0);
    let has_ramp = phase.get("rampTo").is_some_and(|value| value.is_truthy());
    is_zero("arrivalRate") && !has_ramp
        || is_zero("arrivalCount")
        || is_zero("maxVusers")
        || phase.get("pause").is_some_and(|value| number(value) > 0.0)
}

fn length(phase: &Node) -> Length {
    if !phase.is_map() {
        return Length::Unknown;
    }
    let is_set = |key| phase.get(key).is_some_and(|value| value.is_truthy());
    if !["rampTo", "arrivalRate", "arrivalCount", "pause"]
        .into_iter()
        .any(is_set)
    {
        return Length::Skipped;
    }
    let (mut duration, mut pause) = (None, None);
    for (key, length) in [("duration", &mut duration), ("pause", &mut pause)] {
        *length = match phase.get(key).map(|value| seconds(value)) {
            Some(Length::Invalid(_)) => return Length::Invalid(key),
            other => other,
        };
    }
    if let Some(pause) = pause {
        return pause;
    }
    if let Some(count) = phase.get("arrivalCount") {
        return match duration {
            _ if number(count) <= 0.0 => Length::Seconds(0.0),
            None | Some(Length::Seconds(0.0)) => Length::Endless,
            Some(duration) => duration,
        };
    }
    if phase.get("rampTo").is_some() {
        // A ramp has periods of one second.
        return match duration {
            Some(Length::Seconds(seconds)) if seconds != 0.0 => Length::Seconds(seconds.ceil()),
            Some(Length::Unknown) => Length::Unknown,
            _ => Length::Seconds(1.0),
        };
    }
    // A rate of "0" in quotes is a pause.
    let is_pause = phase
        .get("arrivalRate")
        .is_some_and(|rate| number(rate) == 0.0);
    match duration {
        None if is_pause => Length::Seconds(0.0),
        None => Length::Endless,
        Some(Length::Seconds(seconds)) if seconds <= 0.0 && !is_pause => Length::Endless,
        Some(duration) => duration,
    }
}

/// A length as Artillery reads it: a whole number of seconds, or a text in the format of the npm
/// package `ms`, such as `90s` or `1.5 hours`, in which a number without a unit is in milliseconds.
fn seconds(value: &Node) -> Length {
    let text = match &value.value {
        Value::Text(text) if text.contains("{{") => return Length::Unknown,
        Value::Text(text) => Some(text.as_str()),
        Value::List(_) | Value::Map(_) => return Length::Unknown,
        _ => None,
    };
    let number = number(value);
    let seconds = if number.is_finite() && number.fract() == 0.0 {
        Some(number).filter(|_| value.is_truthy())
    } else {
        text.and_then(milliseconds)
            .filter(|milliseconds| *milliseconds != 0.0)
            .map(|milliseconds| milliseconds / 1000.0)
    };
    seconds.map_or(Length::Invalid(""), Length::Seconds)
}

/// The number that JavaScript makes of a value, as lodash's `toNumber` does.
fn number(value: &Node) -> f64 {
    match &value.value {
        Value::Null => 0.0,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Number(number) => *number,
        Value::Text(text) => number_of_text(text.trim()),
        Value::List(_) | Value::Map(_) => f64::NAN,
    }
}

fn number_of_text(text: &str) -> f64 {
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some((start, digits)) = text.split_at_checked(2)
            && start.eq_ignore_ascii_case(prefix)
        {
            return u64::from_str_radix(digits, radix)
                .ok()
                .filter(|_| digits.bytes().all(|c| c.is_ascii_alphanumeric()))
                .and_then(|number| number.to_string().parse().ok())
                .unwrap_or(f64::NAN);
        }
    }
    let is_decimal = |c: u8| c.is_ascii_digit() || b"+-.eE".contains(&c);
    match text {
        "" => 0.0,
        _ if text.bytes().all(is_decimal) => text.parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    }
}

/// Source: the npm package `ms` 2.1.3.
fn milliseconds(text: &str) -> Option<f64> {
    if text.len() > 100 {
        return None;
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim_start_matches(' ').to_ascii_lowercase().as_str() {
        "" | "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e3,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600e3,
        "d" | "day" | "days" => 86_400e3,
        "w" | "week" | "weeks" => 7.0 * 86_400e3,
        "y" | "yr" | "yrs" | "year" | "years" => 365.25 * 86_400e3,
        _ => return None,
    };
    if number.ends_with('.') {
        return None;
    }
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    // The JavaScript tests compare the same tables with Artillery itself.
    const DURATIONS: &str = include_str!("../../../worker/test/fixtures/durations.json");
    const PHASES: &str = include_str!("../../../worker/test/fixtures/phases.json");

    #[test]
    fn phases_take_as_long_as_the_worker_plans() {
        let cases: Vec<serde_json::Value> = serde_json::from_str(PHASES).unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            let script = serde_json::json!({"config": {"target": "t", "phases": case["phases"]}});
            let duration =
                crate::analyze(&script.to_string(), "script.json", None).expected_duration;
            assert_eq!(
                duration.map(|duration| duration.as_secs_f64()),
                case["seconds"].as_f64(),
                "{case}"
            );
        }
    }

    #[test]
    fn durations_are_parsed_as_by_artillery() {
        let cases: Vec<serde_json::Value> = serde_json::from_str(DURATIONS).unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            let input = match &case["input"] {
                serde_json::Value::Null => Value::Null,
                serde_json::Value::Bool(value) => Value::Bool(*value),
                serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap()),
                serde_json::Value::String(text) => Value::Text(text.clone()),
                other => panic!("{other}"),
            };
            let parsed = match seconds(&Node::new(0, input)) {
                Length::Seconds(seconds) => Some(seconds),
                Length::Invalid(_) => None,
                _ => panic!("{case}"),
            };
            assert_eq!(parsed, case["seconds"].as_f64(), "{case}");
        }
    }
}
