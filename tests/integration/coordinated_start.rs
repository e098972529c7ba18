//! The synchronized start: all workers receive one start time when every worker is ready.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

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

    // A restarted operator reads the start time from the workers that have received it.
    env.operator(0).kill().await;
    let start_time = "2026-11-25T10:00:00.123Z";
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: start_time}}}));
    env.api::<Pod>()
        .patch(&pods[1].name_any(), &PatchParams::default(), &patch)
        .await
        .unwrap();
    env.start_operator(&[]).await;
    let running = env.until_phase("synchronized", "Running").await;
    assert_eq!(
        start_times(&env, "synchronized", 3).await,
        vec![Some(start_time.parse().unwrap()); 3]
    );
    let at = running.status.unwrap().load_start_time.unwrap().0;
    assert_eq!(at.to_string(), start_time);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_time_lies_ahead_and_is_resent_until_acknowledged() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("ahead", 2).await;
    let pods = env.pods("ahead", 2).await;
    let ready_at = Timestamp::now();
    env.set_running_with_probes(&pods[0], READY).await;
    env.set_running_with_probes(&pods[1], READY).await;
    let running = env.until_phase("ahead", "Running").await;
    let at = running.status.unwrap().load_start_time.unwrap().0;
    assert!(
        at.duration_since(ready_at).as_millis() > 1800,
        "{at} is not far enough after {ready_at}"
    );
    assert_eq!(start_times(&env, "ahead", 2).await, [Some(at), Some(at)]);

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
