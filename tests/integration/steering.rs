//! What users can steer: stop, suspend, deadlines, the time after the end, and what becomes of the other workers.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::support::{Bed, condition, condition_reason, control_plane};

async fn change(bed: &Bed, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    bed.api::<LoadTest>()
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_test_ends_its_workers_and_keeps_what_they_did() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test("stop", 3).await;
    let pods = bed.pods("stop", 3).await;
    bed.set_exited(&pods[0], 0, "").await;
    bed.set_running(&pods[1]).await;
    bed.set_running(&pods[2]).await;
    bed.until_test("stop", "one has succeeded", |t| {
        t.status.as_ref().is_some_and(|s| s.succeeded == 1)
    })
    .await;
    change(&bed, "stop", json!({"stop": true})).await;
    let stopped = bed.until_phase("stop", "Stopped").await;
    assert_eq!(condition(&stopped, "Stopped").0, "True");
    assert_eq!(
        (
            condition(&stopped, "Failed").0,
            condition(&stopped, "Completed").0
        ),
        ("False".into(), "False".into())
    );
    let status = stopped.status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.aborted), (1, 0, 2));
    let job: Job = bed.until_exists("stop").await;
    assert_eq!(
        job.status.unwrap().active.unwrap_or_default(),
        0,
        "it is there to be looked at, and nothing of it runs"
    );
    assert_eq!(
        bed.event_reasons("stop").await.last().map(String::as_str),
        Some("Stopped")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_test_has_no_job_until_it_is_resumed() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test_with("held", 1, json!({"suspend": true}))
        .await;
    let held = bed.until_phase("held", "Suspended").await;
    assert_eq!(condition(&held, "Progressing").0, "Unknown");
    assert!(bed.api::<Job>().get_opt("held").await.unwrap().is_none());
    change(&bed, "held", json!({"suspend": false})).await;
    bed.set_exited(&bed.pods("held", 1).await[0], 0, "").await;
    bed.until_phase("held", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_suspended_after_its_start_never_sends_its_load_again() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test("twice", 1).await;
    bed.set_running(&bed.pods("twice", 1).await[0]).await;
    bed.until_phase("twice", "Running").await;
    let suspend = |on: bool| Patch::Merge(json!({"spec": {"suspend": on}}));
    bed.api::<Job>()
        .patch("twice", &PatchParams::default(), &suspend(true))
        .await
        .unwrap();
    let failed = bed.until_phase("twice", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "JobSuspended");
    bed.until("the Job can only end", async || {
        (bed.api::<Job>()
            .get("twice")
            .await
            .unwrap()
            .spec
            .unwrap()
            .active_deadline_seconds
            == Some(1))
        .then_some(())
    })
    .await;
    bed.api::<Job>()
        .patch("twice", &PatchParams::default(), &suspend(false))
        .await
        .unwrap();
    bed.until("the Job ends", async || {
        let conditions = bed
            .api::<Job>()
            .get("twice")
            .await
            .unwrap()
            .status?
            .conditions?;
        conditions
            .iter()
            .any(|c| c.type_ == "Failed" && c.status == "True")
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_without_room_is_told_and_ends_the_test_in_time() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.allow_none("pods").await;
    bed.load_test_with("quota", 2, json!({"startDeadlineSeconds": 12}))
        .await;
    let told = bed
        .until_test("quota", "tells of the quota", |t| {
            condition_reason(t) == "PodCreationFailed"
        })
        .await;
    assert!(
        condition(&told, "Progressing")
            .2
            .contains("exceeded quota: none"),
        "{:?}",
        condition(&told, "Progressing")
    );
    let failed = bed.until_phase("quota", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "PodCreationFailed");
    assert!(
        message
            .starts_with("Not all workers started within 12s (startDeadlineSeconds): FailedCreate"),
        "{message}"
    );
    let cause = failed.status.as_ref().unwrap().stop_cause.as_ref().unwrap();
    assert_eq!(
        (cause.reason.as_str(), cause.message.as_str()),
        ("PodCreationFailed", message.as_str()),
        "it outlasts the stop"
    );
    assert_eq!(
        bed.event_reasons("quota").await,
        ["Created", "PodCreationFailed", "Failed"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_that_waits_too_long_for_its_script_fails() {
    let mut bed = Bed::new(control_plane()).await;
    bed.start_operator(&[]).await;
    bed.load_test_with("late", 1, json!({"startDeadlineSeconds": 2}))
        .await;
    let failed = bed.until_phase("late", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "MissingTestScript");
    bed.create_script("test-script").await;
    bed.load_test("next", 1).await;
    bed.pods("next", 1).await;
    assert!(
        bed.api::<Job>().get_opt("late").await.unwrap().is_none(),
        "it has ended, and is not started after all"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_that_runs_too_long_fails_also_by_a_deadline_set_later() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test("long", 1).await;
    bed.set_running(&bed.pods("long", 1).await[0]).await;
    bed.until_phase("long", "Running").await;
    change(&bed, "long", json!({"activeDeadlineSeconds": 2})).await;
    let failed = bed.until_phase("long", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "DeadlineExceeded");
    let status = failed.status.unwrap();
    assert_eq!((status.failed, status.aborted), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_its_time_an_ended_test_goes_with_all_that_is_its_own() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test_with("brief", 1, json!({"ttlSecondsAfterFinished": 3}))
        .await;
    // Its container ended when this test began, not years ago.
    let pod = bed.pods("brief", 1).await.remove(0);
    let now = k8s_openapi::jiff::Timestamp::now()
        .strftime("%FT%TZ")
        .to_string();
    let terminated = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
    bed.set_pod(&pod, "Succeeded", terminated).await;
    bed.until_phase("brief", "Completed").await;
    bed.until("the test is gone", async || {
        bed.api::<LoadTest>()
            .get_opt("brief")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    bed.until_none::<Job>("artillery.io/test-name=brief").await;
    bed.until_none::<Pod>("artillery.io/test-name=brief").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_continue_the_others_go_on_and_all_are_counted() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test_with("goes-on", 3, json!({"failurePolicy": "Continue"}))
        .await;
    let pods = bed.pods("goes-on", 3).await;
    for pod in &pods {
        bed.set_running(pod).await;
    }
    bed.until_phase("goes-on", "Running").await;
    bed.set_exited(&pods[1], 1, "boom").await;
    bed.until_test("goes-on", "counts the failure", |t| {
        t.status.as_ref().is_some_and(|s| s.failed == 1)
    })
    .await;
    bed.set_exited(&pods[0], 0, "").await;
    bed.set_exited(&pods[2], 0, "").await;
    let status = bed.until_phase("goes-on", "Failed").await.status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.aborted), (2, 1, 0));
    let failed: Vec<_> = status
        .failed_workers
        .iter()
        .map(|f| (f.index, f.exit_code, f.message.as_deref()))
        .collect();
    assert_eq!(failed, [(Some(1), Some(1), Some("boom"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_deleted_by_hand_is_named() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test("hand", 3).await;
    let pods = bed.pods("hand", 3).await;
    for pod in &pods {
        bed.set_running(pod).await;
    }
    bed.until_phase("hand", "Running").await;
    let deleted = &pods[1];
    bed.api::<Pod>()
        .delete(&deleted.name_any(), &DeleteParams::default())
        .await
        .unwrap();
    let failed = bed.until_phase("hand", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "WorkerDeleted", "{message}");
    assert!(
        message.contains(&deleted.name_any()) && message.contains("2 other workers were stopped."),
        "{message}"
    );
    let status = failed.status.unwrap();
    assert_eq!((status.failed, status.aborted), (1, 2));
}
