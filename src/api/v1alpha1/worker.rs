//! What the workers' pods are to be like. The types of the fields are Kubernetes' own, less what would lift a pod out of
//! Pod Security `restricted`, or out of its namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvFromSource, EnvVar, HostAlias, LocalObjectReference, PodDNSConfig,
    PodSecurityContext, ResourceRequirements, SecurityContext, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::worker::{JOINED, RESERVED, RESERVED_PREFIX};

/// What the workers' pods are to be like. Fields have the names and meanings that they have in a pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Worker {
    /// The workers' image. Its entry point is the `artillery` command. Default: the operator's, `artilleryio/artillery:latest`
    /// unless it was told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,

    /// When the image is pulled: Always, `IfNotPresent` or Never. Default: as Kubernetes does by the image's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,

    /// The secrets with which the images are pulled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// The CPU and memory that a worker asks for and may use. Artillery starts as many threads as the CPU limit, or else the
    /// request, allows; one without either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Environment variables. The script reads them as `{{ $env.NAME }}`. `JOB_COMPLETION_INDEX`, `WORKER_ID` and those that begin
    /// with `LOADTEST_` are the operator's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,

    /// `ConfigMap`s and Secrets whose keys become environment variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,

    /// More arguments of `artillery run`, such as `--overrides`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,

    /// The labels that a node must have to get a worker.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Rules by which the workers are scheduled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Taints of nodes that the workers tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// How the workers spread over nodes or zones. Their label `artillery.io/test-name` is the test's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// The `PriorityClass` of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,

    /// The `RuntimeClass` of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,

    /// The scheduler of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,

    /// The service account of the workers. Its token is not given to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,

    /// The pods' security context, as far as Pod Security `restricted` lets it be chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,

    /// The worker container's security context, as far as Pod Security `restricted` lets it be chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,

    /// More labels of the pods. Those that begin with `artillery.io/` are the operator's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// How long a worker that is asked to end may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub termination_grace_period_seconds: Option<i64>,

    /// Names that the workers find in their hosts file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_aliases: Vec<HostAlias>,

    /// How the workers resolve names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<PodDNSConfig>,

    /// Volumes of the pods: configMap, secret, emptyDir, persistentVolumeClaim, or projected of configMap, secret and downwardAPI.
    /// The names data, tmp, loadtest, test-script, claim-files and image-files are taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,

    /// Where the worker container mounts the volumes: anywhere but in /data, /tmp, /opt/loadtest and /sources, which are
    /// taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,

    /// Containers that run beside the worker, start before it and end after it (`initContainers` with `restartPolicy: Always`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<Container>,
}

/// What may be chosen of types that hold more than a worker may have: `restricted` and the namespace are the limit.
///
/// Source: Kubernetes, "Pod Security Standards", and `pkg/apis/core/types.go`.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "volumes",
        &[
            "name",
            "configMap",
            "secret",
            "emptyDir",
            "persistentVolumeClaim",
            "projected",
        ],
    ),
    (
        "volumes.projected.sources",
        &["configMap", "secret", "downwardAPI"],
    ),
    ("resources", RESOURCES),
    (
        "podSecurityContext",
        &[
            "runAsUser",
            "runAsGroup",
            "runAsNonRoot",
            "fsGroup",
            "fsGroupChangePolicy",
            "supplementalGroups",
            "supplementalGroupsPolicy",
            "seccompProfile",
        ],
    ),
    ("securityContext", CONTAINER_SECURITY),
    (
        "sidecars",
        &[
            "name",
            "image",
            "imagePullPolicy",
            "command",
            "args",
            "workingDir",
            "env",
            "envFrom",
            "ports",
            "resources",
            "volumeMounts",
            "startupProbe",
            "securityContext",
        ],
    ),
    ("sidecars.securityContext", CONTAINER_SECURITY),
    ("sidecars.resources", RESOURCES),
    (
        "sidecars.startupProbe.httpGet",
        &["path", "port", "scheme", "httpHeaders"],
    ),
    ("sidecars.startupProbe.tcpSocket", &["port"]),
    ("sidecars.ports", &["name", "containerPort", "protocol"]),
];
const CONTAINER_SECURITY: &[&str] = &[
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "readOnlyRootFilesystem",
    "seccompProfile",
];
/// Without `claims`, as no resource claims of a pod can be asked for.
const RESOURCES: &[&str] = &["requests", "limits"];
/// The security contexts.
const CONTEXTS: [&str; 3] = [
    "podSecurityContext",
    "securityContext",
    "sidecars.securityContext",
];
const SECCOMP_PROFILES: [&str; 2] = ["RuntimeDefault", "Localhost"];

/// The names of the operator's own volumes, and the folders where those are mounted.
const TAKEN_VOLUMES: [&str; 6] = [
    "data",
    "tmp",
    "loadtest",
    "test-script",
    "claim-files",
    "image-files",
];
const TAKEN_FOLDERS: [&str; 4] = ["/data", "/tmp", "/opt/loadtest", "/sources"];

/// What a quantity looks like, as the CRDs of Kubernetes' own tools have it.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// Makes of the schema of [`Worker`] one that allows what a worker may have, and that is small: the fields of Kubernetes'
/// own types are explained in full by `kubectl explain pod.spec`, and the CRD has to fit into an annotation of `kubectl apply`.
pub(super) fn restrict(worker: &mut JSONSchemaProps) {
    for (path, allowed) in ALLOWED {
        if let Some(properties) = at(worker, path).and_then(|schema| schema.properties.as_mut()) {
            properties.retain(|name, _| allowed.contains(&name.as_str()));
        }
    }
    let one_of = |words: &[&str]| {
        Some(
            words
                .iter()
                .map(|word| JSON(serde_json::json!(word)))
                .collect(),
        )
    };
    for policy in ["imagePullPolicy", "sidecars.imagePullPolicy"] {
        if let Some(policy) = at(worker, policy) {
            policy.enum_ = one_of(&["Always", "IfNotPresent", "Never"]);
        }
    }
    for (list, most) in [("volumes", 64), ("volumeMounts", 64), ("env", 512)] {
        if let Some(list) = worker.properties.as_mut().and_then(|p| p.get_mut(list)) {
            // The API server's estimate of what the rules cost needs the bounds.
            list.max_items = Some(most);
        }
    }
    for (text, longest) in [
        ("volumes.name", 63),
        ("volumeMounts.mountPath", 4096),
        ("env.name", 1024),
    ] {
        if let Some(text) = at(worker, text) {
            text.max_length = Some(longest);
        }
    }
    for (list, rule, message) in rules() {
        if let Some(items) = at(worker, list) {
            let rule = ValidationRule {
                rule,
                message: Some(message),
                ..ValidationRule::default()
            };
            items
                .x_kubernetes_validations
                .get_or_insert_default()
                .push(rule);
        }
    }
    for context in CONTEXTS {
        if let Some(user) = at(worker, &format!("{context}.runAsUser")) {
            user.minimum = Some(1.0);
        }
        if let Some(non_root) = at(worker, &format!("{context}.runAsNonRoot")) {
            non_root.enum_ = Some(vec![JSON(serde_json::json!(true))]);
        }
        if let Some(kind) = at(worker, &format!("{context}.seccompProfile.type")) {
            kind.enum_ = one_of(&SECCOMP_PROFILES);
        }
    }
    for field in worker.properties.iter_mut().flat_map(|p| p.values_mut()) {
        let description = field.description.take();
        shorten(field);
        field.description = description;
    }
}

/// CEL for the items of lists, and what is said where it does not hold.
fn rules() -> [(&'static str, String, String); 4] {
    let one_of = |words: &[&str]| format!("['{}']", words.join("', '"));
    let named = |words: &[&str]| words.join(", ");
    [
        (
            "volumes",
            format!("!(self.name in {})", one_of(&TAKEN_VOLUMES)),
            format!(
                "{} are the operator's own volumes: choose another name",
                named(&TAKEN_VOLUMES)
            ),
        ),
        (
            "volumeMounts",
            format!(
                "!{}.exists(taken, self.mountPath == taken || self.mountPath.startsWith(taken + '/'))",
                one_of(&TAKEN_FOLDERS)
            ),
            format!("{} are taken: mount it elsewhere", named(&TAKEN_FOLDERS)),
        ),
        (
            "env",
            format!(
                "!(self.name in {} || self.name.startsWith('{RESERVED_PREFIX}'))",
                one_of(&RESERVED)
            ),
            format!(
                "{} and {RESERVED_PREFIX}... are the operator's variables: choose another name",
                named(&RESERVED)
            ),
        ),
        (
            "env",
            format!("!(self.name in {} && has(self.valueFrom))", one_of(&JOINED)),
            format!(
                "{} are joined with the operator's own, so they need a value, and no valueFrom",
                named(&JOINED)
            ),
        ),
    ]
}

impl Worker {
    /// What a test could not ask for, as the API server refuses or drops it, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let worker = serde_json::to_value(self).unwrap_or_default();
        let unknown = |(path, allowed): &(&str, &[&str])| {
            let mut names = all_at(&worker, path)
                .into_iter()
                .filter_map(Value::as_object)
                .flat_map(|fields| fields.keys());
            names
                .find(|name| !allowed.contains(&name.as_str()))
                .map(|name| format!("{path}.{name} is not allowed"))
        };
        let mut contexts = CONTEXTS.iter().flat_map(|path| {
            let any = |field: &str, is_wrong: &dyn Fn(&Value) -> bool| {
                all_at(&worker, &format!("{path}.{field}"))
                    .into_iter()
                    .any(is_wrong)
            };
            let is_root = any("runAsUser", &|user| {
                user.as_i64().is_some_and(|user| user < 1)
            });
            let may_be_root = any("runAsNonRoot", &|non_root| non_root == false);
            let is_unconfined = any("seccompProfile.type", &|kind| {
                !SECCOMP_PROFILES.iter().any(|profile| kind == profile)
            });
            [
                is_root.then(|| format!("{path}.runAsUser must be 1 or more")),
                may_be_root.then(|| format!("{path}.runAsNonRoot must be true")),
                is_unconfined.then(|| {
                    format!(
                        "{path}.seccompProfile.type must be one of {}",
                        SECCOMP_PROFILES.join(", ")
                    )
                }),
            ]
        });
        let volume = self
            .volumes
            .iter()
            .find(|volume| TAKEN_VOLUMES.contains(&volume.name.as_str()));
        let is_in = |path: &str, taken: &str| {
            path.strip_prefix(taken)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mount = self.volume_mounts.iter().find(|mount| {
            TAKEN_FOLDERS
                .iter()
                .any(|taken| is_in(&mount.mount_path, taken))
        });
        ALLOWED
            .iter()
            .find_map(unknown)
            .or_else(|| contexts.find_map(|fault| fault))
            .or_else(|| {
                volume.map(|volume| {
                    format!(
                        "the volume {} has the name of one of the operator's own",
                        volume.name
                    )
                })
            })
            .or_else(|| {
                mount.map(|mount| {
                    format!(
                        "nothing can be mounted at {}, which is taken",
                        mount.mount_path
                    )
                })
            })
    }
}

/// All values of a field, by its path; those of its items where a field is a list.
fn all_at<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    path.split('.').fold(vec![value], |values, name| {
        let fields = values.into_iter().filter_map(|value| value.get(name));
        fields
            .flat_map(|field| {
                field
                    .as_array()
                    .map_or(vec![field], |items| items.iter().collect())
            })
            .collect()
    })
}

/// The schema of a field, by its path; that of its items where a field is a list.
fn at<'a>(schema: &'a mut JSONSchemaProps, path: &str) -> Option<&'a mut JSONSchemaProps> {
    path.split('.').try_fold(schema, |schema, name| {
        let field = schema.properties.as_mut()?.get_mut(name)?;
        if matches!(field.items, Some(JSONSchemaPropsOrArray::Schema(_))) {
            let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut field.items else {
                return None;
            };
            return Some(&mut **items);
        }
        Some(field)
    })
}

/// Leaves of the descriptions their first sentences, and lets quantities be numbers, as Kubernetes does.
fn shorten(schema: &mut JSONSchemaProps) {
    let description = schema.description.take().unwrap_or_default();
    let first = description
        .split('\n')
        .next()
        .unwrap_or_default()
        .split(". ")
        .next()
        .unwrap_or_default();
    if description.starts_with("Quantity is a fixed-point representation") {
        schema.type_ = None;
        schema.x_kubernetes_int_or_string = Some(true);
        schema.pattern = Some(QUANTITY.into());
    } else if !first.is_empty() {
        schema.description = Some(first.trim_end_matches('.').to_owned());
    }
    schema
        .properties
        .iter_mut()
        .flat_map(|p| p.values_mut())
        .for_each(shorten);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        shorten(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        shorten(values);
    }
}
