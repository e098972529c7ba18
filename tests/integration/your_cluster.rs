//! What the tools of a cluster do to LoadTests and workers: drains, backups, deletions, and limits of sizes. docs/operator/your-cluster.md names these
//! tests.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{Api, EvictParams, Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::support::cluster::client_without_retries;
use crate::support::objects::current_wording;
use crate::support::{TestEnv, condition, control_plane};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_fails_the_test_and_a_disruption_budget_rejects_the_drain() {
    let env = TestEnv::with_operator(control_plane()).await;
    // An integer above every possible number of workers.
    let selector = json!({"matchLabels": {"artillery.io/component": "loadtest-worker"}});
    let budget = json!({"metadata": {"name": "workers"},
        "spec": {"minAvailable": 1_000_000, "selector": selector}});
    env.create::<PodDisruptionBudget>(budget).await;
    env.load_test("drained", 2).await;
    let pods = env.pods("drained", 2).await;
    for pod in &pods {
        env.set_running(pod).await;
    }
    env.until_phase("drained", "Running").await;
    env.until("the budget counts the workers", async || {
        let budgets = env.api::<PodDisruptionBudget>();
        let status = budgets.get("workers").await.unwrap().status?;
        (status.expected_pods == 2).then_some(())
    })
    .await;
    // The client of the environment would retry the rejection.
    let client = client_without_retries(control_plane()).await;
    let api: Api<Pod> = Api::namespaced(client, &env.namespace);
    let evict = async || {
        let params = EvictParams::default();
        api.evict(&pods[1].name_any(), &params).await
    };
    let error = evict().await.unwrap_err().to_string();
    assert!(
        error.contains("would violate the pod's disruption budget"),
        "{error}"
    );

    env.delete::<PodDisruptionBudget>("workers").await;
    env.until("the worker is evicted", async || evict().await.ok())
        .await;
    let failed = env.until_phase("drained", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "WorkerEvicted", "{message}");
    assert!(message.contains(&pods[1].name_any()), "{message}");
}

/// A `LoadTest` as a backup contains it, without what the API server sets.
fn backup(test: &LoadTest) -> Value {
    json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
        "metadata": {"name": test.name_any(), "labels": test.labels()}, "spec": test.spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_test_restored_from_a_backup_runs_again_unless_its_status_is_restored() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test("restored", 1).await;
    env.set_exited(&env.pods("restored", 1).await[0], 0, "")
        .await;
    let done = env.until_phase("restored", "Completed").await;
    let delete = async |env: &TestEnv| {
        env.delete::<LoadTest>("restored").await;
        env.until_none::<Job>("artillery.io/test-name=restored")
            .await;
        env.until("the test is gone", async || {
            let test = env.api::<LoadTest>().get_opt("restored").await.unwrap();
            test.is_none().then_some(())
        })
        .await;
    };
    delete(&env).await;
    env.create::<LoadTest>(backup(&done)).await;
    let again = env.until_phase("restored", "Starting").await;
    assert_ne!(again.uid(), done.uid());
    env.until_exists::<Job>("restored").await;
    delete(&env).await;

    // The operator does not run until the status is restored.
    env.operator(0).kill().await;
    env.create::<LoadTest>(backup(&done)).await;
    let status = json!({"status": done.status});
    env.api::<LoadTest>()
        .patch_status("restored", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    env.start_operator(&[]).await;
    env.load_test("next", 1).await;
    env.set_exited(&env.pods("next", 1).await[0], 0, "").await;
    env.until_phase("next", "Completed").await;
    let restored = env.api::<LoadTest>().get("restored").await.unwrap();
    assert_eq!(
        restored.status.unwrap().verdict,
        done.status.unwrap().verdict
    );
    assert!(
        env.api::<Job>()
            .get_opt("restored")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_ttl_deletes_the_job_and_its_pods_and_keeps_the_load_test() {
    let env = TestEnv::with_operator(control_plane()).await;
    let ttl = json!({"jobTtlSecondsAfterFinished": 0});
    env.load_test_with("kept", 1, ttl).await;
    env.set_exited(&env.pods("kept", 1).await[0], 0, "").await;
    let done = env.until_phase("kept", "Completed").await;
    env.until_none::<Job>("artillery.io/test-name=kept").await;
    env.until_none::<Pod>("artillery.io/test-name=kept").await;
    let kept = env.api::<LoadTest>().get("kept").await.unwrap();
    assert_eq!(kept.uid(), done.uid());
    assert_eq!(kept.status.unwrap().verdict, done.status.unwrap().verdict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_of_up_to_1_mib_start_but_kubectl_apply_stores_only_256_kib() {
    let env = TestEnv::with_operator(control_plane()).await;
    let script = |name: &str, kib: usize| {
        let text = "config: {target: 'http://target'}\nscenarios: [{flow: [{get: {url: /}}]}]\n";
        let padding = format!("# {}\n", "x".repeat(61)).repeat(kib * 16);
        json!({"metadata": {"name": name}, "data": {"test-script.yaml": format!("{text}{padding}")}})
    };
    for kib in [300, 1000] {
        let name = format!("script-{kib}");
        env.create::<ConfigMap>(script(&name, kib)).await;
        let fields = json!({"testScript": {"config": {"configMap": name}}});
        env.load_test_with(&name, 1, fields).await;
        env.until_exists::<Job>(&name).await;
    }
    let error = env.try_create::<ConfigMap>(script("large", 1024)).await;
    let error = current_wording(&error.unwrap_err().to_string());
    assert!(
        error.contains("may not be more than 1048576 bytes"),
        "{error}"
    );

    // kubectl apply, unless it is server-side, stores the whole object in this annotation.
    let mut applied = script("applied", 300);
    let annotation = applied.to_string();
    applied["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": annotation});
    let error = env.try_create::<ConfigMap>(applied).await;
    let error = current_wording(&error.unwrap_err().to_string());
    assert!(
        error.contains("may not be more than 262144 bytes"),
        "{error}"
    );
}
