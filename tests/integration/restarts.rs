//! Crashes and restarts of the operator between any two steps.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{Bed, condition, control_plane};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_repeat_no_job_and_no_event() {
    let mut bed = Bed::with_operator(control_plane()).await;
    bed.load_test("crash", 2).await;
    let pods = bed.pods("crash", 2).await;
    let job: Job = bed.until_exists("crash").await;
    for (step, pod) in pods.iter().enumerate() {
        bed.operator(step).kill();
        bed.set_running(pod).await;
        bed.start_operator(&[]).await;
        bed.until("the running worker has an event", async || {
            (bed.event_reasons("crash")
                .await
                .iter()
                .filter(|r| *r == "Running")
                .count()
                == step + 1)
                .then_some(())
        })
        .await;
    }
    bed.until_phase("crash", "Running").await;
    bed.operator(2).kill();
    bed.set_exited(&pods[0], 0, "").await;
    bed.set_exited(&pods[1], 0, "").await;
    bed.start_operator(&[]).await;
    bed.until_phase("crash", "Completed").await;
    assert_eq!(
        bed.event_reasons("crash").await,
        ["Created", "Running", "Running", "Completed"]
    );
    assert_eq!(bed.until_exists::<Job>("crash").await.uid(), job.uid());
}

/// Writes the status that the operator records before it creates the Job.
async fn record_start(bed: &Bed, name: &str) {
    let status = json!({"status": {"phase": "Starting", "active": 0, "succeeded": 0, "failed": 0}});
    bed.api::<LoadTest>()
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_is_created_after_a_crash_that_prevented_it() {
    let mut bed = Bed::new(control_plane()).await;
    bed.create_script("test-script").await;
    bed.load_test("before", 1).await;
    record_start(&bed, "before").await;
    bed.start_operator(&[]).await;
    bed.set_exited(&bed.pods("before", 1).await[0], 0, "").await;
    bed.until_phase("before", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_created_and_deleted_during_downtime_is_not_recreated() {
    let mut bed = Bed::new(control_plane()).await;
    bed.create_script("test-script").await;
    let test = bed.load_test("downtime", 1).await;
    record_start(&bed, "downtime").await;
    let job = artillery_operator::build::build_job(
        &test,
        &artillery_operator::config::WorkerConfig::default(),
        &loadtest_script::ScriptInfo::default(),
    );
    bed.create::<Job>(serde_json::to_value(job).unwrap()).await;
    bed.delete::<Job>("downtime").await;
    bed.until("the Job is deleted", async || {
        bed.api::<Job>()
            .get_opt("downtime")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    bed.start_operator(&[]).await;
    let failed = bed.until_phase("downtime", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "JobDeleted");
    assert!(
        bed.api::<Job>()
            .get_opt("downtime")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_during_downtime_is_reported_after_the_restart() {
    let mut bed = Bed::with_operator(control_plane()).await;
    bed.load_test("failed", 1).await;
    let pods = bed.pods("failed", 1).await;
    bed.operator(0).kill();
    bed.set_exited(&pods[0], 1, "Error: ensure failed").await;
    bed.start_operator(&[]).await;
    let failed = bed.until_phase("failed", "Failed").await;
    assert!(
        condition(&failed, "Failed")
            .2
            .contains("Error: ensure failed")
    );
    assert_eq!(
        bed.event_reasons("failed").await,
        ["Created", "Running", "Failed"]
    );
}
