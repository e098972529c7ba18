//! Leader election with two replicas of the operator.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;

use crate::proxy::Proxy;
use crate::support::{Bed, control_plane};

async fn lease_holder(bed: &Bed) -> String {
    let lease: Lease = bed.until_exists("84f84c74.artillery.io").await;
    lease.spec.unwrap().holder_identity.unwrap()
}

/// Starts two operators. The first holds the lease and has completed one test.
async fn two_operators() -> (Bed, String) {
    let mut bed = Bed::new(control_plane()).await;
    bed.create_script("test-script").await;
    bed.start_operator(&["--leader-elect"]).await;
    let first = lease_holder(&bed).await;
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
async fn terminated_leader_is_replaced_within_3_seconds() {
    let (mut bed, first) = two_operators().await;
    let start = Instant::now();
    assert_eq!(bed.operator(0).terminate().await, 0);
    bed.load_test("two", 1).await;
    bed.until_exists::<Job>("two").await;
    let took = start.elapsed();
    println!("new leader {took:?} after SIGTERM");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_ne!(lease_holder(&bed).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashed_leader_is_replaced_within_20_seconds() {
    let (mut bed, first) = two_operators().await;
    let start = Instant::now();
    bed.operator(0).kill();
    bed.load_test("two", 1).await;
    bed.until_exists::<Job>("two").await;
    let took = start.elapsed();
    println!("new leader {took:?} after SIGKILL");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_ne!(lease_holder(&bed).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_a_former_leader_are_fenced() {
    let mut bed = Bed::new(control_plane()).await;
    bed.create_script("test-script").await;
    // The proxy holds the creation of the Job and the renewal of the lease, so the leader loses its
    // lease during a reconcile.
    let proxy = Proxy::start(bed.client.clone(), |method, path| {
        (method == http::Method::POST && path.ends_with("/jobs"))
            || (method == http::Method::PUT && path.contains("/leases/"))
    })
    .await;
    bed.start_operator_by(&proxy.kubeconfig(), &["--leader-elect"])
        .await;
    let first = lease_holder(&bed).await;
    bed.load_test("cut", 1).await;
    proxy.until_held().await;
    bed.start_operator(&["--leader-elect"]).await;

    let pods = bed.pods("cut", 1).await;
    assert_ne!(
        lease_holder(&bed).await,
        first,
        "the second operator created the Job"
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
        lease_holder(&bed).await,
        first,
        "the delayed renewal did not take the lease back"
    );
    assert_eq!(done.status.unwrap().completions.as_deref(), Some("1/1"));
}
