//! Whether the workers sent the load that the script plans: the verdict, the gate of pipelines, and the advice.

use loadtest_api::v1alpha1::{Generators, LoadTest, Results, Verdict};
use serde_json::json;

use crate::pipelines::verdict;
use crate::support::{TestEnv, condition};
use crate::{cluster, create_script, deploy_target, kubectl, until_completed_as_planned};

/// The column SENT.
fn sent(results: &Results) -> Option<&str> {
    results.load.as_ref()?.sent.as_deref()
}

/// Waits until a test has ended, and returns it with the exit code and the verdict of `kubectl artillery watch`.
async fn gate(env: &TestEnv, name: &str) -> (LoadTest, i32, String) {
    let (code, sentence) = verdict(env, name);
    let test = env.api::<LoadTest>().get(name).await.unwrap();
    (test, code, sentence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saturated_test_is_inconclusive_and_passes_with_the_advised_cpu() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    // Each virtual user takes 20 ms of CPU time, however fast the CPU is. So the load needs more than 500m.
    let work = "module.exports = {work: (context, events, done) => {\n  const used = () => {\n    \
        const {user, system} = process.cpuUsage();\n    return user + system;\n  };\n  const end = used() + 20_000;\n  \
        while (used() < end);\n  done();\n}};\n";
    let script = "config: {target: 'http://target.default', processor: ./work.js, phases: [{duration: 5, arrivalRate: 25}]}\n\
        scenarios: [{flow: [{function: work}, {get: {url: /saturated}}]}]\n";
    create_script(&env, json!({"test-script.yaml": script, "work.js": work})).await;
    env.start_operator(&[]).await;
    let with_cpu = |limit: &str| {
        json!({"environment": null, "thresholds": ["http.response_time.p95 < 60000"],
            "worker": {"resources": {"limits": {"cpu": limit}}}})
    };

    env.load_test_with("small", 1, with_cpu("200m")).await;
    let (small, code, sentence) = gate(&env, "small").await;
    println!(
        "{}",
        kubectl(&["describe", "loadtest", "small", "-n", &env.namespace])
    );
    assert_eq!(code, 3, "{sentence}");
    assert!(
        sentence.starts_with(
            "Inconclusive: The threshold is met, but the worker was saturated: the load took "
        ),
        "{sentence}"
    );
    let status = small.status.as_ref().unwrap();
    assert_eq!(status.verdict, Some(Verdict::Inconclusive));
    let (delivered, reason, message) = condition(&small, "LoadDelivered");
    assert_eq!(
        (delivered.as_str(), reason.as_str()),
        ("False", "WorkersSaturated"),
        "{message}"
    );
    assert!(message.contains("Worker 0 was throttled in "), "{message}");
    let results = status.results.as_ref().unwrap();
    let load = results.load.as_ref().unwrap();
    assert_eq!(
        (load.planned_vusers, load.created_vusers),
        (Some(125), 125),
        "all virtual users are sent, but late"
    );
    assert_ne!(sent(results), Some("100%"));
    let reasons = env.event_reasons("small").await;
    for reason in ["WorkersSaturated", "LoadNotDelivered"] {
        let count = reasons.iter().filter(|r| *r == reason).count();
        assert_eq!(count, 1, "{reason} in {reasons:?}");
    }

    let Some(Generators {
        saturated,
        advice: Some(advice),
        ..
    }) = &results.generators
    else {
        panic!("no advice: {results:?}");
    };
    assert_eq!(saturated, "1 of 1");
    let (_, needed) = advice.split_once("; 25/s needs ").expect(advice);
    let (cpu, _) = needed.split_once(", or ").expect(advice);
    env.load_test_with("advised", 1, with_cpu(cpu)).await;
    let (advised, code, sentence) = gate(&env, "advised").await;
    assert_eq!(
        code,
        0,
        "{advice} {sentence} {:?}",
        condition(&advised, "LoadDelivered")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_virtual_users_are_inconclusive_unless_they_are_accepted() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    // The first virtual user is active until the last one arrives.
    let script = "config: {target: 'http://target.default', phases: [{duration: 3, arrivalRate: 10, maxVusers: 1}]}\n\
        scenarios: [{flow: [{get: {url: /skipped}}, {think: 6}]}]\n";
    create_script(&env, json!({"test-script.yaml": script})).await;
    env.start_operator(&[]).await;
    let thresholds = json!({"environment": null, "thresholds": ["vusers.failed == 0"]});
    env.load_test_with("limited", 1, thresholds.clone()).await;
    let mut accepting = thresholds;
    accepting["loadTolerance"] = json!({"skippedPercent": 100});
    env.load_test_with("accepted", 1, accepting).await;

    let (limited, code, sentence) = gate(&env, "limited").await;
    let (delivered, reason, message) = condition(&limited, "LoadDelivered");
    assert_eq!(
        (delivered.as_str(), reason.as_str()),
        ("False", "VusersSkipped"),
        "{message}"
    );
    assert_eq!(
        (code, sentence.as_str()),
        (
            3,
            "Inconclusive: The threshold is met, but 29 of 30 planned virtual users were skipped because maxVusers was \
             reached (see LoadDelivered)."
        )
    );
    let results = limited.status.as_ref().unwrap().results.as_ref().unwrap();
    let load = results.load.as_ref().unwrap();
    assert_eq!(
        (load.created_vusers, load.skipped_vusers, sent(results)),
        (1, 29, Some("3%"))
    );

    let (accepted, code, sentence) = gate(&env, "accepted").await;
    assert_eq!(
        (code, sentence.as_str()),
        (0, "Passed: The threshold is met.")
    );
    let (delivered, reason, message) = condition(&accepted, "LoadDelivered");
    assert_eq!(
        (delivered.as_str(), reason.as_str()),
        ("True", "AsPlanned"),
        "{message}"
    );
    assert!(
        message.ends_with("spec.loadTolerance accepts 29 that maxVusers skipped."),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_that_is_sent_is_as_planned() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let script = crate::script_with_constant_rate("/delivered", 5);
    create_script(&env, script).await;
    env.start_operator(&[]).await;
    env.load_test_with("delivered", 2, json!({})).await;
    let test = until_completed_as_planned(&env, "delivered").await;
    let status = test.status.as_ref().unwrap();
    assert_eq!(status.verdict, Some(Verdict::Passed));
    assert_eq!(sent(status.results.as_ref().unwrap()), Some("100%"));
    let (_, _, message) = condition(&test, "LoadDelivered");
    assert!(
        message.starts_with("10 of 10 planned virtual users were created, 99% of them at most "),
        "{message}"
    );
}
