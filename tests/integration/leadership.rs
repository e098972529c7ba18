//! Leader election with two replicas of the operator.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;

use crate::support::holding_proxy::HoldingProxy;
use crate::support::{TestEnv, control_plane};

async fn lease_holder(env: &TestEnv) -> String {
    let lease: Lease = env.until_exists("84f84c74.artillery.io").await;
    lease.spec.unwrap().holder_identity.unwrap()
}

/// Starts two operators. The first holds the lease and has completed one test.
async fn two_operators() -> (TestEnv, String) {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    env.start_operator(&["--leader-elect"]).await;
    let first = lease_holder(&env).await;
    env.start_operator(&["--leader-elect"]).await;
    env.load_test("one", 1).await;
    env.set_exited(&env.pods("one", 1).await[0], 0, "").await;
    env.until_phase("one", "Completed").await;
    assert_eq!(
        env.event_reasons("one").await,
        ["Created", "Running", "Completed"]
    );
    (env, first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_leader_is_replaced_within_3_seconds() {
    let (mut env, first) = two_operators().await;
    let start = Instant::now();
    assert_eq!(env.operator(0).terminate().await, 0);
    env.load_test("two", 1).await;
    env.until_exists::<Job>("two").await;
    let took = start.elapsed();
    println!("new leader {took:?} after SIGTERM");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_ne!(lease_holder(&env).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashed_leader_is_replaced_within_20_seconds() {
    let (mut env, first) = two_operators().await;
    let start = Instant::now();
    env.operator(0).kill().await;
    env.load_test("two", 1).await;
    env.until_exists::<Job>("two").await;
    let took = start.elapsed();
    println!("new leader {took:?} after SIGKILL");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_ne!(lease_holder(&env).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_a_former_leader_are_fenced() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    // The proxy holds the creation of the Job and the renewal of the lease, so the leader loses its
    // lease during a reconcile.
    let proxy = HoldingProxy::start(env.client.clone(), |method, path| {
        (method == http::Method::POST && path.ends_with("/jobs"))
            || (method == http::Method::PUT && path.contains("/leases/"))
    })
    .await;
    env.start_operator_by(&proxy.kubeconfig(), &["--leader-elect"])
        .await;
    let first = lease_holder(&env).await;
    env.load_test("cut", 1).await;
    proxy.until_held().await;
    env.start_operator(&["--leader-elect"]).await;

    let pods = env.pods("cut", 1).await;
    assert_ne!(
        lease_holder(&env).await,
        first,
        "the second operator created the Job"
    );
    let job: Job = env.until_exists("cut").await;
    env.until_operator_ends(0).await;
    proxy.release().await;

    env.set_exited(&pods[0], 0, "").await;
    let done = env.until_phase("cut", "Completed").await;
    assert_eq!(
        env.event_reasons("cut").await,
        ["Created", "Running", "Completed"]
    );
    let after: Job = env.until_exists("cut").await;
    assert_eq!(after.uid(), job.uid());
    assert_ne!(
        lease_holder(&env).await,
        first,
        "the delayed renewal did not take the lease back"
    );
    assert_eq!(done.status.unwrap().completions.as_deref(), Some("1/1"));
}
