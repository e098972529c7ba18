//! What users are told before anything runs.

use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{Bed, condition, load_test};
use crate::{cluster, kubectl, requests, script, target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fields_are_explained_by_kubectl() {
    let _bed = Bed::new(&cluster()).await;
    // It wraps the lines.
    let explained = |field: &str| {
        kubectl(&["explain", field])
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (field, what) in [
        (
            "loadtest",
            "A distributed Artillery load test. It runs once",
        ),
        (
            "loadtest.spec.load",
            "Multiply: every worker sends the load that the script describes.",
        ),
        ("loadtest.spec.load", "ENUM: Multiply Divide"),
        ("loadtest.spec.variables", "FIELD: variables <map[string]"),
        ("loadtest.spec.worker", "volumes <[]Object>"),
        (
            "loadtest.spec.worker.resources",
            "Artillery starts as many threads as the CPU limit",
        ),
        (
            "loadtest.spec.worker.volumes",
            "projected from configMap, secret and downwardAPI",
        ),
        ("loadtest.status.expectedDuration", "phases"),
    ] {
        let explained = explained(field);
        assert!(explained.contains(what), "{field}: {explained}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_script_is_told_with_its_place_and_starts_nothing() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    let mut files = requests("/faulty", 1);
    let good = files["test-script.yaml"].as_str().unwrap().to_owned();
    files["test-script.yaml"] = json!(good.replace("arrivalCount", "arivalCount"));
    script(&bed, files).await;
    bed.start_operator(&[]).await;
    bed.create::<LoadTest>(load_test("faulty", 2)).await;
    let told = bed.until_phase("faulty", "Pending").await;
    let (status, reason, message) = condition(&told, "Progressing");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "InvalidTestScript")
    );
    assert!(
        message.contains("unknown key `arivalCount`; did you mean `arrivalCount`?")
            && message.contains("line 1 column 66"),
        "{message}"
    );
    assert!(
        kubectl(&["describe", "loadtest", "faulty", "-n", &bed.namespace]).contains(&message),
        "{message}"
    );
    assert!(bed.api::<Job>().get_opt("faulty").await.unwrap().is_none());

    let mended = Patch::Merge(json!({"data": {"test-script.yaml": good}}));
    bed.api::<k8s_openapi::api::core::v1::ConfigMap>()
        .patch("test-script", &PatchParams::default(), &mended)
        .await
        .unwrap();
    bed.until_phase("faulty", "Completed").await;
}
