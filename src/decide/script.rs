//! Whether a test's script and environment can run.

use std::collections::BTreeMap;
use std::path::Path;

use kube::ResourceExt;
use loadtest_api::v1alpha1::{LoadTest, Reason, TEST_SCRIPT_KEY, validate_env};
use loadtest_results::thresholds;
use loadtest_script::{ScriptInfo, args_override_script};

use super::{Dependency, messages};
use crate::config::WorkerConfig;
use crate::state::ScriptState;

/// Why a test cannot run.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptProblem {
    /// The reason that conditions and events report.
    pub reason: Reason,
    /// The message that conditions and events report.
    pub message: String,
    /// The object whose change may solve it; none where the spec is at fault.
    pub watch: Option<Dependency>,
}

/// Judges what was read of a test's script.
///
/// # Errors
/// The problem that keeps the test from running.
pub fn judge_script(
    test: &LoadTest,
    config: &WorkerConfig,
    script: &ScriptState,
) -> Result<ScriptInfo, ScriptProblem> {
    let invalid = |message, config_maps: Vec<String>| ScriptProblem {
        reason: Reason::InvalidTestScript,
        message,
        watch: (!config_maps.is_empty()).then_some(Dependency::ConfigMaps(config_maps)),
    };
    let missing = |message, config_map: &str| ScriptProblem {
        reason: Reason::MissingTestScript,
        message,
        watch: Some(Dependency::ConfigMaps(vec![config_map.to_owned()])),
    };
    let spec = &test.spec.test_script;
    let worker = test.spec.worker.as_deref();
    if let Some(problem) = worker.and_then(|worker| validate_env(&worker.env)) {
        return Err(invalid(messages::invalid_env(&problem), Vec::new()));
    }
    let mut thresholds = test.spec.thresholds.iter();
    if let Some(problem) = thresholds.find_map(|one| thresholds::check(one).err()) {
        return Err(ScriptProblem {
            reason: Reason::InvalidThreshold,
            message: messages::invalid_threshold(&problem.to_string()),
            watch: None,
        });
    }
    let mut aborts = test.spec.abort.iter();
    let problem = if aborts.len() > 0 && !config.has_live_results(&test.spec) {
        Some(messages::ABORT_WITHOUT_LIVE_RESULTS.to_owned())
    } else {
        let problem = aborts.find_map(|one| thresholds::check(&one.when).err());
        problem.map(|problem| messages::invalid_abort(&problem.to_string()))
    };
    if let Some(message) = problem {
        return Err(ScriptProblem {
            reason: Reason::InvalidThreshold,
            message,
            watch: None,
        });
    }
    let (config_maps, analysis, files_hash) = match script {
        ScriptState::NotRead => return Ok(ScriptInfo::default()),
        ScriptState::ConfigMapMissing { name, similar } => {
            let namespace = test.namespace().unwrap_or_default();
            let message = if spec.config_map() == Some(name) {
                messages::script_config_map_missing(
                    &namespace,
                    name,
                    spec.file(),
                    similar.as_deref(),
                )
            } else {
                messages::external_config_map_missing(&namespace, name, similar.as_deref())
            };
            return Err(missing(message, name));
        }
        ScriptState::Read {
            config_maps,
            analysis,
            files_hash,
        } => (config_maps, analysis, *files_hash),
    };
    let own = config_maps
        .iter()
        .find(|c| spec.config_map() == Some(c.name.as_str()));
    if let Some(own) = own
        && !own.keys.iter().any(|key| key == spec.file())
    {
        let message = messages::script_key_missing(&own.name, spec.file(), &own.keys);
        return Err(missing(message, &own.name));
    }
    let mut places = BTreeMap::new();
    if spec.inline.is_some() {
        places.insert(TEST_SCRIPT_KEY, messages::INLINE_SCRIPT.to_owned());
    }
    for config_map in config_maps {
        for key in &config_map.keys {
            let place = if Some(config_map) == own && key == spec.file() {
                messages::script_place(key, &config_map.name)
            } else {
                messages::config_map_place(&config_map.name)
            };
            if let Some(earlier) = places.insert(key, place) {
                let place = messages::config_map_place(&config_map.name);
                let message = messages::duplicate_file(key, &earlier, &place);
                let all = spec.config_maps().into_iter().map(str::to_owned);
                return Err(invalid(message, all.collect()));
            }
        }
    }
    let args = config.defaults.args.iter();
    let is_whole_script =
        !args_override_script(args.chain(worker.into_iter().flat_map(|worker| &worker.args)));
    if test.spec.validate
        && let Some(problem) = &analysis.problem
        && (is_whole_script || !problem.is_missing)
    {
        let place = own.map_or_else(
            || messages::INLINE_SCRIPT.to_owned(),
            |own| messages::script_place(spec.file(), &own.name),
        );
        let message = messages::invalid_script(&place, &problem.message);
        let own = spec.config_map().map(str::to_owned);
        return Err(invalid(message, own.into_iter().collect()));
    }
    let mut warnings = Vec::new();
    if test.spec.validate && is_whole_script {
        let place = own.map_or_else(
            || messages::INLINE_SCRIPT.to_owned(),
            |own| messages::script_place(spec.file(), &own.name),
        );
        let about_script = |warning: &String| messages::script_warning(&place, warning);
        let target = analysis.target.warning(test.spec.target.as_deref());
        warnings.extend(analysis.warnings.iter().chain(&target).map(about_script));
    }
    let is_typescript = |file: &&str| Path::new(file).extension().is_some_and(|e| e == "ts");
    Ok(ScriptInfo {
        expected_duration: analysis.expected_duration.filter(|_| is_whole_script),
        needs_folder: places.keys().any(is_typescript),
        uses_browser: analysis.uses_browser,
        ensure: analysis.ensure.clone().filter(|_| is_whole_script),
        files_hash: Some(files_hash),
        warnings,
    })
}
