//! What somebody with ordinary rights in one namespace does to the tests of others.

use artillery_operator::build::{config_map, config_map_name};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{TestEnv, condition, condition_reason, control_plane, load_test};

/// The startup and the readiness probe of a worker that is ready to begin.
const READY: [bool; 2] = [true, false];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_worker_in_another_namespace_has_no_effect() {
    let mut env = TestEnv::new(control_plane()).await;
    let attacker = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    // The operator watches the Jobs and pods of all namespaces, and reconciles the one test.
    let selector = format!("--selector=tenant={}", env.namespace);
    env.start_operator(&["--namespaces=", &selector]).await;
    let mut test = load_test("victim", 2);
    test["metadata"]["labels"] = json!({"tenant": env.namespace});
    env.create::<LoadTest>(test).await;
    let pods = env.pods("victim", 2).await;
    let job: Job = env.until_exists("victim").await;

    let forged = json!({
        "metadata": {
            "name": "victim-0-forged",
            "labels": pods[0].labels(),
            "annotations": {
                "batch.kubernetes.io/job-completion-index": "0",
                "loadtest.artillery.io/start-at": "2026-01-01T00:00:00.000Z",
            },
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "victim", "uid": job.uid(), "controller": true}],
            // The garbage collector finds no owner in this namespace.
            "finalizers": ["example.org/keep"],
        },
        "spec": pods[0].spec,
    });
    let forged: Pod = attacker.create(forged).await;
    attacker.set_running_with_probes(&forged, READY).await;

    let ready_at = Timestamp::now();
    for pod in &pods {
        env.set_running_with_probes(pod, READY).await;
    }
    let running = env.until_phase("victim", "Running").await;
    let at = running.status.unwrap().load_start_time.unwrap().0;
    assert!(at > ready_at, "{at} is not after {ready_at}");
    let recorded = format!("{at:.3}");
    env.until("both workers have the recorded start time", async || {
        let pods = env.pods("victim", 2).await;
        let is_sent =
            |pod: &Pod| pod.annotations().get("loadtest.artillery.io/start-at") == Some(&recorded);
        pods.iter().all(is_sent).then_some(())
    })
    .await;
    env.set_exited(&pods[0], 0, "").await;
    env.set_exited(&pods[1], 0, "").await;
    let completed = env.until_phase("victim", "Completed").await;
    assert_eq!(completed.status.unwrap().completions.unwrap(), "2/2");
    let keep_none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    attacker
        .api::<Pod>()
        .patch("victim-0-forged", &PatchParams::default(), &keep_none)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_worker_files_block_a_test_until_they_are_deleted() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    let name = config_map_name();
    let mut foreign = config_map(&env.namespace);
    let files = foreign.data.as_mut().unwrap();
    files.insert("results.js".into(), "steal(process.env)".into());
    env.create::<ConfigMap>(serde_json::to_value(foreign).unwrap())
        .await;
    env.start_operator(&[]).await;
    env.load_test("blocked", 1).await;
    let blocked = env
        .until_test("blocked", "the foreign files are reported", |t| {
            condition_reason(t) == "NameConflict"
        })
        .await;
    let (status, _, message) = condition(&blocked, "Progressing");
    assert_eq!(status, "False");
    let command = format!("kubectl delete configmap -n {} {name}", env.namespace);
    assert!(message.contains(&command), "{message}");
    assert!(env.api::<Job>().get_opt("blocked").await.unwrap().is_none());

    env.delete::<ConfigMap>(&name).await;
    env.set_exited(&env.pods("blocked", 1).await[0], 0, "")
        .await;
    env.until_phase("blocked", "Completed").await;
    let own: ConfigMap = env.until_exists(&name).await;
    assert_eq!(own.data, config_map(&env.namespace).data);
    assert_eq!(
        env.event_reasons("blocked").await,
        ["NameConflict", "Created", "Running", "Completed"]
    );
}
