//! `validate`: checks scripts and LoadTests without a cluster, as the operator checks them before a test starts.

use std::fmt::Write;
use std::path::Path;

use loadtest_api::schema;
use loadtest_api::v1alpha1::{LoadTest, validate_env};
use loadtest_results::thresholds;
use loadtest_script::{Analysis, analyze, args_override_script, is_data};
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Validate, ValidateOutput};
use crate::error::{Error, Result};
use crate::manifest;
use crate::outcome::Outcome;

/// A finding of a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The object in the file, and the field or the key with the script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Error: the test would not start. Warning: it would, and probably not do what was meant.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The line in the script, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in the script, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The test would not start.
    Error,
    /// The test would start, and probably not do what was meant.
    Warning,
}

impl Finding {
    fn new(file: &str, object: Option<String>, severity: Severity, message: &str) -> Self {
        let place = position(message);
        // The position is part of the message only where the lines are not those of the file.
        let message = match place {
            Some((end, ..)) if object.is_none() => message.get(..end).unwrap_or(message),
            _ => message,
        };
        Self {
            file: file.to_owned(),
            object,
            severity,
            message: message.to_owned(),
            line: place.map(|(_, line, _)| line),
            column: place.map(|(.., column)| column),
        }
    }

    /// The finding as one line of text.
    fn text(&self) -> String {
        let mut text = self.file.clone();
        if let (Some(line), Some(column), None) = (self.line, self.column, &self.object) {
            let _ = write!(text, ":{line}:{column}");
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let object = self
            .object
            .as_ref()
            .map_or_else(String::new, |object| format!("{object}: "));
        format!("{text}: {severity}: {object}{}", self.message)
    }

    /// The finding as an annotation of GitHub Actions.
    ///
    /// Source: <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>.
    fn github(&self) -> String {
        let escape = |text: &str| {
            text.replace('%', "%25")
                .replace('\r', "%0D")
                .replace('\n', "%0A")
        };
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut place = format!(
            "file={}",
            escape(&self.file).replace(',', "%2C").replace(':', "%3A")
        );
        if let (Some(line), Some(column), None) = (self.line, self.column, &self.object) {
            let _ = write!(place, ",line={line},col={column}");
        }
        let object = self
            .object
            .as_ref()
            .map_or_else(String::new, |object| format!("{object}: "));
        format!(
            "::{severity} {place}::{}",
            escape(&format!("{object}{}", self.message))
        )
    }
}

/// Where the position begins at the end of a message of the script check, its line and its column.
fn position(message: &str) -> Option<(usize, u32, u32)> {
    let (text, rest) = message.rsplit_once(" at line ")?;
    let (line, column) = rest.split_once(" column ")?;
    Some((text.len(), line.parse().ok()?, column.parse().ok()?))
}

/// Checks files and prints what was found.
///
/// # Errors
/// A file cannot be read.
pub fn run(args: &Validate) -> Result<Outcome> {
    let mut findings = Vec::new();
    let mut checked = Vec::new();
    let environment = args.environment.as_deref();
    if let Some(dir) = &args.kustomize {
        let source = dir.display().to_string();
        let objects = manifest::objects(&manifest::kustomize(dir)?, &source)?;
        findings.extend(check_objects(&objects, &source, environment));
        checked.push(source);
    }
    for path in &args.files {
        let text = manifest::read(path)?;
        let source = path.display().to_string();
        findings.extend(check_file(&text, path, environment));
        checked.push(source);
    }
    let failed = findings.iter().any(|one| one.severity == Severity::Error);
    match args.output {
        ValidateOutput::Json => {
            let json = serde_json::to_string_pretty(&findings)
                .map_err(|error| Error::new(error.to_string()))?;
            println!("{json}");
        }
        ValidateOutput::Github => {
            for one in &findings {
                println!("{}", one.github());
            }
        }
        ValidateOutput::Text => {
            for one in &findings {
                println!("{}", one.text());
            }
            for source in checked {
                if !findings.iter().any(|one| one.file == source) {
                    println!("{source}: ok");
                }
            }
        }
    }
    Ok(if failed {
        Outcome::Failed
    } else {
        Outcome::Passed
    })
}

/// Checks the LoadTests of a manifest before anything is created.
///
/// # Errors
/// A test would not start.
pub fn objects(objects: &[Value], source: &str, environment: Option<&str>) -> Result<()> {
    for finding in check_objects(objects, source, environment) {
        match finding.severity {
            Severity::Error => return Err(Error::new(finding.text())),
            Severity::Warning => eprintln!("{}", finding.text()),
        }
    }
    Ok(())
}

/// Checks a file: a script, or a manifest.
#[must_use]
pub fn check_file(text: &str, path: &Path, environment: Option<&str>) -> Vec<Finding> {
    let source = path.display().to_string();
    if let Ok(objects) = manifest::objects(text, &source)
        && objects
            .iter()
            .any(|object| object["apiVersion"].is_string() && object["kind"].is_string())
    {
        return check_objects(&objects, &source, environment);
    }
    let name = path
        .file_name()
        .map_or_else(|| "test-script.yaml".into(), |name| name.to_string_lossy());
    let name = if name == "-" {
        "test-script.yaml".into()
    } else {
        name
    };
    let analysis = analyze(text, &name, environment);
    let mut findings = of_script(&source, None, &analysis, None);
    if !is_data(&name) {
        let message = "only Artillery can read this script; nothing was checked";
        findings.push(Finding::new(&source, None, Severity::Warning, message));
    }
    findings
}

fn of_script(
    file: &str,
    object: Option<&str>,
    analysis: &Analysis,
    target: Option<&str>,
) -> Vec<Finding> {
    let finding =
        |severity, message: &str| Finding::new(file, object.map(str::to_owned), severity, message);
    let problem = analysis
        .problem
        .iter()
        .map(|problem| finding(Severity::Error, &problem.message));
    let target = analysis.target.warning(target);
    let warnings = analysis.warnings.iter().chain(&target);
    problem
        .chain(warnings.map(|warning| finding(Severity::Warning, warning)))
        .collect()
}

/// Checks all LoadTests of a manifest, with the scripts in its ConfigMaps.
#[must_use]
pub fn check_objects(objects: &[Value], source: &str, environment: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for object in objects.iter().filter(|object| manifest::is_test(object)) {
        let name = format!("LoadTest {}", manifest::name(object));
        let mut error = |message: &str| {
            findings.push(Finding::new(
                source,
                Some(name.clone()),
                Severity::Error,
                message,
            ));
        };
        for field in schema::unknown_fields(object).unwrap_or_default() {
            error(&format!("unknown field {field}"));
        }
        let test: LoadTest = match serde_json::from_value(object.clone()) {
            Ok(test) => test,
            Err(problem) => {
                error(&problem.to_string());
                continue;
            }
        };
        for problem in spec_problems(&test) {
            error(&problem);
        }
        findings.extend(check_script(&test, objects, source, &name, environment));
    }
    findings
}

/// What is wrong with a spec, whatever its script is.
fn spec_problems(test: &LoadTest) -> Vec<String> {
    let spec = &test.spec;
    let worker = spec.worker.as_deref();
    let env = worker.and_then(|worker| validate_env(&worker.env));
    let env = env.map(|problem| format!("spec.worker.env: {problem}"));
    let thresholds = spec
        .thresholds
        .iter()
        .filter_map(|one| thresholds::check(one).err());
    let aborts = spec
        .abort
        .iter()
        .filter_map(|one| thresholds::check(&one.when).err());
    let mut problems: Vec<_> = env.into_iter().collect();
    problems.extend(thresholds.map(|problem| format!("spec.thresholds: {problem}")));
    problems.extend(aborts.map(|problem| format!("spec.abort: {problem}")));
    if !spec.abort.is_empty() && !spec.live_results {
        problems.push("spec.abort needs spec.liveResults".into());
    }
    problems
}

/// Checks the script of a test, if the manifest contains it.
fn check_script(
    test: &LoadTest,
    objects: &[Value],
    source: &str,
    name: &str,
    environment: Option<&str>,
) -> Vec<Finding> {
    let spec = &test.spec;
    let script = &spec.test_script;
    if !spec.validate {
        return Vec::new();
    }
    let (text, place) = match (&script.inline, script.config_map()) {
        (Some(inline), _) => (
            Some(inline.clone()),
            format!("{name}, spec.testScript.inline"),
        ),
        (None, Some(config_map)) => {
            let found = objects.iter().find(|object| {
                object["kind"] == "ConfigMap" && object["metadata"]["name"] == config_map
            });
            let Some(found) = found else {
                return Vec::new();
            };
            let data = &found["data"];
            let text = data[script.file()].as_str().map(str::to_owned);
            (
                text,
                format!("ConfigMap {config_map}, key {}", script.file()),
            )
        }
        (None, None) => return Vec::new(),
    };
    let Some(text) = text else {
        let message = format!("{place} does not exist");
        return vec![Finding::new(
            source,
            Some(name.to_owned()),
            Severity::Error,
            &message,
        )];
    };
    let mut analysis = analyze(
        &text,
        script.file(),
        environment.or(spec.environment.as_deref()),
    );
    let args = spec.worker.iter().flat_map(|worker| &worker.args);
    if args_override_script(args) {
        analysis.problem = analysis.problem.filter(|problem| !problem.is_missing);
        analysis.warnings.clear();
    }
    of_script(source, Some(&place), &analysis, spec.target.as_deref())
}
