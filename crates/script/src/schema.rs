//! The keys that Artillery knows in a script: pure.

use std::collections::HashSet;

use serde_yaml::Value;

/// A part of a script, with keys of its own.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Section {
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

/// Which keys there may be besides.
#[derive(Clone, Copy, PartialEq)]
enum UnknownKeys {
    /// None: Artillery would ignore it.
    Reject,
    /// Those that engines and plugins know.
    Allow,
    /// Those, and they may have names like Artillery's own: `https` beside `http`.
    AllowIfDistinct,
}

impl Section {
    /// The keys that Artillery knows here.
    ///
    /// Source: Artillery, `types.d.ts`, `lib/util/validate-script.ts`, `lib/core/phases.ts`, `lib/core/runner.ts`,
    /// `lib/core/engine_http.ts`.
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

    /// What is behind a key.
    pub(super) fn of(self, key: &str) -> Self {
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

    /// What is in a list.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Phases => Self::Phase,
            Self::Payload => Self::Payload,
            Self::Scenarios => Self::Scenario,
            Self::Flow => Self::Step,
            _ => Self::Other,
        }
    }

    /// What is wrong with a key, if anything is.
    pub(super) fn problem(self, key: &str, own: &CustomKeys<'_>) -> Option<String> {
        let (known, others) = self.keys();
        // A merge key, and what people keep their anchors in.
        if known.contains(&key)
            || key == "<<"
            || ["x-", ".", "_", "$"]
                .iter()
                .any(|mark| key.starts_with(mark))
        {
            return None;
        }
        if self == Self::Config && own.names.contains(key)
            || self == Self::Script && own.has_anchors_in(key)
        {
            return None;
        }
        match known
            .iter()
            .find(|known| is_probable_typo(key, known, others))
        {
            Some(near) => Some(format!(
                "unknown key `{key}`; did you mean `{near}`? Artillery would ignore it"
            )),
            None if others == UnknownKeys::Reject => {
                let own = if self == Self::Script {
                    "; custom keys begin with x-"
                } else {
                    ""
                };
                Some(format!(
                    "unknown key `{key}`, which Artillery would ignore (known keys: {}{own})",
                    known.join(", ")
                ))
            }
            None => None,
        }
    }
}

/// What a script has of its own.
pub(super) struct CustomKeys<'a> {
    text: &'a str,
    /// The names of its engines and plugins, which may have keys of their names in `config`.
    names: HashSet<String>,
    /// Whether all its scenarios are of HTTP, whose requests are known.
    pub(super) is_http: bool,
}

impl<'a> CustomKeys<'a> {
    pub(super) fn of(text: &'a str, script: Option<&Value>) -> Self {
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

    /// Whether a key at the top holds an anchor that is used: then it is there for that.
    fn has_anchors_in(&self, key: &str) -> bool {
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

/// Whether a key may be meant as another one.
fn is_probable_typo(key: &str, known: &str, others: UnknownKeys) -> bool {
    if key.len() < 3 || key.eq_ignore_ascii_case(known) {
        return key.eq_ignore_ascii_case(known);
    }
    if others != UnknownKeys::AllowIfDistinct {
        return edit_distance(key, known) <= if key.len() > 4 { 2 } else { 1 };
    }
    let sorted = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    match known.len() {
        // One letter more or less makes another protocol of it.
        0..=4 => sorted(key) == sorted(known),
        // And a number another version.
        5..=8 => edit_distance(key, known) == 1 && !key.ends_with(|c: char| c.is_ascii_digit()),
        _ => edit_distance(key, known) <= 2,
    }
}

/// How many letters have to be changed, added, left out or exchanged with their neighbours to make one word of the other (optimal
/// string alignment).
fn edit_distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
                let exchanged =
                    i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
                let exchanged = if exchanged {
                    rows[i - 2][j - 2] + 1
                } else {
                    usize::MAX
                };
                changed
                    .min(exchanged)
                    .min(rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
            };
        }
    }
    rows[one.len()][other.len()]
}
