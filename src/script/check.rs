//! What is wrong with a script that can be seen without running it: pure. Nothing is found fault with that Artillery would
//! run as it is meant.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserializer, de};

/// A part of a script, with keys of its own.
#[derive(Clone, Copy)]
enum Part {
    Script,
    Config,
    Environments,
    Phases,
    Phase,
    Scenarios,
    Scenario,
    Other,
}

impl Part {
    /// The keys that Artillery knows here, and whether there can be no others: in some places plugins and engines have theirs.
    ///
    /// Source: Artillery, `lib/util/validate-script.ts`, `lib/core/phases.ts`, `lib/core/runner.ts`.
    fn keys(self) -> (&'static [&'static str], bool) {
        match self {
            Self::Script => (&["config", "scenarios", "before", "after"], true),
            Self::Config => (
                &[
                    "target",
                    "phases",
                    "environments",
                    "payload",
                    "processor",
                    "plugins",
                    "variables",
                    "defaults",
                    "http",
                    "tls",
                    "ws",
                    "socketio",
                    "engines",
                    "ensure",
                    "statsInterval",
                    "includeFiles",
                    "bundling",
                    "timeout",
                ],
                false,
            ),
            Self::Phase => (&["name", "duration", "arrivalRate", "arrivalCount", "rampTo", "maxVusers", "pause", "mode"], true),
            Self::Scenario => (
                &[
                    "name",
                    "weight",
                    "flow",
                    "engine",
                    "beforeScenario",
                    "afterScenario",
                    "beforeRequest",
                    "afterResponse",
                    "onError",
                    "socketio",
                    "variables",
                ],
                false,
            ),
            _ => (&[], false),
        }
    }

    /// What is behind a key.
    fn of(self, key: &str) -> Self {
        match (self, key) {
            (Self::Script, "config") | (Self::Environments, _) => Self::Config,
            (Self::Script, "scenarios") => Self::Scenarios,
            (Self::Config, "environments") => Self::Environments,
            (Self::Config, "phases") => Self::Phases,
            _ => Self::Other,
        }
    }

    /// What is in a list.
    fn item(self) -> Self {
        match self {
            Self::Phases => Self::Phase,
            Self::Scenarios => Self::Scenario,
            _ => Self::Other,
        }
    }

    /// What is wrong with a key, if anything is.
    fn fault(self, key: &str) -> Option<String> {
        let (known, no_others) = self.keys();
        // A merge key, and what people keep their anchors in.
        if known.contains(&key) || key == "<<" || ["x-", ".", "_"].iter().any(|mark| key.starts_with(mark)) {
            return None;
        }
        let near = known.iter().find(|k| key.len() >= 3 && distance(k, key) <= if key.len() > 4 { 2 } else { 1 });
        match near {
            Some(near) => Some(format!("there is no key `{key}` here, and Artillery would ignore it: `{near}` may be meant")),
            None if no_others => {
                Some(format!("there is no key `{key}` here, and Artillery would ignore it: it knows {}", known.join(", ")))
            }
            None => None,
        }
    }
}

/// What is wrong with a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// In words, with line and column where it has a place.
    pub message: String,
    /// Whether it is that a section is missing. Of a script of several files it may be in another.
    pub is_missing: bool,
}

/// What is wrong with a script in YAML or JSON, if anything is.
#[must_use]
pub fn fault(script: &str) -> Option<Fault> {
    let found = Found::default();
    let walk = Walk { part: Part::Script, found: &found };
    if let Err(error) = walk.deserialize(serde_yaml::Deserializer::from_str(script)) {
        return Some(Fault { message: error.to_string(), is_missing: false });
    }
    if found.more_files.get() {
        return None;
    }
    let missing = |what: &str| Some(Fault { message: format!("it has no {what}"), is_missing: true });
    match (found.config.get(), found.scenarios.get()) {
        (true, true) => None,
        (false, _) => missing("section `config`"),
        (_, false) => missing("`scenarios`, so there is nothing to run"),
    }
}

/// What has been come across.
#[derive(Default)]
struct Found {
    config: Cell<bool>,
    scenarios: Cell<bool>,
    more_files: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    part: Part,
    found: &'a Found,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.part {
            Part::Other => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a part of a test script")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key(self.part))? {
            let key = key.unwrap_or_default();
            match (self.part, key.as_str()) {
                (Part::Script, "config") => self.found.config.set(true),
                (Part::Config, "includeFiles") => self.found.more_files.set(true),
                _ => {}
            }
            map.next_value_seed(Walk { part: self.part.of(&key), ..self })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Walk { part: self.part.item(), ..self })?.is_some() {
            if matches!(self.part, Part::Scenarios) {
                self.found.scenarios.set(true);
            }
        }
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

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key, which is a text, or nothing that could be checked. An error here has the key's own place.
struct Key(Part);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Option<String>, E> {
        match self.0.fault(key) {
            Some(fault) => Err(E::custom(fault)),
            None => Ok(Some(key.to_owned())),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<String>, A::Error> {
        IgnoredAny.visit_map(map).map(|_| None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Option<String>, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<String>, E> {
        Ok(None)
    }
}

/// How many letters have to be changed, added or left out to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "
x-shared: &headers {accept: '*/*'}
config:
  target: http://x
  phases:
    - {duration: 1, arrivalRate: 1}
    - pause: 5
  mqtt: {some: thing}
  environments: {dev: {phases: [{duration: 1, arrivalCount: 1}]}}
scenarios:
  - name: one
    testFunction: f
    flow: [{get: {url: /, headers: *headers}}]
  - <<: {weight: 2}
    flow: []
before: {flow: []}
";

    #[test]
    fn nothing_is_wrong_with_what_artillery_runs() {
        assert_eq!(fault(GOOD), None);
        assert_eq!(fault("config: {target: x, includeFiles: [a.yml]}"), None);
        assert_eq!(fault("{\"config\": {\"target\": {{ x }}}, \"scenarios\": [1]}"), None, "odd, and Artillery's matter");
        assert_eq!(fault("config: {phases: '{{ p }}'}\nscenarios: [3, {flow: !tag x}]\n"), None);
    }

    #[test]
    fn a_key_that_would_be_ignored_is_told_with_its_place() {
        let faulty = |from: &str, to: &str| fault(&GOOD.replace(from, to)).unwrap().message;
        let told = faulty("- pause: 5", "- puase: 5");
        assert!(told.contains("`puase`") && told.contains("`pause` may be meant") && told.contains("line 7 column 7"), "{told}");
        let told = faulty("\nscenarios:", "\nscenario:");
        assert!(told.contains("`scenarios` may be meant") && told.contains("line 10 column 1"), "{told}");
        assert!(faulty("    flow: [{", "    flows: [{").contains("`flow` may be meant"));
        assert!(faulty("arrivalCount", "arivalCount").contains("line 9"), "in an environment");
        assert!(faulty("duration: 1, arrivalRate", "seconds: 1, arrivalRate").contains("it knows name, duration"));
    }

    #[test]
    fn what_does_not_parse_is_told_with_its_place() {
        let told = fault("config:\n  target: 'x\nscenarios: []\n").unwrap().message;
        assert!(told.contains("line "), "{told}");
        let told = fault("config:\n  a: 1\n b: 2\n").unwrap().message;
        assert!(told.contains("line 3 column 2"), "{told}");
    }

    #[test]
    fn a_script_without_something_to_run_is_told() {
        for script in ["config: {target: x}", "config: {target: x}\nscenarios: []", "config: {target: x}\nscenarios:\n"] {
            let fault = fault(script).unwrap();
            assert!(fault.is_missing && fault.message.contains("no `scenarios`"), "{script}: {fault:?}");
        }
        for script in ["scenarios: [{flow: []}]", "- a", "a text"] {
            assert!(fault(script).unwrap().message.contains("no section `config`"), "{script}");
        }
    }
}
