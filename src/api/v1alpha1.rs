//! `loadtest.artillery.io/v1alpha1`: the [`LoadTest`] resource.
//!
//! The CRD in `config/crd` is printed from these types, so the doc comments of the fields are what
//! `kubectl explain` shows.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

mod script;
mod worker;

pub use script::{ClaimFiles, Config, ConfigMapFiles, ConfigMaps, External, ImageFiles, Processor, TEST_SCRIPT_KEY, TestScript};
pub use worker::Worker;

/// An enum whose variants are words in the API.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word, as in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// The one that a word names.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}

/// CEL. The fields are named one by one: those that may be changed later are left out. Optional field selection (`.?`) would
/// be shorter, but the API server's estimate of its cost is without bound.
const FIXED_ONCE_STARTED: &str = "!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase in ['Pending', 'Suspended'] \
    || (self.spec.count == oldSelf.spec.count && self.spec.testScript == oldSelf.spec.testScript \
    && self.spec.failurePolicy == oldSelf.spec.failurePolicy && self.spec.load == oldSelf.spec.load \
    && has(self.spec.environment) == has(oldSelf.spec.environment) && (!has(self.spec.environment) || self.spec.environment == oldSelf.spec.environment) \
    && has(self.spec.target) == has(oldSelf.spec.target) && (!has(self.spec.target) || self.spec.target == oldSelf.spec.target) \
    && has(self.spec.variables) == has(oldSelf.spec.variables) && (!has(self.spec.variables) || self.spec.variables == oldSelf.spec.variables) \
    && has(self.spec.worker) == has(oldSelf.spec.worker) && (!has(self.spec.worker) || self.spec.worker == oldSelf.spec.worker))";

/// CEL.
const NOT_HELD_ONCE_STARTED: &str = "!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase in ['Pending', 'Suspended'] \
    || !has(self.spec.suspend) || !self.spec.suspend || (has(oldSelf.spec.suspend) && oldSelf.spec.suspend)";

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
    validation = Rule::new(FIXED_ONCE_STARTED)
        .message("the test has started: of its spec, only stop, the two deadlines and ttlSecondsAfterFinished can still be changed; for anything else create a new LoadTest"),
    validation = Rule::new(NOT_HELD_ONCE_STARTED)
        .message("the test has started, so it can no longer be suspended, as its workers would send their load a second time: to end it, set spec.stop to true"),
    validation = Rule::new("!has(oldSelf.spec.stop) || !oldSelf.spec.stop || (has(self.spec.stop) && self.spec.stop)")
        .message("a test that was stopped does not go on: create a new LoadTest"),
)]
#[serde(rename_all = "camelCase")]
pub struct LoadTestSpec {
    /// The number of workers. Each runs the whole test script in a pod of its own, so the load is `count` times
    /// what the script says, unless `load` is `Divide`.
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

    /// Variables of the script, as with `artillery run --variables`: the script has them as `{{ name }}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub variables: BTreeMap<String, IntOrString>,

    /// The URL to test, in place of the script's `config.target`, as with `artillery run --target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub target: Option<String>,

    /// Whose load the script describes. With `Multiply` that of one worker: the load is `count` times what the script says.
    /// With `Divide` that of the whole test: the arrivals of its phases and the rows of its payloads are shared out over the
    /// workers.
    #[serde(default)]
    pub load: Load,

    /// Whether the script is checked before workers start: that it is YAML, has scenarios, and has no keys that Artillery
    /// would ignore. A script that is not is told with line and column, and nothing starts.
    #[serde(default = "default_validate")]
    pub validate: bool,

    /// What the workers' pods are to be like. Defaults for all tests are the operator's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Worker>,

    /// What becomes of the other workers when one fails. `FailFast` stops them, and the test fails at once. With `Continue`
    /// they go on, and the test fails when all have ended.
    #[serde(default)]
    pub failure_policy: FailurePolicy,

    /// How many seconds the test may wait: for what it lacks, such as its script, and then for all its workers to run.
    /// When they are over the test fails, and says what it waited for. Not counted while it is suspended.
    #[serde(default = "default_start_deadline")]
    #[schemars(range(min = 1))]
    pub start_deadline_seconds: i64,

    /// How many seconds the test may run, from the start of its Job. Then its workers are stopped, and it fails.
    /// No limit unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,

    /// How many seconds after its end the test is deleted, with its Job and its pods. Never, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// Holds the test before it starts: no Job is created while this is true. A test that has started cannot be held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Ends the test: its workers are asked to end, and it is Stopped once they have. It cannot be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<bool>,
}

fn default_count() -> i32 {
    1
}

fn default_start_deadline() -> i64 {
    600
}

fn default_validate() -> bool {
    true
}

/// Whose load a script describes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Load {
    /// That of each worker.
    #[default]
    Multiply,
    /// That of the whole test.
    Divide,
}

/// What becomes of the other workers when one fails.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// They are stopped.
    #[default]
    FailFast,
    /// They go on.
    Continue,
}

words! {
/// Where a test stands, in one word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It cannot start yet; the condition Progressing says why.
    Pending,
    /// It is held, by its own spec or by a queueing system that has suspended its Job.
    Suspended,
    /// Its Job is being created, or not all of its workers have started.
    Starting,
    /// All its workers have started.
    Running,
    /// Its workers are being ended, because it was stopped or could not start in time.
    Stopping,
    /// All its workers succeeded.
    Completed,
    /// It ended, and not all of its workers succeeded.
    Failed,
    /// It was ended by `spec.stop`.
    Stopped,
}
}

impl Phase {
    /// Whether a test in this phase has ended, for good.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Stopped)
    }

    /// Whether a test in this phase has or had a Job, or is about to.
    #[must_use]
    pub fn has_started(self) -> bool {
        !matches!(self, Self::Pending | Self::Suspended)
    }
}

/// A worker that failed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailedWorker {
    /// The worker's number, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i32>,

    /// Its pod.
    pub pod: String,

    /// Why it failed, in one word: as its container or its pod has it, such as `Error`, `OOMKilled` or `Evicted`.
    pub reason: String,

    /// The exit code of its container, if that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// The last line that it wrote, or what was said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
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

    /// `Progressing`, `Completed` and `Failed`, in this order, and `Stopped` of a test that was. Exactly one of the last
    /// three becomes True, once.
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

    /// The number of workers that were stopped before they had ended, because another failed or the test was ended.
    #[serde(default)]
    pub aborted: i32,

    /// The workers that failed, ten at most; `failed` counts all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failed_workers: Vec<FailedWorker>,

    /// How long the phases of the test script take. A worker that still runs long after that is told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_duration: Option<String>,

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
    for schema in schemas {
        unwrap_lines(schema);
        let spec = schema.properties.as_mut().and_then(|fields| fields.get_mut("spec"));
        if let Some(worker) = spec.and_then(|spec| spec.properties.as_mut()).and_then(|fields| fields.get_mut("worker")) {
            worker::restrict(worker);
        }
    }
    crd
}

/// The schema of a list of conditions, keyed by their type as Kubernetes' own are.
fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = <Vec<Condition>>::json_schema(generator);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["type"]));
    schema
}

words! {
/// A condition of a [`LoadTest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The test is on its way to an end.
    Progressing,
    /// All workers succeeded.
    Completed,
    /// The test ended, and not all workers succeeded.
    Failed,
    /// The test was ended by `spec.stop`. Shown only then.
    Stopped,
}
}

words! {
/// Why something is as it is: the reasons of all conditions and all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A `ConfigMap` of the script, or the script's key, is not there.
    MissingTestScript,
    /// The script cannot be run as it is.
    InvalidTestScript,
    /// Something else in the namespace has the name that the test's Job needs.
    NameConflict,
    /// The API server refused the Job.
    JobRefused,
    /// The test, or its Job, is held.
    Suspended,
    /// The Job is being created, or not all workers have started.
    Starting,
    /// The Job exists (event).
    Created,
    /// No node has room for a worker, or fits it.
    Unschedulable,
    /// The workers' image cannot be had.
    ImageNotPullable,
    /// A worker's container cannot be created or started.
    ContainerNotStarting,
    /// Something that a worker's pod is to mount cannot be had.
    VolumeNotMounted,
    /// The API server refuses the pods, by a quota or by Pod Security.
    PodsRefused,
    /// All workers have started (condition), or one has (event).
    Running,
    /// Workers run longer than the script's phases can explain.
    Overdue,
    /// All workers succeeded.
    Completed,
    /// The test has not ended yet.
    NotEnded,
    /// The workers are being ended because the test was stopped.
    Stopping,
    /// The test was ended by `spec.stop`.
    Stopped,
    /// A worker failed.
    WorkerFailed,
    /// A worker used more memory than it may.
    OutOfMemory,
    /// A worker was evicted from its node.
    WorkerEvicted,
    /// A worker had to make room for a pod of a higher priority.
    WorkerPreempted,
    /// A worker's pod was deleted.
    WorkerDeleted,
    /// A worker's node was lost, or does not say that the worker has ended.
    NodeLost,
    /// Not all workers ran in time, for a reason not known.
    StartDeadlineExceeded,
    /// The Job ran longer than it may.
    DeadlineExceeded,
    /// The Job was suspended after its workers had started.
    JobSuspended,
    /// The Job was deleted before it ended.
    JobDeleted,
    /// The Job failed for another reason, which the message gives.
    JobFailed,
    /// The test failed (event).
    Failed,
}
}
