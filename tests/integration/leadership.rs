//! Two operators, of which one works.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;

use crate::proxy::Proxy;
use crate::support::{Bed, control_plane};

async fn holder(bed: &Bed) -> String {
    let lease: Lease = bed.until_exists("84f84c74.artillery.io").await;
    lease.spec.unwrap().holder_identity.unwrap()
}

/// Two operators, of which the first has the lease, and a test that it has run.
async fn two_operators() -> (Bed, String) {
    let mut bed = Bed::new(control_plane()).await;
    bed.create_script("test-script").await;
    bed.start_operator(&["--leader-elect"]).await;
    let first = holder(&bed).await;
    bed.start_operator(&["--leader-elect"]).await;
    bed.load_test("one", 1).await;
    bed.set_exited(&bed.pods("one", 1).await[0], 0, "").await;
    bed.until_phase("one", "Completed").await;
    assert_eq!(
        bed.event_reasons("one").await,
        ["Created", "Running", "Completed"]
    );
    (bed, first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_end_hands_over_at_once() {
    let (mut bed, first) = two_operators().await;
    let begun = Instant::now();
    assert_eq!(bed.operator(0).terminate().await, 0);
    bed.load_test("two", 1).await;
    bed.until_exists::<Job>("two").await;
    let took = begun.elapsed();
    println!("taken over {took:?} after SIGTERM");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_ne!(holder(&bed).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_crashes_is_followed_within_20_seconds() {
    let (mut bed, first) = two_operators().await;
    let begun = Instant::now();
    bed.operator(0).kill();
    bed.load_test("two", 1).await;
    bed.until_exists::<Job>("two").await;
    let took = begun.elapsed();
    println!("taken over {took:?} after SIGKILL");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_ne!(holder(&bed).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deposed_leader_still_had_to_say_changes_nothing() {
    let mut bed = Bed::new(control_plane()).await;
    bed.create_script("test-script").await;
    // Holds back the creation of the Job, and then the lease's renewal: the leader is cut off in the middle of its work.
    let proxy = Proxy::start(bed.client.clone(), |method, path| {
        (method == http::Method::POST && path.ends_with("/jobs"))
            || (method == http::Method::PUT && path.contains("/leases/"))
    })
    .await;
    bed.start_operator_by(&proxy.kubeconfig(), &["--leader-elect"])
        .await;
    let first = holder(&bed).await;
    bed.load_test("cut", 1).await;
    proxy.until_held().await;
    bed.start_operator(&["--leader-elect"]).await;

    let pods = bed.pods("cut", 1).await;
    assert_ne!(
        holder(&bed).await,
        first,
        "the second operator has created the Job"
    );
    let job: Job = bed.until_exists("cut").await;
    bed.until_operator_ends(0).await;
    proxy.release().await;

    bed.set_exited(&pods[0], 0, "").await;
    let done = bed.until_phase("cut", "Completed").await;
    assert_eq!(
        bed.event_reasons("cut").await,
        ["Created", "Running", "Completed"]
    );
    let after: Job = bed.until_exists("cut").await;
    assert_eq!(after.uid(), job.uid());
    assert_ne!(
        holder(&bed).await,
        first,
        "the late renewal has not brought the lease back"
    );
    assert_eq!(done.status.unwrap().completions.as_deref(), Some("1/1"));
}
