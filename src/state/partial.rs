//! Partial pods and Jobs. Unused fields are skipped while parsing, so that objects stay small and a new field cannot
//! break a watch.

use std::collections::BTreeMap;

use k8s_openapi::Resource as _;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use loadtest_api::v1alpha1::LoadTest;
use serde::{Deserialize, Deserializer};

/// The labels of the Job controller (Kubernetes, `pkg/apis/batch`).
const CONTROLLER_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";

/// The fields of a worker's pod that the operator reads.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Pod")]
pub struct PartialPod {
    /// The pod's metadata.
    #[serde(default, deserialize_with = "partial_metadata")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: PodSpec,
    #[serde(default)]
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    #[serde(default)]
    pub(super) conditions: Vec<PodCondition>,
    #[serde(default)]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodCondition {
    pub(super) r#type: String,
    pub(super) status: String,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    #[serde(default)]
    pub(super) started: Option<bool>,
    #[serde(default)]
    pub(super) ready: bool,
    #[serde(default)]
    pub(super) state: ContainerState,
    /// The state before the last restart.
    #[serde(default)]
    pub(super) last_state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ContainerState {
    pub(super) waiting: Option<Waiting>,
    pub(super) running: Option<Running>,
    pub(super) terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Running {
    pub(super) started_at: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Waiting {
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Terminated {
    pub(super) exit_code: i32,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    pub(super) started_at: Option<Time>,
    pub(super) finished_at: Option<Time>,
}

/// Parses only the metadata that is used. Managed fields make up most of an object's JSON and are expensive to parse.
pub(crate) fn partial_metadata<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Partial {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        owner_references: Option<Vec<OwnerReference>>,
        finalizers: Option<Vec<String>>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let partial = Partial::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: partial.name,
        namespace: partial.namespace,
        uid: partial.uid,
        resource_version: partial.resource_version,
        generation: partial.generation,
        creation_timestamp: partial.creation_timestamp,
        deletion_timestamp: partial.deletion_timestamp,
        owner_references: partial.owner_references,
        finalizers: partial.finalizers,
        labels: partial.labels,
        annotations: partial.annotations,
        ..ObjectMeta::default()
    })
}

/// The Job that controls a worker's pod. The labels that the Job controller sets must agree with the owner reference.
#[must_use]
pub(crate) fn owning_job(pod: &ObjectMeta) -> Option<&OwnerReference> {
    let owner = controller_owner(pod)?;
    let has_label = |name: &str, value: &String| {
        let labels = pod.labels.as_ref();
        labels.and_then(|labels| labels.get(name)) == Some(value)
    };
    let is_job = owner.kind == Job::KIND
        && owner.api_version == Job::API_VERSION
        && has_label(CONTROLLER_UID_LABEL, &owner.uid)
        && has_label(JOB_NAME_LABEL, &owner.name);
    is_job.then_some(owner)
}

/// The LoadTest that controls a Job. Both have the same name.
#[must_use]
pub(super) fn owning_load_test(job: &ObjectMeta) -> Option<&OwnerReference> {
    controller_owner(job).filter(|owner| {
        let group = owner.api_version.split_once('/').map(|(group, _)| group);
        owner.kind == LoadTest::kind(&())
            && group == Some(&*LoadTest::group(&()))
            && job.name.as_ref() == Some(&owner.name)
    })
}

/// The owner reference of an object's controller.
fn controller_owner(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|o| o.controller == Some(true))
}

/// The fields of a Job that the operator reads.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Job")]
pub struct PartialJob {
    /// The Job's metadata.
    #[serde(default, deserialize_with = "partial_metadata")]
    pub metadata: ObjectMeta,
    /// The mutable fields of the Job's spec.
    #[serde(default)]
    pub spec: PartialJobSpec,
    /// The Job's status.
    #[serde(default)]
    pub status: JobStatus,
}

/// The mutable fields of a Job's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PartialJobSpec {
    /// Whether the Job is suspended.
    pub suspend: Option<bool>,
    /// How many pods the Job creates at most at a time.
    pub parallelism: Option<i32>,
    /// The maximum duration of the Job in seconds.
    pub active_deadline_seconds: Option<i64>,
    /// The seconds from the end of the Job until its deletion.
    pub ttl_seconds_after_finished: Option<i32>,
}
