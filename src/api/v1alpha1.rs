//! `loadtest.artillery.io/v1alpha1`: the [`LoadTest`] resource.
//!
//! The CRD in `config/crd` is printed from these types, so the doc comments of the fields are what
//! `kubectl explain` shows.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// The file that a worker runs, a key of the script's `ConfigMap`.
pub const TEST_SCRIPT_KEY: &str = "test-script.yaml";

/// A distributed load test: `count` Artillery workers that run one test script, each in a pod of its own.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "loadtest.artillery.io",
    version = "v1alpha1",
    kind = "LoadTest",
    plural = "loadtests",
    shortname = "lt",
    namespaced,
    status = "LoadTestStatus",
    derive = "PartialEq",
    doc = "A distributed Artillery load test. It runs once: to run it again, delete it and create it again, or create another under a new name.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase", description = "Where the test stands"),
    printcolumn(name = "Completions", type_ = "string", json_path = ".status.completions", description = "Workers that succeeded, of all"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration", description = "How long the test has run, or ran"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment", description = "The script's environment that is used"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = "10", description = "The workers' image"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name becomes the name of pods and the value of labels: use only a-z, 0-9 and '-' (no dots), and start and end with a letter or digit"),
    validation = Rule::new("size(self.metadata.name) + 1 + size(string((has(self.spec.count) ? self.spec.count : 1) - 1)) <= 63")
        .message("metadata.name is too long: with '-' and the number of the last worker it must fit into the 63 characters of a host name"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase == 'Pending' || self.spec == oldSelf.spec")
        .message("the test has started, so its spec can no longer be changed: create a new LoadTest"),
)]
#[serde(rename_all = "camelCase")]
pub struct LoadTestSpec {
    /// The number of workers. Each runs the whole test script in a pod of its own, so the load is `count` times
    /// what the script says.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: i32,

    /// The environment of the test script (an entry of its `config.environments`) that the workers use, as with
    /// `artillery run --environment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub environment: Option<String>,

    /// The test script, and the files that it needs.
    pub test_script: TestScript,
}

fn default_count() -> i32 {
    1
}

/// The test script, and the files that it needs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TestScript {
    /// Where the test script is.
    pub config: Config,

    /// Files beside the test script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// Where the test script is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The name of a `ConfigMap` in the same namespace. Its key `test-script.yaml` is the script that the workers run;
    /// all its keys are files in the workers' folder /data. The test waits for it, and starts by itself when it is there.
    #[x_kube(validation = Rule::new("self != ''").message("testScript.config.configMap must name a ConfigMap"))]
    #[schemars(length(max = 253))]
    pub config_map: String,
}

/// Files beside the test script.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Payload files (CSV). Accepted for manifests of the previous operator; not yet mounted into the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<ConfigMaps>,

    /// Processor files (JavaScript). Accepted for manifests of the previous operator; not yet mounted into the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<Processor>,
}

/// Files in one or more `ConfigMap`s.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMaps {
    /// The names of `ConfigMap`s in the same namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config_maps: Vec<String>,
}

/// The script's processor, and what it loads.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Processor {
    /// The processor itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<Config>,

    /// The files that the processor loads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub related: Option<ConfigMaps>,
}

/// Where a test stands, in one word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It cannot start yet; the condition Progressing says why.
    Pending,
    /// Its Job is being created, or not all of its workers have started.
    Starting,
    /// All its workers have started.
    Running,
    /// All its workers succeeded.
    Completed,
    /// It ended, and not all of its workers succeeded.
    Failed,
}

impl Phase {
    /// Whether a test in this phase has ended, for good.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// The word, as in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        }
    }
}

/// What the operator has seen of a test.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LoadTestStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the test stands, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// `Progressing`, `Completed` and `Failed`, in this order. Exactly one of the last two becomes True, once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,

    /// When the test's Job started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When the test ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// How long the test has run since its start time, such as `55s` or `2m5s`. Renewed every 10 seconds or so while
    /// the test runs, and exact once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,

    /// The number of workers that are pending or running.
    #[serde(default)]
    pub active: i32,

    /// The number of workers that succeeded.
    #[serde(default)]
    pub succeeded: i32,

    /// The number of workers that failed. Workers that were stopped because another failed do not count.
    #[serde(default)]
    pub failed: i32,

    /// The number of workers that succeeded, of all, such as `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions: Option<String>,

    /// The workers' image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// The CRD. Its descriptions are the doc comments here, with each paragraph as one line: `kubectl explain` wraps them.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    fn unwrap_lines(schema: &mut JSONSchemaProps) {
        if let Some(description) = &mut schema.description {
            *description = description.split("\n\n").map(|p| p.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
        }
        schema.properties.iter_mut().flat_map(|p| p.values_mut()).for_each(unwrap_lines);
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
            unwrap_lines(items);
        }
    }
    let mut crd = LoadTest::crd();
    let schemas = crd.spec.versions.iter_mut().filter_map(|v| v.schema.as_mut()?.open_api_v3_schema.as_mut());
    schemas.for_each(unwrap_lines);
    crd
}

/// The schema of a list of conditions, keyed by their type as Kubernetes' own are.
fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = <Vec<Condition>>::json_schema(generator);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["type"]));
    schema
}

/// A condition of a [`LoadTest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The test is on its way to an end.
    Progressing,
    /// All workers succeeded.
    Completed,
    /// The test ended, and not all workers succeeded.
    Failed,
}

impl ConditionType {
    /// All of them, in the order in which a status shows them.
    pub const ALL: [Self; 3] = [Self::Progressing, Self::Completed, Self::Failed];

    /// The name, as in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Progressing => "Progressing",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        }
    }
}

/// Why something is as it is: the reasons of all conditions and all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The `ConfigMap` of the script, or its key, is not there.
    MissingTestScript,
    /// Something else in the namespace has the name that the test's Job needs.
    NameConflict,
    /// The API server refused the Job.
    JobRefused,
    /// The Job is being created, or not all workers have started.
    Starting,
    /// The Job exists (event).
    Created,
    /// All workers have started (condition), or one has (event).
    Running,
    /// All workers succeeded.
    Completed,
    /// The test has not ended yet.
    NotEnded,
    /// A worker failed.
    WorkerFailed,
    /// The Job ran longer than it may.
    DeadlineExceeded,
    /// The Job was deleted before it ended.
    JobDeleted,
    /// The Job failed for another reason, which the message gives.
    JobFailed,
    /// The test failed (event).
    Failed,
}

impl Reason {
    /// The reason, as in conditions and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingTestScript => "MissingTestScript",
            Self::NameConflict => "NameConflict",
            Self::JobRefused => "JobRefused",
            Self::Starting => "Starting",
            Self::Created => "Created",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::NotEnded => "NotEnded",
            Self::WorkerFailed => "WorkerFailed",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::JobDeleted => "JobDeleted",
            Self::JobFailed => "JobFailed",
            Self::Failed => "Failed",
        }
    }
}
