//! The synchronized start: all workers receive one start time when every worker is ready.

use std::sync::Mutex;

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::holding_proxy::HoldingProxy;
use crate::support::{TestEnv, condition, control_plane};

const ANNOTATION: &str = "loadtest.artillery.io/start-at";
const ATTEMPT_ANNOTATION: &str = "loadtest.artillery.io/start-attempt";

/// The startup and the readiness probe of a worker in each start state.
const LOADING: [bool; 2] = [false, false];
const READY: [bool; 2] = [true, false];
const ACKNOWLEDGED: [bool; 2] = [true, true];

/// Returns the start times in the annotations of the workers.
async fn start_times(env: &TestEnv, test: &str, count: usize) -> Vec<Option<Timestamp>> {
    env.pods(test, count)
        .await
        .iter()
        .map(|pod| Some(pod.annotations().get(ANNOTATION)?.parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_receive_one_start_time_once_all_are_ready() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test("synchronized", 3).await;
    let pods = env.pods("synchronized", 3).await;
    env.set_running_with_probes(&pods[0], READY).await;
    env.set_running_with_probes(&pods[1], READY).await;
    env.set_running_with_probes(&pods[2], LOADING).await;
    env.until_test(
        "synchronized",
        "the worker that is not ready is reported",
        |t| {
            t.status.as_ref().is_some_and(|s| {
                s.conditions.iter().any(|c| {
                    c.reason == "WaitingForWorkers" && c.message.contains(&pods[2].name_any())
                })
            })
        },
    )
    .await;
    assert_eq!(
        start_times(&env, "synchronized", 3).await,
        [None, None, None]
    );

    // An annotation that somebody else wrote is not the start time.
    env.operator(0).kill().await;
    let forged = "2026-11-25T10:00:00.123Z";
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: forged}}}));
    env.api::<Pod>()
        .patch(&pods[1].name_any(), &PatchParams::default(), &patch)
        .await
        .unwrap();
    env.start_operator(&[]).await;
    let ready_at = Timestamp::now();
    env.set_running_with_probes(&pods[2], READY).await;
    let at = until_sent(&env, "synchronized", 3).await;
    assert!(at > ready_at, "{at} is not after {ready_at}");
}

/// Waits until all workers have the recorded start time, and returns it.
async fn until_sent(env: &TestEnv, test: &str, count: usize) -> Timestamp {
    env.until("all workers have the recorded start time", async || {
        let recorded = env.api::<LoadTest>().get(test).await.unwrap().status?;
        let at = recorded.load_start_time?.0;
        let sent = start_times(env, test, count).await;
        sent.iter().all(|sent| *sent == Some(at)).then_some(at)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_operator_sends_the_recorded_start_time_to_the_remaining_workers() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    let first = Mutex::new(None);
    let proxy = HoldingProxy::start(env.client.clone(), move |method, path| {
        let is_worker = method == Method::PATCH && path.contains("/pods/");
        is_worker && first.lock().unwrap().get_or_insert(path.to_owned()) != path
    })
    .await;
    env.start_operator_by(&proxy.kubeconfig(), &[]).await;
    env.load_test("interrupted", 2).await;
    for pod in &env.pods("interrupted", 2).await {
        env.set_running_with_probes(pod, READY).await;
    }
    proxy.until_held().await;
    let recorded = env
        .until("one worker has the start time", async || {
            let sent = start_times(&env, "interrupted", 2).await;
            sent.into_iter().flatten().next()
        })
        .await;
    env.operator(0).kill().await;
    env.start_operator(&[]).await;
    assert_eq!(until_sent(&env, "interrupted", 2).await, recorded);
    proxy.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_time_lies_ahead_and_is_resent_until_acknowledged() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("ahead", 2).await;
    let pods = env.pods("ahead", 2).await;
    let ready_at = Timestamp::now();
    env.set_running_with_probes(&pods[0], READY).await;
    env.set_running_with_probes(&pods[1], READY).await;
    let at = until_sent(&env, "ahead", 2).await;
    assert!(
        at.duration_since(ready_at).as_millis() > 1800,
        "{at} is not far enough after {ready_at}"
    );

    // The second worker does not acknowledge the start time. It is sent again, with a higher
    // attempt.
    env.set_running_with_probes(&pods[0], ACKNOWLEDGED).await;
    let annotations = async |index: usize| {
        let pods = env.pods("ahead", 2).await;
        [ANNOTATION, ATTEMPT_ANNOTATION].map(|name| pods[index].annotations()[name].clone())
    };
    let first = annotations(0).await;
    assert_eq!(first, [format!("{at:.3}"), "1".to_owned()]);
    env.until(
        "the start time is sent again to the second worker",
        async || (annotations(1).await == [first[0].as_str(), "2"]).then_some(()),
    )
    .await;
    assert_eq!(annotations(0).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn immediate_test_has_no_start_time() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("now", 2, json!({"start": "Immediate"}))
        .await;
    for pod in &env.pods("now", 2).await {
        assert!(
            pod.spec.as_ref().unwrap().containers[0]
                .startup_probe
                .is_none()
        );
        env.set_running(pod).await;
    }
    let running = env.until_phase("now", "Running").await;
    assert_eq!(
        (
            running.status.unwrap().load_start_time,
            start_times(&env, "now", 2).await
        ),
        (None, vec![None, None])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_that_never_becomes_ready_fails_the_test_at_the_start_deadline() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("stuck", 2, json!({"startDeadlineSeconds": 6}))
        .await;
    let pods = env.pods("stuck", 2).await;
    env.set_running_with_probes(&pods[0], READY).await;
    env.set_running_with_probes(&pods[1], LOADING).await;
    let failed = env.until_phase("stuck", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "StartDeadlineExceeded");
    assert!(
        message.contains(&format!(
            "it waited for {} to become ready",
            pods[1].name_any()
        )),
        "{message}"
    );
}
