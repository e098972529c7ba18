//! Tests that cannot start yet, and the reasons that they report.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{TestEnv, condition, condition_reason, control_plane, http_get};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_script_is_reported_and_the_test_starts_when_it_is_created() {
    let mut env = TestEnv::new(control_plane()).await;
    env.start_operator(&[]).await;
    env.load_test("early", 1).await;
    let waiting = env.until_phase("early", "Pending").await;
    let (status, reason, message) = condition(&waiting, "Progressing");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "MissingTestScript")
    );
    assert!(
        message.starts_with(&format!(
            "ConfigMap {}/test-script not found. Create it",
            env.namespace
        )),
        "{message}"
    );
    let written = env
        .api::<LoadTest>()
        .get("early")
        .await
        .unwrap()
        .resource_version();

    // A ConfigMap without the key is reported, and the test still waits for the script.
    env.create::<ConfigMap>(
        json!({"metadata": {"name": "test-script"}, "data": {"script.yml": "x"}}),
    )
    .await;
    let no_key = env
        .until_test("early", "the missing key is reported", |t| {
            condition(t, "Progressing")
                .2
                .contains("has no key test-script.yaml")
        })
        .await;
    assert!(
        condition(&no_key, "Progressing")
            .2
            .contains("(keys: script.yml)")
    );
    assert_ne!(no_key.resource_version(), written);

    let data =
        json!({"data": {"test-script.yaml": "config: {target: x}\nscenarios: [{flow: []}]"}});
    env.api::<ConfigMap>()
        .patch("test-script", &PatchParams::default(), &Patch::Merge(data))
        .await
        .unwrap();
    env.set_exited(&env.pods("early", 1).await[0], 0, "").await;
    env.until_phase("early", "Completed").await;
    assert_eq!(
        env.event_reasons("early").await,
        [
            "MissingTestScript",
            "MissingTestScript",
            "Created",
            "Running",
            "Completed"
        ],
        "one event for the ConfigMap and one for the key"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_test_causes_no_writes() {
    let mut env = TestEnv::new(control_plane()).await;
    env.start_operator(&[]).await;
    env.load_test("waits", 1).await;
    let waiting = env.until_phase("waits", "Pending").await;
    env.create::<ConfigMap>(json!({"metadata": {"name": "other"}, "data": {}}))
        .await;
    env.create_script("other-script").await;
    let mut other = crate::support::load_test("other", 1);
    other["spec"]["testScript"]["config"]["configMap"] = json!("other-script");
    env.create::<LoadTest>(other).await;
    env.set_exited(&env.pods("other", 1).await[0], 0, "").await;
    env.until_phase("other", "Completed").await;
    let after = env.api::<LoadTest>().get("waits").await.unwrap();
    assert_eq!(after.resource_version(), waiting.resource_version());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_job_of_the_same_name_is_reported_and_left_unchanged() {
    let env = TestEnv::with_operator(control_plane()).await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let foreign: Job =
        env.create(json!({"metadata": {"name": "taken"}, "spec": {"suspend": true, "template": {"spec": pod}}})).await;
    env.load_test("taken", 1).await;
    let blocked = env.until_test("taken", "the conflict is reported", |t| {
        condition_reason(t) == "NameConflict"
    });
    let (status, _, message) = condition(&blocked.await, "Progressing");
    assert_eq!(status, "False");
    assert!(message.contains("kubectl delete job taken"), "{message}");
    let now: Job = env.until_exists("taken").await;
    assert_eq!(
        (now.uid(), now.metadata.generation),
        (foreign.uid(), foreign.metadata.generation)
    );

    env.delete::<Job>("taken").await;
    env.set_exited(&env.pods("taken", 1).await[0], 0, "").await;
    env.until_phase("taken", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_job_is_retried_with_one_request_per_attempt() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.forbid_by_quota("count/jobs.batch").await;
    env.load_test("rejected", 1).await;
    let rejected = env
        .until_test("rejected", "the rejection is reported", |t| {
            condition_reason(t) == "JobRejected"
        })
        .await;
    assert!(
        condition(&rejected, "Progressing")
            .2
            .contains("exceeded quota: none"),
        "{:?}",
        condition(&rejected, "Progressing")
    );
    let port = env.operator(0).metrics;
    let attempts =
        "artillery_operator_api_requests_total{verb=\"create\",resource=\"jobs\",code=\"403\"} ";
    // The number of attempts, and the counters of all other requests that are not periodic.
    let count_requests = async || {
        let text = http_get(port, "/metrics").await.unwrap().1;
        let periodic = ["\"leases\"", "\"watch\"", "\"configmaps\"", "\"openapi\""];
        let is_other =
            |l: &&str| l.contains("api_requests_total{") && !periodic.iter().any(|w| l.contains(w));
        let (rejected, others): (Vec<_>, Vec<_>) = text
            .lines()
            .filter(is_other)
            .partition(|l| l.starts_with(attempts));
        let others: Vec<_> = others.into_iter().map(str::to_owned).collect();
        (
            rejected[0][attempts.len()..].parse::<f64>().unwrap(),
            others,
        )
    };
    let until_attempt = async |attempt: f64| {
        env.until("the creation is retried", async || {
            Some(count_requests().await).filter(|now| now.0 >= attempt)
        })
        .await
    };
    // The first attempt also records the rejection. By the second one these requests are counted.
    let (before, after) = (until_attempt(2.0).await, until_attempt(4.0).await);
    assert_eq!(after.1, before.1, "a retry sends one request");

    env.delete::<ResourceQuota>("none").await;
    env.set_exited(&env.pods("rejected", 1).await[0], 0, "")
        .await;
    env.until_phase("rejected", "Completed").await;
    assert_eq!(
        env.event_reasons("rejected").await,
        ["JobRejected", "Created", "Running", "Completed"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_map_that_kustomize_renamed_is_named() {
    let mut env = TestEnv::new(control_plane()).await;
    env.start_operator(&[]).await;
    let script = json!({"test-script.yaml": "config: {target: x}\nscenarios: [{flow: []}]"});
    let generated = json!({"metadata": {"name": "dev-test-script-6m2kd9b4t7"}, "data": script});
    env.create::<ConfigMap>(generated).await;
    for name in ["first", "second"] {
        env.load_test(name, 1).await;
        env.until_phase(name, "Pending").await;
        let waiting = env
            .until_test(name, "the generated name is reported", |t| {
                condition(t, "Progressing")
                    .2
                    .contains("kustomize generated dev-test-script-6m2kd9b4t7 for this test")
            })
            .await;
        assert_eq!(condition_reason(&waiting), "MissingTestScript");
    }
    env.create_script("test-script").await;
    for name in ["first", "second"] {
        env.pods(name, 1).await;
    }
}
