//! Two operators that share one namespace by label selectors.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use loadtest_api::v1alpha1::LoadTest;

use crate::support::{TestEnv, control_plane, load_test};

async fn create(env: &TestEnv, name: &str, shard: &str) {
    let mut test = load_test(name, 1);
    test["metadata"]["labels"] = json!({"shard": shard});
    env.create::<LoadTest>(test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_reconcile_only_tests_that_match_their_selector() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    let args = |shard: &str| {
        [
            "--leader-elect".into(),
            format!("--selector=shard={shard}"),
            format!("--leader-elect-lease=shard-{shard}"),
        ]
    };
    for shard in ["a", "b"] {
        let args = args(shard);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        env.start_operator(&args).await;
    }
    for shard in ["a", "b"] {
        let lease: Lease = env.until_exists(&format!("shard-{shard}")).await;
        assert!(
            lease
                .spec
                .unwrap()
                .holder_identity
                .is_some_and(|h| !h.is_empty()),
            "both operators hold their own lease"
        );
    }
    create(&env, "of-a", "a").await;
    create(&env, "of-b", "b").await;
    create(&env, "of-none", "c").await;
    for name in ["of-a", "of-b"] {
        env.set_exited(&env.pods(name, 1).await[0], 0, "").await;
        env.until_phase(name, "Completed").await;
        assert_eq!(
            env.event_reasons(name).await,
            ["Created", "Running", "Completed"]
        );
    }
    for (index, own, other) in [(0, "of-a", "of-b"), (1, "of-b", "of-a")] {
        let log = env.operator(index).log();
        assert!(
            log.contains(own) && !log.contains(other),
            "each operator logs only tests of its shard:\n{log}"
        );
    }
    // The other tests have completed, so a third Job would exist by now.
    let jobs: Vec<String> = env
        .api::<Job>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(
        jobs,
        ["of-a", "of-b"],
        "a test that matches no selector has no Job"
    );

    // A test whose label changes is continued by the other operator.
    create(&env, "moves", "a").await;
    env.set_running(&env.pods("moves", 1).await[0]).await;
    env.until_phase("moves", "Running").await;
    let moved = json!({"metadata": {"labels": {"shard": "b"}}});
    env.api::<LoadTest>()
        .patch("moves", &PatchParams::default(), &Patch::Merge(moved))
        .await
        .unwrap();
    env.operator(0).terminate().await;
    env.set_exited(&env.pods("moves", 1).await[0], 0, "").await;
    env.until_phase("moves", "Completed").await;
    assert_eq!(
        env.event_reasons("moves").await,
        ["Created", "Running", "Completed"]
    );
}
