//! Crashes and restarts of the operator between any two steps.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{TestEnv, condition, control_plane};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_repeat_no_job_and_no_event() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test("crash", 2).await;
    let pods = env.pods("crash", 2).await;
    let job: Job = env.until_exists("crash").await;
    for (step, pod) in pods.iter().enumerate() {
        env.operator(step).kill().await;
        env.set_running(pod).await;
        env.start_operator(&[]).await;
        env.until("the running worker has an event", async || {
            (env.event_reasons("crash")
                .await
                .iter()
                .filter(|r| *r == "Running")
                .count()
                == step + 1)
                .then_some(())
        })
        .await;
    }
    env.until_phase("crash", "Running").await;
    env.operator(2).kill().await;
    env.set_exited(&pods[0], 0, "").await;
    env.set_exited(&pods[1], 0, "").await;
    env.start_operator(&[]).await;
    env.until_phase("crash", "Completed").await;
    assert_eq!(
        env.event_reasons("crash").await,
        ["Created", "Running", "Running", "Completed"]
    );
    assert_eq!(env.until_exists::<Job>("crash").await.uid(), job.uid());
}

/// Writes the status that the operator records before it creates the Job.
async fn record_start(env: &TestEnv, name: &str) {
    let status = json!({"status": {"phase": "Starting", "active": 0, "succeeded": 0, "failed": 0}});
    env.api::<LoadTest>()
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_is_created_after_a_crash_that_prevented_it() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    env.load_test("before", 1).await;
    record_start(&env, "before").await;
    env.start_operator(&[]).await;
    env.set_exited(&env.pods("before", 1).await[0], 0, "").await;
    env.until_phase("before", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_created_and_deleted_during_downtime_is_not_recreated() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    let test = env.load_test("downtime", 1).await;
    record_start(&env, "downtime").await;
    let job = artillery_operator::build::build_job(
        &test,
        &artillery_operator::config::WorkerConfig::default(),
        &loadtest_script::ScriptInfo::default(),
    );
    env.create::<Job>(serde_json::to_value(job).unwrap()).await;
    env.delete::<Job>("downtime").await;
    env.until_deleted::<Job>("downtime").await;
    env.start_operator(&[]).await;
    let failed = env.until_phase("downtime", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "JobDeleted");
    assert!(
        env.api::<Job>()
            .get_opt("downtime")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_during_downtime_is_reported_after_the_restart() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test("failed", 1).await;
    let pods = env.pods("failed", 1).await;
    env.operator(0).kill().await;
    env.set_exited(&pods[0], 1, "Error: ensure failed").await;
    env.start_operator(&[]).await;
    let failed = env.until_phase("failed", "Failed").await;
    assert!(
        condition(&failed, "Failed")
            .2
            .contains("Error: ensure failed")
    );
    assert_eq!(
        env.event_reasons("failed").await,
        ["Created", "Running", "Failed"]
    );
}
