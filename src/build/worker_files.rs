//! The files that the operator mounts into every worker: the JavaScript of `worker/`, in one `ConfigMap` per namespace,
//! and the file with the start instant.

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Probe, ProjectedVolumeSource, TCPSocketAction, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use loadtest_api::labels::{
    COMPONENT_LABEL, READY_PORT, START_ACK_PORT, START_ANNOTATION, START_FILE,
    WORKER_FILES_COMPONENT,
};

use crate::runtime::hash::fnv1a;

/// The mount path of the files in a worker.
pub(crate) const MOUNT_PATH: &str = "/opt/loadtest";

/// The files: key in the `ConfigMap`, path below [`MOUNT_PATH`], and content.
const FILES: [(&str, &str, &str); 5] = [
    (
        "files.cjs",
        "files.cjs",
        include_str!("../../worker/preload/files.cjs"),
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

/// Builds the volume of the files and of the file with the start instant.
#[must_use]
pub(crate) fn volume(volume: &str) -> Volume {
    let item = |(key, path, _): &(&str, &str, &str)| KeyToPath {
        key: (*key).into(),
        path: (*path).into(),
        mode: None,
    };
    let files = ConfigMapProjection {
        name: config_map_name(),
        items: Some(FILES.iter().map(item).collect()),
        ..ConfigMapProjection::default()
    };
    let start = DownwardAPIVolumeFile {
        path: START_FILE.into(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.annotations['{START_ANNOTATION}']"),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection {
            config_map: Some(files),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection {
                items: Some(vec![start]),
            }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource {
        sources: Some(sources),
        ..ProjectedVolumeSource::default()
    };
    Volume {
        name: volume.into(),
        projected: Some(projected),
        ..Volume::default()
    }
}

/// Returns the startup probe and the readiness probe of a worker with a synchronized start. The startup probe succeeds
/// when the worker is ready to begin, the readiness probe when the worker has acknowledged the start instant. The
/// kubelet runs the readiness probe only after the startup probe has succeeded.
#[must_use]
pub(crate) fn probes() -> (Probe, Probe) {
    let listens = |port| Probe {
        tcp_socket: Some(TCPSocketAction {
            port: IntOrString::Int(port),
            ..TCPSocketAction::default()
        }),
        period_seconds: Some(1),
        ..Probe::default()
    };
    // The startup probe never fails, because `startDeadlineSeconds` limits the time of a start.
    (
        Probe {
            failure_threshold: Some(i32::MAX),
            ..listens(READY_PORT)
        },
        listens(START_ACK_PORT),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn config_map_contains_every_mounted_file() {
        assert!(config_map_name().len() <= 63);
        let map = config_map("n");
        let items = volume("v")
            .projected
            .unwrap()
            .sources
            .unwrap()
            .remove(0)
            .config_map
            .unwrap()
            .items
            .unwrap();
        assert!(
            items
                .iter()
                .all(|item| map.data.as_ref().unwrap().contains_key(&item.key))
        );
    }
}
