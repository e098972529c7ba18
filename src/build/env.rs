//! The environment of a worker's container.

use k8s_openapi::api::core::v1::{
    EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use loadtest_api::labels::{
    ARTILLERY_PLUGINS, MERGED_ENV_VARS, PROBE_PORT, START_FILE, is_reserved_env,
};
use loadtest_api::v1alpha1::Load;
use serde_json::{Map, Value, json};

use super::worker_files::{MOUNT_PATH, START_MOUNT_PATH};

/// The inputs of a worker's environment.
#[derive(Default)]
pub(crate) struct EnvInputs<'a> {
    /// The name of the test.
    pub name: &'a str,
    /// The number of workers.
    pub workers: i32,
    /// How the script's load is distributed over the workers.
    pub load: Load,
    /// After how many seconds a worker without a start time exits, if the start is synchronized.
    pub start_timeout: Option<i64>,
    /// Whether workers serve live results.
    pub is_live: bool,
    /// Whether the operator evaluates the script's `ensure` over all workers, which disables it in each worker.
    pub is_judged: bool,
    /// The thresholds of the test. Workers always keep the metrics that these name in their results.
    pub thresholds: &'a [String],
    /// The number of other containers in the pod.
    pub sidecars: usize,
    /// The folders whose files are linked into /data, if they are not mounted there.
    pub folders: Vec<&'static str>,
    /// The files that each worker compares with those with which the test started.
    pub hashed_files: Option<HashedFiles>,
}

/// Files that a worker compares with a hash of them.
pub(crate) struct HashedFiles {
    /// The hash, by [`loadtest_script::FilesHash`].
    pub hash: String,
    /// The folder in which they are mounted.
    pub folder: &'static str,
    /// Where they come from, for a message.
    pub source: String,
}

/// The kubelet reads at most `MAX_MESSAGE_BYTES` of the termination message of each container, and cuts each to
/// `MAX_POD_MESSAGE_BYTES` divided by the number of containers in the pod, including init containers.
///
/// Source: kubernetes, `pkg/kubelet/container/runtime.go`, and `normalizeStatus` in
/// `pkg/kubelet/status/status_manager.go`.
const MAX_MESSAGE_BYTES: usize = 4096;
const MAX_POD_MESSAGE_BYTES: usize = 12 << 10;
/// A service mesh injects an init container and a proxy when the pod is created.
const INJECTED_CONTAINERS: usize = 2;

/// The room for the results in the termination message of a worker, in bytes.
fn results_limit(sidecars: usize) -> usize {
    MAX_MESSAGE_BYTES.min(MAX_POD_MESSAGE_BYTES / (1 + sidecars + INJECTED_CONTAINERS))
}

/// Builds the environment of a worker's container. Variables in [`MERGED_ENV_VARS`] combine the operator's and the
/// user's values. Other variables of the user come after the operator's and take precedence.
#[must_use]
pub(crate) fn env_vars(inputs: &EnvInputs<'_>, users: Vec<EnvVar>) -> Vec<EnvVar> {
    let mut plugins = vec!["loadtest-results"];
    let mut environment = vec![
        // The preload `worker-id.cjs` makes this the group of Artillery's Prometheus reporter on the Pushgateway.
        from_field("LOADTEST_POD_NAME", "metadata.name"),
        // Artillery crashes without a home directory, and a numeric user has none.
        env_var("HOME", "/tmp"),
        env_var("ARTILLERY_DISABLE_TELEMETRY", "true"),
        EnvVar {
            name: "LOADTEST_CPU_REQUEST_MILLIS".into(),
            value_from: Some(EnvVarSource {
                resource_field_ref: Some(ResourceFieldSelector {
                    resource: "requests.cpu".into(),
                    divisor: Some(Quantity("1m".into())),
                    container_name: None,
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        },
        env_var(
            "LOADTEST_RESULTS_LIMIT",
            &results_limit(inputs.sidecars).to_string(),
        ),
    ];
    // With a divided load, the variable is set even for one worker, because `envFrom` could set another value.
    if inputs.workers > 1 || inputs.load == Load::Divide {
        environment.push(env_var("LOADTEST_WORKERS", &inputs.workers.to_string()));
    }
    if inputs.load == Load::Divide {
        // The variable makes a worker fail if the plugin is missing. Otherwise each worker would send the whole load.
        environment.push(env_var("LOADTEST_DIVIDE", "true"));
        plugins.insert(0, "loadtest-divide");
    }
    let mut preloads = vec!["cpus.cjs", "worker-id.cjs"];
    if !inputs.folders.is_empty() {
        environment.push(env_var("LOADTEST_FILES", &inputs.folders.join(":")));
        preloads.insert(0, "files.cjs");
    }
    if let Some(files) = &inputs.hashed_files {
        environment.push(env_var("LOADTEST_FILES_HASH", &files.hash));
        environment.push(env_var("LOADTEST_FILES_HASH_FOLDER", files.folder));
        environment.push(env_var("LOADTEST_FILES_HASH_SOURCE", &files.source));
        preloads.insert(0, "files-hash.cjs");
    }
    if let Some(timeout) = inputs.start_timeout {
        environment.push(env_var(
            "LOADTEST_START_FILE",
            &format!("{START_MOUNT_PATH}/{START_FILE}"),
        ));
        environment.push(env_var("LOADTEST_START_TIMEOUT", &timeout.to_string()));
        plugins.push("loadtest-together");
        // The first, so that it answers probes as soon as possible.
        preloads.insert(0, "artillery-plugin-loadtest-together/index.js");
    }
    if inputs.is_live {
        environment.push(env_var("LOADTEST_LIVE", "true"));
        environment.push(from_field("LOADTEST_NAMESPACE", "metadata.namespace"));
        environment.push(env_var("LOADTEST_NAME", inputs.name));
    }
    if inputs.is_live || inputs.start_timeout.is_some() {
        environment.push(env_var("LOADTEST_PORT", &PROBE_PORT.to_string()));
    }
    if inputs.is_judged {
        environment.push(env_var("ARTILLERY_DISABLE_ENSURE", "true"));
    }
    let preloads: Vec<_> = preloads
        .iter()
        .map(|file| format!("--require={MOUNT_PATH}/{file}"))
        .collect();
    // The scope is explicit because a script can set another one for its own plugins.
    let mut plugins: Map<String, Value> = plugins
        .into_iter()
        .map(|name| (name.to_owned(), json!({"scope": "artillery-plugin-"})))
        .collect();
    if !inputs.thresholds.is_empty() {
        plugins["loadtest-results"]["keep"] = json!(inputs.thresholds);
    }
    let (mut options, mut path, mut all) =
        (preloads.join(" "), MOUNT_PATH.to_owned(), plugins.clone());
    let mut others = Vec::new();
    for variable in users {
        match (variable.name.as_str(), &variable.value) {
            ("NODE_OPTIONS", Some(value)) => options = format!("{options} {value}"),
            ("ARTILLERY_PLUGIN_PATH", Some(value)) => path = format!("{path}:{value}"),
            (ARTILLERY_PLUGINS, Some(value)) => {
                all.extend(serde_json::from_str::<Map<_, _>>(value).unwrap_or_default());
            }
            // Tests with such variables do not start: see `validate_env`.
            (name, _) if MERGED_ENV_VARS.contains(&name) || is_reserved_env(name) => {}
            _ => others.push(variable),
        }
    }
    all.extend(plugins);
    // These values can refer to the user's variables, which therefore have to come first.
    environment.extend(others);
    environment.push(env_var("NODE_OPTIONS", &options));
    environment.push(env_var("ARTILLERY_PLUGIN_PATH", &path));
    environment.push(env_var(
        "ARTILLERY_PLUGINS",
        &Value::Object(all).to_string(),
    ));
    environment
}

fn env_var(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.into()),
        ..EnvVar::default()
    }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let source = EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            field_path: path.into(),
            ..ObjectFieldSelector::default()
        }),
        ..EnvVarSource::default()
    };
    EnvVar {
        name: name.into(),
        value_from: Some(source),
        ..EnvVar::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn value_of(environment: &[EnvVar], name: &str) -> Option<String> {
        environment
            .iter()
            .rev()
            .find(|v| v.name == name)
            .and_then(|v| v.value.clone())
    }

    #[test]
    fn merged_variables_combine_the_operators_and_the_users_values() {
        let users = [
            ("NODE_OPTIONS", "--max-old-space-size=200"),
            (
                "ARTILLERY_PLUGINS",
                r#"{"mine": {"a": 1}, "loadtest-results": 3}"#,
            ),
            ("HOME", "/home"),
        ];
        let inputs = EnvInputs {
            workers: 3,
            load: Load::Divide,
            ..EnvInputs::default()
        };
        let all = env_vars(
            &inputs,
            users.map(|(name, value)| env_var(name, value)).into(),
        );
        assert_eq!(
            value_of(&all, "NODE_OPTIONS").unwrap(),
            "--require=/opt/loadtest/cpus.cjs --require=/opt/loadtest/worker-id.cjs --max-old-space-size=200"
        );
        let plugins: Value =
            serde_json::from_str(&value_of(&all, "ARTILLERY_PLUGINS").unwrap()).unwrap();
        let ours = json!({"scope": "artillery-plugin-"});
        assert_eq!(
            plugins,
            json!({"loadtest-divide": ours, "loadtest-results": ours, "mine": {"a": 1}})
        );
        assert_eq!(
            value_of(&all, "HOME").unwrap(),
            "/home",
            "the user's value takes precedence"
        );
        assert_eq!(value_of(&all, "LOADTEST_WORKERS").unwrap(), "3");
        assert_eq!(value_of(&all, "LOADTEST_DIVIDE").unwrap(), "true");
        assert_eq!(value_of(&all, "LOADTEST_FILES"), None);
    }

    #[test]
    fn single_worker_gets_no_load_distribution_variables() {
        let inputs = EnvInputs {
            workers: 1,
            folders: vec!["/sources/a", "/sources/b"],
            ..EnvInputs::default()
        };
        let all = env_vars(&inputs, Vec::new());
        assert_eq!(value_of(&all, "LOADTEST_WORKERS"), None);
        assert!(
            !value_of(&all, "ARTILLERY_PLUGINS")
                .unwrap()
                .contains("divide")
        );
        assert_eq!(
            value_of(&all, "LOADTEST_FILES").unwrap(),
            "/sources/a:/sources/b"
        );
        assert!(
            value_of(&all, "NODE_OPTIONS")
                .unwrap()
                .starts_with("--require=/opt/loadtest/files.cjs ")
        );
    }

    #[test]
    fn results_fit_into_the_share_of_the_termination_messages_that_the_kubelet_keeps() {
        let limit = |sidecars| {
            let inputs = EnvInputs {
                sidecars,
                ..EnvInputs::default()
            };
            value_of(&env_vars(&inputs, Vec::new()), "LOADTEST_RESULTS_LIMIT").unwrap()
        };
        assert_eq!([0, 1, 3].map(limit), ["4096", "3072", "2048"]);
    }

    #[test]
    fn synchronized_start_is_preloaded_first() {
        let inputs = EnvInputs {
            workers: 2,
            start_timeout: Some(660),
            folders: vec!["/sources/a"],
            hashed_files: Some(HashedFiles {
                hash: "0123456789abcdef".into(),
                folder: "/sources/a",
                source: "ConfigMap s".into(),
            }),
            ..EnvInputs::default()
        };
        let all = env_vars(&inputs, Vec::new());
        for (name, value) in [
            (
                "NODE_OPTIONS",
                "--require=/opt/loadtest/artillery-plugin-loadtest-together/index.js \
                 --require=/opt/loadtest/files-hash.cjs --require=/opt/loadtest/files.cjs \
                 --require=/opt/loadtest/cpus.cjs --require=/opt/loadtest/worker-id.cjs",
            ),
            ("LOADTEST_START_FILE", "/opt/loadtest-start/start-at"),
            ("LOADTEST_PORT", "8899"),
            ("LOADTEST_START_TIMEOUT", "660"),
            ("LOADTEST_FILES_HASH", "0123456789abcdef"),
            ("LOADTEST_FILES_HASH_FOLDER", "/sources/a"),
            ("LOADTEST_FILES_HASH_SOURCE", "ConfigMap s"),
        ] {
            assert_eq!(value_of(&all, name).as_deref(), Some(value), "{name}");
        }
        let alone = env_vars(&EnvInputs::default(), Vec::new());
        for name in [
            "LOADTEST_START_FILE",
            "LOADTEST_PORT",
            "LOADTEST_START_TIMEOUT",
            "LOADTEST_FILES_HASH",
        ] {
            assert_eq!(value_of(&alone, name), None, "{name}");
        }
    }

    #[test]
    fn live_results_have_the_port_and_the_labels_of_the_metrics() {
        let inputs = EnvInputs {
            name: "t",
            workers: 1,
            is_live: true,
            ..EnvInputs::default()
        };
        let all = env_vars(&inputs, Vec::new());
        for (name, value) in [
            ("LOADTEST_LIVE", "true"),
            ("LOADTEST_PORT", "8899"),
            ("LOADTEST_NAME", "t"),
        ] {
            assert_eq!(value_of(&all, name).as_deref(), Some(value), "{name}");
        }
        assert!(all.contains(&from_field("LOADTEST_NAMESPACE", "metadata.namespace")));
        let without = env_vars(&EnvInputs::default(), Vec::new());
        for name in [
            "LOADTEST_LIVE",
            "LOADTEST_PORT",
            "LOADTEST_NAME",
            "LOADTEST_NAMESPACE",
        ] {
            assert!(without.iter().all(|v| v.name != name), "{name}");
        }
    }

    #[test]
    fn worker_id_is_not_set_in_the_environment() {
        let all = env_vars(&EnvInputs::default(), Vec::new());
        assert!(all.iter().all(|variable| variable.name != "WORKER_ID"));
        let name = all.iter().find(|v| v.name == "LOADTEST_POD_NAME").unwrap();
        let source = name.value_from.as_ref().unwrap();
        assert_eq!(
            source.field_ref.as_ref().unwrap().field_path,
            "metadata.name"
        );
    }

    #[test]
    fn user_variables_cannot_override_reserved_ones() {
        let from = |name: &str| from_field(name, "metadata.name");
        for (variable, reason) in [
            (
                env_var("LOADTEST_WORKERS", "1"),
                "is reserved for the operator",
            ),
            (from("JOB_COMPLETION_INDEX"), "is reserved for the operator"),
            (env_var("WORKER_ID", "all"), "is reserved for the operator"),
            (from("NODE_OPTIONS"), "valueFrom is not supported"),
            (from("ARTILLERY_PLUGINS"), "valueFrom is not supported"),
            (from("ARTILLERY_PLUGIN_PATH"), "valueFrom is not supported"),
            (
                env_var("ARTILLERY_PLUGINS", "{a: 1}"),
                "is not a JSON object: key must be a string at line 1 column 2",
            ),
            (env_var("ARTILLERY_PLUGINS", "[]"), "is not a JSON object"),
        ] {
            let problem =
                loadtest_api::v1alpha1::validate_env(std::slice::from_ref(&variable)).unwrap();
            assert!(
                problem.starts_with(&variable.name) && problem.contains(reason),
                "{problem}"
            );
            let inputs = EnvInputs {
                workers: 2,
                load: Load::Divide,
                folders: vec!["/a"],
                ..EnvInputs::default()
            };
            assert_eq!(
                env_vars(&inputs, vec![variable]),
                env_vars(&inputs, Vec::new())
            );
        }
        let fine = [
            env_var("ARTILLERY_PLUGINS", "{}"),
            env_var("NODE_OPTIONS", "$(MORE)"),
            from("NAME"),
            env_var("MORE", ""),
        ];
        assert_eq!(loadtest_api::v1alpha1::validate_env(&fine), None);
        let all = env_vars(&EnvInputs::default(), fine.into());
        let position = |name| all.iter().position(|v| v.name == name);
        assert!(
            position("MORE") < position("NODE_OPTIONS"),
            "a referenced variable comes first"
        );
        let alone = env_vars(
            &EnvInputs {
                workers: 1,
                load: Load::Divide,
                ..EnvInputs::default()
            },
            Vec::new(),
        );
        assert_eq!(value_of(&alone, "LOADTEST_WORKERS").unwrap(), "1");
    }
}
