//! The files that the operator mounts into every worker: the JavaScript of `worker/`, in one `ConfigMap` per namespace,
//! and the file with the start instant.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource,
    HTTPGetAction, KeyToPath, ObjectFieldSelector, Probe, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::SignedDuration;
use loadtest_api::labels::{
    COMPONENT_LABEL, PROBE_PORT, READY_PATH, START_ANNOTATION, START_FILE, STARTED_PATH,
    WORKER_FILES_COMPONENT,
};

use loadtest_api::v1alpha1::LoadTestSpec;

use crate::runtime::hash::fnv1a;

/// The mount path of the files in a worker.
pub(crate) const MOUNT_PATH: &str = "/opt/loadtest";
/// The mount path of the volume with the start instant. It is a volume of its own: the kubelet replaces all files of a
/// volume when one of them changes, which must not happen to code while a worker loads it.
pub(crate) const START_MOUNT_PATH: &str = "/opt/loadtest-start";

/// The files: key in the `ConfigMap`, path below [`MOUNT_PATH`], and content.
const FILES: [(&str, &str, &str); 15] = [
    (
        "files.cjs",
        "files.cjs",
        include_str!("../../worker/preload/files.cjs"),
    ),
    (
        "files-hash.cjs",
        "files-hash.cjs",
        include_str!("../../worker/preload/files-hash.cjs"),
    ),
    (
        "worker-id.cjs",
        "worker-id.cjs",
        include_str!("../../worker/preload/worker-id.cjs"),
    ),
    (
        "cpus.cjs",
        "cpus.cjs",
        include_str!("../../worker/preload/cpus.cjs"),
    ),
    (
        "divide.js",
        "artillery-plugin-loadtest-divide/index.js",
        include_str!("../../worker/plugins/divide/index.js"),
    ),
    (
        "together.js",
        "artillery-plugin-loadtest-together/index.js",
        include_str!("../../worker/plugins/together/index.js"),
    ),
    (
        "results.js",
        "artillery-plugin-loadtest-results/index.js",
        include_str!("../../worker/plugins/results/index.js"),
    ),
    (
        "results-load.js",
        "artillery-plugin-loadtest-results/load.js",
        include_str!("../../worker/plugins/results/load.js"),
    ),
    (
        "results-generator.js",
        "artillery-plugin-loadtest-results/generator.js",
        include_str!("../../worker/plugins/results/generator.js"),
    ),
    (
        "results-measurements.js",
        "artillery-plugin-loadtest-results/measurements.js",
        include_str!("../../worker/plugins/results/measurements.js"),
    ),
    (
        "results-threads.js",
        "artillery-plugin-loadtest-results/threads.js",
        include_str!("../../worker/plugins/results/threads.js"),
    ),
    (
        "results-live.js",
        "artillery-plugin-loadtest-results/live.js",
        include_str!("../../worker/plugins/results/live.js"),
    ),
    (
        "results-metrics.js",
        "artillery-plugin-loadtest-results/metrics.js",
        include_str!("../../worker/plugins/results/metrics.js"),
    ),
    (
        "phases.js",
        "lib/phases.js",
        include_str!("../../worker/plugins/lib/phases.js"),
    ),
    (
        "server.js",
        "lib/server.js",
        include_str!("../../worker/plugins/lib/server.js"),
    ),
];

/// Returns the name of the `ConfigMap`. It contains a hash of the files, so that workers of an older operator keep
/// their version.
#[must_use]
pub fn config_map_name() -> String {
    let all = FILES
        .iter()
        .flat_map(|(_, path, text)| path.bytes().chain(text.bytes()));
    format!("loadtest-worker-{:016x}", fnv1a(all))
}

/// Builds the `ConfigMap` of the files.
#[must_use]
pub fn config_map(namespace: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(config_map_name()),
            namespace: Some(namespace.to_owned()),
            labels: Some(
                [
                    ("app.kubernetes.io/managed-by", "artillery-operator"),
                    (COMPONENT_LABEL, WORKER_FILES_COMPONENT),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ),
            ..ObjectMeta::default()
        },
        data: Some(
            FILES
                .iter()
                .map(|(key, _, text)| ((*key).to_owned(), (*text).to_owned()))
                .collect(),
        ),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// Whether a `ConfigMap` contains exactly the files, and cannot change.
#[must_use]
pub(crate) fn is_verified(found: &ConfigMap) -> bool {
    let own = config_map("");
    let no_binary = found.binary_data.as_ref().is_none_or(BTreeMap::is_empty);
    found.data == own.data && no_binary && found.immutable == own.immutable
}

/// Builds the volume of the files.
#[must_use]
pub(crate) fn volume(name: &str) -> Volume {
    let item = |(key, path, _): &(&str, &str, &str)| KeyToPath {
        key: (*key).into(),
        path: (*path).into(),
        mode: None,
    };
    let source = ConfigMapVolumeSource {
        name: config_map_name(),
        items: Some(FILES.iter().map(item).collect()),
        ..ConfigMapVolumeSource::default()
    };
    Volume {
        name: name.into(),
        config_map: Some(source),
        ..Volume::default()
    }
}

/// Builds the volume of the file with the start instant.
#[must_use]
pub fn start_volume(name: &str) -> Volume {
    let file = DownwardAPIVolumeFile {
        path: START_FILE.into(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.annotations['{START_ANNOTATION}']"),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    Volume {
        name: name.into(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![file]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// How often the kubelet runs the readiness probe, and how long it delays the first one at most.
pub(crate) const READINESS_PERIOD: SignedDuration = SignedDuration::from_secs(30);

/// Returns the startup probe and the readiness probe of a worker with a synchronized start. The startup probe succeeds
/// when the worker is ready to begin, the readiness probe when the worker has acknowledged the start instant. The
/// kubelet runs the readiness probe as soon as the startup probe has succeeded. A worker holds back its answer until it
/// has reached the state, because the kubelet records a warning for each probe that fails.
///
/// The probes are HTTP requests, because the proxy of a service mesh can accept TCP connections on any port.
#[must_use]
pub(crate) fn probes(spec: &LoadTestSpec) -> (Probe, Probe) {
    // The kubelet tries a probe three times before it reports a failure. That is long enough for many workers on one node to load,
    // and short enough for a worker that the kubelet cannot reach to be reported before the start deadline.
    let startup_timeout = (spec.count / 2)
        .saturating_add(4)
        .min(i32::try_from(spec.start_deadline_seconds / 9).unwrap_or(i32::MAX))
        .clamp(2, 20);
    let get = |path: &str| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(PROBE_PORT.into()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    };
    (
        Probe {
            // On a busy node the process needs a moment to open the port, and no worker is ready earlier.
            initial_delay_seconds: Some(2),
            period_seconds: Some(1),
            timeout_seconds: Some(startup_timeout),
            // The probe never gives up, because `startDeadlineSeconds` limits the time of a start.
            failure_threshold: Some(i32::MAX),
            ..get(READY_PATH)
        },
        Probe {
            // The worker may have to wait for others. The start deadline is normally much shorter.
            timeout_seconds: Some(3600),
            // A probe between the exit of the worker and its detection by the kubelet fails, so probes are rare. The
            // first one does not wait for the period. A kubelet that was started more recently than one period ago
            // delays the first one by up to a period, so the period must not be long.
            period_seconds: i32::try_from(READINESS_PERIOD.as_secs()).ok(),
            failure_threshold: Some(1),
            ..get(STARTED_PATH)
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn config_map_with_other_or_mutable_files_is_foreign() {
        let own = config_map("n");
        assert!(is_verified(&own));
        let changed = |change: &dyn Fn(&mut ConfigMap)| {
            let mut map = own.clone();
            change(&mut map);
            is_verified(&map)
        };
        let other_text = |map: &mut ConfigMap| {
            let data = map.data.as_mut().unwrap();
            data.insert("results.js".into(), "evil()".into());
        };
        let more = |map: &mut ConfigMap| {
            let data = map.data.as_mut().unwrap();
            data.insert("more.js".into(), String::new());
        };
        assert!(!changed(&other_text) && !changed(&more));
        assert!(!changed(&|map| map.immutable = None));
        assert!(!changed(&|map| map.data = None));
    }

    #[test]
    fn config_map_contains_every_mounted_file() {
        assert!(config_map_name().len() <= 63);
        let map = config_map("n");
        let items = volume("v").config_map.unwrap().items.unwrap();
        assert!(
            items
                .iter()
                .all(|item| map.data.as_ref().unwrap().contains_key(&item.key))
        );
    }
}
