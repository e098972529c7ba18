//! What is wrong with a script that can be seen without running it: pure. Nothing is found fault with that Artillery would
//! run as it is meant.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserializer, de};
use serde_yaml::Value;

use super::schema::{CustomKeys, Section};

/// What is wrong with a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// In words, with line and column where it has a place.
    pub message: String,
    /// Whether it is that something is missing. Of a script of several files it may be in another.
    pub is_missing: bool,
}

/// What is wrong with a script in YAML or JSON, if anything is. Given are its text and what that says, where it can be read.
pub(super) fn find_problem(
    text: &str,
    script: Option<&Value>,
    environment: Option<&str>,
) -> Option<Problem> {
    let own = CustomKeys::of(text, script);
    let walk = Linter {
        part: Section::Script,
        own: &own,
        size: &Cell::new(0),
    };
    if let Err(error) = walk.deserialize(serde_yaml::Deserializer::from_str(text)) {
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

/// What a script lacks, if it is all there is.
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
    let there: Vec<_> = environments.keys().filter_map(Value::as_str).collect();
    Some(format!(
        "unknown environment `{environment}` (config.environments has {}); Artillery would run the script without one",
        there.join(", ")
    ))
}

/// A scenario without `flow`, which those of the built-in engines need.
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
    let lacks = |one: &Value| {
        let is_built_in = one.get("engine").is_none_or(|engine| {
            ["http", "socketio", "ws"]
                .iter()
                .any(|built_in| engine == built_in)
        });
        one.is_mapping() && is_built_in && one.get("flow").is_none()
    };
    all.find(|(_, one)| lacks(one))
        .map(|(name, _)| format!("{name} has no `flow`: Artillery would not run the script"))
}

/// Several times what a `ConfigMap` can hold.
const LARGEST: usize = 4 << 20;
/// What a value takes at least.
const VALUE: usize = 8;

/// Whether a script is too large to be read. A small text can be: each use of an anchor is all that is behind it once more.
pub(super) fn is_too_large(text: &str) -> bool {
    let size = Cell::new(0);
    let walk = Linter {
        part: Section::Other,
        own: &CustomKeys::of(text, None),
        size: &size,
    };
    // What else is wrong is told by the walk that knows the keys.
    let _ = walk.deserialize(serde_yaml::Deserializer::from_str(text));
    size.get() > LARGEST
}

#[derive(Clone, Copy)]
struct Linter<'a> {
    part: Section,
    own: &'a CustomKeys<'a>,
    /// Of what has been gone through.
    size: &'a Cell<usize>,
}

impl Linter<'_> {
    fn charge<E: de::Error>(&self, by: usize) -> Result<(), E> {
        self.size.set(self.size.get() + by);
        if self.size.get() > LARGEST {
            Err(E::custom("the script is too large"))
        } else {
            Ok(())
        }
    }
}

impl<'de> DeserializeSeed<'de> for Linter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.charge(VALUE)?;
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
            walk: self,
            before: &keys,
        })? {
            let part = self.part.of(key.as_deref().unwrap_or_default());
            let part = if part == Section::Flow && !self.own.is_http {
                Section::Other
            } else {
                part
            };
            self.charge(key.as_ref().map_or(0, String::len))?;
            keys.extend(key.filter(|key| key != "<<"));
            map.next_value_seed(Linter { part, ..self })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(Linter {
                part: self.part.item(),
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

/// A key, as js-yaml has it: as a text. None where it is no text, number or truth. An error here has the key's own place.
struct Key<'a> {
    walk: Linter<'a>,
    /// The keys of the same map before this one.
    before: &'a HashSet<String>,
}

impl Key<'_> {
    fn named<E: de::Error>(&self, key: String) -> Result<Option<String>, E> {
        if self.before.contains(&key) {
            return Err(E::custom(format!("duplicate key `{key}`")));
        }
        match self.walk.part.problem(&key, self.walk.own) {
            Some(fault) => Err(E::custom(fault)),
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
        self.named(key.to_owned())
    }

    fn visit_bool<E: de::Error>(self, key: bool) -> Result<Option<String>, E> {
        self.named(key.to_string())
    }

    fn visit_i64<E: de::Error>(self, key: i64) -> Result<Option<String>, E> {
        self.named(key.to_string())
    }

    fn visit_u64<E: de::Error>(self, key: u64) -> Result<Option<String>, E> {
        self.named(key.to_string())
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Problem;

    fn fault(script: &str) -> Option<Problem> {
        crate::analyze(script, "a.yaml", None).problem
    }

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
        assert_eq!(
            fault("{\"config\": {\"target\": {{ x }}}, \"scenarios\": [1]}"),
            None,
            "odd, and Artillery's matter"
        );
        assert_eq!(
            fault("config: {phases: '{{ p }}'}\nscenarios: [3, {flow: !tag x}]\n"),
            None
        );
    }

    #[test]
    fn a_key_that_would_be_ignored_is_told_with_its_place() {
        let faulty = |from: &str, to: &str| fault(&GOOD.replace(from, to)).unwrap().message;
        let told = faulty("- pause: 5", "- puase: 5");
        assert!(
            told.contains("`puase`")
                && told.contains("did you mean `pause`?")
                && told.contains("line 7 column 7"),
            "{told}"
        );
        let told = faulty("\nscenarios:", "\nscenario:");
        assert!(
            told.contains("did you mean `scenarios`?") && told.contains("line 10 column 1"),
            "{told}"
        );
        assert!(faulty("    flow: [{", "    flows: [{").contains("did you mean `flow`?"));
        assert!(
            faulty("arrivalCount", "arivalCount").contains("line 9"),
            "in an environment"
        );
        assert!(
            faulty("duration: 1, arrivalRate", "seconds: 1, arrivalRate")
                .contains("known keys: name, duration")
        );
    }

    #[test]
    fn what_does_not_parse_is_told_with_its_place() {
        let told = fault("config:\n  target: 'x\nscenarios: []\n")
            .unwrap()
            .message;
        assert!(told.contains("line "), "{told}");
        let told = fault("config:\n  a: 1\n b: 2\n").unwrap().message;
        assert!(told.contains("line 3 column 2"), "{told}");
    }

    #[test]
    fn a_script_without_something_to_run_is_told() {
        for script in [
            "config: {target: x}",
            "config: {target: x}\nscenarios: []",
            "config: {target: x}\nscenarios:\n",
        ] {
            let fault = fault(script).unwrap();
            assert!(
                fault.is_missing && fault.message.contains("no `scenarios`"),
                "{script}: {fault:?}"
            );
        }
        for script in ["scenarios: [{flow: []}]", "- a", "a text"] {
            assert!(
                fault(script)
                    .unwrap()
                    .message
                    .contains("missing section `config`"),
                "{script}"
            );
        }
    }

    /// The good script with something more in its `config`.
    fn with_config(more: &str) -> Option<Problem> {
        fault(&GOOD.replace(
            "  mqtt: {some: thing}\n",
            &format!("  mqtt: {{some: thing}}\n  {more}\n"),
        ))
    }

    #[test]
    fn what_artillery_its_engines_and_its_plugins_know_is_taken() {
        for more in [
            "engine: http",
            "mode: poisson",
            "apdex: {threshold: 100}",
            "pluginsScope: '@mine/artillery-plugin-'",
            "bundling: {external: [x]}",
            "http2: true",
            "https: {}",
            "wss: {}",
            "hls: {}",
            "engineio: {}",
            "socketioV3: {}",
            "socketio3: {}",
            "grpc: {}",
            "targets: 1\n  engines: {targets: {}}",
            "targets: 1\n  plugins: {targets: {}}",
            "http: {timeout: 3, pool: 1, proxy: x}",
            "tls: {ca: x, key: y}",
            "payload: {path: a.csv, fields: [a], options: {from: 2}}",
            "payload: [{path: a.csv, fields: [a], random: true}]",
            "ensure: {p95: 1, conditions: []}",
        ] {
            assert_eq!(with_config(more), None, "{more}");
        }
    }

    #[test]
    fn what_is_nearly_a_key_is_told_wherever_artillery_knows_the_keys() {
        for (more, meant) in [
            ("tagret: x", "target"),
            ("environment: {}", "environments"),
            ("htpt: {}", "http"),
            ("statsinterval: 3", "statsInterval"),
            ("http: {timeuot: 3}", "timeout"),
            ("http: {maxSocket: 3}", "maxSockets"),
            ("tls: {rejectUnauthorised: false}", "rejectUnauthorized"),
            ("payload: {path: a.csv, field: [a]}", "fields"),
            (
                "payload: [{path: a.csv, fields: [a], skipHeaders: true}]",
                "skipHeader",
            ),
            ("ensure: {threshold: []}", "thresholds"),
            ("plugins: {ensure: {maxErrorsRate: 1}}", "maxErrorRate"),
        ] {
            let told = with_config(more).unwrap().message;
            assert!(
                told.contains(&format!("`{meant}` may be meant")),
                "{more}: {told}"
            );
        }
        let requests = |steps: &str| {
            fault(&format!(
                "config: {{target: x}}\nscenarios: [{{flow: [{steps}]}}]"
            ))
            .map(|f| f.message)
        };
        for steps in [
            "{get: {url: /, header: {}}}",
            "{loop: [{post: {url: /, header: {a: b}}}], count: 2}",
        ] {
            assert!(
                requests(steps).unwrap().contains("did you mean `headers`?"),
                "{steps}"
            );
        }
        assert!(
            requests("{get: {url: /, cookies: {}}}")
                .unwrap()
                .contains("did you mean `cookie`?")
        );
        for steps in [
            "{get: {url: /, headers: {header: a, url: b}, timeout: 3}}",
            "{log: a}, {think: 1}",
            "{post: {url: /, json: {header: 1}}}",
        ] {
            assert_eq!(requests(steps), None, "{steps}");
        }
        let other = "config: {target: x}\nscenarios: [{flow: [{get: {header: a}}], engine: mine}]";
        assert_eq!(fault(other), None, "another engine's requests");
    }

    #[test]
    fn a_key_that_is_there_twice_is_told_with_its_place() {
        for (script, place) in [
            (
                "config: {target: x}\nscenarios: [{flow: []}]\nconfig: {}\n",
                "line 3 column 1",
            ),
            (
                "config: {target: x}\nscenarios: [{flow: [{get: {url: /, headers: {a: 1, a: 2}}}]}]",
                "line 2 column 52",
            ),
            (
                "config: {target: x, variables: {1: a, '1': b}}\nscenarios: [{flow: []}]",
                "line 1 column 39",
            ),
        ] {
            let told = fault(script).unwrap().message;
            assert!(
                told.contains("duplicate key") && told.contains(place),
                "{script}: {told}"
            );
        }
        let merged = "x-a: &a {name: a}\nconfig: {target: x}\nscenarios: [{<<: *a, <<: *a, name: b, flow: []}]";
        assert_eq!(
            fault(merged),
            None,
            "js-yaml takes several merges, and another value than the merged one"
        );
    }

    #[test]
    fn what_only_holds_anchors_is_taken() {
        let script = |top: &str| {
            format!("{top}\nconfig: {{target: x, defaults: *a}}\nscenarios: [{{flow: []}}]\n")
        };
        for top in [
            "definitions: &a {headers: {}}",
            "shared:\n  # more\n  headers:\n    - &a {accept: x}\n",
            "all: [&a {}, &b {}]",
        ] {
            assert_eq!(fault(&script(top)), None, "{top}");
        }
        let told = fault(&script("x-a: &a {}\ndefinitions: &b {}"))
            .unwrap()
            .message;
        assert!(
            told.contains("`definitions`") && told.contains("keys of your own begin with x-"),
            "{told}"
        );
        assert_eq!(
            fault(
                "$schema: s\nx-all: &all {config: {target: x}, scenarios: [{flow: []}]}\n<<: *all\n"
            ),
            None
        );
    }

    #[test]
    fn a_scenario_of_a_built_in_engine_has_a_flow() {
        let told = |scenarios: &str| {
            fault(&format!("config: {{target: x}}\n{scenarios}")).map(|f| f.message)
        };
        for scenarios in [
            "scenarios: [{flow: []}, {name: a}]",
            "scenarios: [{flow: []}, {engine: ws}]",
        ] {
            assert!(
                told(scenarios)
                    .unwrap()
                    .contains("scenarios[1] has no `flow`"),
                "{scenarios}"
            );
        }
        assert!(
            told("scenarios: [{flow: []}]\nbefore: {engine: http}")
                .unwrap()
                .contains("before has no `flow`")
        );
        assert_eq!(
            told("scenarios: [{engine: playwright, testFunction: f}]\nafter: {flow: []}"),
            None
        );
        assert_eq!(told("x-a: &a {flow: []}\nscenarios: [{<<: *a}]"), None);
    }

    #[test]
    fn an_environment_that_is_not_there_is_told() {
        let fault =
            |script: &str, environment| crate::analyze(script, "a.yaml", environment).problem;
        let told = fault(GOOD, Some("deb")).unwrap();
        assert!(
            told.is_missing
                && told.message.contains("no environment `deb`")
                && told.message.ends_with("has dev"),
            "{told:?}"
        );
        for (script, environment) in [
            (GOOD, Some("dev")),
            (GOOD, Some("")),
            (GOOD, None),
            ("config: {target: x}\nscenarios: [{flow: []}]", Some("dev")),
            (
                "config: {target: 'http://{{ $environment }}', environments: {a: {}}}\nscenarios: [{flow: []}]",
                Some("dev"),
            ),
        ] {
            assert_eq!(fault(script, environment), None, "{script} {environment:?}");
        }
    }
}
