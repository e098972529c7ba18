//! One result of all workers, judged once, and workers that begin together.

use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use loadtest_api::v1alpha1::Results;
use loadtest_api::v1alpha1::{LoadTest, Verdict};
use serde_json::json;

use crate::security::as_user;
use crate::support::{Bed, condition};
use crate::{
    apply_with_target, cluster, kubectl, load, requests, requests_answered, script, target,
};

fn results(test: &LoadTest) -> &Results {
    test.status.as_ref().unwrap().results.as_ref().unwrap()
}

/// Ends with what `hack/ci-gate.sh` ends with, and says what it says.
fn ci_gate(bed: &Bed, test: &str, timeout: &str) -> (i32, String) {
    let output = Command::new("hack/ci-gate.sh")
        .args([test, timeout, "-n", &bed.namespace])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thresholds_are_judged_over_all_workers_and_gate_a_pipeline() {
    let mut bed = Bed::new(&cluster()).await;
    bed.start_operator(&[]).await;
    apply_with_target(&bed, "thresholds").await;
    let (code, told) = ci_gate(&bed, "thresholds", "150s");
    let test = bed.api::<LoadTest>().get("thresholds").await.unwrap();
    assert_eq!(
        (code, condition(&test, "Passed").2.as_str()),
        (0, "5 thresholds are met."),
        "{told}"
    );
    assert!(
        told.contains("VERDICT") && told.ends_with("Passed: 5 thresholds are met.\n"),
        "{told}"
    );
    kubectl(&[
        "wait",
        "-n",
        &bed.namespace,
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
    bed.load_test_with(
        "broken",
        2,
        json!({"testScript": other.test_script, "thresholds": other.thresholds}),
    )
    .await;
    let (code, told) = ci_gate(&bed, "broken", "150s");
    assert_eq!(code, 1, "{told}");
    let broken = bed.api::<LoadTest>().get("broken").await.unwrap();
    let (status, reason, message) = condition(&broken, "Passed");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "ThresholdsNotMet")
    );
    assert!(
        message.contains("http.requests is 20, not < 20"),
        "{message}"
    );
    // The workers themselves have judged nothing: all have ended well.
    assert_eq!(condition(&broken, "Completed").0, "True");
    assert_eq!(
        bed.event_reasons("broken").await,
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
async fn a_gate_that_waits_too_long_says_what_for() {
    let mut bed = Bed::new(&cluster()).await;
    bed.start_operator(&[]).await;
    bed.load_test_with(
        "late",
        1,
        json!({"testScript": {"config": {"configMap": "nowhere"}}}),
    )
    .await;
    bed.until_phase("late", "Pending").await;
    let (code, told) = ci_gate(&bed, "late", "1s");
    assert_eq!(code, 2, "{told}");
    assert!(
        told.contains(&format!(
            "Not ended: ConfigMap {}/nowhere not found",
            bed.namespace
        )),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_workers_have_one_result_and_begin_at_one_instant() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    let before = requests_answered()["/ten"].as_u64().unwrap_or(0);
    script(&bed, load("/ten", 5)).await;
    bed.start_operator(&[]).await;
    bed.load_test_with("ten", 10, json!({})).await;
    bed.until_within(Duration::from_secs(200), "it has ended", async || {
        let test = bed.api::<LoadTest>().get("ten").await.unwrap();
        test.status.as_ref()?.completion_time.as_ref().map(drop)
    })
    .await;
    let test = bed.until_phase("ten", "Completed").await;
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
        kubectl(&["get", "loadtests", "-n", &bed.namespace, "-o", "wide"])
    );
    println!(
        "{}",
        kubectl(&["describe", "loadtests", "ten", "-n", &bed.namespace])
    );
    let skew = shown.start_skew_milliseconds.unwrap();
    println!("skew of 10 workers: {skew} ms");
    assert!(skew < 500, "{skew} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_test_keeps_what_its_workers_have_measured() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    let before = requests_answered()["/kept"].as_u64().unwrap_or(0);
    script(&bed, load("/kept", 600)).await;
    bed.start_operator(&[]).await;
    bed.load_test_with("kept", 2, json!({})).await;
    bed.until("its load has begun", async || {
        (requests_answered()["/kept"].as_u64()? >= before + 16).then_some(())
    })
    .await;
    let stop = Patch::Merge(json!({"spec": {"stop": true}}));
    bed.api::<LoadTest>()
        .patch("kept", &PatchParams::default(), &stop)
        .await
        .unwrap();
    let stopped = bed.until_phase("kept", "Stopped").await;
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
        "what was measured to the last moment"
    );
    assert_eq!(condition(&stopped, "ResultsComplete").1, "ResultsPartial");
    assert_eq!(condition(&stopped, "Passed").0, "False");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_for_its_memory_leaves_what_it_had_measured() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    let text = load("/hungry", 60)["test-script.yaml"]
        .as_str()
        .unwrap()
        .replace("config: {", "config: {processor: ./eat.js, ");
    let text = text.replace(
        "[{get: {url: /hungry}}]",
        "[{get: {url: /hungry}}, {function: eat}]",
    );
    // As soon as something has been left, which is after the first report of ten seconds, however late that is.
    let eat = "const { statSync } = require('node:fs');\nconst eaten = [];\nmodule.exports = {eat: (context, events, done) => {\n\
        while (statSync('/dev/termination-log').size > 0) eaten.push(Buffer.alloc(1 << 24, 1));\n  done();\n}};\n";
    script(&bed, json!({"test-script.yaml": text, "eat.js": eat})).await;
    bed.start_operator(&[]).await;
    bed.load_test_with(
        "hungry",
        1,
        json!({"worker": {"resources": {"limits": {"memory": "400Mi"}}}}),
    )
    .await;
    let failed = bed.until_phase("hungry", "Failed").await;
    assert_eq!(condition(&failed, "Failed").1, "OutOfMemory");
    let shown = results(&failed);
    println!(
        "left by a worker that was killed for its memory: {}",
        serde_json::to_string(shown).unwrap()
    );
    assert_eq!(
        (shown.workers_reporting.as_str(), shown.workers_partial),
        ("1 of 1", 1)
    );
    assert!((1..=15).contains(&shown.requests), "{}", shown.requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_result_costs_its_worker_alone() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    let lie = "const fs = require('node:fs');\nif (process.env.JOB_COMPLETION_INDEX === '1') {\n  const write = fs.writeFileSync;\n  \
        fs.writeFileSync = (file, ...rest) => write(file, ...(file === '/dev/termination-log' ? ['loadtest.v1 lies'] : rest));\n}\n";
    let mut files = requests("/damaged", 3);
    files["lie.cjs"] = json!(lie);
    script(&bed, files).await;
    bed.start_operator(&[]).await;
    let env = json!([{"name": "NODE_OPTIONS", "value": "--require=/data/lie.cjs"}]);
    bed.load_test_with("damaged", 2, json!({"worker": {"env": env}}))
        .await;
    let test = bed.until_phase("damaged", "Completed").await;
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
async fn the_operator_changes_nothing_else_of_pods() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    script(&bed, load("/fenced", 600)).await;
    bed.start_operator(&[]).await;
    bed.load_test_with("fenced", 1, json!({})).await;
    let pod = bed.pods("fenced", 1).await.remove(0).name_any();
    let operator: Api<Pod> = as_user(
        &bed,
        &format!(
            "system:serviceaccount:{}:{}",
            crate::rights::NAMESPACE,
            crate::rights::NAME
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
    bed.until("the policy is in force", async || {
        let refused = patch(&pod, json!({"metadata": {"labels": {"a": "b"}}}))
            .await
            .err()?;
        refused
            .contains("may only change the annotation")
            .then_some(())
    })
    .await;
    for other in [
        json!({"metadata": {"annotations": {"other": "x"}}}),
        json!({"metadata": {"annotations": {"batch.kubernetes.io/job-completion-index": "7"}}}),
        json!({"metadata": {"annotations": {"batch.kubernetes.io/job-completion-index": null}}}),
        json!({"metadata": {"ownerReferences": null}}),
        json!({"metadata": {"finalizers": null}}),
        json!({"spec": {"activeDeadlineSeconds": 1}}),
        json!({"spec": {"containers": [{"name": "fenced", "image": "other"}]}}),
    ] {
        let refused = patch(&pod, other.clone()).await.unwrap_err();
        assert!(
            refused.contains("may only change the annotation") || refused.contains("Invalid"),
            "{other}: {refused}"
        );
    }
    patch(&pod, start("2026-01-01T00:00:00.120Z"))
        .await
        .unwrap();
    let foreign = json!({"metadata": {"name": "foreign"}, "spec": {"automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "artilleryio/artillery:latest",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}});
    bed.create::<Pod>(foreign).await;
    let refused = patch("foreign", start("2026-01-01T00:00:00.120Z"))
        .await
        .unwrap_err();
    assert!(
        refused.contains("may only change pods of its own Jobs"),
        "{refused}"
    );
}
