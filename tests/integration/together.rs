//! Workers that begin their load together: told one instant, once all are ready.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{Bed, condition, control_plane};

const ANNOTATION: &str = "loadtest.artillery.io/start-at";
const ATTEMPT_ANNOTATION: &str = "loadtest.artillery.io/start-attempt";

/// What a worker's probes say, the startup probe's first.
const LOADS: [bool; 2] = [false, false];
const COULD_BEGIN: [bool; 2] = [true, false];
const KNOWS_START: [bool; 2] = [true, true];

/// The instants that the workers of a test were told.
async fn told(bed: &Bed, test: &str, count: usize) -> Vec<Option<Timestamp>> {
    bed.pods(test, count)
        .await
        .iter()
        .map(|pod| Some(pod.annotations().get(ANNOTATION)?.parse().unwrap()))
        .collect()
}

async fn until_waiting(bed: &Bed, name: &str, who: &str) -> LoadTest {
    bed.until_test(name, "it says who is not ready", |t| {
        t.status.as_ref().is_some_and(|s| {
            s.conditions
                .iter()
                .any(|c| c.reason == "WaitingForWorkers" && c.message.contains(who))
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_told_one_instant_once_all_are_ready() {
    let mut bed = Bed::with_operator(control_plane()).await;
    bed.load_test("gather", 3).await;
    let pods = bed.pods("gather", 3).await;
    bed.set_running_and(&pods[0], COULD_BEGIN).await;
    bed.set_running_and(&pods[1], COULD_BEGIN).await;
    bed.set_running_and(&pods[2], LOADS).await;
    until_waiting(&bed, "gather", &pods[2].name_any()).await;
    assert_eq!(told(&bed, "gather", 3).await, [None, None, None]);

    // An operator that comes anew finds the instant on those that were told.
    bed.operator(0).kill();
    let instant = "2026-11-25T10:00:00.123Z";
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: instant}}}));
    bed.api::<Pod>()
        .patch(&pods[1].name_any(), &PatchParams::default(), &patch)
        .await
        .unwrap();
    bed.start_operator(&[]).await;
    let running = bed.until_phase("gather", "Running").await;
    assert_eq!(
        told(&bed, "gather", 3).await,
        vec![Some(instant.parse().unwrap()); 3]
    );
    let at = running.status.unwrap().load_start_time.unwrap().0;
    assert_eq!(at.to_string(), instant);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instant_is_a_little_ahead_and_immediate_tests_have_none() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test("ahead", 2).await;
    let pods = bed.pods("ahead", 2).await;
    let begun = Timestamp::now();
    bed.set_running_and(&pods[0], COULD_BEGIN).await;
    bed.set_running_and(&pods[1], COULD_BEGIN).await;
    let running = bed.until_phase("ahead", "Running").await;
    let at = running.status.unwrap().load_start_time.unwrap().0;
    assert!(
        at.duration_since(begun).as_millis() > 1800,
        "{at} is not ahead of {begun}"
    );
    let instants = told(&bed, "ahead", 2).await;
    assert_eq!(instants, [Some(at), Some(at)]);

    // One does not say that it knows: it is told again, which the second annotation counts.
    bed.set_running_and(&pods[0], KNOWS_START).await;
    let words = async |index: usize| {
        let pods = bed.pods("ahead", 2).await;
        [ANNOTATION, ATTEMPT_ANNOTATION].map(|name| pods[index].annotations()[name].clone())
    };
    let first = words(0).await;
    assert_eq!(first, [format!("{at:.3}"), "1".to_owned()]);
    bed.until("the other is told again", async || {
        (words(1).await == [first[0].as_str(), "2"]).then_some(())
    })
    .await;
    assert_eq!(words(0).await, first);

    bed.load_test_with("now", 2, json!({"start": "Immediate"}))
        .await;
    for pod in &bed.pods("now", 2).await {
        assert!(
            pod.spec.as_ref().unwrap().containers[0]
                .startup_probe
                .is_none()
        );
        bed.set_running(pod).await;
    }
    let running = bed.until_phase("now", "Running").await;
    assert_eq!(
        (
            running.status.unwrap().load_start_time,
            told(&bed, "now", 2).await
        ),
        (None, vec![None, None])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_gets_ready_ends_the_test_in_time() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test_with("stuck", 2, json!({"startDeadlineSeconds": 6}))
        .await;
    let pods = bed.pods("stuck", 2).await;
    bed.set_running_and(&pods[0], COULD_BEGIN).await;
    bed.set_running_and(&pods[1], LOADS).await;
    let failed = bed.until_phase("stuck", "Failed").await;
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
