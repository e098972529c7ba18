//! What others do to a test, its Job and its pods: queues, finalizers, policies, and edits at the wrong time.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{TestEnv, condition, condition_reason, control_plane, phase_of};

async fn patch<K>(env: &TestEnv, name: &str, patch: Value) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api = env.api::<K>();
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
}

/// Waits until the Job of this name is to end at once.
async fn until_terminated(env: &TestEnv, name: &str) {
    env.until("the Job is ended", async || {
        let job = env.api::<Job>().get(name).await.unwrap();
        (job.spec?.active_deadline_seconds == Some(1)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_whose_job_a_queue_holds_rejects_edits_that_its_job_would_not_follow() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("queued", 2).await;
    env.until_exists::<Job>("queued").await;
    patch::<Job>(&env, "queued", json!({"spec": {"suspend": true}}))
        .await
        .unwrap();
    env.until_phase("queued", "Suspended").await;
    for spec in [
        json!({"target": "http://other"}),
        json!({"count": 1}),
        json!({"suspend": true}),
    ] {
        let edit = patch::<LoadTest>(&env, "queued", json!({"spec": spec}));
        let error = edit.await.unwrap_err().to_string();
        assert!(error.contains("the test has a Job"), "{error}");
    }
    patch::<LoadTest>(&env, "queued", json!({"spec": {"stop": true}}))
        .await
        .unwrap();
    env.until_phase("queued", "Stopped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_whose_job_was_rejected_can_be_corrected() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.forbid_by_quota("count/jobs.batch").await;
    env.load_test("rejected", 1).await;
    env.until_test("rejected", "is rejected", |t| {
        condition_reason(t) == "JobRejected"
    })
    .await;
    let edited = patch::<LoadTest>(&env, "rejected", json!({"spec": {"count": 2}})).await;
    assert_eq!(edited.unwrap().spec.count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_test_that_a_finalizer_keeps_sends_no_more_load() {
    let env = TestEnv::with_operator(control_plane()).await;
    let mut test = crate::support::load_test("kept", 1);
    test["metadata"]["finalizers"] = json!(["example.com/keep"]);
    env.create::<LoadTest>(test).await;
    env.set_running(&env.pods("kept", 1).await[0]).await;
    env.until_phase("kept", "Running").await;
    env.delete::<LoadTest>("kept").await;
    until_terminated(&env, "kept").await;
    patch::<LoadTest>(&env, "kept", json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_job_that_a_finalizer_keeps_sends_no_more_load() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("held", 1).await;
    let pods = env.pods("held", 1).await;
    env.set_running(&pods[0]).await;
    env.until_phase("held", "Running").await;
    let finalizers = json!({"metadata": {"finalizers": ["example.com/keep"]}});
    patch::<Job>(&env, "held", finalizers).await.unwrap();
    env.delete::<Job>("held").await;
    let failed = env.until_phase("held", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "JobDeleted");
    until_terminated(&env, "held").await;
    env.until("the pod is deleted", async || {
        let pod = env.api::<Pod>().get_opt(&pods[0].name_any()).await.unwrap();
        pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
            .then_some(())
    })
    .await;
    patch::<Job>(&env, "held", json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_the_cluster_sets_is_kept_and_reported() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("limited", 1).await;
    let job: Job = env.until_exists("limited").await;
    let own = job.spec.unwrap().active_deadline_seconds.unwrap();
    patch::<Job>(
        &env,
        "limited",
        json!({"spec": {"activeDeadlineSeconds": 777}}),
    )
    .await
    .unwrap();
    env.set_running(&env.pods("limited", 1).await[0]).await;
    env.until_phase("limited", "Running").await;
    let message = env
        .until("the deadline is reported", async || {
            let events = env.events("limited").await;
            let event = events.into_iter().find(|e| e.1 == "DeadlineOverridden")?;
            Some(event.2)
        })
        .await;
    assert!(
        message.contains("777s") && message.contains(&format!("{own}s")),
        "{message}"
    );
    // An edit of the test asks for another one.
    patch::<LoadTest>(
        &env,
        "limited",
        json!({"spec": {"activeDeadlineSeconds": 888}}),
    )
    .await
    .unwrap();
    env.until("the Job has the new deadline", async || {
        let job = env.api::<Job>().get("limited").await.unwrap();
        (job.spec?.active_deadline_seconds == Some(888)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_finished_test_follows_the_generation_of_its_spec() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("edited", 1).await;
    env.set_exited(&env.pods("edited", 1).await[0], 0, "").await;
    let before = env.until_phase("edited", "Completed").await.status.unwrap();
    let edit = json!({"spec": {"ttlSecondsAfterFinished": 3600}});
    let edited: LoadTest = patch(&env, "edited", edit).await.unwrap();
    let after = env.until_test("edited", "follows", |t| {
        t.status.as_ref().and_then(|s| s.observed_generation) == edited.metadata.generation
    });
    let mut after = after.await;
    assert_eq!(phase_of(&after), "Completed");
    let status = after.status.as_mut().unwrap();
    status.observed_generation = before.observed_generation;
    assert_eq!(*status, before, "everything else stays as it was recorded");
}
