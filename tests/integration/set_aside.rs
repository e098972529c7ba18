//! A test that ends the operator's process is set aside, and everything else goes on.

use http::Method;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::holding_proxy::HoldingProxy;
use crate::support::{TestEnv, condition, condition_reason, control_plane, load_test};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_in_flight_at_two_crashes_is_set_aside_until_its_spec_changes() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    env.create_script("held-script").await;
    let proxy = HoldingProxy::start(env.client.clone(), |method, path| {
        method == Method::GET && path.ends_with("/configmaps/held-script")
    })
    .await;
    let directory = std::env::temp_dir().join(&env.namespace);
    std::fs::create_dir(&directory).unwrap();
    let state_dir = format!("--state-dir={}", directory.display());
    let mut culprit = load_test("culprit", 1);
    culprit["spec"]["testScript"]["config"]["configMap"] = json!("held-script");

    env.start_operator_by(&proxy.kubeconfig(), &[&state_dir])
        .await;
    env.create::<LoadTest>(culprit).await;
    proxy.until_held_times(1).await;
    env.operator(0).kill().await;

    // The suspect is reconciled again, and does not delay others.
    env.start_operator_by(&proxy.kubeconfig(), &[&state_dir])
        .await;
    proxy.until_held_times(2).await;
    env.load_test("other", 1).await;
    env.until_exists::<Job>("other").await;
    env.operator(1).kill().await;

    env.start_operator_by(&proxy.kubeconfig(), &[&state_dir])
        .await;
    let aside = env
        .until_test("culprit", "it is set aside", |t| {
            condition_reason(t) == "SetAside"
        })
        .await;
    let (status, _, message) = condition(&aside, "Progressing");
    assert_eq!(status, "False");
    assert!(message.contains("ended unexpectedly 2 times"), "{message}");
    assert_eq!(env.event_reasons("culprit").await, ["SetAside"]);
    env.set_exited(&env.pods("other", 1).await[0], 0, "").await;
    env.until_phase("other", "Completed").await;
    assert_eq!(env.operator(2).terminate().await, 0);

    // The status records it, so that it outlives the directory.
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::create_dir(&directory).unwrap();
    env.start_operator_by(&proxy.kubeconfig(), &[&state_dir])
        .await;
    env.load_test("later", 1).await;
    env.until_exists::<Job>("later").await;
    assert_eq!(proxy.held(), 2, "the script is not read again");

    let stop = Patch::Merge(json!({"spec": {"stop": true}}));
    env.api::<LoadTest>()
        .patch("culprit", &PatchParams::default(), &stop)
        .await
        .unwrap();
    env.until_phase("culprit", "Stopped").await;
    assert_eq!(env.event_reasons("culprit").await, ["SetAside", "Stopped"]);
    std::fs::remove_dir_all(&directory).unwrap();
    proxy.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_operator_suspects_no_test() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    let directory = std::env::temp_dir().join(&env.namespace);
    std::fs::create_dir(&directory).unwrap();
    let state_dir = format!("--state-dir={}", directory.display());
    env.start_operator(&[&state_dir]).await;
    env.load_test("ordinary", 1).await;
    env.until_exists::<Job>("ordinary").await;
    assert_eq!(env.operator(0).terminate().await, 0);
    let left = std::fs::read_to_string(directory.join("reconciles")).unwrap();
    assert_eq!(left.trim(), "");
    std::fs::remove_dir_all(&directory).unwrap();
}
