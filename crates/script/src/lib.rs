//! Analyzes an Artillery test script without running it: how long its phases take, which thresholds
//! it sets, and what is wrong with it.

use k8s_openapi::jiff::SignedDuration;

use loadtest_api::v1alpha1::Threshold;

mod cli_args;
mod ensure;
mod files_hash;
mod lint;
mod phases;
mod rule;
mod schema;
mod target;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod yaml;

pub use cli_args::args_override_script;
pub use files_hash::FilesHash;
pub use lint::Problem;
pub use target::Target;

use yaml::{Document, Node, ReadError};

/// The properties of a script that can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScriptInfo {
    /// How long its phases take, if that can be determined.
    pub expected_duration: Option<SignedDuration>,
    /// Whether its files need a writable folder.
    pub needs_folder: bool,
    /// Whether it uses Artillery's browser engine.
    pub uses_browser: bool,
    /// The thresholds of its `ensure`. None if the operator cannot read the whole script: each
    /// worker then evaluates them by itself.
    pub ensure: Option<Vec<Threshold>>,
    /// What is suspicious about the test, but does not keep it from running.
    pub warnings: Vec<String>,
    /// The hash of its files in `ConfigMap`s and of an inline script, if they were read.
    pub files_hash: Option<FilesHash>,
}

/// The result of analyzing a script.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// How long its phases take, if that can be determined.
    pub expected_duration: Option<SignedDuration>,
    /// The thresholds of its `ensure`. None if only Artillery can read the script: JavaScript,
    /// TypeScript, or YAML that Artillery's parser accepts and the operator's does not.
    pub ensure: Option<Vec<Threshold>>,
    /// Whether it uses Artillery's browser engine.
    pub uses_browser: bool,
    /// The target that it names.
    pub target: Target,
    /// The first problem found in it.
    pub problem: Option<Problem>,
    /// What is suspicious, but does not keep the script from running. At most ten sentences.
    pub warnings: Vec<String>,
}

const MAX_WARNINGS: usize = 10;

/// Whether a script is data by its file name. Other scripts are code, which only Artillery can read.
#[must_use]
pub fn is_data(file: &str) -> bool {
    let file = file.to_lowercase();
    [".yaml", ".yml", ".json"]
        .iter()
        .any(|end| file.ends_with(end))
}

/// Analyzes the text of a script. `file` is its file name, `environment` the selected entry of
/// `config.environments`.
#[must_use]
pub fn analyze(text: &str, file: &str, environment: Option<&str>) -> Analysis {
    if !is_data(file) {
        return Analysis::default();
    }
    let text = yaml::prepare(text);
    match yaml::read(&text) {
        Err(ReadError::Syntax(message, at)) => {
            let message = format!("{} at {}", shorten(&message), yaml::position(&text, at));
            Analysis::of_problem(Problem::wrong(message))
        }
        Err(ReadError::Unsupported(reason)) => unchecked(reason),
        Ok(document) if document.root.size > yaml::MAX_SIZE => unchecked(yaml::TOO_LARGE),
        Ok(document) if document.root.is_null() => Analysis {
            ensure: Some(Vec::new()),
            ..Analysis::of_problem(Problem::missing("the script is empty"))
        },
        Ok(document) => {
            let environment = environment.filter(|name| !name.is_empty());
            analyze_document(&text, &document, environment)
        }
    }
}

impl Analysis {
    fn of_problem(problem: Problem) -> Self {
        Self {
            problem: Some(problem),
            ..Self::default()
        }
    }
}

/// The analysis of a script that is left to Artillery.
fn unchecked(reason: &str) -> Analysis {
    Analysis {
        warnings: vec![format!("the script could not be checked: {reason}")],
        ..Analysis::default()
    }
}

fn analyze_document(text: &str, document: &Document, environment: Option<&str>) -> Analysis {
    let lint = lint::check(text, document, environment);
    let mut analysis = Analysis {
        ensure: Some(Vec::new()),
        problem: lint.problem,
        warnings: lint.warnings,
        ..Analysis::default()
    };
    let mut warnings = Vec::new();
    if let Some(config) = yaml::config(&document.root, environment) {
        let phases = phases::analyze(&config);
        let ensure = ensure::analyze(&config);
        analysis.expected_duration = phases.duration;
        analysis.ensure = Some(ensure.thresholds);
        analysis.uses_browser = uses_browser(&config);
        analysis.target = Target::new(&config, lint.requests_paths);
        analysis.problem = analysis.problem.or(phases.problem.map(|(message, at)| {
            Problem::missing(format!("{message} at {}", yaml::position(text, at)))
        }));
        warnings = other_warnings(&config);
        warnings.extend(phases.warnings);
        warnings.extend(ensure.warnings);
    }
    let left = (MAX_WARNINGS + 1).saturating_sub(analysis.warnings.len());
    let more = warnings
        .iter()
        .take(left)
        .map(|(message, at)| format!("{message} at {}", yaml::position(text, *at)));
    analysis.warnings.extend(more);
    if analysis.warnings.len() > MAX_WARNINGS {
        analysis.warnings.truncate(MAX_WARNINGS - 1);
        analysis.warnings.push("and more".into());
    }
    analysis
}

/// Whether a `config` has the engine that runs a browser.
///
/// Source: Artillery, `loadEngines` in `lib/core/runner.ts`: a scenario can use only the engines listed here.
fn uses_browser(config: &Node) -> bool {
    config
        .get("engines")
        .is_some_and(|engines| engines.get("playwright").is_some())
}

/// Warnings about keys of a `config`, with their offsets.
fn other_warnings(config: &Node) -> Vec<(String, usize)> {
    let mut warnings = Vec::new();
    if let Some(files) = config.get("includeFiles") {
        let message = "config.includeFiles: `artillery run` does not read these files";
        warnings.push((message.to_owned(), files.at));
    }
    let payload = config.get("payload");
    let one = payload.filter(|payload| payload.is_map());
    let many = payload.map_or(&[][..], |payload| payload.items());
    for payload in many.iter().chain(one).filter(|payload| payload.is_map()) {
        if warnings.len() <= MAX_WARNINGS
            && payload.get("path").is_none_or(|path| !path.is_truthy())
        {
            let message = "config.payload has no `path`: Artillery would not run the script";
            warnings.push((message.to_owned(), payload.at));
        }
    }
    warnings
}

/// Limits the length of what messages quote of a script.
fn shorten(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Counts the steps of an analysis, so that tests can compare inputs without measuring time.
fn count_work(steps: usize) {
    #[cfg(any(test, feature = "test-support"))]
    testing::WORK.set(testing::WORK.get() + steps);
    #[cfg(not(any(test, feature = "test-support")))]
    let _ = steps;
}
