//! The operator process: start, exit, probes, metrics and periodic status updates.

use crate::support::{TestEnv, control_plane, http_get};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_serves_probes_and_metrics_and_exits_on_sigterm() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test("m", 1).await;
    env.set_exited(&env.pods("m", 1).await[0], 0, "").await;
    env.until_phase("m", "Completed").await;
    let (probes, metrics) = (env.operator(0).probes, env.operator(0).metrics);
    assert_eq!(http_get(probes, "/healthz").await.unwrap().0, 200);
    assert_eq!(http_get(probes, "/else").await.unwrap().0, 404);
    let text = http_get(metrics, "/metrics").await.unwrap().1;
    assert!(text.contains("artillery_operator_leader 1"), "{text}");
    let failed = |line: &str| line.contains("reconcile_errors_total{") && !line.ends_with(" 0");
    assert!(!text.lines().any(failed), "no reconcile failed:\n{text}");
    assert_eq!(env.operator(0).terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duration_advances_while_a_test_runs() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("long", 1).await;
    env.set_running(&env.pods("long", 1).await[0]).await;
    let first = env
        .until_phase("long", "Running")
        .await
        .status
        .unwrap()
        .duration;
    let later = env
        .until_test("long", "the duration has advanced", |t| {
            t.status.as_ref().unwrap().duration != first
        })
        .await;
    let status = later.status.unwrap();
    let seconds = loadtest_api::duration::parse(&status.duration.unwrap())
        .unwrap()
        .as_secs();
    // The first refresh comes 5 to 15 s after the start: each test has its own second.
    assert!((4..20).contains(&seconds), "expected 5 to 15 s: {seconds}");
}
