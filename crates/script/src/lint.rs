//! Finds problems of a script without running it, with line and column. A script that Artillery
//! runs as its author meant must have none: what is only suspicious is a warning.

use std::fmt::Write;

use crate::schema::{CustomKeys, Finding, Section};
use crate::yaml::{Document, Node, position};

/// A problem of a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What is wrong, with line and column if the problem has a position.
    pub message: String,
    /// Whether something is missing, or can be replaced. Another file of the same script may do so.
    pub is_missing: bool,
}

impl Problem {
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_missing: true,
        }
    }

    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_missing: false,
        }
    }
}

/// What was found in a script.
#[derive(Default)]
pub(crate) struct Lint {
    /// The first problem.
    pub(crate) problem: Option<Problem>,
    pub(crate) warnings: Vec<String>,
    /// Whether HTTP requests go to paths of the target.
    pub(crate) requests_paths: bool,
}

/// Checks a script. `text` is its prepared text.
pub(crate) fn check(text: &str, document: &Document, environment: Option<&str>) -> Lint {
    let script = &document.root;
    let mut linter = Linter {
        text,
        document,
        custom: CustomKeys::new(script),
        path: String::new(),
        unknown_keys: 0,
        found: Lint::default(),
    };
    let walked = linter.walk(script, Section::Script);
    let mut found = linter.found;
    let environment = environment.filter(|_| !text.contains("$environment"));
    found.problem = walked
        .err()
        .or_else(|| without_flow(script).map(Problem::wrong))
        .or_else(|| missing(script, environment).map(Problem::missing));
    found
}

/// Limits the length of a message.
const MAX_LISTED: usize = 20;

/// Describes what a script lacks, unless other files complete it.
fn missing(script: &Node, environment: Option<&str>) -> Option<String> {
    let config = script.get("config");
    if config.is_some_and(|config| config.get("includeFiles").is_some()) {
        return None;
    }
    let Some(config) = config else {
        return Some("missing section `config`".into());
    };
    if script
        .get("scenarios")
        .is_none_or(|scenarios| scenarios.items().is_empty())
    {
        return Some("no `scenarios`: there is nothing to run".into());
    }
    let environments = config.get("environments")?;
    let environment =
        environment.filter(|name| environments.is_map() && environments.get(name).is_none())?;
    let known = environments.entries();
    let mut listed: Vec<_> = known
        .iter()
        .take(MAX_LISTED)
        .map(|entry| crate::shorten(&entry.key))
        .collect();
    match known.len() {
        0 => return None,
        n if n > MAX_LISTED => listed.push(format!("{} more", n - MAX_LISTED)),
        _ => {}
    }
    Some(format!(
        "unknown environment `{environment}` (config.environments has {}); Artillery would run the script without one",
        listed.join(", ")
    ))
}

/// Describes the first scenario without the `flow` that the built-in engines need.
///
/// Source: Artillery, `lib/util/validate-script.ts`.
fn without_flow(script: &Node) -> Option<String> {
    let scenarios = script
        .get("scenarios")
        .map_or(&[][..], |scenarios| scenarios.items())
        .iter()
        .enumerate();
    let hooks = ["before", "after"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), script.get(name)?)));
    let mut all = scenarios
        .map(|(n, scenario)| (format!("scenarios[{n}]"), scenario))
        .chain(hooks);
    let lacks_flow = |scenario: &Node| {
        let is_built_in = scenario
            .get("engine")
            .is_none_or(|engine| matches!(engine.text(), Some("http" | "socketio" | "ws")));
        scenario.is_map() && is_built_in && scenario.get("flow").is_none()
    };
    all.find(|(_, scenario)| lacks_flow(scenario))
        .map(|(name, _)| format!("{name} has no `flow`: Artillery would not run the script"))
}

/// Bounds the time of the check. More unknown keys than these are accepted.
const MAX_UNKNOWN_KEYS: usize = 200;

/// Walks through a script in the order of its text.
struct Linter<'a> {
    text: &'a str,
    document: &'a Document,
    custom: CustomKeys,
    /// The path of the current value, such as `config.phases[0]`.
    path: String,
    /// How many unknown keys were compared with the known ones.
    unknown_keys: usize,
    found: Lint,
}

impl Linter<'_> {
    /// A message about something at an offset, with its path and position.
    fn message(&self, message: &str, at: usize) -> String {
        let separator = if self.path.is_empty() { "" } else { ": " };
        format!(
            "{}{separator}{message} at {}",
            self.path,
            position(self.text, at)
        )
    }

    fn warn(&mut self, message: &str, at: usize) {
        if self.found.warnings.len() <= crate::MAX_WARNINGS {
            let message = self.message(message, at);
            self.found.warnings.push(message);
        }
    }

    fn walk(&mut self, node: &Node, section: Section) -> Result<(), Problem> {
        if section == Section::Other {
            return Ok(());
        }
        let length = self.path.len();
        for (n, item) in node.items().iter().enumerate() {
            let _ = write!(self.path, "[{n}]");
            self.walk(item, section.item())?;
            self.path.truncate(length);
        }
        let entries = node.entries();
        if section == Section::Step && entries.len() > 1 && node.get("loop").is_none() {
            let keys: Vec<_> = entries
                .iter()
                .take(4)
                .map(|e| crate::shorten(&e.key))
                .collect();
            let message = format!(
                "a step has {} keys ({}), but Artillery accepts one",
                entries.len(),
                keys.join(", ")
            );
            self.warn(&message, node.at);
        }
        let mut own = entries.iter().filter(|entry| !entry.is_merged).skip(1);
        for entry in entries {
            crate::count_work(1);
            let next = if entry.is_merged { None } else { own.next() };
            let end = next.map_or(self.text.len(), |next| next.at);
            let is_checked = self.unknown_keys < MAX_UNKNOWN_KEYS
                && !entry.is_merged
                && !section.knows(&entry.key, &self.custom)
                && (section != Section::Script || !self.document.has_used_anchor(entry.at, end));
            self.unknown_keys += usize::from(is_checked);
            let finding = if is_checked {
                section.check(entry)
            } else {
                None
            };
            match finding {
                Some(Finding::Problem(message)) => {
                    return Err(Problem::wrong(self.message(&message, entry.at)));
                }
                Some(Finding::Warning(message)) => self.warn(&message, entry.at),
                None => {}
            }
            if section == Section::Request && ["url", "uri"].contains(&&*entry.key) {
                let url = entry.value.text();
                self.found.requests_paths |= url.is_some_and(|url| url.starts_with('/'));
            }
            let child = section.child(&entry.key);
            // The values of merge keys have been checked where they are defined, if at all.
            if child == Section::Other
                || child == Section::Flow && !self.custom.is_http
                || entry.is_merged
            {
                continue;
            }
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(&crate::shorten(&entry.key));
            self.walk(&entry.value, child)?;
            self.path.truncate(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
