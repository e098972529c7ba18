//! Finds problems of a script without running it, with line and column. A script that Artillery
//! runs as its author meant must have none.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserializer, de};
use serde_yaml::Value;

use crate::schema::{CustomKeys, Section};

/// A problem of a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What is wrong, with line and column if the problem has a position.
    pub message: String,
    /// Whether something is missing. Another file of the same script may have it.
    pub is_missing: bool,
}

/// Finds the first problem of a script in YAML or JSON. `script` is the parsed `text`, if it parses.
pub(crate) fn find_problem(
    text: &str,
    script: Option<&Value>,
    environment: Option<&str>,
) -> Option<Problem> {
    if is_empty(text) {
        return Some(Problem {
            message: "the script is empty".into(),
            is_missing: true,
        });
    }
    let custom = CustomKeys::new(text, script);
    let linter = Linter {
        section: Section::Script,
        custom: &custom,
        size: &Cell::new(0),
    };
    if let Err(error) = linter.deserialize(serde_yaml::Deserializer::from_str(text)) {
        return Some(Problem {
            message: error.to_string(),
            is_missing: false,
        });
    }
    let script = script?;
    if let Some(message) = without_flow(script) {
        return Some(Problem {
            message,
            is_missing: false,
        });
    }
    let message = missing(
        script,
        environment.filter(|_| !text.contains("$environment")),
    )?;
    Some(Problem {
        message,
        is_missing: true,
    })
}

/// Whether a text has no content besides comments and document markers.
fn is_empty(text: &str) -> bool {
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#') || ["---", "..."].contains(&line))
}

/// Describes what a script lacks, unless other files complete it.
fn missing(script: &Value, environment: Option<&str>) -> Option<String> {
    let config = script.get("config");
    if config.is_some_and(|config| config.get("includeFiles").is_some()) {
        return None;
    }
    let Some(config) = config else {
        return Some("missing section `config`".into());
    };
    if script
        .get("scenarios")
        .and_then(Value::as_sequence)
        .is_none_or(Vec::is_empty)
    {
        return Some("no `scenarios`: there is nothing to run".into());
    }
    let environments = config
        .get("environments")
        .and_then(Value::as_mapping)
        .filter(|all| !all.is_empty())?;
    let environment = environment.filter(|name| !environments.contains_key(*name))?;
    let known: Vec<_> = environments.keys().filter_map(Value::as_str).collect();
    Some(format!(
        "unknown environment `{environment}` (config.environments has {}); Artillery would run the script without one",
        known.join(", ")
    ))
}

/// Describes the first scenario without the `flow` that the built-in engines need.
///
/// Source: Artillery, `lib/util/validate-script.ts`.
fn without_flow(script: &Value) -> Option<String> {
    let scenarios = script
        .get("scenarios")
        .and_then(Value::as_sequence)
        .into_iter()
        .flatten()
        .enumerate();
    let hooks = ["before", "after"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), script.get(name)?)));
    let mut all = scenarios
        .map(|(n, scenario)| (format!("scenarios[{n}]"), scenario))
        .chain(hooks);
    let lacks_flow = |scenario: &Value| {
        let is_built_in = scenario.get("engine").is_none_or(|engine| {
            ["http", "socketio", "ws"]
                .iter()
                .any(|built_in| engine == built_in)
        });
        scenario.is_mapping() && is_built_in && scenario.get("flow").is_none()
    };
    all.find(|(_, scenario)| lacks_flow(scenario))
        .map(|(name, _)| format!("{name} has no `flow`: Artillery would not run the script"))
}

/// In bytes. A `ConfigMap` holds at most a fraction of it.
const MAX_SIZE: usize = 4 << 20;
/// The minimum size of a value, in bytes.
const VALUE_SIZE: usize = 8;

/// Whether a script is too large to be parsed. A small text can be, because each use of an anchor
/// repeats the anchored value.
pub(crate) fn is_too_large(text: &str) -> bool {
    let size = Cell::new(0);
    let linter = Linter {
        section: Section::Other,
        custom: &CustomKeys::new(text, None),
        size: &size,
    };
    // `find_problem` reports other errors.
    let _ = linter.deserialize(serde_yaml::Deserializer::from_str(text));
    size.get() > MAX_SIZE
}

/// Walks through a script in the order of its text, because only the deserializer knows positions.
#[derive(Clone, Copy)]
struct Linter<'a> {
    section: Section,
    custom: &'a CustomKeys<'a>,
    /// The size of the values visited so far.
    size: &'a Cell<usize>,
}

impl Linter<'_> {
    fn charge<E: de::Error>(&self, by: usize) -> Result<(), E> {
        self.size.set(self.size.get() + by);
        if self.size.get() > MAX_SIZE {
            Err(E::custom("the script is too large"))
        } else {
            Ok(())
        }
    }
}

impl<'de> DeserializeSeed<'de> for Linter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.charge(VALUE_SIZE)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Linter<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("part of a test script")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key_seed(Key {
            linter: self,
            earlier: &keys,
        })? {
            let section = self.section.child(key.as_deref().unwrap_or_default());
            let section = if section == Section::Flow && !self.custom.is_http {
                Section::Other
            } else {
                section
            };
            self.charge(key.as_ref().map_or(0, String::len))?;
            keys.extend(key.filter(|key| key != "<<"));
            map.next_value_seed(Linter { section, ..self })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(Linter {
                section: self.section.item(),
                ..self
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<(), A::Error> {
        let (IgnoredAny, value) = data.variant()?;
        value.newtype_variant::<IgnoredAny>().map(drop)
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i128<E>(self, _: i128) -> Result<(), E> {
        Ok(())
    }

    fn visit_u128<E>(self, _: u128) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.charge(text.len())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a key as a string, like js-yaml. None for a key that is not a scalar. An error that occurs
/// here has the position of the key.
struct Key<'a> {
    linter: Linter<'a>,
    /// The preceding keys of the same map.
    earlier: &'a HashSet<String>,
}

impl Key<'_> {
    fn check<E: de::Error>(&self, key: String) -> Result<Option<String>, E> {
        if self.earlier.contains(&key) {
            return Err(E::custom(format!("duplicate key `{key}`")));
        }
        match self.linter.section.problem(&key, self.linter.custom) {
            Some(problem) => Err(E::custom(problem)),
            None => Ok(Some(key)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Option<String>, E> {
        self.check(key.to_owned())
    }

    fn visit_bool<E: de::Error>(self, key: bool) -> Result<Option<String>, E> {
        self.check(key.to_string())
    }

    fn visit_i64<E: de::Error>(self, key: i64) -> Result<Option<String>, E> {
        self.check(key.to_string())
    }

    fn visit_u64<E: de::Error>(self, key: u64) -> Result<Option<String>, E> {
        self.check(key.to_string())
    }

    fn visit_i128<E>(self, _: i128) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<String>, A::Error> {
        IgnoredAny.visit_map(map).map(|_| None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Option<String>, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| None)
    }
}

#[cfg(test)]
mod tests;
