//! Messages that users see before a test starts: field descriptions and problems of the script.

use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{TestEnv, condition, load_test};
use crate::{cluster, create_script, deploy_target, kubectl, script_with_requests};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_explain_describes_the_fields() {
    let _env = TestEnv::new(&cluster()).await;
    // kubectl wraps the lines.
    let explained = |field: &str| {
        kubectl(&["explain", field])
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (field, text) in [
        (
            "loadtest",
            "A distributed Artillery load test. It runs once",
        ),
        (
            "loadtest.spec.load",
            "Multiply: every worker sends the load that the script describes.",
        ),
        ("loadtest.spec.load", "ENUM: Multiply Divide"),
        ("loadtest.spec.variables", "FIELD: variables <map[string]"),
        ("loadtest.spec.worker", "volumes <[]Object>"),
        (
            "loadtest.spec.worker.resources",
            "Artillery starts as many threads as the CPU limit",
        ),
        (
            "loadtest.spec.worker.volumes",
            "projected from configMap, secret and downwardAPI",
        ),
        ("loadtest.status.expectedDuration", "phases"),
    ] {
        let explained = explained(field);
        assert!(explained.contains(text), "{field}: {explained}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_script_is_reported_with_its_position_and_starts_nothing() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let mut files = script_with_requests("/invalid", 1);
    let valid = files["test-script.yaml"].as_str().unwrap().to_owned();
    files["test-script.yaml"] = json!(valid.replace("arrivalCount", "arivalCount"));
    create_script(&env, files).await;
    env.start_operator(&[]).await;
    env.create::<LoadTest>(load_test("invalid", 2)).await;
    let blocked = env.until_phase("invalid", "Pending").await;
    let (status, reason, message) = condition(&blocked, "Progressing");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "InvalidTestScript")
    );
    assert!(
        message.contains("unknown key `arivalCount`; did you mean `arrivalCount`?")
            && message.contains("line 1 column 66"),
        "{message}"
    );
    assert!(
        kubectl(&["describe", "loadtest", "invalid", "-n", &env.namespace]).contains(&message),
        "{message}"
    );
    assert!(env.api::<Job>().get_opt("invalid").await.unwrap().is_none());

    let fixed = Patch::Merge(json!({"data": {"test-script.yaml": valid}}));
    env.api::<k8s_openapi::api::core::v1::ConfigMap>()
        .patch("test-script", &PatchParams::default(), &fixed)
        .await
        .unwrap();
    env.until_phase("invalid", "Completed").await;
}
