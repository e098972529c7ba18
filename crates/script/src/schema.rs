//! The keys that Artillery knows in a script, and the detection of misspelled ones.

use std::collections::HashSet;

use loadtest_api::text::edit_distance;

use crate::shorten;
use crate::yaml::{Entry, Node};

/// A part of a script that has its own set of keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Section {
    Script,
    Config,
    Environments,
    Phases,
    Phase,
    Payload,
    Http,
    Tls,
    Plugins,
    Ensure,
    Scenarios,
    Scenario,
    Hook,
    Flow,
    Step,
    Request,
    Other,
}

/// Which keys a section may have besides those that Artillery knows.
#[derive(Clone, Copy, PartialEq)]
enum UnknownKeys {
    /// None, because Artillery would ignore them.
    Reject,
    /// Any, but they are reported, unless they look like a misspelled key of Artillery.
    Warn,
    /// Those of engines and plugins, unless they look like a misspelled key of Artillery.
    Allow,
    /// Those of engines and plugins, even with names close to Artillery's own, such as `https` and
    /// `http`. Only a likely typo is reported.
    AllowIfDistinct,
}

impl Section {
    /// The keys that Artillery knows in this section.
    ///
    /// Source: Artillery, `types.d.ts`, `lib/util/validate-script.ts`, `lib/core/phases.ts`,
    /// `lib/core/runner.ts`, `lib/core/engine_http.ts`.
    fn keys(self) -> (&'static [&'static str], UnknownKeys) {
        match self {
            Self::Script => (
                &["config", "scenarios", "before", "after"],
                UnknownKeys::Warn,
            ),
            Self::Config => (
                &[
                    "target",
                    "phases",
                    "environments",
                    "payload",
                    "processor",
                    "plugins",
                    "pluginsScope",
                    "variables",
                    "defaults",
                    "http",
                    "tls",
                    "ws",
                    "socketio",
                    "engine",
                    "engines",
                    "mode",
                    "ensure",
                    "apdex",
                    "statsInterval",
                    "includeFiles",
                    "bundling",
                    "timeout",
                ],
                UnknownKeys::AllowIfDistinct,
            ),
            Self::Phase => (
                &[
                    "name",
                    "duration",
                    "arrivalRate",
                    "arrivalCount",
                    "rampTo",
                    "maxVusers",
                    "pause",
                    "mode",
                ],
                UnknownKeys::Reject,
            ),
            Self::Payload => (
                &[
                    "path",
                    "fields",
                    "order",
                    "skipHeader",
                    "delimiter",
                    "cast",
                    "skipEmptyLines",
                    "loadAll",
                    "name",
                    "options",
                ],
                UnknownKeys::AllowIfDistinct,
            ),
            Self::Http => (
                &[
                    "timeout",
                    "maxSockets",
                    "pool",
                    "extendedMetrics",
                    "cookieJarOptions",
                    "distributedTracing",
                    "defaults",
                ],
                UnknownKeys::AllowIfDistinct,
            ),
            Self::Tls => (&["rejectUnauthorized"], UnknownKeys::AllowIfDistinct),
            Self::Ensure => (
                &[
                    "thresholds",
                    "conditions",
                    "min",
                    "max",
                    "median",
                    "p95",
                    "p99",
                    "maxErrorRate",
                ],
                UnknownKeys::AllowIfDistinct,
            ),
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
                UnknownKeys::Allow,
            ),
            Self::Request => (
                &[
                    "url",
                    "uri",
                    "name",
                    "headers",
                    "cookie",
                    "qs",
                    "followRedirect",
                    "gzip",
                    "auth",
                    "capture",
                    "match",
                    "beforeRequest",
                    "afterResponse",
                    "ifTrue",
                    "probability",
                    "expect",
                    "json",
                    "body",
                    "form",
                    "formData",
                    "setContentLengthHeader",
                ],
                UnknownKeys::AllowIfDistinct,
            ),
            _ => (&[], UnknownKeys::Allow),
        }
    }

    /// The section that the value of a key is.
    pub(crate) fn child(self, key: &str) -> Self {
        match (self, key) {
            (Self::Script, "config") | (Self::Environments, _) => Self::Config,
            (Self::Script, "scenarios") => Self::Scenarios,
            (Self::Script, "before" | "after") => Self::Hook,
            (Self::Config, "environments") => Self::Environments,
            (Self::Config, "phases") => Self::Phases,
            (Self::Config, "payload") => Self::Payload,
            (Self::Config, "http") => Self::Http,
            (Self::Config, "tls") => Self::Tls,
            (Self::Config, "plugins") => Self::Plugins,
            (Self::Config | Self::Plugins, "ensure") => Self::Ensure,
            (Self::Scenario | Self::Hook, "flow") | (Self::Step, "loop") => Self::Flow,
            (Self::Step, "get" | "post" | "put" | "patch" | "delete") => Self::Request,
            _ => Self::Other,
        }
    }

    /// The section that each item of a list is.
    pub(crate) fn item(self) -> Self {
        match self {
            Self::Phases => Self::Phase,
            Self::Payload => Self::Payload,
            Self::Scenarios => Self::Scenario,
            Self::Flow => Self::Step,
            _ => Self::Other,
        }
    }

    /// Whether a key needs no further check.
    pub(crate) fn knows(self, key: &str, custom: &CustomKeys) -> bool {
        let (known, unknown) = self.keys();
        // Merge keys, and keys that conventionally hold anchors.
        unknown == UnknownKeys::Allow && known.is_empty()
            || known.contains(&key)
            || key == "<<"
            || ["x-", ".", "_", "$"]
                .iter()
                .any(|prefix| key.starts_with(prefix))
            || self == Self::Config && custom.names.contains(key)
    }

    /// What is to report of a key that is not known, if anything.
    pub(crate) fn check(self, entry: &Entry) -> Option<Finding> {
        let key = &*entry.key;
        let (known, unknown) = self.keys();
        let shown = shorten(key);
        let typo = known
            .iter()
            .find(|known| is_probable_typo(key, known, unknown));
        if let Some(meant) = typo {
            return Some(Finding::Problem(format!(
                "unknown key `{shown}`; did you mean `{meant}`? Artillery would ignore it"
            )));
        }
        match unknown {
            UnknownKeys::Allow | UnknownKeys::AllowIfDistinct => None,
            UnknownKeys::Reject => Some(Finding::Problem(format!(
                "unknown key `{shown}`, which Artillery would ignore (known keys: {})",
                known.join(", ")
            ))),
            UnknownKeys::Warn if is_misplaced(entry) => Some(Finding::Problem(format!(
                "key `{shown}` belongs in `config`"
            ))),
            UnknownKeys::Warn => Some(Finding::Warning(format!(
                "unknown key `{shown}`, which Artillery ignores (known keys: {}; custom keys start \
                 with x-)",
                known.join(", ")
            ))),
        }
    }
}

/// What is to report of a key.
pub(crate) enum Finding {
    /// The script does not mean what its author meant.
    Problem(String),
    /// The script can run.
    Warning(String),
}

/// Whether a top-level key is one of `config`.
fn is_misplaced(entry: &Entry) -> bool {
    match &*entry.key {
        // Scripts have modes of their own for other tools.
        "mode" => matches!(entry.value.text(), Some("poisson" | "uniform")),
        key => Section::Config.keys().0.contains(&key),
    }
}

/// The keys that a script defines itself.
#[derive(Default)]
pub(crate) struct CustomKeys {
    /// The names of its engines and plugins. `config` may have keys of the same names.
    names: HashSet<String>,
    /// Whether all its scenarios use the HTTP engine. The request keys of other engines are not
    /// known.
    pub(crate) is_http: bool,
}

impl CustomKeys {
    pub(crate) fn new(script: &Node) -> Self {
        let config = script.get("config");
        let environments = config
            .and_then(|config| config.get("environments"))
            .map_or(&[][..], |all| all.entries())
            .iter()
            .map(|entry| &entry.value);
        let names = config
            .into_iter()
            .chain(environments)
            .flat_map(|config| ["engines", "plugins"].map(|list| config.get(list)))
            .flatten()
            .flat_map(|list| list.entries())
            .map(|entry| entry.key.to_string())
            .collect();
        let scenarios = script
            .get("scenarios")
            .map_or(&[][..], |scenarios| scenarios.items());
        let is_http = scenarios.iter().chain(config).all(|one| {
            one.get("engine")
                .is_none_or(|engine| engine.text() == Some("http"))
        });
        Self { names, is_http }
    }
}

/// Whether a key is probably a misspelling of a known one.
fn is_probable_typo(key: &str, known: &str, unknown: UnknownKeys) -> bool {
    if key.len() < 3 || key.eq_ignore_ascii_case(known) {
        return key.eq_ignore_ascii_case(known);
    }
    if unknown == UnknownKeys::Warn {
        // Words such as `filter` and `later` are close to `after`.
        let max = if key.len() > 5 && key.chars().next() == known.chars().next() {
            2
        } else {
            1
        };
        return edit_distance(key, known) <= max;
    }
    if unknown != UnknownKeys::AllowIfDistinct {
        return edit_distance(key, known) <= if key.len() > 4 { 2 } else { 1 };
    }
    let sorted = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    match known.len() {
        // One letter more or less may be another protocol, such as `https`.
        0..=4 => sorted(key) == sorted(known),
        // A trailing digit may be another version, such as `socketio3`.
        5..=8 => edit_distance(key, known) == 1 && !key.ends_with(|c: char| c.is_ascii_digit()),
        _ => edit_distance(key, known) <= 2,
    }
}
