//! Settings of the workers' pods. The types of the fields are those of Kubernetes; `worker_policy.rs` limits them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvFromSource, EnvVar, HostAlias, LocalObjectReference, PodDNSConfig,
    PodSecurityContext, ResourceRequirements, SecurityContext, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the workers' pods. Fields have the names and meanings that they have in a pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerTemplate {
    /// Image of the workers. Its entry point must be the artillery command. Default: the operator's setting,
    /// artilleryio/artillery:latest unless configured otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,

    /// Image pull policy: Always, IfNotPresent or Never. Default: Always for the tag latest, otherwise IfNotPresent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,

    /// Secrets for pulling the images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// CPU and memory requests and limits of a worker. Artillery starts as many threads as the CPU limit allows, or
    /// else the request; one thread without either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Environment variables. The script reads them as {{ $env.NAME }}. JOB_COMPLETION_INDEX, WORKER_ID and names
    /// that begin with LOADTEST_ are reserved for the operator. LOADTEST_POD_NAME is the pod's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,

    /// ConfigMaps and Secrets whose keys become environment variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,

    /// Additional arguments of artillery run, such as --overrides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,

    /// Labels that a node must have to run a worker. Default: kubernetes.io/os: linux.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Scheduling rules of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Taints of nodes that the workers tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// How the workers spread over nodes or zones. Their label artillery.io/test-name is the test's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// PriorityClass of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,

    /// RuntimeClass of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,

    /// Scheduler of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,

    /// Service account of the workers. Its token is not mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,

    /// Security context of the pods, within Pod Security restricted, with the sysctls that it allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,

    /// Security context of the worker container, within Pod Security restricted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,

    /// Additional labels of the pods. Names below artillery.io are reserved for the operator.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the pods. By default cluster-autoscaler.kubernetes.io/safe-to-evict is false and
    /// karpenter.sh/do-not-disrupt is true, and the annotations of Istio and Linkerd exclude port 8899 from the mesh,
    /// if the workers open it. An empty value omits a default annotation. Names below
    /// artillery.io, security.alpha.kubernetes.io and security.beta.kubernetes.io are reserved.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// Seconds that a worker may take to exit after SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub termination_grace_period_seconds: Option<i64>,

    /// Entries of the workers' hosts file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_aliases: Vec<HostAlias>,

    /// DNS configuration of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<PodDNSConfig>,

    /// Volumes of the pods: configMap, secret, emptyDir, persistentVolumeClaim, or projected from configMap, secret
    /// and downwardAPI. The names data, tmp, loadtest, loadtest-start, loadtest-shm, test-script, claim-files and
    /// image-files are reserved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,

    /// Mounts of the worker container. A path must be absolute and must not contain empty parts, . or .. The paths /data,
    /// /tmp, /opt/loadtest, /opt/loadtest-start and /sources are reserved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,

    /// Sidecar containers, which start before the worker and end after it (initContainers with restartPolicy Always).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<Container>,
}
