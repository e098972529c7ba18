//! Merged results of all workers, thresholds, and the synchronized start.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use loadtest_api::v1alpha1::Results;
use loadtest_api::v1alpha1::{LoadTest, Verdict};
use serde_json::json;

use crate::pipelines::verdict;
use crate::security::as_user;
use crate::support::{TestEnv, condition};
use crate::{
    apply_with_target, cluster, create_script, deploy_target, kubectl, requests_answered,
    script_with_constant_rate, script_with_requests, until_completed_as_planned,
};

fn results(test: &LoadTest) -> &Results {
    test.status.as_ref().unwrap().results.as_ref().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thresholds_are_evaluated_over_all_workers_and_gate_a_pipeline() {
    let mut env = TestEnv::new(&cluster()).await;
    env.start_operator(&[]).await;
    apply_with_target(&env, "thresholds").await;
    let gate = verdict(&env, "thresholds");
    let test = until_completed_as_planned(&env, "thresholds").await;
    assert_eq!(gate, (0, "Passed: 5 thresholds are met.".to_owned()));
    assert_eq!(condition(&test, "Passed").2, "5 thresholds are met.");
    kubectl(&[
        "wait",
        "-n",
        &env.namespace,
        "--for=condition=Passed",
        "loadtest/thresholds",
        "--timeout=1s",
    ]);
    let shown = results(&test);
    assert_eq!(
        (
            shown.requests,
            shown.errors,
            shown.workers_reporting.as_str()
        ),
        (40, 0, "4 of 4")
    );
    assert_eq!(
        (shown.vusers_created, shown.vusers_completed, shown.partial),
        (40, 40, false)
    );
    assert_eq!(shown.response_time().unwrap().count, 40);
    let skew = shown.start_skew_milliseconds.unwrap();
    println!("skew of 4 workers: {skew} ms");
    assert!(skew < 500, "{skew} ms");

    let mut other = test.spec.clone();
    other.thresholds = vec!["http.requests < 20".into()];
    env.load_test_with(
        "not-met",
        2,
        json!({"testScript": other.test_script, "thresholds": other.thresholds}),
    )
    .await;
    let (code, sentence) = verdict(&env, "not-met");
    assert_eq!(code, 1, "{sentence}");
    let not_met = env.api::<LoadTest>().get("not-met").await.unwrap();
    let (status, reason, message) = condition(&not_met, "Passed");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "ThresholdsNotMet")
    );
    assert!(
        message.contains("http.requests is 20, not < 20"),
        "{message}"
    );
    // The workers do not evaluate thresholds, so all of them succeeded.
    assert_eq!(condition(&not_met, "Completed").0, "True");
    assert_eq!(
        env.event_reasons("not-met").await,
        [
            "Created",
            "Running",
            "Running",
            "Completed",
            "ThresholdsNotMet"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_workers_start_together_and_have_one_result() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let before = requests_answered()["/ten"].as_u64().unwrap_or(0);
    create_script(&env, script_with_constant_rate("/ten", 5)).await;
    env.start_operator(&[]).await;
    env.load_test_with("ten", 10, json!({})).await;
    env.until_within(Duration::from_secs(200), "the test has ended", async || {
        let test = env.api::<LoadTest>().get("ten").await.unwrap();
        test.status.as_ref()?.completion_time.as_ref().map(drop)
    })
    .await;
    let test = env.until_phase("ten", "Completed").await;
    let shown = results(&test);
    assert_eq!(
        u64::try_from(shown.requests).unwrap(),
        requests_answered()["/ten"].as_u64().unwrap() - before
    );
    assert_eq!(
        (shown.requests, shown.workers_reporting.as_str()),
        (50, "10 of 10")
    );
    assert_eq!(test.status.as_ref().unwrap().verdict, Some(Verdict::Passed));
    println!(
        "{}",
        kubectl(&["get", "loadtests", "-n", &env.namespace, "-o", "wide"])
    );
    println!(
        "{}",
        kubectl(&["describe", "loadtests", "ten", "-n", &env.namespace])
    );
    let skew = shown.start_skew_milliseconds.unwrap();
    println!("skew of 10 workers: {skew} ms");
    assert!(skew < 500, "{skew} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_test_keeps_the_measurements_of_its_workers() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let before = requests_answered()["/kept"].as_u64().unwrap_or(0);
    create_script(&env, script_with_constant_rate("/kept", 600)).await;
    env.start_operator(&[]).await;
    env.load_test_with("kept", 2, json!({})).await;
    env.until("the load has started", async || {
        (requests_answered()["/kept"].as_u64()? >= before + 16).then_some(())
    })
    .await;
    let stop = Patch::Merge(json!({"spec": {"stop": true}}));
    env.api::<LoadTest>()
        .patch("kept", &PatchParams::default(), &stop)
        .await
        .unwrap();
    let stopped = env.until_phase("kept", "Stopped").await;
    let shown = results(&stopped);
    let answered = requests_answered()["/kept"].as_u64().unwrap() - before;
    assert_eq!(
        (
            shown.workers_reporting.as_str(),
            shown.workers_partial,
            shown.partial
        ),
        ("2 of 2", 2, true)
    );
    assert_eq!(
        u64::try_from(shown.requests).unwrap(),
        answered,
        "the results contain all requests before the stop"
    );
    assert_eq!(condition(&stopped, "ResultsComplete").1, "ResultsPartial");
    assert_eq!(condition(&stopped, "Passed").0, "False");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_killed_for_memory_leaves_partial_results() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let text = script_with_constant_rate("/memory-results", 60)["test-script.yaml"]
        .as_str()
        .unwrap()
        .replace("config: {", "config: {processor: ./allocate.js, ");
    let text = text.replace(
        "[{get: {url: /memory-results}}]",
        "[{get: {url: /memory-results}}, {function: allocate}]",
    );
    // The worker allocates memory when its first report, after ten seconds, is in the termination
    // message.
    let allocate = "const { statSync } = require('node:fs');\nconst allocated = [];\nmodule.exports = {allocate: (context, events, done) => {\n\
        while (statSync('/dev/termination-log').size > 0) allocated.push(Buffer.alloc(1 << 24, 1));\n  done();\n}};\n";
    create_script(
        &env,
        json!({"test-script.yaml": text, "allocate.js": allocate}),
    )
    .await;
    env.start_operator(&[]).await;
    env.load_test_with(
        "memory",
        1,
        json!({"worker": {"resources": {"limits": {"memory": "400Mi"}}}}),
    )
    .await;
    let failed = env.until_phase("memory", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "OutOfMemory");
    let shown = results(&failed);
    println!(
        "results of the worker that was killed for its memory: {}",
        serde_json::to_string(shown).unwrap()
    );
    assert_eq!(
        (shown.workers_reporting.as_str(), shown.workers_partial),
        ("1 of 1", 1)
    );
    assert!((1..=15).contains(&shown.requests), "{}", shown.requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_result_affects_only_its_worker() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let corrupt = "const fs = require('node:fs');\nif (process.env.JOB_COMPLETION_INDEX === '1') {\n  const write = fs.writeFileSync;\n  \
        fs.writeFileSync = (file, ...rest) => write(file, ...(file === '/dev/termination-log' ? ['loadtest.v1 corrupt'] : rest));\n}\n";
    let mut files = script_with_requests("/corrupt", 3);
    files["corrupt.cjs"] = json!(corrupt);
    create_script(&env, files).await;
    env.start_operator(&[]).await;
    let variables = json!([{"name": "NODE_OPTIONS", "value": "--require=/data/corrupt.cjs"}]);
    env.load_test_with("corrupt", 2, json!({"worker": {"env": variables}}))
        .await;
    let test = env.until_phase("corrupt", "Completed").await;
    assert_eq!(
        (
            results(&test).requests,
            results(&test).workers_reporting.as_str()
        ),
        (3, "1 of 2")
    );
    let (status, reason, message) = condition(&test, "ResultsComplete");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "ResultsPartial")
    );
    assert!(message.contains("worker 1: corrupt results"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_limits_the_operator_to_the_start_annotations_of_its_own_pods() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    create_script(&env, script_with_constant_rate("/restricted", 600)).await;
    env.start_operator(&[]).await;
    env.load_test_with("restricted", 1, json!({})).await;
    let pod = env.pods("restricted", 1).await.remove(0).name_any();
    let operator: Api<Pod> = as_user(
        &env,
        &format!(
            "system:serviceaccount:{}:{}",
            crate::operator_identity::NAMESPACE,
            crate::operator_identity::NAME
        ),
    )
    .await;
    let patch = async |pod: &str, patch: serde_json::Value| {
        let dry_run = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        operator
            .patch(pod, &dry_run, &Patch::Merge(patch))
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let start = |at: &str| {
        json!({"metadata": {"annotations":
            {"loadtest.artillery.io/start-at": at, "loadtest.artillery.io/start-attempt": "1"}}})
    };
    env.until("the policy is effective", async || {
        let error = patch(
            &pod,
            json!({"metadata": {"labels": {"artillery.io/test-name": "b"}}}),
        )
        .await
        .err()?;
        error
            .contains("may only change the annotation")
            .then_some(())
    })
    .await;
    for other in [
        json!({"metadata": {"annotations": {"loadtest.artillery.io/test-script": "x"}}}),
        json!({"metadata": {"labels": {"artillery.io/component": null}}}),
        json!({"metadata": {"labels": {"batch.kubernetes.io/job-name": "other"}}}),
        json!({"metadata": {"annotations": {"batch.kubernetes.io/job-completion-index": "7"}}}),
        json!({"metadata": {"annotations": {"batch.kubernetes.io/job-completion-index": null}}}),
        json!({"metadata": {"ownerReferences": null}}),
        json!({"metadata": {"finalizers": null}}),
        json!({"spec": {"activeDeadlineSeconds": 1}}),
        json!({"spec": {"containers": [{"name": "restricted", "image": "other"}]}}),
    ] {
        let error = patch(&pod, other.clone()).await.unwrap_err();
        assert!(
            error.contains("may only change the annotation") || error.contains("Invalid"),
            "{other}: {error}"
        );
    }
    patch(&pod, start("2026-01-01T00:00:00.120Z"))
        .await
        .unwrap();
    // As a policy of others would add them to the operator's own request.
    patch(&pod, json!({"metadata": {"annotations": {"policies.example.com/seen": "x"}, "labels": {"team": "a"}}}))
        .await
        .unwrap();
    let foreign = json!({"metadata": {"name": "foreign"}, "spec": {"automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "artilleryio/artillery:latest",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}});
    env.create::<Pod>(foreign).await;
    let error = patch("foreign", start("2026-01-01T00:00:00.120Z"))
        .await
        .unwrap_err();
    assert!(
        error.contains("may only change pods of its own Jobs"),
        "{error}"
    );
}
