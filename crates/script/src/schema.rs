//! The keys that Artillery knows in a script, and the detection of misspelled ones.

use std::collections::HashSet;

use loadtest_api::text::edit_distance;
use serde_yaml::Value;

/// A part of a script that has its own set of keys.
#[derive(Clone, Copy, PartialEq)]
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
                UnknownKeys::Reject,
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

    /// Describes what is wrong with a key, if anything.
    pub(crate) fn problem(self, key: &str, custom: &CustomKeys<'_>) -> Option<String> {
        let (known, unknown) = self.keys();
        // Merge keys, and keys that conventionally hold anchors.
        if known.contains(&key)
            || key == "<<"
            || ["x-", ".", "_", "$"]
                .iter()
                .any(|prefix| key.starts_with(prefix))
        {
            return None;
        }
        if self == Self::Config && custom.names.contains(key)
            || self == Self::Script && custom.has_used_anchor(key)
        {
            return None;
        }
        match known
            .iter()
            .find(|known| is_probable_typo(key, known, unknown))
        {
            Some(meant) => Some(format!(
                "unknown key `{key}`; did you mean `{meant}`? Artillery would ignore it"
            )),
            None if unknown == UnknownKeys::Reject => {
                let hint = if self == Self::Script {
                    "; custom keys start with x-"
                } else {
                    ""
                };
                Some(format!(
                    "unknown key `{key}`, which Artillery would ignore (known keys: {}{hint})",
                    known.join(", ")
                ))
            }
            None => None,
        }
    }
}

/// The keys that a script defines itself.
pub(crate) struct CustomKeys<'a> {
    text: &'a str,
    /// The names of its engines and plugins. `config` may have keys of the same names.
    names: HashSet<String>,
    /// Whether all its scenarios use the HTTP engine. The request keys of other engines are not
    /// known.
    pub(crate) is_http: bool,
}

impl<'a> CustomKeys<'a> {
    pub(crate) fn new(text: &'a str, script: Option<&Value>) -> Self {
        let config = script.and_then(|script| script.get("config"));
        let environments = config
            .and_then(|config| config.get("environments")?.as_mapping())
            .into_iter()
            .flat_map(|e| e.values());
        let names = config
            .into_iter()
            .chain(environments)
            .flat_map(|config| ["engines", "plugins"].map(|list| config.get(list)?.as_mapping()))
            .flatten()
            .flat_map(|list| list.keys().filter_map(Value::as_str).map(str::to_owned))
            .collect();
        let scenarios = script
            .and_then(|script| script.get("scenarios")?.as_sequence())
            .into_iter()
            .flatten();
        let is_http = scenarios
            .chain(config)
            .all(|one| one.get("engine").is_none_or(|engine| engine == "http"));
        Self {
            text,
            names,
            is_http,
        }
    }

    /// Whether a top-level key holds an anchor that the script uses: Artillery ignores the key, but
    /// the script needs it.
    fn has_used_anchor(&self, key: &str) -> bool {
        let quotes = ['"', '\''];
        let is_of_key = |line: &&str| {
            let rest = line.trim_start_matches(quotes).strip_prefix(key);
            rest.is_some_and(|rest| {
                rest.trim_start_matches(quotes)
                    .trim_start()
                    .starts_with(':')
            })
        };
        let mut lines = self.text.lines().skip_while(|line| !is_of_key(line));
        let first = lines.next().into_iter();
        let section = first.chain(
            lines.take_while(|line| line.starts_with([' ', '-', '#', '}', ']']) || line.is_empty()),
        );
        section
            .flat_map(|line| line.split([' ', ',', '[', '{']))
            .filter_map(|word| word.strip_prefix('&'))
            .any(|anchor| {
                let uses = self.text.split([' ', ',', '[', ']', '{', '}', '\n', '\r']);
                uses.filter_map(|word| word.strip_prefix('*'))
                    .any(|used| !used.is_empty() && used == anchor.trim_end())
            })
    }
}

/// Whether a key is probably a misspelling of a known one.
fn is_probable_typo(key: &str, known: &str, unknown: UnknownKeys) -> bool {
    if key.len() < 3 || key.eq_ignore_ascii_case(known) {
        return key.eq_ignore_ascii_case(known);
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
