//! The Job of a test.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::SignedDuration;
use kube::{Resource, ResourceExt};
use loadtest_api::labels::{
    COMPONENT_LABEL, DEADLINE_ANNOTATION, JOB_COMPONENT, PART_OF, PART_OF_LABEL, TEST_NAME_LABEL,
};
use loadtest_api::v1alpha1::{FailurePolicy, LoadTest};
use loadtest_script::ScriptInfo;

use super::pod::build_pod_template;
use crate::config::WorkerConfig;

/// Builds the Indexed Job that runs a test. Each worker has one pod, which is never retried. The Job has the test's
/// name and is owned by the test, so that it is garbage-collected with the test.
#[must_use]
pub fn build_job(test: &LoadTest, config: &WorkerConfig, script: &ScriptInfo) -> Job {
    let deadline = active_deadline(test, script.expected_duration);
    Job {
        metadata: ObjectMeta {
            name: test.metadata.name.clone(),
            namespace: test.metadata.namespace.clone(),
            labels: Some(
                kueue_labels(test)
                    .chain(labels(test, JOB_COMPONENT))
                    .collect(),
            ),
            annotations: Some([(DEADLINE_ANNOTATION.to_owned(), deadline.to_string())].into()),
            owner_references: test.controller_owner_ref(&()).map(|owner| {
                vec![OwnerReference {
                    // A foreground deletion of the test waits for the Job and its pods.
                    block_owner_deletion: Some(true),
                    ..owner
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            completion_mode: Some("Indexed".into()),
            completions: Some(test.spec.count),
            parallelism: Some(test.spec.count),
            // Both settings disable retries of a worker.
            backoff_limit: (test.spec.failure_policy == FailurePolicy::FailFast).then_some(0),
            backoff_limit_per_index: (test.spec.failure_policy == FailurePolicy::Continue)
                .then_some(0),
            active_deadline_seconds: Some(deadline),
            template: build_pod_template(test, config, script),
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The seconds that a test's Job may run. Each Job has a limit, so that nothing runs forever where the operator is gone: if the
/// test sets none, it is far above what the script's phases can explain.
#[must_use]
pub(crate) fn active_deadline(test: &LoadTest, expected: Option<SignedDuration>) -> i64 {
    const HOUR: i64 = 3600;
    let default = || {
        // Whole hours, because the recorded duration is rounded.
        let hours = expected.map_or(7 * 24, |expected| expected.as_secs().max(0) / HOUR + 1 + 24);
        let start = test
            .spec
            .start_deadline_seconds
            .clamp(0, i64::from(i32::MAX));
        hours.saturating_mul(HOUR).saturating_add(start)
    };
    test.spec.active_deadline_seconds.unwrap_or_else(default)
}

/// Returns the labels of Kueue, which are copied to the Job (Kueue, `pkg/controller/constants`).
fn kueue_labels(test: &LoadTest) -> impl Iterator<Item = (String, String)> {
    let labels = test.metadata.labels.clone().unwrap_or_default();
    labels
        .into_iter()
        .filter(|(name, _)| name.starts_with("kueue.x-k8s.io/"))
}

pub(super) fn labels(test: &LoadTest, component: &str) -> BTreeMap<String, String> {
    [
        (TEST_NAME_LABEL, test.name_any()),
        (COMPONENT_LABEL, component.into()),
        (PART_OF_LABEL, PART_OF.into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn test(spec: &serde_json::Value) -> LoadTest {
        serde_json::from_value(json!({
            "apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
            "metadata": {"name": "basic-test", "namespace": "default", "uid": "u-1"}, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn job_is_indexed_and_never_retried() {
        let test = test(
            &json!({"count": 3, "environment": "dev", "testScript": {"config": {"configMap": "script"}}}),
        );
        let job = serde_json::to_value(build_job(
            &test,
            &WorkerConfig::default(),
            &ScriptInfo::default(),
        ))
        .unwrap();
        let spec = &job["spec"];
        assert_eq!(
            json!([
                spec["completionMode"],
                spec["completions"],
                spec["parallelism"],
                spec["backoffLimit"]
            ]),
            json!(["Indexed", 3, 3, 0])
        );
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(job["metadata"]["ownerReferences"][0]["controller"], true);
        assert_eq!(
            job["metadata"]["ownerReferences"][0]["blockOwnerDeletion"],
            true
        );
        assert_eq!(
            job["metadata"]["labels"],
            json!({"artillery.io/test-name": "basic-test",
            "artillery.io/component": "loadtest-worker-master", "artillery.io/part-of": "loadtest"})
        );
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Never");
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(
            pod["containers"][0]["args"],
            json!(["run", "/data/test-script.yaml", "--environment", "dev"])
        );
        assert_eq!(
            pod["volumes"][0]["projected"]["sources"],
            json!([{"configMap": {"name": "script"}}])
        );
    }

    #[test]
    fn failure_policy_continue_does_not_retry_workers() {
        let test = test(
            &json!({"failurePolicy": "Continue", "activeDeadlineSeconds": 60, "testScript": {"config": {"configMap": "s"}}}),
        );
        let spec = build_job(&test, &WorkerConfig::default(), &ScriptInfo::default())
            .spec
            .unwrap();
        assert_eq!(
            (
                spec.backoff_limit,
                spec.backoff_limit_per_index,
                spec.active_deadline_seconds
            ),
            (None, Some(0), Some(60))
        );
    }

    #[test]
    fn job_copies_only_kueue_labels() {
        let mut test = test(&json!({"testScript": {"config": {"configMap": "s"}}}));
        test.metadata.labels = Some(
            [
                ("kueue.x-k8s.io/queue-name", "q"),
                ("artillery.io/component", "x"),
            ]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
        );
        let labels = build_job(&test, &WorkerConfig::default(), &ScriptInfo::default())
            .metadata
            .labels
            .unwrap();
        assert_eq!(
            labels.get("kueue.x-k8s.io/queue-name").map(String::as_str),
            Some("q")
        );
        assert_eq!(
            labels.get("artillery.io/component").map(String::as_str),
            Some(JOB_COMPONENT)
        );
    }

    /// The arguments of the worker's container.
    fn args(job: Job) -> Vec<String> {
        let pod = job.spec.unwrap().template.spec.unwrap();
        pod.containers[0].args.clone().unwrap()
    }

    #[test]
    fn environment_argument_is_omitted_without_an_environment() {
        let job = build_job(
            &test(&json!({"testScript": {"config": {"configMap": "s"}}})),
            &WorkerConfig::default(),
            &ScriptInfo::default(),
        );
        let args = args(job);
        assert_eq!(args, ["run", "/data/test-script.yaml"]);
    }

    #[test]
    fn dollar_signs_in_arguments_are_escaped() {
        let test = test(
            &json!({"environment": "$(A)", "target": "http://$$(HOME)/a$b", "variables": {"p": "pa$$word"},
            "testScript": {"config": {"configMap": "s", "key": "$a.yaml"}}}),
        );
        let job = build_job(&test, &WorkerConfig::default(), &ScriptInfo::default());
        let args = args(job);
        // Kubernetes replaces `$$` with `$` and does not expand it as a variable.
        assert!(!args.join(" ").replace("$$", "").contains('$'), "{args:?}");
        let expanded: Vec<_> = args.iter().map(|arg| arg.replace("$$", "$")).collect();
        assert_eq!(
            expanded[1..],
            [
                "/data/$a.yaml",
                "--environment",
                "$(A)",
                "--target",
                "http://$$(HOME)/a$b",
                "--variables",
                r#"{"p":"pa$$word"}"#
            ]
        );
    }

    #[test]
    fn image_files_are_linked_next_to_the_script() {
        let test = test(
            &json!({"testScript": {"config": {"configMap": "s"}, "external": {
            "image": {"reference": "example/files:v1", "pullPolicy": "Always"}}}}),
        );
        let job = serde_json::to_value(build_job(
            &test,
            &WorkerConfig::default(),
            &ScriptInfo::default(),
        ))
        .unwrap();
        let pod = &job["spec"]["template"]["spec"];
        let volume = pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["name"] == "image-files")
            .unwrap();
        assert_eq!(
            volume["image"],
            json!({"reference": "example/files:v1", "pullPolicy": "Always"})
        );
        let container = &pod["containers"][0];
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = |name: &str| mounts.iter().find(|m| m["name"] == name).unwrap();
        assert_eq!(
            mount("image-files"),
            &json!({"name": "image-files", "mountPath": "/sources/image", "readOnly": true})
        );
        assert_eq!(
            (
                &mount("test-script")["mountPath"],
                &mount("data")["mountPath"]
            ),
            (&json!("/sources/config-maps"), &json!("/data"))
        );
        let environment = container["env"].as_array().unwrap();
        let variable = |name: &str| {
            environment.iter().find(|v| v["name"] == name).unwrap()["value"]
                .as_str()
                .unwrap()
        };
        assert_eq!(
            variable("LOADTEST_FILES"),
            "/sources/config-maps:/sources/image"
        );
        assert!(variable("NODE_OPTIONS").starts_with("--require=/opt/loadtest/files.cjs "));
    }
}
