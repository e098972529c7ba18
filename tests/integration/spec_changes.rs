//! Fields that control a running test: stop, suspend, deadlines, TTL and failure policy. Also
//! changes to its Job and pods by users.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::support::{TestEnv, condition, condition_reason, control_plane};

async fn patch_spec(env: &TestEnv, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    env.api::<LoadTest>()
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_test_ends_its_workers_and_keeps_earlier_successes() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("stop", 3).await;
    let pods = env.pods("stop", 3).await;
    env.set_exited(&pods[0], 0, "").await;
    env.set_running(&pods[1]).await;
    env.set_running(&pods[2]).await;
    env.until_test("stop", "one worker has succeeded", |t| {
        t.status.as_ref().is_some_and(|s| s.succeeded == 1)
    })
    .await;
    patch_spec(&env, "stop", json!({"stop": true})).await;
    let stopped = env.until_phase("stop", "Stopped").await;
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
    let job: Job = env.until_exists("stop").await;
    assert_eq!(
        job.status.unwrap().active.unwrap_or_default(),
        0,
        "the Job remains, without active pods"
    );
    assert_eq!(
        env.event_reasons("stop").await.last().map(String::as_str),
        Some("Stopped")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_test_has_no_job_until_it_is_resumed() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("suspended", 1, json!({"suspend": true}))
        .await;
    let suspended = env.until_phase("suspended", "Suspended").await;
    assert_eq!(condition(&suspended, "Progressing").0, "Unknown");
    assert!(
        env.api::<Job>()
            .get_opt("suspended")
            .await
            .unwrap()
            .is_none()
    );
    patch_spec(&env, "suspended", json!({"suspend": false})).await;
    env.set_exited(&env.pods("suspended", 1).await[0], 0, "")
        .await;
    env.until_phase("suspended", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_test_that_is_suspended_runs_as_its_spec_asks() {
    let env = TestEnv::with_operator(control_plane()).await;
    let script = format!(
        "# {}\nconfig: {{target: x}}\nscenarios: [{{flow: []}}]\n",
        "x".repeat(50_000)
    );
    let spec = json!({"suspend": true, "testScript": {"inline": script}, "variables": {"region": "eu"},
        "worker": {"image": "example.com/worker:1"}});
    env.load_test_with("large", 1, spec).await;
    let suspended = env.until_phase("large", "Suspended").await;
    let image = suspended.status.as_ref().and_then(|s| s.image.clone());
    assert_eq!(image.as_deref(), Some("example.com/worker:1"));
    patch_spec(&env, "large", json!({"suspend": false})).await;
    env.set_exited(&env.pods("large", 1).await[0], 0, "").await;
    env.until_phase("large", "Completed").await;
    let job = serde_json::to_string(&env.api::<Job>().get("large").await.unwrap()).unwrap();
    assert!(
        job.contains(&"x".repeat(50_000)),
        "the script is in the pod"
    );
    assert!(
        job.contains("example.com/worker:1") && job.contains("region"),
        "{}",
        &job[..2000]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_suspended_after_its_start_never_repeats_its_load() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("twice", 1).await;
    env.set_running(&env.pods("twice", 1).await[0]).await;
    env.until_phase("twice", "Running").await;
    let suspend = |on: bool| Patch::Merge(json!({"spec": {"suspend": on}}));
    env.api::<Job>()
        .patch("twice", &PatchParams::default(), &suspend(true))
        .await
        .unwrap();
    let failed = env.until_phase("twice", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "JobSuspended");
    env.until("the Job has a deadline, and creates no pods", async || {
        let spec = env.api::<Job>().get("twice").await.unwrap().spec.unwrap();
        (spec.active_deadline_seconds == Some(1) && spec.parallelism == Some(0)).then_some(())
    })
    .await;
    env.api::<Job>()
        .patch("twice", &PatchParams::default(), &suspend(false))
        .await
        .unwrap();
    env.until("the Job has failed", async || {
        let conditions = env
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
    let created = env
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let created = created
        .items
        .iter()
        .filter(|e| e.reason.as_deref() == Some("SuccessfulCreate"));
    assert_eq!(created.count(), 1, "the Job creates no second pod");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exceeded_quota_is_reported_and_fails_the_test_at_its_start_deadline() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.forbid_by_quota("pods").await;
    env.load_test_with("quota", 2, json!({"startDeadlineSeconds": 12}))
        .await;
    let blocked = env
        .until_test("quota", "the quota is reported", |t| {
            condition_reason(t) == "PodCreationFailed"
        })
        .await;
    assert!(
        condition(&blocked, "Progressing")
            .2
            .contains("exceeded quota: none"),
        "{:?}",
        condition(&blocked, "Progressing")
    );
    let failed = env.until_phase("quota", "Failed").await;
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
        "the reason is kept while the workers are stopped"
    );
    assert_eq!(
        env.event_reasons("quota").await,
        ["Created", "PodCreationFailed", "Failed"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_deadline_fails_a_test_whose_script_is_missing() {
    let mut env = TestEnv::new(control_plane()).await;
    env.start_operator(&[]).await;
    env.load_test_with("late", 1, json!({"startDeadlineSeconds": 2}))
        .await;
    let failed = env.until_phase("late", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "MissingTestScript");
    env.create_script("test-script").await;
    env.load_test("next", 1).await;
    env.pods("next", 1).await;
    assert!(
        env.api::<Job>().get_opt("late").await.unwrap().is_none(),
        "a failed test is not started when its script appears"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_deadline_set_during_the_run_fails_the_test() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("long", 1).await;
    env.set_running(&env.pods("long", 1).await[0]).await;
    env.until_phase("long", "Running").await;
    patch_spec(&env, "long", json!({"activeDeadlineSeconds": 2})).await;
    let failed = env.until_phase("long", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "DeadlineExceeded");
    let status = failed.status.unwrap();
    assert_eq!((status.failed, status.aborted), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_deletes_a_finished_test_with_its_job_and_pods() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("brief", 1, json!({"ttlSecondsAfterFinished": 3}))
        .await;
    // The TTL counts from the end of the container. `set_exited` uses a fixed time in the past,
    // which would delete the test at once.
    let pod = env.pods("brief", 1).await.remove(0);
    let now = k8s_openapi::jiff::Timestamp::now()
        .strftime("%FT%TZ")
        .to_string();
    let terminated = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
    env.set_pod(&pod, "Succeeded", terminated).await;
    env.until_phase("brief", "Completed").await;
    env.until_deleted::<LoadTest>("brief").await;
    env.until_none::<Job>("artillery.io/test-name=brief").await;
    env.until_none::<Pod>("artillery.io/test-name=brief").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_policy_continue_lets_the_other_workers_finish() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("continue", 3, json!({"failurePolicy": "Continue"}))
        .await;
    let pods = env.pods("continue", 3).await;
    for pod in &pods {
        env.set_running(pod).await;
    }
    env.until_phase("continue", "Running").await;
    env.set_exited(&pods[1], 1, "boom").await;
    env.until_test("continue", "the failure is counted", |t| {
        t.status.as_ref().is_some_and(|s| s.failed == 1)
    })
    .await;
    env.set_exited(&pods[0], 0, "").await;
    env.set_exited(&pods[2], 0, "").await;
    let status = env.until_phase("continue", "Failed").await.status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.aborted), (2, 1, 0));
    let failed: Vec<_> = status
        .failed_workers
        .iter()
        .map(|f| (f.index, f.exit_code, f.message.as_deref()))
        .collect();
    assert_eq!(failed, [(Some(1), Some(1), Some("boom"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_pod_is_named_in_the_failure_message() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("hand", 3).await;
    let pods = env.pods("hand", 3).await;
    for pod in &pods {
        env.set_running(pod).await;
    }
    env.until_phase("hand", "Running").await;
    let deleted = &pods[1];
    env.api::<Pod>()
        .delete(&deleted.name_any(), &DeleteParams::default())
        .await
        .unwrap();
    let failed = env.until_phase("hand", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "WorkerDeleted", "{message}");
    assert!(
        message.contains(&deleted.name_any()) && message.contains("2 other workers were stopped."),
        "{message}"
    );
    let status = failed.status.unwrap();
    assert_eq!((status.failed, status.aborted), (1, 2));
}
