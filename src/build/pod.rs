//! The pod template of a worker.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, DownwardAPIProjection,
    DownwardAPIVolumeFile, EmptyDirVolumeSource, ImageVolumeSource, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec,
    ProjectedVolumeSource, SeccompProfile, SecurityContext, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use loadtest_api::labels::{PROBE_PORT, SCRIPT_ANNOTATION, WORKER_COMPONENT, is_reserved_name};
use loadtest_api::v1alpha1::{LoadTest, TEST_SCRIPT_KEY, WorkerTemplate};
use loadtest_script::ScriptInfo;
use serde_json::json;

use super::env::{EnvInputs, HashedFiles, env_vars};
use super::job::labels;
use super::worker_files;
use crate::config::WorkerConfig;

#[cfg(test)]
mod tests;

/// The folder of the script and its files in a worker.
const DATA: &str = "/data";
/// The mount paths of files that are linked into [`DATA`].
const CONFIG_MAPS: &str = "/sources/config-maps";
const CLAIM: &str = "/sources/persistent-volume-claim";
const IMAGE: &str = "/sources/image";
/// The folder of POSIX shared memory. Container runtimes limit it to 64 MiB, and a browser whose pages need more crashes.
const SHARED_MEMORY: &str = "/dev/shm";
const SHARED_MEMORY_LIMIT: &str = "1Gi";

/// How many seconds after the start deadline a worker without a start time exits. Until then the operator has ended the
/// test, unless it or the test no longer exists.
const START_TIMEOUT_MARGIN: i64 = 60;

/// Returns the image of a test's workers.
#[must_use]
pub(crate) fn image(test: &LoadTest, config: &WorkerConfig) -> String {
    let own = test.spec.worker.as_ref().and_then(|w| w.image.as_ref());
    own.or(config.defaults.image.as_ref())
        .unwrap_or(&config.image)
        .clone()
}

/// Builds the pod template. Whatever the test sets, the pod meets the Pod Security Standard `restricted` and has no
/// service account token.
pub(super) fn build_pod_template(
    test: &LoadTest,
    config: &WorkerConfig,
    script: &ScriptInfo,
) -> PodTemplateSpec {
    let own = test.spec.worker.as_deref().cloned().unwrap_or_default();
    let defaults = merge_defaults(config.defaults.clone(), built_in_defaults(test, config));
    let default_annotations = defaults.annotations.clone();
    let worker = merge_defaults(own, defaults);
    let files = script_volumes(
        test,
        script.needs_folder || test.spec.test_script.has_volume(),
        script.uses_browser && !mounts_shared_memory(&worker),
    );
    let mut annotations = worker.annotations.clone();
    // The API server rejects reserved names only in new LoadTests.
    annotations.retain(|name, value| {
        !is_reserved_name(name) && (!value.is_empty() || !default_annotations.contains_key(name))
    });
    annotations.extend(
        test.spec
            .test_script
            .inline
            .clone()
            .map(|script| (SCRIPT_ANNOTATION.to_owned(), script)),
    );
    let own_labels = worker
        .labels
        .clone()
        .into_iter()
        .filter(|(name, _)| !is_reserved_name(name));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(own_labels.chain(labels(test, WORKER_COMPONENT)).collect()),
            annotations: Some(annotations).filter(|a| !a.is_empty()),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(test, config, script, worker, files)),
    }
}

/// Whether the workers of a test have an HTTP server.
fn has_port(test: &LoadTest, config: &WorkerConfig) -> bool {
    config.has_live_results(&test.spec) || test.spec.starts_together()
}

/// Returns the defaults that the operator's own defaults and the test override.
fn built_in_defaults(test: &LoadTest, config: &WorkerConfig) -> WorkerTemplate {
    // A worker that is evicted fails the test.
    let mut annotations = vec![
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
    ];
    let port = PROBE_PORT.to_string();
    if has_port(test, config) {
        // The proxy of a service mesh must not answer or delay the kubelet's probes, nor reject the operator and Prometheus,
        // which may be outside the mesh.
        annotations.extend([
            (
                "traffic.sidecar.istio.io/excludeInboundPorts",
                port.as_str(),
            ),
            ("config.linkerd.io/skip-inbound-ports", port.as_str()),
        ]);
    }
    let map = |pairs: Vec<(&str, &str)>| {
        pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    WorkerTemplate {
        annotations: map(annotations),
        node_selector: map(vec![("kubernetes.io/os", "linux")]),
        ..WorkerTemplate::default()
    }
}

fn spec(
    test: &LoadTest,
    config: &WorkerConfig,
    script: &ScriptInfo,
    worker: WorkerTemplate,
    files: Files,
) -> PodSpec {
    let name = test.name_any();
    let inputs = EnvInputs {
        name: &name,
        workers: test.spec.count,
        load: test.spec.load,
        start_timeout: test.spec.starts_together().then(|| {
            let deadline = test.spec.start_deadline_seconds.max(1);
            deadline.saturating_add(START_TIMEOUT_MARGIN)
        }),
        is_live: config.has_live_results(&test.spec),
        is_judged: script.ensure.is_some(),
        thresholds: &test.spec.thresholds,
        sidecars: worker.sidecars.len(),
        folders: files.folders,
        hashed_files: script
            .files_hash
            .zip(files.config_maps)
            .map(|(hash, folder)| HashedFiles {
                hash: hash.to_string(),
                folder,
                source: config_map_source(test),
            }),
    };
    let (startup_probe, readiness_probe) = test
        .spec
        .starts_together()
        .then(|| worker_files::probes(&test.spec))
        .unzip();
    let port = ContainerPort {
        name: Some("metrics".into()),
        container_port: PROBE_PORT.into(),
        ..ContainerPort::default()
    };
    let container = Container {
        name: name.clone(),
        image: Some(worker.image.unwrap_or_else(|| config.image.clone())),
        image_pull_policy: worker
            .image_pull_policy
            .or_else(|| config.image_pull_policy.clone()),
        args: Some(arguments(test, worker.args)),
        env: Some(env_vars(&inputs, worker.env)),
        env_from: non_empty(worker.env_from),
        ports: has_port(test, config).then(|| vec![port]),
        resources: worker.resources,
        startup_probe,
        readiness_probe,
        volume_mounts: Some(
            files
                .mounts
                .into_iter()
                .chain(worker.volume_mounts)
                .collect(),
        ),
        // Artillery reports the cause of a failure in the last lines of its log.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        security_context: Some(container_security(worker.security_context)),
        ..Container::default()
    };
    let sidecar = |sidecar: Container| Container {
        restart_policy: Some("Always".into()),
        // A sidecar that keeps the worker from starting is reported with the end of its log.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        security_context: Some(container_security(sidecar.security_context.clone())),
        ..sidecar
    };
    PodSpec {
        restart_policy: Some("Never".into()),
        automount_service_account_token: Some(false),
        // Workers do not use the variables of the namespace's services.
        enable_service_links: Some(false),
        security_context: Some(pod_security(worker.pod_security_context, config)),
        init_containers: non_empty(worker.sidecars.into_iter().map(sidecar).collect()),
        containers: vec![container],
        volumes: Some(files.volumes.into_iter().chain(worker.volumes).collect()),
        image_pull_secrets: non_empty(worker.image_pull_secrets),
        node_selector: non_empty_map(worker.node_selector),
        affinity: worker.affinity,
        tolerations: non_empty(worker.tolerations),
        topology_spread_constraints: non_empty(worker.topology_spread_constraints),
        priority_class_name: worker.priority_class_name,
        runtime_class_name: worker.runtime_class_name,
        scheduler_name: worker.scheduler_name,
        service_account_name: worker.service_account_name,
        termination_grace_period_seconds: worker.termination_grace_period_seconds,
        host_aliases: non_empty(worker.host_aliases),
        dns_config: worker.dns_config,
        ..PodSpec::default()
    }
}

/// Builds the arguments of `artillery`. Values of the spec are escaped, because Kubernetes expands `$(NAME)` as a
/// variable and replaces `$$` with `$`.
fn arguments(test: &LoadTest, more: Vec<String>) -> Vec<String> {
    let literal = |text: &str| text.replace('$', "$$");
    let spec = &test.spec;
    let mut args = vec![
        "run".to_owned(),
        format!("{DATA}/{}", literal(spec.test_script.file())),
    ];
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), literal(&value)]);
    if let Some(environment) = spec.environment.as_ref().filter(|e| !e.is_empty()) {
        option("--environment", environment.clone());
    }
    if let Some(target) = &spec.target {
        option("--target", target.clone());
    }
    if !spec.variables.is_empty() {
        option("--variables", json!(spec.variables).to_string());
    }
    args.extend(more);
    args
}

/// The script's files in a pod.
struct Files {
    volumes: Vec<Volume>,
    mounts: Vec<VolumeMount>,
    folders: Vec<&'static str>,
    /// The folder in which ConfigMaps and the inline script are mounted.
    config_maps: Option<&'static str>,
}

/// Builds the volumes of the script. All ConfigMaps form one projected volume. It is mounted at [`DATA`], unless files
/// of other volumes have to be linked there too. A volume in memory for [`SHARED_MEMORY`] counts as memory of the worker.
fn script_volumes(test: &LoadTest, needs_folder: bool, needs_memory: bool) -> Files {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let empty = |name: &str| Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let script = &test.spec.test_script;
    let external = script.external.as_ref();
    let (mut volumes, mut mounts, mut folders) = (Vec::new(), Vec::new(), Vec::new());
    let mut config_maps = None;
    let sources: Vec<VolumeProjection> = script
        .config_maps()
        .into_iter()
        .map(projection)
        .chain(script.inline.as_ref().map(|_| inline()))
        .collect();
    if !sources.is_empty() {
        let projected = ProjectedVolumeSource {
            sources: Some(sources),
            ..ProjectedVolumeSource::default()
        };
        volumes.push(Volume {
            name: "test-script".into(),
            projected: Some(projected),
            ..Volume::default()
        });
        let folder = if needs_folder { CONFIG_MAPS } else { DATA };
        config_maps = Some(folder);
        mounts.push(mount("test-script", folder, true));
        folders.push(CONFIG_MAPS);
    }
    if let Some(claim) = external.and_then(|e| e.persistent_volume_claim.as_ref()) {
        let source = PersistentVolumeClaimVolumeSource {
            claim_name: claim.claim_name.clone(),
            read_only: Some(true),
        };
        volumes.push(Volume {
            name: "claim-files".into(),
            persistent_volume_claim: Some(source),
            ..Volume::default()
        });
        mounts.push(mount("claim-files", CLAIM, true));
        folders.push(CLAIM);
    }
    if let Some(image) = external.and_then(|e| e.image.as_ref()) {
        let source = ImageVolumeSource {
            reference: Some(image.reference.clone()),
            pull_policy: image.pull_policy.clone(),
        };
        volumes.push(Volume {
            name: "image-files".into(),
            image: Some(source),
            ..Volume::default()
        });
        mounts.push(mount("image-files", IMAGE, true));
        folders.push(IMAGE);
    }
    if needs_folder {
        volumes.push(empty("data"));
        mounts.push(mount("data", DATA, false));
    } else {
        folders.clear();
    }
    volumes.extend([empty("tmp"), worker_files::volume("loadtest")]);
    mounts.extend([
        mount("tmp", "/tmp", false),
        mount("loadtest", worker_files::MOUNT_PATH, true),
    ]);
    if test.spec.starts_together() {
        volumes.push(worker_files::start_volume("loadtest-start"));
        mounts.push(mount(
            "loadtest-start",
            worker_files::START_MOUNT_PATH,
            true,
        ));
    }
    if needs_memory {
        let memory = EmptyDirVolumeSource {
            medium: Some("Memory".into()),
            size_limit: Some(Quantity(SHARED_MEMORY_LIMIT.into())),
        };
        volumes.push(Volume {
            empty_dir: Some(memory),
            ..empty("loadtest-shm")
        });
        mounts.push(mount("loadtest-shm", SHARED_MEMORY, false));
    }
    Files {
        volumes,
        mounts,
        folders,
        config_maps,
    }
}

fn mounts_shared_memory(worker: &WorkerTemplate) -> bool {
    let mut paths = worker.volume_mounts.iter().map(|mount| &mount.mount_path);
    paths.any(|path| path.trim_end_matches('/') == SHARED_MEMORY)
}

/// Describes where the files of ConfigMaps and the inline script come from, for a message of the worker.
fn config_map_source(test: &LoadTest) -> String {
    let config_maps = test.spec.test_script.config_maps();
    match &config_maps[..] {
        [] => "spec.testScript.inline".to_owned(),
        [one] => format!("ConfigMap {one}"),
        several => format!("ConfigMaps {}", several.join(", ")),
    }
}

fn projection(config_map: &str) -> VolumeProjection {
    VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: config_map.into(),
            ..ConfigMapProjection::default()
        }),
        ..VolumeProjection::default()
    }
}

fn inline() -> VolumeProjection {
    let field = ObjectFieldSelector {
        field_path: format!("metadata.annotations['{SCRIPT_ANNOTATION}']"),
        ..ObjectFieldSelector::default()
    };
    let file = DownwardAPIVolumeFile {
        path: TEST_SCRIPT_KEY.into(),
        field_ref: Some(field),
        ..DownwardAPIVolumeFile::default()
    };
    VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![file]),
        }),
        ..VolumeProjection::default()
    }
}

fn container_security(own: Option<SecurityContext>) -> SecurityContext {
    let own = own.unwrap_or_default();
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        read_only_root_filesystem: Some(own.read_only_root_filesystem.unwrap_or(true)),
        run_as_user: own.run_as_user,
        run_as_group: own.run_as_group,
        run_as_non_root: own.run_as_non_root,
        seccomp_profile: own.seccomp_profile,
        ..SecurityContext::default()
    }
}

fn pod_security(own: Option<PodSecurityContext>, config: &WorkerConfig) -> PodSecurityContext {
    let own = own.unwrap_or_default();
    PodSecurityContext {
        run_as_non_root: Some(true),
        // The public image runs as root, which `restricted` forbids, so the pod sets a user unless the cluster assigns
        // one.
        run_as_user: own.run_as_user.or(config.run_as_user),
        seccomp_profile: own.seccomp_profile.or_else(|| {
            Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            })
        }),
        ..own
    }
}

/// Merges the operator's defaults into a test's worker template. Maps and variables are merged by key, other fields are
/// replaced as a whole.
fn merge_defaults(own: WorkerTemplate, defaults: WorkerTemplate) -> WorkerTemplate {
    fn list<T>(own: Vec<T>, default: Vec<T>) -> Vec<T> {
        if own.is_empty() { default } else { own }
    }
    fn map(
        own: BTreeMap<String, String>,
        default: BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        default.into_iter().chain(own).collect()
    }
    fn both<T>(own: Vec<T>, mut default: Vec<T>) -> Vec<T> {
        default.extend(own);
        default
    }
    // All fields are listed, so that the compiler reports a new field that is not handled here.
    WorkerTemplate {
        image: own.image.or(defaults.image),
        image_pull_policy: own.image_pull_policy.or(defaults.image_pull_policy),
        image_pull_secrets: list(own.image_pull_secrets, defaults.image_pull_secrets),
        resources: own.resources.or(defaults.resources),
        env: both(own.env, defaults.env),
        env_from: both(own.env_from, defaults.env_from),
        args: both(own.args, defaults.args),
        node_selector: map(own.node_selector, defaults.node_selector),
        affinity: own.affinity.or(defaults.affinity),
        tolerations: list(own.tolerations, defaults.tolerations),
        topology_spread_constraints: list(
            own.topology_spread_constraints,
            defaults.topology_spread_constraints,
        ),
        priority_class_name: own.priority_class_name.or(defaults.priority_class_name),
        runtime_class_name: own.runtime_class_name.or(defaults.runtime_class_name),
        scheduler_name: own.scheduler_name.or(defaults.scheduler_name),
        service_account_name: own.service_account_name.or(defaults.service_account_name),
        pod_security_context: own.pod_security_context.or(defaults.pod_security_context),
        security_context: own.security_context.or(defaults.security_context),
        labels: map(own.labels, defaults.labels),
        annotations: map(own.annotations, defaults.annotations),
        termination_grace_period_seconds: own
            .termination_grace_period_seconds
            .or(defaults.termination_grace_period_seconds),
        host_aliases: list(own.host_aliases, defaults.host_aliases),
        dns_config: own.dns_config.or(defaults.dns_config),
        volumes: both(own.volumes, defaults.volumes),
        volume_mounts: both(own.volume_mounts, defaults.volume_mounts),
        sidecars: both(own.sidecars, defaults.sidecars),
    }
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|l| !l.is_empty())
}

fn non_empty_map(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|m| !m.is_empty())
}
