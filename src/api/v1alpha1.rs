//! `loadtest.artillery.io/v1alpha1`: the [`LoadTest`] resource.
//!
//! The CRD in `config/crd` is printed from these types, so the doc comments of the fields are what
//! `kubectl explain` shows.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod script;
mod status;
mod words;
mod worker;

pub use script::{
    ClaimFiles, Config, ConfigMapFiles, ConfigMaps, External, ImageFiles, Processor,
    TEST_SCRIPT_KEY, TestScript,
};
pub use status::{FailedWorker, LoadTestStatus, Threshold};
pub use words::{ConditionType, Phase, Reason, Verdict};
pub use worker::Worker;

/// CEL. The fields are named one by one: those that may be changed later are left out. Optional field selection (`.?`) would
/// be shorter, but the API server's estimate of its cost is without bound.
const FIXED_ONCE_STARTED: &str = "!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase in ['Pending', 'Suspended'] \
    || (self.spec.count == oldSelf.spec.count && self.spec.testScript == oldSelf.spec.testScript \
    && self.spec.failurePolicy == oldSelf.spec.failurePolicy && self.spec.load == oldSelf.spec.load \
    && has(self.spec.start) == has(oldSelf.spec.start) && (!has(self.spec.start) || self.spec.start == oldSelf.spec.start) \
    && has(self.spec.thresholds) == has(oldSelf.spec.thresholds) && (!has(self.spec.thresholds) || self.spec.thresholds == oldSelf.spec.thresholds) \
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
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict", description = "Whether the test has passed"),
    printcolumn(name = "P95", type_ = "string", json_path = ".status.results.p95", description = "95 % of the responses came within this time"),
    printcolumn(name = "Errors", type_ = "integer", json_path = ".status.results.errors", description = "Errors of all workers"),
    printcolumn(name = "RPS", type_ = "number", json_path = ".status.results.requestRate", priority = "10", description = "Requests a second of all workers"),
    printcolumn(name = "P99", type_ = "string", json_path = ".status.results.p99", priority = "10", description = "99 % of the responses came within this time"),
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

    /// Variables of the script, as with `artillery run --variables`: the script has them as `{{ name }}`. Texts and whole numbers;
    /// others can be written as texts, such as '0.5' and 'true'.
    // Any value can be read: one that could not would leave the test alone for ever. The schema is the widest that still lets
    // the rules above compare them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, IntOrString>", extend("maxProperties" = 256))]
    pub variables: BTreeMap<String, serde_json::Value>,

    /// The URL to test, in place of the script's `config.target`, as with `artillery run --target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub target: Option<String>,

    /// Whose load the script describes. With `Multiply` that of one worker: the load is `count` times what the script says.
    /// With `Divide` that of the whole test: the arrivals of its phases and the rows of its payloads are shared out over the
    /// workers.
    #[serde(default)]
    pub load: Load,

    /// When the workers begin their load. With `Together` each says when it is ready, and once all are, all begin at one
    /// instant. With `Immediate` each begins when it can. Default: `Together` where there is more than one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,

    /// What has to hold for the test to pass, besides what the script's `ensure` asks for: expressions as in the
    /// `conditions` of Artillery's `ensure`, such as `http.response_time.p95 < 200`. They are judged once, over the results of all
    /// workers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1000)))]
    pub thresholds: Vec<String>,

    /// Whether the script is checked before workers start: that it is YAML, has scenarios, and has no keys that Artillery
    /// would ignore. A script that is not is told with line and column, and nothing starts.
    #[serde(default = "default_validate")]
    pub validate: bool,

    /// What the workers' pods are to be like. Defaults for all tests are the operator's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Box<Worker>>,

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

/// When the workers begin their load.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// All at one instant.
    Together,
    /// Each when it can.
    Immediate,
}

impl LoadTestSpec {
    /// Whether the workers wait for each other before they begin.
    #[must_use]
    pub fn starts_together(&self) -> bool {
        self.start
            .map_or(self.count > 1, |start| start == Start::Together)
    }
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

/// The CRD. Its descriptions are the doc comments here, with each paragraph as one line: `kubectl explain` wraps them.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    fn unwrap_lines(schema: &mut JSONSchemaProps) {
        if let Some(description) = &mut schema.description {
            *description = description
                .split("\n\n")
                .map(|p| p.replace('\n', " "))
                .collect::<Vec<_>>()
                .join("\n\n");
        }
        schema
            .properties
            .iter_mut()
            .flat_map(|p| p.values_mut())
            .for_each(unwrap_lines);
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
            unwrap_lines(items);
        }
    }
    let mut crd = LoadTest::crd();
    let schemas = crd
        .spec
        .versions
        .iter_mut()
        .filter_map(|v| v.schema.as_mut()?.open_api_v3_schema.as_mut());
    for schema in schemas {
        unwrap_lines(schema);
        let spec = schema
            .properties
            .as_mut()
            .and_then(|fields| fields.get_mut("spec"));
        let Some(fields) = spec.and_then(|spec| spec.properties.as_mut()) else {
            continue;
        };
        let values = fields
            .get_mut("variables")
            .and_then(|variables| variables.additional_properties.as_mut());
        if let Some(JSONSchemaPropsOrBool::Schema(value)) = values {
            value.description = Some("A text or a whole number".into());
        }
        if let Some(worker) = fields.get_mut("worker") {
            worker::restrict(worker);
        }
    }
    crd
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;

    /// The paths of the fields without a description.
    fn unexplained(schema: &Value, path: &str, all: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["description"].as_str().is_none_or(str::is_empty) {
                all.push(path.clone());
            }
            unexplained(field, &path, all);
        }
        for below in ["items", "additionalProperties"] {
            if schema[below].is_object() {
                unexplained(&schema[below], path, all);
            }
        }
    }

    #[test]
    fn every_field_is_explained() {
        let schema = serde_json::to_value(crd()).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        let mut all = Vec::new();
        for part in ["spec", "status"] {
            assert!(schema["properties"][part].is_object());
            unexplained(&schema["properties"][part], part, &mut all);
        }
        assert_eq!(all, Vec::<String>::new());
    }

    #[test]
    fn the_crd_fits_into_the_annotation_of_kubectl_apply() {
        // 256 KiB are allowed for all annotations of an object.
        let size = serde_json::to_string(&crd()).unwrap().len();
        assert!(size < 150 * 1024, "{size}");
    }
}
