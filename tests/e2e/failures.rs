//! Failures on a real node: each test ends, and reports the reason.

use std::process::Command;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{LimitRange, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{TestEnv, condition, phase_of};
use crate::{
    cluster, create_script, deploy_target, requests_answered, script_with_constant_rate,
    script_with_requests,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_test_stops_its_load() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let before = requests_answered()["/stopped"].as_u64().unwrap_or(0);
    create_script(&env, script_with_constant_rate("/stopped", 600)).await;
    env.start_operator(&[]).await;
    env.load_test_with("stopped", 1, json!({})).await;
    env.until("the load has started", async || {
        (requests_answered()["/stopped"].as_u64()? > before).then_some(())
    })
    .await;
    let stop = Patch::Merge(json!({"spec": {"stop": true}}));
    env.api::<LoadTest>()
        .patch("stopped", &PatchParams::default(), &stop)
        .await
        .unwrap();
    let stopped = env.until_phase("stopped", "Stopped").await;
    assert_eq!(condition(&stopped, "Stopped").0, "True");
    env.until_none::<Pod>("artillery.io/test-name=stopped")
        .await;
    assert_eq!(
        env.event_reasons("stopped").await,
        ["Created", "Running", "Stopped"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_deletes_a_finished_test_and_its_job() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    create_script(&env, script_with_requests("/brief", 1)).await;
    env.start_operator(&[]).await;
    env.load_test_with("brief", 1, json!({"ttlSecondsAfterFinished": 5}))
        .await;
    env.until_phase("brief", "Completed").await;
    env.until_deleted::<LoadTest>("brief").await;
    env.until_none::<Job>("artillery.io/test-name=brief").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exceeded_quota_fails_the_test_at_its_start_deadline() {
    let mut env = TestEnv::new(&cluster()).await;
    create_script(&env, script_with_requests("/", 1)).await;
    env.start_operator(&[]).await;
    env.forbid_by_quota("pods").await;
    env.load_test_with("no-room", 1, json!({"startDeadlineSeconds": 12}))
        .await;
    let failed = env.until_phase("no-room", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "PodCreationFailed");
    assert!(message.contains("exceeded quota: none"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_image_is_reported_and_fails_the_test_at_its_start_deadline() {
    let mut env = TestEnv::new(&cluster()).await;
    create_script(&env, script_with_requests("/", 1)).await;
    env.start_operator(&["--worker-image=artilleryio/artillery:nowhere"])
        .await;
    env.load_test_with("no-image", 1, json!({"startDeadlineSeconds": 20}))
        .await;
    let blocked = env
        .until_test("no-image", "the image is reported", |t| {
            t.status
                .as_ref()
                .is_some_and(|s| s.conditions.iter().any(|c| c.reason == "ImageNotPullable"))
        })
        .await;
    assert!(
        condition(&blocked, "Progressing")
            .2
            .contains("Check the workers' image"),
        "{:?}",
        condition(&blocked, "Progressing")
    );
    let failed = env.until_phase("no-image", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "ImageNotPullable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_killed_for_memory_fails_with_reason_out_of_memory() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    env.create::<LimitRange>(json!({"metadata": {"name": "small"}, "spec": {"limits": [
        {"type": "Container", "default": {"memory": "48Mi"}, "defaultRequest": {"memory": "48Mi"}}]}}))
        .await;
    create_script(&env, script_with_constant_rate("/memory", 60)).await;
    env.start_operator(&[]).await;
    env.load_test_with("memory", 1, json!({})).await;
    let failed = env.until_phase("memory", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "OutOfMemory", "{message}");
    assert!(message.contains("It needs more memory"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_pod_is_named_and_the_other_workers_are_stopped() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    create_script(&env, script_with_constant_rate("/hand", 600)).await;
    env.start_operator(&[]).await;
    env.load_test_with("hand", 2, json!({})).await;
    env.until_phase("hand", "Running").await;
    let pods = env.pods("hand", 2).await;
    env.api::<Pod>()
        .delete(&pods[1].name_any(), &DeleteParams::default())
        .await
        .unwrap();
    let failed = env.until_phase("hand", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "WorkerDeleted", "{message}");
    assert!(message.contains(&pods[1].name_any()), "{message}");
    let status = failed.status.unwrap();
    assert_eq!((status.failed, status.aborted), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_that_hangs_after_its_load_is_reported() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let text = script_with_requests("/hangs", 1)["test-script.yaml"]
        .as_str()
        .unwrap()
        .replace("config: {", "config: {processor: ./hang.js, ");
    let text = text.replace(
        "[{get: {url: /hangs}}]",
        "[{get: {url: /hangs}}, {function: hang}]",
    );
    create_script(
        &env,
        json!({"test-script.yaml": text, "hang.js": "module.exports = {hang: () => {}};"}),
    )
    .await;
    env.start_operator(&[]).await;
    env.load_test_with("hangs", 1, json!({"activeDeadlineSeconds": 90}))
        .await;
    env.until_phase("hangs", "Running").await;
    let overdue = env
        .until_within(
            std::time::Duration::from_secs(120),
            "the overdue worker is reported",
            async || {
                let shown = env.api::<LoadTest>().get("hangs").await.unwrap();
                (condition(&shown, "Progressing").1 == "RunningTooLong").then_some(shown)
            },
        )
        .await;
    let message = condition(&overdue, "Progressing").2;
    assert!(
        message.contains("is still running; the script's phases should have finished after 1s"),
        "{message}"
    );
    let failed = env.until_phase("hangs", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "DeadlineExceeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_killed_ten_times_during_a_test_repeats_and_loses_nothing() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let before = requests_answered()["/killed"].as_u64().unwrap_or(0);
    create_script(&env, script_with_constant_rate("/killed", 10)).await;
    env.start_operator(&[]).await;
    env.load_test_with("killed", 2, json!({})).await;
    for kill in 0..10_u64 {
        // The operator is killed at arbitrary times, unrelated to its work. This sleep waits for
        // nothing.
        let delay = std::time::Duration::from_millis(kill * 733 % 1900);
        tokio::time::sleep(delay).await;
        env.operator(usize::try_from(kill).unwrap()).kill().await;
        env.start_operator(&[]).await;
    }
    let done = env.until_phase("killed", "Completed").await;
    assert_eq!(phase_of(&done), "Completed");
    assert_eq!(
        env.event_reasons("killed").await,
        ["Created", "Running", "Running", "Completed"]
    );
    assert_eq!(
        requests_answered()["/killed"].as_u64().unwrap() - before,
        20,
        "two workers send ten requests each"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "stops the kubelet, which other tests need: make test runs it alone"]
async fn workers_that_finish_while_the_kubelet_is_down_are_counted_once() {
    let kubeconfig = cluster();
    let mut env = TestEnv::new(&kubeconfig).await;
    deploy_target(&env).await;
    let before = requests_answered()["/kubelet"].as_u64().unwrap_or(0);
    create_script(&env, script_with_constant_rate("/kubelet", 8)).await;
    env.start_operator(&[]).await;
    env.load_test_with("kubelet", 2, json!({})).await;
    env.until_phase("kubelet", "Running").await;
    // Workers receive their start time through the kubelet, so the load starts before its kill.
    env.until("the load has started", async || {
        (requests_answered()["/kubelet"].as_u64()? >= before + 4).then_some(())
    })
    .await;

    let state = kubeconfig.parent().unwrap();
    let pid = std::fs::read_to_string(state.join("kubelet.pid"))
        .expect("the cluster was created by hack/local-cluster");
    assert!(
        Command::new("kill")
            .args(["-KILL", pid.trim()])
            .status()
            .unwrap()
            .success()
    );
    env.until("both workers have sent their load", async || {
        (requests_answered()["/kubelet"].as_u64()? - before == 16).then_some(())
    })
    .await;
    assert_eq!(
        phase_of(&env.api::<LoadTest>().get("kubelet").await.unwrap()),
        "Running",
        "nothing reports the end of the workers"
    );
    let name = state.file_name().unwrap();
    let up = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/hack/local-cluster/cluster.sh"
    ))
    .arg("up")
    .arg(name)
    .output();
    let up = up.unwrap();
    assert!(
        up.status.success(),
        "{}",
        String::from_utf8_lossy(&up.stderr)
    );

    let done = env.until_phase("kubelet", "Completed").await;
    assert_eq!(done.status.unwrap().completions.as_deref(), Some("2/2"));
    assert_eq!(
        env.event_reasons("kubelet").await,
        ["Created", "Running", "Running", "Completed"]
    );
    assert_eq!(
        requests_answered()["/kubelet"].as_u64().unwrap() - before,
        16,
        "each worker sends its load once"
    );
}
