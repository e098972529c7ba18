//! Well-known names: labels, annotations, environment variables and ports that the operator, the workers and the installed
//! policies share.

/// The label by which the Jobs and pods of tests are selected.
pub const COMPONENT_LABEL: &str = "artillery.io/component";
/// The value of [`COMPONENT_LABEL`] on a test's Job.
pub const JOB_COMPONENT: &str = "loadtest-worker-master";
/// The value of [`COMPONENT_LABEL`] on a worker's pod.
pub const WORKER_COMPONENT: &str = "loadtest-worker";
/// The value of [`COMPONENT_LABEL`] on the `ConfigMap` of the worker files: `operator-undeploy.sh` deletes by it.
pub const WORKER_FILES_COMPONENT: &str = "loadtest-worker-files";
/// The label that holds the name of the test.
pub const TEST_NAME_LABEL: &str = "artillery.io/test-name";
/// The label that all objects of tests carry, with the value [`PART_OF`].
pub const PART_OF_LABEL: &str = "artillery.io/part-of";
/// The value of [`PART_OF_LABEL`].
pub const PART_OF: &str = "loadtest";
/// The domain of labels and annotations that users cannot set on workers, with its subdomains.
const RESERVED_DOMAIN: &str = "artillery.io";
/// The domains of annotations that set the security context of a pod in old versions of Kubernetes, with their subdomains. The API
/// server still translates some of them into fields.
const SECURITY_DOMAINS: [&str; 2] = [
    "security.alpha.kubernetes.io",
    "security.beta.kubernetes.io",
];
/// A regular expression for the names of labels and annotations that users cannot set on workers: what [`is_reserved_name`] checks.
pub(crate) const RESERVED_NAMES: &str =
    "^([^/]*[.])?(artillery[.]io|security[.](alpha|beta)[.]kubernetes[.]io)/";

/// The annotation of a worker's pod that holds the instant at which its load begins.
pub const START_ANNOTATION: &str = "loadtest.artillery.io/start-at";
/// The annotation of a worker's pod that counts how often the start instant was sent to it.
pub const START_ATTEMPT_ANNOTATION: &str = "loadtest.artillery.io/start-attempt";
/// The annotation of a worker's pod that holds an inline script.
pub const SCRIPT_ANNOTATION: &str = "loadtest.artillery.io/test-script";

/// The annotation of a Job that holds the `activeDeadlineSeconds` that the operator asked for. A different value in its spec is
/// the will of somebody else, such as a policy of the cluster.
pub const DEADLINE_ANNOTATION: &str = "loadtest.artillery.io/active-deadline-seconds";

/// The file in a worker's start volume that holds the value of [`START_ANNOTATION`].
pub const START_FILE: &str = "start-at";
/// The port of a worker's HTTP server, for probes and results.
pub const PROBE_PORT: u16 = 8899;
/// The path of the results until now.
pub const SNAPSHOT_PATH: &str = "/snapshot";
/// The header of the results that names the worker's pod.
pub const POD_HEADER: &str = "loadtest-pod";
/// The path that the server answers as soon as the worker is ready to begin its load.
pub const READY_PATH: &str = "/ready";
/// The path that the server answers as soon as the worker has read the start instant.
pub const STARTED_PATH: &str = "/started";

/// The variable that lists the plugins Artillery loads besides those of the script.
pub const ARTILLERY_PLUGINS: &str = "ARTILLERY_PLUGINS";
/// Variables whose values of the operator and of the user are merged.
pub const MERGED_ENV_VARS: [&str; 3] = ["NODE_OPTIONS", ARTILLERY_PLUGINS, "ARTILLERY_PLUGIN_PATH"];
/// Variables that identify a worker; users cannot set them.
pub const RESERVED_ENV_VARS: [&str; 2] = ["JOB_COMPLETION_INDEX", "WORKER_ID"];
/// The prefix of the operator's own variables; users cannot set them.
pub const RESERVED_ENV_PREFIX: &str = "LOADTEST_";

/// Whether users cannot set this label or annotation on workers.
#[must_use]
pub fn is_reserved_name(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else {
        return false;
    };
    SECURITY_DOMAINS
        .iter()
        .chain([&RESERVED_DOMAIN])
        .filter_map(|reserved| domain.strip_suffix(reserved))
        .any(|subdomain| subdomain.is_empty() || subdomain.ends_with('.'))
}

/// Whether users cannot set this variable.
#[must_use]
pub fn is_reserved_env(name: &str) -> bool {
    RESERVED_ENV_VARS.contains(&name) || name.starts_with(RESERVED_ENV_PREFIX)
}
