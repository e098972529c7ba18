//! Whether a test sent the load that its script describes, from the snapshots of its workers to the columns of kubectl.

use loadtest_api::v1alpha1::{LoadTest, Verdict};
use loadtest_results::testing::message;
use serde_json::{Value, json};

use crate::support::{TestEnv, condition, control_plane, http_get};

/// The termination message of a worker that was to send 8000 virtual users in 20 s, and took `actual_ms`.
fn results(actual_ms: u32, skipped: u32) -> String {
    let created = 8000 - skipped;
    // Arrival delays of 36.6 s and 3 ms.
    let key = if actual_ms > 30_000 { 66 } else { 7 };
    message(&format!(
        r#"{{"final":true,"start":1000,"first":1000,"last":21000,"load":[8000,8000,20000,{actual_ms},0],
        "delay":[3,0,37400,292800000,0,[{key},8000],[]],"generator":[1,990,182,315,323,41200,17100,300,143,512],
        "counters":{{"vusers.created":{created},"vusers.skipped":{skipped},"vusers.completed":{created},"http.requests":{created},
        "http.responses":{created}}},"histograms":{{"http.response_time":[0,76,76,608000,0,[217,{created}],[]],
        "vusers.session_length":[0,2000,2000,2000,0,[381,{created}],[]]}}}}"#
    ))
}

async fn run(env: &TestEnv, name: &str, spec: Value, messages: &[String]) -> LoadTest {
    let count = i32::try_from(messages.len()).unwrap();
    env.load_test_with(name, count, spec).await;
    let pods = env.pods(name, messages.len()).await;
    for (pod, message) in pods.iter().zip(messages) {
        env.set_exited(pod, 0, message).await;
    }
    env.until_phase(name, "Completed").await
}

/// The cell of a column that kubectl prints.
async fn cell(env: &TestEnv, test: &str, column: &str) -> Value {
    let table = env.table(test).await;
    let columns = table["columnDefinitions"].as_array().unwrap();
    let at = columns.iter().position(|c| c["name"] == column).unwrap();
    table["rows"][0]["cells"][at].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saturated_test_is_inconclusive_in_columns_conditions_events_and_metrics() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    let metrics = env.operator(0).metrics;
    let spec = json!({"thresholds": ["http.response_time.p95 < 500"], "load": "Divide"});
    let messages = [results(20_030, 0), results(57_400, 0)];
    let test = run(&env, "saturated", spec, &messages).await;
    assert_eq!(
        test.status.as_ref().unwrap().verdict,
        Some(Verdict::Inconclusive)
    );
    assert_eq!(
        condition(&test, "Passed"),
        (
            "Unknown".into(),
            "LoadNotDelivered".into(),
            "The threshold is met, but 1 of 2 workers was saturated: the load took 57.4s instead of 20s (see LoadDelivered)."
                .into()
        )
    );
    let (status, reason, message) = condition(&test, "LoadDelivered");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "WorkersSaturated")
    );
    assert!(
        message.ends_with(
            "One worker with 300m CPU sent 139 virtual users/s; 400/s needs 900m, or 6 workers."
        ),
        "{message}"
    );
    assert_eq!(
        env.event_reasons("saturated").await[3..],
        ["Completed", "WorkersSaturated", "LoadNotDelivered"]
    );
    assert_eq!(cell(&env, "saturated", "Verdict").await, "Inconclusive");
    assert_eq!(cell(&env, "saturated", "Sent").await, "67%");
    let series = format!(
        "artillery_operator_loadtest_saturated_workers{{namespace=\"{}\",loadtest=\"saturated\"}} 1.0",
        env.namespace
    );
    env.until("the metrics show the saturated worker", async || {
        let shown = http_get(metrics, "/metrics").await?.1;
        shown.lines().any(|line| line == series).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_virtual_users_are_accepted_only_explicitly() {
    let env = TestEnv::with_operator(control_plane()).await;
    let messages = [results(20_030, 800)];
    let test = run(&env, "skipped", json!({}), &messages).await;
    let (_, reason, message) = condition(&test, "LoadDelivered");
    assert_eq!(reason, "VusersSkipped", "{message}");
    assert!(
        message.contains("800 of 8000 planned virtual users"),
        "{message}"
    );
    assert_eq!(cell(&env, "skipped", "Sent").await, "90%");

    let spec = json!({"loadTolerance": {"skippedPercent": 10}});
    let test = run(&env, "accepted", spec, &messages).await;
    assert_eq!(condition(&test, "LoadDelivered").1, "AsPlanned");
    assert_eq!(cell(&env, "accepted", "Verdict").await, "Passed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thresholds_over_the_load_are_checked_before_the_start() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("typo", 1, json!({"thresholds": ["load.skiped == 0"]}))
        .await;
    let waiting = env.until_phase("typo", "Pending").await;
    let (_, reason, message) = condition(&waiting, "Progressing");
    assert_eq!(reason, "InvalidThreshold");
    assert!(message.contains("did you mean load.skipped?"), "{message}");

    let spec = json!({"thresholds": ["load.skipped == 0", "load.created == load.planned", "load.arrival_delay.p99 < 200"]});
    let test = run(&env, "met", spec, &[results(20_030, 0)]).await;
    let (status, _, message) = condition(&test, "Passed");
    assert_eq!(
        (status.as_str(), message.as_str()),
        ("True", "3 thresholds are met.")
    );
}
